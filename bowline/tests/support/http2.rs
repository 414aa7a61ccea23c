//! WebSockets of the library over HTTP/2, with hyper's end of the stream as the peer: plain bytes, without
//! WebSocket frames.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Mutex;

use bowline::{Connector, HttpVersion, WebSocket};
use http::{Method, Request, Response, Version};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2 as client;
use hyper::ext::Protocol;
use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, duplex};
use tokio::sync::oneshot;

use super::options::Options;

/// The number of bytes in transit between the two ends of a connection in memory.
const CAPACITY: usize = 64 * 1024;

/// Returns a client of the library, and the server's end.
pub async fn client(options: &Options) -> (WebSocket, TokioIo<Upgraded>) {
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
    let connector = options.connector(Connector::new()).http_version(HttpVersion::Http2);
    let (socket, _) = connector.connect_over("ws://localhost/", near).await.unwrap();
    (socket, TokioIo::new(upgrade.await.unwrap().await.unwrap()))
}

/// Returns a server of the library under hyper, and the client's end.
pub async fn server(options: &Options) -> (WebSocket, TokioIo<Upgraded>) {
    let (near, far) = duplex(CAPACITY);
    let (sender, upgrade) = oneshot::channel();
    let (sender, acceptor) = (Mutex::new(Some(sender)), options.acceptor());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (response, upgrade) = acceptor.accept::<_, String>(&mut request).unwrap();
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

/// Returns an extended CONNECT for a WebSocket.
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

/// Returns the response to a rejected request.
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

// ---- frames by hand (RFC 9113 4.1)

/// The start of a client's connection.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GO_AWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;

pub const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;
pub const SETTINGS_ENABLE_CONNECT_PROTOCOL: u16 = 8;

const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    frame.extend_from_slice(payload);
    frame
}

/// Returns the preface and the settings of a client.
pub fn hello(settings: &[(u16, u32)]) -> Vec<u8> {
    let settings: Vec<u8> = settings
        .iter()
        .flat_map(|(name, value)| name.to_be_bytes().into_iter().chain(value.to_be_bytes()))
        .collect();
    [PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()
}

/// Returns a HEADERS frame with fields that are not compressed (RFC 7541 6.2.2).
pub fn headers(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// Returns an extended CONNECT for a WebSocket (RFC 8441 4), with a version that is accepted or not.
pub fn connect_headers(stream: u32, path: &str, version: &str) -> Vec<u8> {
    headers(
        stream,
        &[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "localhost"),
            (":path", path),
            ("sec-websocket-version", version),
        ],
    )
}

/// Returns a request for something else.
pub fn get_headers(stream: u32) -> Vec<u8> {
    headers(stream, &[(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", "/")])
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

pub fn rst_stream(stream: u32) -> Vec<u8> {
    const CANCEL: u32 = 8;
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// Reads the next frame: its kind, flags, stream and payload, or `None` at the end.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut header = [0; 9];
    stream.read_exact(&mut header).await.ok()?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.ok()?;
    Some((header[3], header[4], u32::from_be_bytes(header[5..].try_into().unwrap()), payload))
}
