//! Decisions of the application about one handshake: headers of the response, and settings of the connection.

use std::time::Duration;

use bowline::{
    Acceptance, Acceptor, CloseCode, Connector, Error, ErrorKind, Limits, Rejection, Role, Server, WebSocket,
};
use http::StatusCode;
use http::request::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

use crate::support::frames::Frame;
use crate::support::http::{Head, KEY, echo, exchange, read_head, soon, start};

/// Accepts one handshake as `decide` says, and returns the head of the response and the client's stream.
async fn accept(
    acceptor: Acceptor,
    request: &Head,
    decide: impl Fn(Acceptance) -> Acceptance + Send + Sync + 'static,
) -> (WebSocket, Head, DuplexStream) {
    let (mut client, server) = duplex(64 * 1024);
    client.write_all(request.text().as_bytes()).await.unwrap();
    let accepting = acceptor.accept_stream(server).on_request(move |head: Parts| {
        let acceptance = decide(Acceptance::from(head));
        async { Ok(acceptance) }
    });
    let (socket, _) = soon(accepting).await.unwrap();
    let head = read_head(&mut client).await;
    (socket, head, client)
}

/// Returns the error and the response for a handshake that the server can't accept as `decide` says.
async fn fail(request: &Head, decide: fn(Acceptance) -> Acceptance) -> (Error, u16, String) {
    let (mut client, server) = duplex(64 * 1024);
    let accepting = Acceptor::new().accept_stream(server);
    let accepting = accepting.on_request(move |head: Parts| async move { Ok(decide(head.into())) });
    let accepting = tokio::spawn(accepting.into_future());
    let (head, body) = exchange(&mut client, request).await;
    drop(client);
    (soon(accepting).await.unwrap().unwrap_err(), head.status(), body)
}

/// Returns a client for each version of HTTP.
fn clients() -> Vec<Connector> {
    vec![
        Connector::new(),
        #[cfg(feature = "http2")]
        Connector::new().http_version(bowline::HttpVersion::Http2),
    ]
}

fn serves_both(server: Server) -> Server {
    #[cfg(feature = "http2")]
    let server = server.http2();
    server
}

#[tokio::test]
async fn the_response_has_the_applications_headers() {
    let (_socket, head, _client) = accept(Acceptor::new(), &Head::request(), |acceptance| {
        acceptance.header("set-cookie", "a=1").header("Set-Cookie", "b=2; HttpOnly").header("x-id", "f00d")
    })
    .await;
    assert_eq!(head.status(), 101);
    assert_eq!(head.get("set-cookie").as_deref(), Some("a=1, b=2; HttpOnly"));
    assert_eq!(head.get("x-id").as_deref(), Some("f00d"));
    assert_eq!(head.get("upgrade").as_deref(), Some("websocket"));
    assert!(head.get("sec-websocket-accept").is_some());

    let server = serves_both(Server::new())
        .on_request(|head: Parts| async { Ok(Acceptance::from(head).header("set-cookie", "a=1")) });
    let address = start(server, echo).await;
    for client in clients() {
        let (_socket, response) = soon(client.connect(format!("ws://{address}/"))).await.unwrap();
        assert_eq!(response.headers()["set-cookie"], "a=1", "{:?}", response.version());
    }
}

/// Over both versions, one path has a limit of its own.
#[tokio::test]
async fn limits_of_one_request() {
    let server = serves_both(Server::new()).on_request(|head: Parts| async move {
        let is_small = head.uri.path() == "/small";
        let acceptance = Acceptance::from(head);
        Ok(if is_small { acceptance.limits(Limits::default().message_size(10)) } else { acceptance })
    });
    let address = start(server, echo).await;
    for client in clients() {
        let (mut socket, _) = soon(client.connect(format!("ws://{address}/large"))).await.unwrap();
        socket.send("more than ten bytes").await.unwrap();
        assert_eq!(soon(socket.recv()).await.unwrap(), Some("more than ten bytes".into()));
        let (mut socket, _) = soon(client.connect(format!("ws://{address}/small"))).await.unwrap();
        socket.send("more than ten bytes").await.unwrap();
        let error = soon(socket.recv()).await.unwrap_err();
        assert_eq!(error.close_frame().unwrap().code(), CloseCode::MESSAGE_TOO_BIG);
    }
}

#[tokio::test(start_paused = true)]
async fn a_keepalive_of_one_request() {
    for (interval, expected) in [(Some(Duration::from_secs(1)), true), (None, false)] {
        let acceptor = Acceptor::new().keepalive(Duration::from_secs(3600));
        let (_socket, _, mut client) =
            accept(acceptor, &Head::request(), move |acceptance| acceptance.keepalive(interval)).await;
        let ping = tokio::time::timeout(Duration::from_secs(3), client.read_u8()).await;
        assert_eq!(ping.is_ok(), expected, "{interval:?}");
    }
}

