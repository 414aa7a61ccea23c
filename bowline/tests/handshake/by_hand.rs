//! `Acceptor::respond` and `ServerHandshake::finish`: handshakes by an HTTP library that the library does not
//! know. Here it is a parser of a few lines.

use std::error::Error;
use std::future::pending;
use std::io;
use std::net::SocketAddr;

use bowline::{
    Acceptor, Adoption, CloseCode, ConnectProtocol, Connector, ErrorKind, Limits, Rejection, Role,
    ServerHandshake, WebSocket,
};
use http::{Request, Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;

use crate::support::frames::Frame;
use crate::support::http::{Head, exchange, listen, read_head, soon};

/// Reads a head and perhaps more. Returns the request, and the bytes after it.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> (Request<()>, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        stream.read_buf(&mut bytes).await.unwrap();
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let leftover = bytes.split_off(end + 4);
            return (Head::parse(std::str::from_utf8(&bytes).unwrap()).to_request(), leftover);
        }
    }
}

async fn write_response<B: AsRef<[u8]>>(stream: &mut (impl AsyncWrite + Unpin), response: Response<B>) {
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
    let head = format!("HTTP/1.1 {}\r\n{}\r\n", response.status(), headers.collect::<String>());
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(response.body().as_ref()).await.unwrap();
}

/// The server of this file.
async fn accept<S>(acceptor: Acceptor, mut stream: S) -> Result<WebSocket, Rejection>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (request, leftover) = read_request(&mut stream).await;
    match acceptor.respond(&request) {
        Ok((mut response, handshake)) => {
            response.headers_mut().insert("set-cookie", "a=1".parse().unwrap());
            write_response(&mut stream, response.map(|()| "")).await;
            Ok(handshake.finish(stream, leftover))
        }
        Err(rejection) => {
            write_response::<String>(&mut stream, rejection.clone().into_response()).await;
            Err(rejection)
        }
    }
}

/// Starts the server for one client.
async fn start(acceptor: Acceptor) -> (SocketAddr, tokio::task::JoinHandle<Result<WebSocket, Rejection>>) {
    let (listener, address) = listen().await;
    let accepting = tokio::spawn(async move { accept(acceptor, listener.accept().await.unwrap().0).await });
    (address, accepting)
}

#[tokio::test]
async fn a_parser_of_http1_over_tcp() {
    let (address, accepting) = start(Acceptor::new().subprotocols(["chat.v1"])).await;
    let client = Connector::new().subprotocols(["chat.v2", "chat.v1"]);
    let (client, response) = soon(client.connect(format!("ws://{address}/chat"))).await.unwrap();
    let mut server = soon(accepting).await.unwrap().unwrap();
    assert_eq!(response.headers()["set-cookie"], "a=1");
    assert_eq!((client.subprotocol(), server.subprotocol()), (Some("chat.v1"), Some("chat.v1")));
    assert_eq!((server.local_addr(), server.peer_addr()), (Some(address), client.local_addr()));
    client.send("hello").await.unwrap();
    assert_eq!(soon(server.recv()).await.unwrap(), Some("hello".into()));
}

