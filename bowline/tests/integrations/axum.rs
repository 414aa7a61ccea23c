//! The extractor for axum.

use std::future::pending;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use bowline::extract::WebSocketUpgrade;
use bowline::{
    Acceptor, CloseCode, CloseFrame, Connector, ErrorKind, Limits, Rejection, ServerError, WebSocket,
};
use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tower::ServiceExt;

use crate::support::http::{HandlerResult, Head, echo, listen, soon, upgrade};

/// Serves `router` for as long as the test runs.
async fn serve(router: Router) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Serves WebSockets at `/chat`.
async fn serve_chat<F>(upgrade: F) -> SocketAddr
where
    F: Fn(WebSocketUpgrade) -> Response + Clone + Send + Sync + 'static,
{
    serve(Router::new().route("/chat", any(async move |extracted: WebSocketUpgrade| upgrade(extracted))))
        .await
}

async fn connect(address: SocketAddr) -> WebSocket {
    soon(bowline::connect(format!("ws://{address}/chat"))).await.unwrap()
}

async fn end_of(mut socket: WebSocket) -> Option<CloseFrame> {
    while let Ok(Some(_)) = soon(socket.recv()).await {}
    socket.close_frame()
}

/// Returns the response of a router's handler, without a network.
async fn answer(upgrade: fn(WebSocketUpgrade) -> Response, request: &Head) -> (StatusCode, http::HeaderMap) {
    let router =
        Router::new().route("/chat", any(async move |extracted: WebSocketUpgrade| upgrade(extracted)));
    let request = request.to_request().map(|()| Body::empty());
    let response = soon(router.oneshot(request)).await.unwrap();
    (response.status(), response.headers().clone())
}

fn must_not_upgrade(_: WebSocketUpgrade) -> Response {
    panic!("the request is rejected before the handler is called")
}

#[tokio::test]
async fn it_goes_beside_other_extractors() {
    async fn join(
        State(greeting): State<&'static str>,
        Path(room): Path<String>,
        upgrade: WebSocketUpgrade,
    ) -> Response {
        upgrade.on_upgrade(move |socket| async move {
            socket.send(format!("{greeting} to {room}")).await?;
            echo(socket).await
        })
    }
    let router = Router::new().route("/rooms/{room}", any(join)).with_state("welcome");
    let address = serve(router).await;
    let mut socket = soon(bowline::connect(format!("ws://{address}/rooms/12"))).await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("welcome to 12".into()));
    socket.send("hello").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
    let answer = soon(socket.close(CloseCode(4000), "")).await.unwrap();
    assert_eq!(answer.code(), CloseCode(4000));
}

#[tokio::test]
async fn debug_tells_the_path_but_no_query() {
    let address = serve_chat(|upgrade| (StatusCode::OK, format!("{upgrade:?}")).into_response()).await;
    let error = soon(bowline::connect(format!("ws://{address}/chat?token=secret"))).await.unwrap_err();
    let body = String::from_utf8_lossy(error.response().unwrap().body()).into_owned();
    assert!(body.contains("/chat") && !body.contains("secret"), "{body}");
}

#[tokio::test]
async fn rfc6455_4_2_1_what_is_no_handshake_does_not_reach_the_handler() {
    let request = Head::request;
    for (request, status, header) in [
        (request().first_line("POST /chat HTTP/1.1"), 405, "allow"),
        (request().without("upgrade"), 426, "upgrade"),
        (request().replace("Sec-WebSocket-Version: 8"), 400, "sec-websocket-version"),
        (request().without("sec-websocket-key"), 400, "content-type"),
        (request().with("Sec-WebSocket-Protocol: a b"), 400, "content-type"),
    ] {
        let (found, headers) = answer(must_not_upgrade, &request).await;
        assert_eq!(found, status, "{request:?}");
        assert!(headers.contains_key(header), "{request:?}");
    }
}

