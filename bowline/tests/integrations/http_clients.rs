//! Handshakes through other HTTP clients: `Connector::request` and `ClientHandshake::verify`.

use std::net::SocketAddr;
use std::sync::Arc;

use bowline::{
    Acceptor, ClientHandshake, CloseCode, Connector, Error, ErrorKind, Rejection, Role, Server, WebSocket,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::frames::Frame;
use crate::support::http::{acceptance, echo, http_proxy, listen, read_head, soon, start};
use crate::support::tls::configs;

fn reqwest_client() -> reqwest::ClientBuilder {
    // This reqwest is built without a crypto provider, and the installed one may be another.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().http1_only()
}

/// Sends the request through reqwest.
async fn execute(
    client: &reqwest::Client,
    connector: &Connector,
    url: &str,
) -> (reqwest::Response, ClientHandshake) {
    let (request, handshake) = connector.request(url).unwrap();
    let request = request.map(|()| reqwest::Body::default()).try_into().unwrap();
    (soon(client.execute(request)).await.unwrap(), handshake)
}

async fn finish(response: reqwest::Response, handshake: ClientHandshake) -> Result<WebSocket, Error> {
    let response = http::Response::from(response);
    let verified = handshake.verify(&response)?;
    let upgraded = soon(reqwest::Response::from(response).upgrade()).await.unwrap();
    Ok(verified.finish(upgraded, Vec::new()))
}

async fn assert_echo(mut socket: WebSocket) {
    for size in [0, 10, 100_000] {
        socket.send(vec![7; size]).await.unwrap();
        assert_eq!(soon(socket.recv()).await.unwrap(), Some(vec![7; size].into()));
    }
    let answer = soon(socket.close(CloseCode(4000), "done")).await.unwrap();
    assert_eq!(answer.code(), CloseCode(4000));
}

#[tokio::test]
async fn reqwest_sends_its_cookies_and_headers() {
    let server =
        Server::new().acceptor(Acceptor::new().subprotocols(["v1"])).on_request(|head: Parts| async {
            let is_known = head.headers.get("cookie").is_some_and(|cookie| cookie == "session=12");
            if is_known && head.headers.get("x-team").is_some_and(|team| team == "blue") {
                return Ok(head);
            }
            let response = Response::builder().status(401).header("set-cookie", "session=12");
            Err(Rejection::from(response.body(String::new()).unwrap()))
        });
    let url = format!("ws://{}/", start(server, echo).await);
    let headers = HeaderMap::from_iter([("x-team".parse().unwrap(), HeaderValue::from_static("blue"))]);
    let client = reqwest_client().cookie_store(true).default_headers(headers).build().unwrap();
    let connector = Connector::new().subprotocols(["v2", "v1"]);

    // There is no cookie yet. The error has the response, from which reqwest would make no stream.
    let (response, handshake) = execute(&client, &connector, &url).await;
    let error = finish(response, handshake).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert_eq!(error.response().unwrap().status(), StatusCode::UNAUTHORIZED);
    let (response, handshake) = execute(&client, &connector, &url).await;
    let socket = finish(response, handshake).await.unwrap();
    assert_eq!(socket.subprotocol(), Some("v1"));
    assert_echo(socket).await;
}

#[tokio::test]
async fn reqwest_uses_its_tls_and_its_proxy() {
    let (server, trusting) = configs();
    let target = start(Server::new().tls(server), echo).await;
    let (proxy, mut heads) = http_proxy(target).await;
    let url = format!("wss://localhost:{}/", target.port());

    let direct = reqwest_client().tls_backend_preconfigured(ClientConfig::clone(&trusting));
    let (response, handshake) = execute(&direct.build().unwrap(), &Connector::new(), &url).await;
    assert_echo(finish(response, handshake).await.unwrap()).await;
    assert!(heads.try_recv().is_err(), "the proxy is not asked");

    let proxied = reqwest_client()
        .tls_backend_preconfigured(ClientConfig::clone(&trusting))
        .proxy(reqwest::Proxy::all(format!("http://{proxy}")).unwrap());
    let (response, handshake) = execute(&proxied.build().unwrap(), &Connector::new(), &url).await;
    assert_echo(finish(response, handshake).await.unwrap()).await;
    assert_eq!(soon(heads.recv()).await.unwrap().second_word(), format!("localhost:{}", target.port()));
}

#[tokio::test]
async fn what_does_not_accept_the_handshake_is_refused() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = acceptance(&read_head(&mut stream).await).replace("Sec-WebSocket-Accept: of another");
        stream.write_all(answer.text().as_bytes()).await.unwrap();
        read_head(&mut stream).await;
    });
    let client = reqwest_client().build().unwrap();
    let (response, handshake) = execute(&client, &Connector::new(), &format!("ws://{address}/")).await;
    let error = finish(response, handshake).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert!(error.to_string().contains("Sec-WebSocket-Accept"), "{error}");
}

/// Performs the handshake through hyper-util's client, with a connector that dials `address` for every URL.
async fn connect_with_hyper(address: SocketAddr, url: &str) -> (WebSocket, Uri) {
    let asked = Arc::new(std::sync::Mutex::new(None));
    let asking = Arc::clone(&asked);
    let connector = tower::service_fn(move |uri: Uri| {
        *asking.lock().unwrap() = Some(uri);
        Box::pin(async move { Ok::<_, std::io::Error>(TokioIo::new(TcpStream::connect(address).await?)) })
    });
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let (request, handshake) = Connector::new().request(url).unwrap();
    let mut response = soon(client.request(request.map(|()| String::new()))).await.unwrap();
    let upgraded = soon(hyper::upgrade::on(&mut response)).await.unwrap();
    let socket = handshake.verify(&response).unwrap().finish(TokioIo::new(upgraded), Vec::new());
    let asked = asked.lock().unwrap().take();
    (socket, asked.expect("the connector was asked"))
}

#[tokio::test]
async fn hyper_uses_the_connector_of_its_user() {
    let address = start(Server::new(), echo).await;
    let (socket, asked) = connect_with_hyper(address, "ws://chat.internal:81/path").await;
    assert_eq!(asked.authority().unwrap(), "chat.internal:81");
    // Nothing is left of hyper.
    assert!(socket.is_tcp_fast_path());
    assert_eq!(socket.peer_addr(), Some(address));
    assert_echo(socket).await;
}

#[tokio::test]
async fn frames_behind_the_response_are_not_lost() {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = acceptance(&read_head(&mut stream).await).text().into_bytes();
        bytes.extend(Frame::text("at once").encode(Role::Server));
        stream.write_all(&bytes).await.unwrap();
        stream
    });
    let (mut socket, _) = connect_with_hyper(address, "ws://chat.internal/").await;
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("at once".into()));
    drop(server);
}