/// Frames that arrive with the request, and are read with it, are not lost.
#[tokio::test]
async fn frames_behind_the_request_are_not_lost() {
    let (address, accepting) = start(Acceptor::new()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let frame = Frame::text("pipelined").encode(Role::Client);
    stream.write_all(&[Head::request().text().as_bytes(), &frame].concat()).await.unwrap();
    assert_eq!(read_head(&mut stream).await.status(), 101);
    let mut server = soon(accepting).await.unwrap().unwrap();
    assert_eq!(soon(server.recv()).await.unwrap(), Some("pipelined".into()));
}

#[tokio::test]
async fn requests_that_are_not_acceptable_are_rejected() {
    for (request, status) in [
        (Head::request().without("upgrade"), 426),
        (Head::request().replace("Sec-WebSocket-Version: 8"), 400),
        (Head::request().with("Origin: https://evil.example"), 403),
    ] {
        let (address, accepting) = start(Acceptor::new()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (head, body) = exchange(&mut stream, &request).await;
        assert_eq!(head.status(), status);
        assert!(!body.is_empty());
        assert_eq!(soon(accepting).await.unwrap().unwrap_err().status(), status);
    }
    let misconfigured = Acceptor::new().limits(Limits::default().write_buffer(0));
    let rejection = misconfigured.respond(&Head::request().to_request()).unwrap_err();
    assert_eq!(rejection.status(), 500);
    assert!(rejection.to_string().contains("Limits::write_buffer"), "{rejection}");
}

/// The two halves of the library's seams fit each other: no HTTP library at all.
#[tokio::test]
async fn a_request_and_its_response_in_memory() {
    let (request, client) = Connector::new().request("ws://localhost/chat").unwrap();
    let (response, server) = Acceptor::new().respond(&request).unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::SWITCHING_PROTOCOLS, Version::HTTP_11));
    let (near, far) = duplex(1024);
    let peer = ([192, 0, 2, 1], 49152);
    let server = server.peer_addr(peer).local_addr(([192, 0, 2, 2], 443)).finish(far, Vec::new());
    // The response may come in parts, and with the first bytes after it.
    let response = Response::from_parts(response.into_parts().0, ());
    let client = client.verify(&response).unwrap().peer_addr(peer).local_addr(([192, 0, 2, 3], 443));
    let mut client = client.finish(near, Frame::text("at once").encode(Role::Server));
    assert_eq!(client.peer_addr(), Some(peer.into()));
    assert_eq!(client.local_addr(), Some(([192, 0, 2, 3], 443).into()));
    assert_eq!(soon(client.recv()).await.unwrap(), Some("at once".into()));
    assert_eq!(server.peer_addr(), Some(peer.into()));
    assert_eq!(server.local_addr(), Some(([192, 0, 2, 2], 443).into()));
    server.send("welcome").await.unwrap();
    assert_eq!(soon(client.recv()).await.unwrap(), Some("welcome".into()));
}

#[cfg(feature = "deflate")]
/// A request from 192.0.2.1:9, as a library with a future of the stream has it.
fn request_from_elsewhere() -> Request<()> {
    let mut request = Head::request().to_request();
    request.extensions_mut().insert(SocketAddr::from(([192, 0, 2, 1], 9)));
    request
}

#[tokio::test]
async fn a_handler_after_a_future_of_the_stream() {
    let (near, far) = duplex(4096);
    let (sender, hands_over) = oneshot::channel();
    let (told, errors) = oneshot::channel();
    let (_, handshake) = Acceptor::new().respond(&request_from_elsewhere()).unwrap();
    let upgrade = handshake.upgrade(hands_over).on_error(|error| told.send(error).unwrap());
    upgrade.spawn(async |socket: WebSocket| {
        socket.send(format!("{:?}", socket.peer_addr())).await?;
        Err("enough".into())
    });
    sender.send(far).unwrap();
    let mut client = Connector::new().adopt(near, Adoption::new()).unwrap();
    assert_eq!(soon(client.recv()).await.unwrap(), Some("Some(192.0.2.1:9)".into()));
    soon(client.recv()).await.unwrap_err();
    assert_eq!(client.close_frame().unwrap().code(), CloseCode::INTERNAL_ERROR);
    let error = soon(errors).await.unwrap();
    assert_eq!(error.peer_addr().unwrap().port(), 9);
    assert!(error.to_string().contains("GET /chat"), "{error}");
}