#[tokio::test]
async fn a_middleware_sees_rejections_with_their_causes() {
    let (sender, mut seen) = mpsc::unbounded_channel();
    let log = axum::middleware::map_response(move |response: Response| {
        let rejection = response.extensions().get::<Rejection>().map(ToString::to_string);
        sender.send(rejection).unwrap();
        async { response }
    });
    let chat = async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo);
    let address = serve(Router::new().route("/chat", any(chat)).layer(log)).await;
    let url = format!("ws://{address}/chat");
    // By the extractor, by its options, and not at all.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(Head::request().without("sec-websocket-key").text().as_bytes()).await.unwrap();
    let missing = soon(seen.recv()).await.unwrap().unwrap();
    assert_eq!(missing, "400 Bad Request: Sec-WebSocket-Key is missing");
    soon(Connector::new().origin("https://evil.example").connect(&url)).await.unwrap_err();
    let foreign = soon(seen.recv()).await.unwrap().unwrap();
    assert!(foreign.contains("Acceptor::allow_origin(\"https://evil.example\")"), "{foreign}");
    soon(bowline::connect(&url)).await.unwrap();
    assert_eq!(soon(seen.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn an_acceptor_can_be_that_of_all_handlers() {
    let default = async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo);
    let own = async |upgrade: WebSocketUpgrade| {
        upgrade.acceptor(Acceptor::new().subprotocols(["own"])).on_upgrade(echo)
    };
    let acceptor = Acceptor::new().subprotocols(["shared"]);
    let routes = Router::new().route("/default", any(default)).route("/own", any(own));
    let address = serve(routes.layer(axum::Extension(acceptor))).await;
    for (path, subprotocol) in [("default", "shared"), ("own", "own")] {
        let connector = Connector::new().subprotocols(["own", "shared"]);
        let (socket, _) = soon(connector.connect(format!("ws://{address}/{path}"))).await.unwrap();
        assert_eq!(socket.subprotocol(), Some(subprotocol));
    }
}

#[tokio::test]
async fn a_rejection_can_be_extracted() {
    async fn page_or_socket(upgrade: Result<WebSocketUpgrade, Rejection>) -> Response {
        match upgrade {
            Ok(upgrade) => upgrade.on_upgrade(echo),
            Err(rejection) if rejection.status() == StatusCode::UPGRADE_REQUIRED => "a page".into_response(),
            Err(rejection) => rejection.into_response(),
        }
    }
    let router = Router::new().route("/chat", get(page_or_socket));
    let page = Head::request().without("upgrade").to_request().map(|()| Body::empty());
    let response = soon(router.clone().oneshot(page)).await.unwrap();
    assert_eq!(axum::body::to_bytes(response.into_body(), 100).await.unwrap(), "a page");
    let malformed = Head::request().without("sec-websocket-key").to_request().map(|()| Body::empty());
    assert_eq!(soon(router.clone().oneshot(malformed)).await.unwrap().status(), 400);
    let mut socket = connect(serve(router).await).await;
    socket.send("hello").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
}

#[tokio::test]
async fn requests_without_hypers_upgrade_are_a_500() {
    let (status, _) = answer(|upgrade| upgrade.on_upgrade(echo), &Head::request()).await;
    assert_eq!(status, 500);
}

#[tokio::test]
async fn rfc6455_10_2_pages_of_other_origins_are_rejected_unless_allowed() {
    let strict = serve_chat(|upgrade| upgrade.on_upgrade(echo)).await;
    let open = serve_chat(|upgrade| {
        upgrade.acceptor(Acceptor::new().allow_origin("https://example.com")).on_upgrade(echo)
    })
    .await;
    let page = Connector::new().origin("https://example.com");
    let error = soon(page.connect(format!("ws://{strict}/chat"))).await.unwrap_err();
    assert_eq!(error.response().unwrap().status(), 403);
    let (socket, _) = soon(page.connect(format!("ws://{open}/chat"))).await.unwrap();
    drop(socket);
}

#[tokio::test]
async fn options_that_make_no_sense_are_a_500() {
    let address = serve_chat(|upgrade| {
        upgrade.acceptor(Acceptor::new().keepalive(std::time::Duration::ZERO)).on_upgrade(echo)
    })
    .await;
    let error = soon(bowline::connect(format!("ws://{address}/chat"))).await.unwrap_err();
    assert_eq!(error.response().unwrap().status(), 500);
}

#[tokio::test]
async fn the_subprotocol_is_known_before_and_after_the_upgrade() {
    let address = serve_chat(|upgrade| {
        let upgrade = upgrade.acceptor(Acceptor::new().subprotocols(["v2", "v1"]));
        let before = upgrade.subprotocol().map(str::to_owned);
        upgrade.on_upgrade(move |socket| async move {
            assert_eq!(socket.subprotocol(), before.as_deref());
            socket.send(before.unwrap_or_default()).await?;
            Ok(())
        })
    })
    .await;
    for (offered, chosen) in [(vec!["v1", "v2"], Some("v2")), (vec!["v1"], Some("v1")), (vec!["v3"], None)] {
        let connector = Connector::new().subprotocols(offered);
        let (mut socket, _) = soon(connector.connect(format!("ws://{address}/chat"))).await.unwrap();
        assert_eq!(socket.subprotocol(), chosen);
        assert_eq!(soon(socket.recv()).await.unwrap(), Some(chosen.unwrap_or_default().into()));
    }
}

#[tokio::test]
async fn limits_are_those_of_the_acceptor() {
    let address = serve_chat(|upgrade| {
        upgrade.acceptor(Acceptor::new().limits(Limits::default().message_size(10))).on_upgrade(echo)
    })
    .await;
    let socket = connect(address).await;
    socket.send("more than ten bytes").await.unwrap();
    assert_eq!(end_of(socket).await.unwrap().code(), CloseCode::MESSAGE_TOO_BIG);
}

#[cfg(feature = "deflate")]
#[tokio::test]
async fn compression_is_that_of_the_acceptor() {
    use bowline::Compression;

    let address = serve_chat(|upgrade| {
        upgrade.acceptor(Acceptor::new().compression(Compression::ContextTakeover)).on_upgrade(echo)
    })
    .await;
    let connector = Connector::new().compression(Compression::ContextTakeover);
    let (mut socket, _) = soon(connector.connect(format!("ws://{address}/chat"))).await.unwrap();
    assert!(socket.compression().is_some());
    let text = "over and over ".repeat(1000);
    socket.send(&text).await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some(text.as_str().into()));
}