#[tokio::test]
async fn the_application_chooses_a_subprotocol() {
    let request = Head::request()
        .with("Sec-WebSocket-Protocol: chat.v1, chat.v2")
        .with("Sec-WebSocket-Protocol: chat.v3");
    for chosen in ["chat.v1", "chat.v2", "chat.v3"] {
        let acceptor = Acceptor::new().subprotocols(["chat.v2"]);
        let (socket, head, _client) =
            accept(acceptor, &request, move |acceptance| acceptance.subprotocol(chosen)).await;
        assert_eq!(socket.subprotocol(), Some(chosen));
        assert_eq!(head.get("sec-websocket-protocol").as_deref(), Some(chosen));
    }
}

#[tokio::test]
async fn rfc6455_4_2_2_a_subprotocol_that_was_not_offered_is_a_500() {
    let offers = Head::request().with("Sec-WebSocket-Protocol: chat.v1");
    for request in [Head::request(), offers] {
        let (error, status, body) =
            fail(&request, |acceptance| acceptance.header("x-id", "1").subprotocol("chat.v2")).await;
        assert_eq!((status, &*body), (500, "Internal Server Error\n"));
        assert!(error.to_string().contains("did not offer the subprotocol \"chat.v2\""), "{error}");
    }
    // The offer is that of the client, whatever the application makes of the head.
    let (mut client, server) = duplex(64 * 1024);
    let accepting = Acceptor::new().accept_stream(server).on_request(|mut head: Parts| async {
        head.headers.insert("sec-websocket-protocol", "chat.v2".parse().unwrap());
        Ok(Acceptance::from(head).subprotocol("chat.v2"))
    });
    let accepting = tokio::spawn(accepting.into_future());
    assert_eq!(exchange(&mut client, &Head::request()).await.0.status(), 500);
    drop(client);
    assert_eq!(soon(accepting).await.unwrap().unwrap_err().kind(), ErrorKind::Handshake);
}

#[tokio::test]
async fn an_acceptance_that_is_invalid_is_a_500_that_names_the_setting() {
    type Decide = fn(Acceptance) -> Acceptance;
    let wrong: &[(Decide, &str)] = &[
        (|acceptance| acceptance.header("Upgrade", "h2c"), "the header upgrade is part of the handshake"),
        (|acceptance| acceptance.header("connection", "close"), "the header connection is part"),
        (|acceptance| acceptance.header("content-length", "3"), "the header content-length is part"),
        (|acceptance| acceptance.header("transfer-encoding", "chunked"), "the header transfer-encoding is"),
        (|acceptance| acceptance.header("Sec-WebSocket-Accept", "x"), "the header sec-websocket-accept is"),
        (|acceptance| acceptance.header("sec-websocket-new", "x"), "the header sec-websocket-new is part"),
        (|acceptance| acceptance.header("two words", "x"), "the name of a header contains"),
        (|acceptance| acceptance.header("x-id", "a\r\nb: c"), "the value of the header x-id contains"),
        (|acceptance| acceptance.limits(Limits::default().write_buffer(0)), "Limits::write_buffer is 0"),
        (|acceptance| acceptance.keepalive(Duration::ZERO), "Acceptance::keepalive"),
        #[cfg(feature = "deflate")]
        (
            |acceptance| acceptance.compression(bowline::Compression::ContextTakeover.options().level(10)),
            "CompressionOptions::level is 10",
        ),
    ];
    for (decide, named) in wrong {
        let (error, status, body) = fail(&Head::request(), *decide).await;
        assert_eq!((status, &*body), (500, "Internal Server Error\n"), "{named}");
        assert_eq!(error.kind(), ErrorKind::Handshake);
        let text = error.to_string();
        assert!(text.contains("Server::on_request is invalid") && text.contains(named), "{text}");
    }
}

/// Over both versions, `on_error` is told, and the server continues.
#[tokio::test]
async fn a_server_reports_an_acceptance_that_is_invalid() {
    let (sender, mut errors) = mpsc::unbounded_channel();
    let server = serves_both(Server::new())
        .on_request(|head: Parts| async { Ok(Acceptance::from(head).header("upgrade", "x")) })
        .on_error(move |error| sender.send(error.to_string()).unwrap());
    let address = start(server, echo).await;
    for client in clients() {
        let error = soon(client.connect(format!("ws://{address}/"))).await.unwrap_err();
        assert_eq!(error.response().map(http::Response::status), Some(StatusCode::INTERNAL_SERVER_ERROR));
        let text = soon(errors.recv()).await.unwrap();
        assert!(text.contains("the header upgrade is part of the handshake"), "{text}");
    }
}

