//! Plain TCP is used directly, whichever HTTP library performed the handshake.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bowline::{Acceptor, Connector, Role, Server, Upgrade, WebSocket};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;

use crate::support::frames::{Frame, take_frames};
use crate::support::http::{HandlerResult, Head, listen, read_head, soon, start};

/// Sends the path in use, and then sends back one message.
async fn report(mut socket: WebSocket) -> HandlerResult {
    assert!(socket.peer_addr().is_some());
    let path = if socket.is_tcp_fast_path() { "fast" } else { "slow" };
    socket.send(path).await?;
    if let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

async fn report_upgraded(upgrade: Upgrade) -> HandlerResult {
    report(upgrade.await?).await
}

/// The server takes the fast path, and loses no frame that came with the request.
async fn assert_fast(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request = Head::request().text().into_bytes();
    request.extend(Frame::text("pipelined").encode(Role::Client));
    stream.write_all(&request).await.unwrap();
    assert_eq!(read_head(&mut stream).await.status(), 101);
    let mut bytes = Vec::new();
    let mut frames = Vec::new();
    while frames.len() < 2 {
        assert_ne!(soon(stream.read_buf(&mut bytes)).await.unwrap(), 0);
        frames.extend(take_frames(Role::Server, &mut bytes));
    }
    assert_eq!(frames[..2], [Frame::text("fast"), Frame::text("pipelined")]);
}

async fn answer(mut request: http::Request<Incoming>) -> Result<http::Response<String>, Infallible> {
    Ok(match bowline::accept(&mut request) {
        Ok((response, upgrade)) => {
            tokio::spawn(report_upgraded(upgrade));
            response
        }
        Err(rejection) => rejection.into_response(),
    })
}

#[tokio::test]
async fn under_serve() {
    assert_fast(start(Server::new(), report).await).await;
}

#[tokio::test]
async fn under_accept_stream() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (socket, _) = Acceptor::new().accept_stream(stream).await.unwrap();
        report(socket).await
    });
    assert_fast(address).await;
}

#[tokio::test]
async fn under_respond() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_head(&mut stream).await;
        let (response, handshake) = Acceptor::new().respond(&head.to_request()).unwrap();
        let accept = response.headers()["sec-websocket-accept"].to_str().unwrap();
        let response = Head::from([
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            &format!("Sec-WebSocket-Accept: {accept}"),
        ]);
        stream.write_all(response.text().as_bytes()).await.unwrap();
        report(handshake.finish(stream, Vec::new())).await
    });
    assert_fast(address).await;
}

/// Pages before the handshake make no difference.
#[tokio::test]
async fn behind_a_page() {
    let server = Server::new().fallback(async |_: http::request::Parts| http::Response::new("page"));
    let mut stream = TcpStream::connect(start(server, report).await).await.unwrap();
    let get = Head::from(["GET / HTTP/1.1", "Host: example.com"]);
    stream.write_all((get.text() + &Head::request().text()).as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut stream).await.status(), 200);
    soon(stream.read_exact(&mut [0; 4])).await.unwrap();
    assert_eq!(read_head(&mut stream).await.status(), 101);
    let mut frame = [0; 6];
    soon(stream.read_exact(&mut frame)).await.unwrap();
    assert_eq!(frame, Frame::text("fast").encode(Role::Server)[..]);
}

#[tokio::test]
async fn under_hyper() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let http = hyper::server::conn::http1::Builder::new();
        http.serve_connection(TokioIo::new(stream), service_fn(answer)).with_upgrades().await
    });
    assert_fast(address).await;
}