/// Routed with `any`, as the method is CONNECT.
#[cfg(feature = "http2")]
#[tokio::test]
async fn rfc8441_5_it_works_over_http2() {
    let address = serve_chat(|upgrade| {
        let acceptor = Acceptor::new().subprotocols(["v1"]).allow_origin("https://example.com");
        upgrade.acceptor(acceptor).on_upgrade(echo)
    })
    .await;
    let url = format!("ws://{address}");
    let connector = Connector::new().subprotocols(["v2", "v1"]).origin("https://example.com");
    let connection = soon(connector.connect_http2(&url)).await.unwrap();
    for _ in 0..2 {
        let (mut socket, response) = soon(connection.connect("/chat")).await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, http::Version::HTTP_2));
        assert_eq!(socket.subprotocol(), Some("v1"));
        socket.send("hello").await.unwrap();
        assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
        let answer = soon(socket.close(CloseCode(4000), "")).await.unwrap();
        assert_eq!(answer.code(), CloseCode(4000));
    }
    let foreign = Connector::new().origin("https://evil.example");
    let foreign = soon(foreign.connect_http2(&url)).await.unwrap();
    let error = soon(foreign.connect("/chat")).await.unwrap_err();
    assert_eq!(error.response().unwrap().status(), 403);
}

/// Returns a router with this handler, and the errors of `on_error`.
async fn serve_reporting(
    handler: fn(WebSocket) -> HandlerResult,
) -> (SocketAddr, mpsc::UnboundedReceiver<ServerError>) {
    let (sender, errors) = mpsc::unbounded_channel();
    let address = serve_chat(move |upgrade| {
        let sender = sender.clone();
        let upgrade = upgrade.on_error(move |error| sender.send(error).unwrap());
        upgrade.on_upgrade(move |socket| async move { handler(socket) })
    })
    .await;
    (address, errors)
}

#[tokio::test]
async fn a_handler_that_returns_closes_with_1000() {
    let (address, mut errors) = serve_reporting(|_| Ok(())).await;
    assert_eq!(end_of(connect(address).await).await.unwrap().code(), CloseCode::NORMAL);
    assert!(errors.try_recv().is_err(), "nothing went wrong");
}

#[tokio::test]
async fn rfc6455_7_4_1_a_handler_that_fails_closes_with_1011() {
    let (address, mut errors) = serve_reporting(|_| Err("out of luck".into())).await;
    assert_eq!(end_of(connect(address).await).await.unwrap().code(), CloseCode::INTERNAL_ERROR);
    assert_eq!(soon(errors.recv()).await.unwrap().error().to_string(), "out of luck");
}

#[tokio::test]
async fn an_error_names_the_client_and_the_path() {
    let (address, mut errors) = serve_reporting(|_| Err("out of luck".into())).await;
    let url = format!("ws://{address}/chat?token=secret");
    let socket = soon(bowline::connect(&url)).await.unwrap();
    let peer = socket.local_addr().unwrap();
    let error = soon(errors.recv()).await.unwrap();
    assert_eq!(error.to_string(), format!("{peer} GET /chat: out of luck"));
    assert_eq!((error.peer_addr(), error.head().is_some()), (Some(peer), false));

    // A rejection, whose cause the client does not receive.
    let foreign = Connector::new().origin("https://evil.example");
    let rejected = soon(foreign.connect(&url)).await.unwrap_err();
    let body = String::from_utf8_lossy(rejected.response().unwrap().body()).into_owned();
    assert!(!body.contains("allow_origin"), "{body}");
    let error = soon(errors.recv()).await.unwrap();
    assert!(error.to_string().starts_with("GET /chat: the client's request was rejected: 403 "), "{error}");
    assert!(error.to_string().contains("Acceptor::allow_origin(\"https://evil.example\")"), "{error}");
    assert!(error.head().unwrap().headers.contains_key("sec-websocket-key"));
}

