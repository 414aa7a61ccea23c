//! `--to`: a gateway to other servers.

use bowline::http::request::Parts;
use bowline::{Acceptor, CloseCode, Connector, ErrorKind, Message, Rejection, Server, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::process::{Running, end_of, text, within};

/// Starts a WebSocket server that sends its path, returns messages, and closes with 4321 after "close".
async fn upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server =
        Server::new().acceptor(Acceptor::new().subprotocols(["chat"])).on_request(|head: Parts| async move {
            if head.uri.path() == "/secret" {
                return Err(Rejection::from(bowline::http::StatusCode::UNAUTHORIZED));
            }
            Ok(head)
        });
    tokio::spawn(server.serve(listener, |head: Parts, mut socket: WebSocket| async move {
        let seen =
            |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none");
        socket.send(format!("{} {} {}", head.uri, seen("cookie"), seen("x-forwarded-for"))).await?;
        while let Some(message) = socket.recv().await? {
            if message == Message::from("close") {
                socket.close(CloseCode(4321), "as asked").await?;
                break;
            }
            socket.send(message).await?;
        }
        Ok(())
    }));
    format!("ws://{address}")
}

/// Starts a TCP server that returns bytes, and ends after `end`.
async fn tcp_upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    if stream.write_all(&bytes[..read]).await.is_err() || bytes[..read].ends_with(b"end") {
                        break;
                    }
                }
            });
        }
    });
    format!("tcp:{address}")
}

#[tokio::test]
async fn bytes_reach_a_tcp_server_and_come_back() {
    let target = tcp_upstream().await;
    let server = Running::start(&["--binary", "--to", &target]).await;
    let mut socket = server.connect().await;
    socket.send(b"\x00\x01").await.unwrap();
    assert_eq!(within(socket.recv()).await.unwrap(), Some(Message::from(b"\x00\x01")));
    socket.send(b"end").await.unwrap();
    assert!(end_of(&mut socket).await.is_none());
    assert_eq!(socket.close_frame().unwrap().code(), CloseCode::NORMAL);
}

#[tokio::test]
async fn lines_reach_a_tcp_server_and_come_back() {
    let target = tcp_upstream().await;
    let server = Running::start(&["--to", &target]).await;
    let mut socket = server.connect().await;
    socket.send("a line").await.unwrap();
    assert_eq!(text(&mut socket).await, "a line");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_502() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for target in [format!("tcp:{free}"), format!("ws://{free}"), "unix:/nowhere/at/all".to_owned()] {
        let server = Running::start(&["--to", &target]).await;
        let error = within(bowline::connect(&server.url)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Handshake);
        assert_eq!(error.response().unwrap().status(), 502, "{target}");
    }
}

#[tokio::test]
async fn messages_headers_and_the_subprotocol_are_relayed() {
    let server = Running::start(&["--to", &upstream().await]).await;
    let connector = Connector::new().subprotocols(["other", "chat"]).header("cookie", "a=b");
    let (mut socket, _) = within(connector.connect(server.at("/path?query"))).await.unwrap();
    assert_eq!(socket.subprotocol(), Some("chat"));
    assert_eq!(text(&mut socket).await, "/path?query a=b 127.0.0.1");
    socket.send(b"bytes").await.unwrap();
    assert_eq!(within(socket.recv()).await.unwrap(), Some(Message::from(b"bytes")));
}

/// The gateway has checked the origin; the server behind knows itself by another name.
#[tokio::test]
async fn a_page_reaches_a_server_that_checks_origins() {
    let behind = Running::start(&[]).await;
    let server = Running::start(&["--to", &behind.url]).await;
    let page = Connector::new().origin(server.url.replace("ws://", "http://"));
    let (mut socket, _) = within(page.connect(&server.url)).await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(text(&mut socket).await, "hello");
}

#[tokio::test]
async fn a_path_of_the_target_replaces_that_of_the_request() {
    let target = format!("{}/fixed", upstream().await);
    let server = Running::start(&["--to", &target]).await;
    let mut socket = within(bowline::connect(server.at("/path"))).await.unwrap();
    assert!(text(&mut socket).await.starts_with("/fixed "));
}

#[tokio::test]
async fn the_close_code_of_the_server_behind_reaches_the_client() {
    let server = Running::start(&["--to", &upstream().await]).await;
    let mut socket = server.connect().await;
    socket.send("close").await.unwrap();
    let error = end_of(&mut socket).await.unwrap();
    assert_eq!(error.close_frame().unwrap().code(), CloseCode(4321));
    assert_eq!(error.close_frame().unwrap().reason(), "as asked");
}

#[tokio::test]
async fn the_close_code_of_the_client_reaches_the_server_behind() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("ws://{}", listener.local_addr().unwrap());
    let (told, heard) = tokio::sync::oneshot::channel();
    let told = std::sync::Mutex::new(Some(told));
    tokio::spawn(bowline::serve(listener, move |mut socket: WebSocket| {
        let told = told.lock().unwrap().take().unwrap();
        async move {
            let _ = socket.recv().await;
            let _ = told.send(socket.close_frame());
            Ok(())
        }
    }));
    let server = Running::start(&["--to", &target]).await;
    let socket = server.connect().await;
    let answer = within(socket.close(CloseCode(4001), "gone")).await.unwrap();
    assert_eq!(answer.code(), CloseCode(4001));
    let frame = within(heard).await.unwrap().unwrap();
    assert_eq!((frame.code(), frame.reason()), (CloseCode(4001), "gone"));
}

#[tokio::test]
async fn a_refusal_of_the_server_behind_is_passed_on() {
    let server = Running::start(&["--to", &upstream().await]).await;
    let error = within(bowline::connect(server.at("/secret"))).await.unwrap_err();
    assert_eq!(error.response().unwrap().status(), 401);
}

#[tokio::test]
async fn a_server_behind_that_is_lost_is_a_1014() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("ws://{}", listener.local_addr().unwrap());
    // Ends without a Close frame.
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (socket, _) = Acceptor::new().accept_stream(stream).await.unwrap();
        drop(socket);
    });
    let server = Running::start(&["--to", &target]).await;
    let mut socket = server.connect().await;
    let error = end_of(&mut socket).await.unwrap();
    assert_eq!(error.close_frame().unwrap().code(), CloseCode::BAD_GATEWAY);
}