#[tokio::test]
async fn a_stream_that_is_never_handed_over() {
    let (_, handshake) = Acceptor::new().respond(&request_from_elsewhere()).unwrap();
    let (sender, hands_over) = oneshot::channel::<DuplexStream>();
    drop(sender);
    let error = soon(handshake.upgrade(hands_over)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert!(error.source().unwrap().is::<RecvError>(), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_handed_over_too_late() {
    let (_, handshake) = Acceptor::new().respond(&request_from_elsewhere()).unwrap();
    let error = handshake.upgrade(pending::<io::Result<DuplexStream>>()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn compression_is_agreed_on_by_hand() {
    use bowline::Compression;

    let connector = Connector::new().compression(Compression::ContextTakeover);
    let acceptor = Acceptor::new().compression(Compression::NoContextTakeover);
    let (request, client) = connector.request("ws://localhost/").unwrap();
    let (response, server) = acceptor.respond(&request).unwrap();
    let (near, far) = duplex(1024);
    let mut server = server.finish(far, Vec::new());
    let client = client.verify(&response).unwrap().finish(near, Vec::new());
    assert!(server.compression().is_some() && server.compression() == client.compression());
    let text = "to and fro ".repeat(1000);
    let (sent, received) = tokio::join!(client.send(&text), server.recv());
    sent.unwrap();
    assert_eq!(received.unwrap(), Some(text.into()));
}

// ---- HTTP/2 and HTTP/3

/// Returns the request of a WebSocket over HTTP/2 or HTTP/3, with this `:protocol`.
fn extended_connect(version: Version, protocol: Option<&'static str>) -> Request<()> {
    let mut request = Request::connect("https://localhost/chat")
        .version(version)
        .header("sec-websocket-version", "13")
        .header("sec-websocket-protocol", "chat.v1")
        .body(())
        .unwrap();
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(ConnectProtocol::new(protocol));
    }
    request
}

#[tokio::test]
async fn rfc9220_3_an_extended_connect_by_a_library_of_any_kind() {
    for version in [Version::HTTP_2, Version::HTTP_3] {
        let request = extended_connect(version, Some("websocket"));
        let (response, handshake) = Acceptor::new().subprotocols(["chat.v1"]).respond(&request).unwrap();
        // RFC 8441 5: no 101, and no headers of the upgrade.
        assert_eq!((response.status(), response.version()), (StatusCode::OK, version));
        assert_eq!(handshake.subprotocol(), Some("chat.v1"));
        let names: Vec<&str> = response.headers().keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["sec-websocket-protocol"]);
        let (near, far) = duplex(1024);
        let server: ServerHandshake = handshake;
        let mut server = server.finish(far, Vec::new());
        let client = Connector::new().adopt(near, Adoption::new()).unwrap();
        client.send("hello").await.unwrap();
        assert_eq!(soon(server.recv()).await.unwrap(), Some("hello".into()));
    }
}

/// Both seams of the library carry an extended CONNECT.
#[tokio::test]
async fn rfc9220_3_an_extended_connect_to_itself() {
    let connector = Connector::new().subprotocols(["chat.v1"]).header("x-id", "f00d");
    let (request, client) = connector.request("wss://localhost/chat").unwrap();
    let (mut head, ()) = request.into_parts();
    head.method = http::Method::CONNECT;
    head.version = Version::HTTP_3;
    for name in ["upgrade", "connection", "host", "sec-websocket-key"] {
        head.headers.remove(name);
    }
    head.extensions.insert(ConnectProtocol::new("websocket"));
    let acceptor = Acceptor::new().subprotocols(["chat.v1"]);
    let (response, server) = acceptor.respond(&Request::from_parts(head, ())).unwrap();
    let (near, far) = duplex(1024);
    let mut server = server.finish(far, Vec::new());
    let client = client.verify(&response).unwrap().finish(near, Vec::new());
    assert_eq!((client.subprotocol(), server.subprotocol()), (Some("chat.v1"), Some("chat.v1")));
    client.send("hello").await.unwrap();
    assert_eq!(soon(server.recv()).await.unwrap(), Some("hello".into()));
}

#[test]
fn rfc9220_3_other_protocols_are_answered_with_501() {
    for version in [Version::HTTP_2, Version::HTTP_3] {
        for (protocol, status) in [(Some("connect-udp"), 501), (Some("WebSocket"), 501), (None, 400)] {
            let rejection = Acceptor::new().respond(&extended_connect(version, protocol)).unwrap_err();
            assert_eq!(rejection.status(), status, "{protocol:?}");
        }
        let mut get = extended_connect(version, None);
        *get.method_mut() = http::Method::GET;
        assert_eq!(Acceptor::new().respond(&get).unwrap_err().status(), 405);
    }
}

/// An extension of the request means nothing over HTTP/1.1, where `:protocol` does not exist.
#[test]
fn a_protocol_over_http1_is_ignored() {
    let request = extended_connect(Version::HTTP_11, Some("websocket"));
    assert_eq!(Acceptor::new().respond(&request).unwrap_err().status(), 405);
}

/// `finish` treats leftover bytes as `adopt` does.
#[tokio::test]
async fn a_peer_that_breaks_the_protocol_after_the_handshake() {
    let (_, handshake) = Acceptor::new().respond(&Head::request().to_request()).unwrap();
    let (_client, stream) = duplex(1024);
    // RFC 6455 5.1: a client masks its frames.
    let mut socket = handshake.finish(stream, Frame::text("hello").encode(Role::Server));
    assert_eq!(soon(socket.recv()).await.unwrap_err().kind(), ErrorKind::Protocol);
}