/// A tab that is closed.
#[tokio::test]
async fn a_client_that_is_gone_is_noise() {
    let (sender, mut errors) = mpsc::unbounded_channel();
    let address = serve_chat(move |upgrade| {
        let sender = sender.clone();
        upgrade.on_error(move |error| sender.send(error).unwrap()).on_upgrade(echo)
    })
    .await;
    let (stream, _) = upgrade(address, &Head::request()).await;
    drop(stream);
    let error = soon(errors.recv()).await.unwrap();
    assert!(error.is_noise(), "{error}");
}

#[tokio::test]
async fn rfc6455_7_4_1_a_handler_that_panics_closes_with_1011() {
    let (address, mut errors) = serve_reporting(|_| panic!("out of luck")).await;
    assert_eq!(end_of(connect(address).await).await.unwrap().code(), CloseCode::INTERNAL_ERROR);
    assert_eq!(soon(errors.recv()).await.unwrap().error().to_string(), "the handler panicked: out of luck");
}

#[tokio::test]
async fn an_upgrade_that_fails_is_reported() {
    let (sender, mut errors) = mpsc::unbounded_channel();
    let chat = async move |upgrade: WebSocketUpgrade| -> Response {
        let upgrade = upgrade.peer_addr(([192, 0, 2, 1], 49152));
        let _response = upgrade.on_error(move |error| sender.send(error).unwrap()).on_upgrade(echo);
        // The client disconnects before the response is sent.
        pending().await
    };
    let address = serve(Router::new().route("/chat", any(chat))).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(Head::request().text().as_bytes()).await.unwrap();
    drop(stream);
    let error = soon(errors.recv()).await.unwrap();
    assert_eq!(error.kind(), Some(ErrorKind::Handshake));
    assert!(error.to_string().starts_with("192.0.2.1:49152 GET /chat: "), "{error}");
}

#[tokio::test]
async fn a_middleware_that_took_the_upgrade_is_a_500() {
    let take = axum::middleware::map_request(async |mut request: axum::extract::Request| {
        request.extensions_mut().remove::<OnUpgrade>();
        request
    });
    let chat = async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(echo);
    let address = serve(Router::new().route("/chat", any(chat)).layer(take)).await;
    let error = soon(bowline::connect(format!("ws://{address}/chat"))).await.unwrap_err();
    let response = error.response().unwrap();
    assert_eq!(response.status(), 500);
    assert!(String::from_utf8_lossy(response.body()).contains("middleware"), "{response:?}");
}

#[tokio::test]
async fn the_application_may_know_the_address_of_the_client() {
    let known = SocketAddr::from(([192, 0, 2, 1], 49152));
    let (sender, mut received) = mpsc::unbounded_channel();
    let address = serve_chat(move |upgrade| {
        let (seen, reported) = (sender.clone(), sender.clone());
        upgrade.peer_addr(known).on_error(move |error| reported.send(error.peer_addr()).unwrap()).on_upgrade(
            move |socket| async move {
                seen.send(socket.peer_addr()).unwrap();
                Err("the error has the address too".into())
            },
        )
    })
    .await;
    end_of(connect(address).await).await;
    let foreign = Connector::new().origin("https://evil.example");
    soon(foreign.connect(format!("ws://{address}/chat"))).await.unwrap_err();
    for _ in 0..3 {
        assert_eq!(soon(received.recv()).await.unwrap(), Some(known));
    }
}

/// The names of other crates stay what they are where everything of bowline is imported.
mod glob {
    use axum::Router;
    use axum::routing::any;
    use bowline::*;
    use http::Request;

    #[test]
    fn an_import_of_everything_shadows_no_crate() {
        async fn upgrade(upgrade: extract::WebSocketUpgrade) -> axum::response::Response {
            upgrade.on_upgrade(async |_| Ok(()))
        }
        let _: Router = Router::new().route("/", any(upgrade));
        let request = Request::new(bytes::Bytes::new());
        assert!(Acceptor::new().respond(&request).is_err());
    }
}