#[cfg(feature = "deflate")]
#[tokio::test]
async fn compression_of_one_request() {
    use bowline::Compression;

    let offer = Head::request().with("Sec-WebSocket-Extensions: permessage-deflate");
    for (usual, chosen) in [
        (Compression::Off, Compression::NoContextTakeover),
        (Compression::ContextTakeover, Compression::Off),
        (Compression::ContextTakeover, Compression::NoContextTakeover),
    ] {
        let acceptor = Acceptor::new().compression(usual);
        let (socket, head, _client) =
            accept(acceptor, &offer, move |acceptance| acceptance.compression(chosen)).await;
        let agreed = socket.compression();
        assert_eq!(agreed.is_some(), chosen != Compression::Off);
        assert_eq!(head.get("sec-websocket-extensions").is_some(), agreed.is_some());
        assert!(agreed.is_none_or(|agreed| agreed.server_no_context_takeover));
    }
    // Nothing is agreed on that the client did not offer.
    let (socket, head, _client) = accept(Acceptor::new(), &Head::request(), |acceptance| {
        acceptance.compression(Compression::ContextTakeover)
    })
    .await;
    assert_eq!((socket.compression(), head.get("sec-websocket-extensions")), (None, None));
}

// ---- accept_stream

#[tokio::test]
async fn accept_stream_answers_401() {
    for (token, status) in [("Bearer 1234", 101), ("Bearer 4321", 401)] {
        let (mut client, server) = duplex(64 * 1024);
        let accepting = Acceptor::new().accept_stream(server).on_request(|head: Parts| async move {
            match head.headers.get("authorization") {
                Some(token) if token == "Bearer 1234" => Ok(head),
                _ => Err(Rejection::from(StatusCode::UNAUTHORIZED)),
            }
        });
        let accepting = tokio::spawn(accepting.into_future());
        let request = Head::request().with(&format!("Authorization: {token}"));
        client.write_all(request.text().as_bytes()).await.unwrap();
        assert_eq!(read_head(&mut client).await.status(), status);
        if status == 101 {
            let (mut socket, head) = soon(accepting).await.unwrap().unwrap();
            assert_eq!(head.headers["sec-websocket-key"], KEY);
            client.write_all(&Frame::text("hello").encode(Role::Client)).await.unwrap();
            assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
        } else {
            drop(client);
            let error = soon(accepting).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Handshake);
            let source = std::error::Error::source(&error).unwrap();
            assert_eq!(source.downcast_ref::<Rejection>().unwrap().status(), 401);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_of_accept_stream_that_panics_or_never_returns() {
    let (mut client, server) = duplex(64 * 1024);
    let panics = Acceptor::new().accept_stream(server).on_request(async |_: Parts| -> Result<Parts, _> {
        panic!("the database is gone");
    });
    let panics = tokio::spawn(panics.into_future());
    assert_eq!(exchange(&mut client, &Head::request()).await.0.status(), 500);
    drop(client);
    let error = soon(panics).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("panicked: the database is gone"), "{error}");

    let (mut client, server) = duplex(64 * 1024);
    client.write_all(Head::request().text().as_bytes()).await.unwrap();
    let acceptor = Acceptor::new().limits(Limits::default().handshake_timeout(Duration::from_secs(3)));
    let hangs =
        acceptor.accept_stream(server).on_request(|_: Parts| std::future::pending::<Result<Parts, _>>());
    assert_eq!(hangs.await.unwrap_err().kind(), ErrorKind::Timeout);
}

/// Dropping the future ends the check and closes the stream.
#[tokio::test]
async fn a_dropped_accept_stream_drops_its_check() {
    let (mut client, server) = duplex(64 * 1024);
    client.write_all(Head::request().text().as_bytes()).await.unwrap();
    let (sender, mut begun) = mpsc::unbounded_channel();
    let accepting = Acceptor::new().accept_stream(server).on_request(move |_: Parts| {
        // The sender is dropped with the future.
        let sender = sender.clone();
        async move {
            sender.send(()).unwrap();
            std::future::pending::<Result<Parts, Rejection>>().await
        }
    });
    let mut accepting = accepting.into_future();
    tokio::select! {
        _ = &mut accepting => panic!("the check never returns"),
        begun = begun.recv() => assert!(begun.is_some()),
    }
    drop(accepting);
    assert!(soon(begun.recv()).await.is_none());
    assert_eq!(soon(client.read(&mut [0])).await.unwrap(), 0);
}