/// The most frequent mistake with hyper: the client receives a 101, and then nothing works.
#[tokio::test]
async fn under_hyper_without_upgrades_the_error_names_the_cause() {
    let (listener, address) = listen().await;
    let (failed, mut failures) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let failed = failed.clone();
            let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                let (response, upgrade) = bowline::accept::<_, String>(&mut request).unwrap();
                let failed = failed.clone();
                tokio::spawn(async move { failed.send(upgrade.await.unwrap_err()) });
                async { Ok::<_, std::convert::Infallible>(response) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        }
    });
    let socket = bowline::connect(format!("ws://{address}/")).await;
    let error = soon(failures.recv()).await.unwrap();
    assert!(error.to_string().contains("with_upgrades"), "{error}");
    drop(socket);

    // A client that is gone before the response gets no such advice.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(Head::request().text().as_bytes()).await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    let error = soon(failures.recv()).await.unwrap();
    assert_eq!(error.kind(), bowline::ErrorKind::Handshake);
}

#[tokio::test]
async fn under_hyper_utils_auto() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        http.serve_connection_with_upgrades(TokioIo::new(stream), service_fn(answer)).await.unwrap();
    });
    assert_fast(address).await;
}

#[tokio::test]
async fn under_axum() {
    async fn upgrade(mut request: Request) -> Response {
        match bowline::accept(&mut request) {
            Ok((response, upgrade)) => {
                tokio::spawn(report_upgraded(upgrade));
                response
            }
            Err(rejection) => rejection.into_response::<axum::body::Body>().into_response(),
        }
    }
    let (listener, address) = listen().await;
    let router = Router::new().route("/chat", get(upgrade));
    tokio::spawn(async move { axum::serve(listener, router).await });
    assert_fast(address).await;
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn under_axums_extractor() {
    let upgrade = async |upgrade: bowline::extract::WebSocketUpgrade| upgrade.on_upgrade(report);
    let (listener, address) = listen().await;
    let router = Router::new().route("/chat", get(upgrade));
    tokio::spawn(async move { axum::serve(listener, router).await });
    assert_fast(address).await;
}

#[tokio::test]
async fn of_a_client() {
    let address = start(Server::new(), report).await;
    let socket = bowline::connect(format!("ws://{address}/")).await.unwrap();
    assert!(socket.is_tcp_fast_path());
    assert_eq!(socket.peer_addr(), Some(address));

    let stream = TcpStream::connect(address).await.unwrap();
    let (socket, _) = Connector::new().connect_over("ws://any.example/", stream).await.unwrap();
    assert!(socket.is_tcp_fast_path());
    assert_eq!(socket.peer_addr(), Some(address));
}

/// Small messages leave at once, also if the application has done TLS (RFC 9293 3.7.4).
#[cfg(feature = "tls")]
#[tokio::test]
async fn tls_of_the_application_sends_at_once() {
    let (server, client) = crate::support::tls::configs();
    let (listener, address) = listen().await;
    let connector = Connector::new().tls(client);
    let connecting = tokio::spawn(async move { connector.connect(format!("wss://{address}/")).await });
    let stream = soon(listener.accept()).await.unwrap().0.into_std().unwrap();
    let same = stream.try_clone().unwrap();
    assert!(!same.nodelay().unwrap());
    let tls = tokio_rustls::TlsAcceptor::from(server);
    let stream = soon(tls.accept(TcpStream::from_std(stream).unwrap())).await.unwrap();
    let (_socket, _) = soon(Acceptor::new().accept_stream(stream)).await.unwrap();
    assert!(same.nodelay().unwrap());
    soon(connecting).await.unwrap().unwrap();
}

#[tokio::test]
async fn not_of_other_streams() {
    let (client, server) = duplex(4096);
    let acceptor = Acceptor::new();
    let accepting = acceptor.accept_stream(server);
    let connector = Connector::new();
    let connecting = connector.connect_over("ws://any.example/", client);
    let (accepted, connected) = soon(async { tokio::join!(accepting, connecting) }).await;
    let ((server, _), (client, _)) = (accepted.unwrap(), connected.unwrap());
    assert!(!server.is_tcp_fast_path());
    assert!(!client.is_tcp_fast_path());
    assert_eq!(server.peer_addr(), None);
}
