//! WebSockets of ours over HTTP/2, with the peer's end of the stream as hyper gives it: bytes, and no frames of WebSocket.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Mutex;

use bowline::{Acceptor, Connector, HttpVersion, Limits, WebSocket};
use http::{Method, Request, Response, Version};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2 as client;
use hyper::ext::Protocol;
use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, duplex};
use tokio::sync::oneshot;

/// How much is under way between the two ends of a connection in memory.
const CAPACITY: usize = 64 * 1024;

/// A client of ours, and the server's end.
pub async fn client(limits: Limits) -> (WebSocket, TokioIo<Upgraded>) {
    let (near, far) = duplex(CAPACITY);
    let (sender, upgrade) = oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let upgrade = request.extensions_mut().remove::<OnUpgrade>().unwrap();
        assert!(sender.lock().unwrap().take().unwrap().send(upgrade).is_ok());
        async { Ok::<_, Infallible>(Response::new(String::new())) }
    });
    tokio::spawn(async move {
        let mut builder = server::Builder::new(TokioExecutor::new());
        let _ = builder.enable_connect_protocol().serve_connection(TokioIo::new(far), service).await;
    });
    let connector = Connector::new().limits(limits).http_version(HttpVersion::Http2);
    let (socket, _) = connector.connect_over("ws://localhost/", near).await.unwrap();
    (socket, TokioIo::new(upgrade.await.unwrap().await.unwrap()))
}

/// A server of ours under hyper, and the client's end.
pub async fn server(limits: Limits) -> (WebSocket, TokioIo<Upgraded>) {
    let (near, far) = duplex(CAPACITY);
    let (sender, upgrade) = oneshot::channel();
    let sender = Mutex::new(Some(sender));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (response, upgrade) =
            Acceptor::new().limits(limits.clone()).accept::<_, String>(&mut request).unwrap();
        assert!(sender.lock().unwrap().take().unwrap().send(upgrade).is_ok());
        async { Ok::<_, Infallible>(response) }
    });
    tokio::spawn(async move {
        let mut builder = server::Builder::new(TokioExecutor::new());
        let _ = builder.enable_connect_protocol().serve_connection(TokioIo::new(near), service).await;
    });
    let response = send(far, connect_request()).await;
    assert_eq!(response.status(), 200);
    let peer = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    (upgrade.await.unwrap().await.unwrap(), peer)
}

/// An extended CONNECT for a WebSocket.
pub fn connect_request() -> Request<String> {
    let mut request = Request::new(String::new());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = "http://localhost/".parse().unwrap();
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

/// Sends a request on a connection of its own.
async fn send<S>(stream: S, request: Request<String>) -> Response<Incoming>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = client::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut requests, connection) = handshake.unwrap();
    tokio::spawn(connection);
    requests.send_request(request).await.unwrap()
}

/// The answer to a request that is not accepted.
pub async fn refusal<S>(stream: S, request: Request<String>) -> Response<String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (head, mut body) = send(stream, request).await.into_parts();
    assert!(!head.status.is_success());
    let mut text = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        text.extend(frame.unwrap().into_data().unwrap());
    }
    Response::from_parts(head, String::from_utf8(text).unwrap())
}
