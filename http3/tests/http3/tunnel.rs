//! Requests of the application's own, and their streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bowline::http::{Method, Request, StatusCode};
use bowline::{Adoption, CloseCode, ConnectProtocol, ErrorKind, Limits, Message, Server, WebSocket};
use bowline_http3::Http3Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::yield_now;

use crate::raw::{ACCEPTED, RawServer, SERVER_SETTINGS, frame, soon};
use crate::support::{Running, serve, serve_echo};

pub(crate) fn connect(url: impl std::fmt::Display, protocol: &'static str) -> Request<()> {
    let request = Request::builder().method(Method::CONNECT).uri(url.to_string());
    request.header("sec-websocket-version", "13").extension(ConnectProtocol::new(protocol)).body(()).unwrap()
}

async fn opened(running: &Running) -> bowline_http3::Http3Stream {
    let response = running.connect().await.tunnel(connect(running.url(), "websocket")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.into_body()
}

#[tokio::test]
async fn a_tunnel_carries_the_bytes_of_a_websocket() {
    let running = serve_echo(Server::new()).await;
    let stream = opened(&running).await;
    // The connection lives as long as the stream.
    let mut socket = running.tls.connector().adopt(stream, Adoption::new()).unwrap();
    let payload = vec![7; 300_000];
    socket.send(&payload).await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), Some(Message::from(payload)));
    assert_eq!(socket.close(CloseCode::NORMAL, "done").await.unwrap().reason(), "done");
}

#[tokio::test]
async fn a_tunnel_carries_another_protocol() {
    let server = RawServer::new();
    let url = format!("wss://{}/", server.address());
    let serving = async {
        let (quic, kept) = server.accept(&[SERVER_SETTINGS]).await;
        let (mut send, mut receive) = quic.accept_bi().await.unwrap();
        // The status is 204, the 14th entry of the static table plus 50 (RFC 9204, Appendix A).
        send.write_all(&frame(0x01, &[0x00, 0x00, 0xff, 0x01])).await.unwrap();
        send.write_all(&frame(0x00, b"from the server")).await.unwrap();
        send.finish().unwrap();
        let request = receive.read_to_end(10_000).await.unwrap();
        assert!(request.ends_with(&[&[0x00, 0x05][..], b"bytes"].concat()), "{request:x?}");
        (quic, kept)
    };
    let talking = async {
        let connection = Http3Connection::open(&server.connector(), &url).await.unwrap();
        let response = connection.tunnel(connect(&url, "something-else")).await.unwrap();
        let mut stream = response.into_body();
        stream.write_all(b"bytes").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut received = String::new();
        stream.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "from the server");
    };
    soon(async { tokio::join!(serving, talking) }).await;
}

/// Many frames arrive at once, and none ends where a packet or a buffer does.
#[tokio::test]
async fn frames_of_any_size_are_read_into_buffers_of_any_size() {
    let body: Vec<u8> = (0..60_000_u32).map(|n| (n * n).to_be_bytes()[2]).collect();
    for (frame_size, buffer_size) in [(1, 1), (1, 20_000), (7, 20_000), (1001, 20_000), (16_000, 3001)] {
        let server = RawServer::new();
        let url = format!("wss://{}/", server.address());
        let serving = async {
            let (quic, kept) = server.accept(&[SERVER_SETTINGS]).await;
            let (mut send, _receive) = quic.accept_bi().await.unwrap();
            let frames: Vec<_> = body.chunks(frame_size).map(|data| frame(0x00, data)).collect();
            send.write_all(&[ACCEPTED, &frames.concat()].concat()).await.unwrap();
            send.finish().unwrap();
            send.stopped().await.unwrap();
            (quic, kept)
        };
        let reading = async {
            let connection = Http3Connection::open(&server.connector(), &url).await.unwrap();
            let response = connection.tunnel(connect(&url, "something-else")).await.unwrap();
            let (mut stream, mut received, mut buffer) =
                (response.into_body(), Vec::new(), vec![0; buffer_size]);
            loop {
                let count = stream.read(&mut buffer).await.unwrap();
                if count == 0 {
                    break received;
                }
                received.extend_from_slice(&buffer[..count]);
            }
        };
        let (_, received) = soon(async { tokio::join!(serving, reading) }).await;
        assert!(received == body, "frames of {frame_size} and a buffer of {buffer_size} bytes");
    }
}

#[tokio::test]
async fn a_refusal_has_a_body() {
    let running = serve_echo(Server::new()).await;
    let connection = running.connect().await;
    for request in
        [connect(running.url(), "something-else"), Request::builder().uri(running.url()).body(()).unwrap()]
    {
        let method = request.method().clone();
        let (head, mut body) = connection.tunnel(request).await.unwrap().into_parts();
        assert!(!head.status.is_success(), "{method}: {}", head.status);
        let mut text = String::new();
        soon(body.read_to_string(&mut text)).await.unwrap();
        assert!(!text.is_empty(), "{method}");
    }
    // The connection goes on.
    let (socket, _) = connection.connect("/").await.unwrap();
    socket.close(CloseCode::NORMAL, "").await.unwrap();
}

#[tokio::test]
async fn a_dropped_tunnel_is_reset_and_a_shut_down_one_ends_in_order() {
    let (ends, mut ended) = mpsc::unbounded_channel();
    let running = serve(Server::new(), move |mut socket: WebSocket| {
        let ends = ends.clone();
        async move {
            ends.send(socket.recv().await.unwrap_err().to_string()).unwrap();
            Ok(())
        }
    })
    .await;
    drop(opened(&running).await);
    let reset = soon(ended.recv()).await.unwrap();
    assert!(reset.contains("H3_REQUEST_CANCELLED"), "{reset}");
    let mut stream = opened(&running).await;
    stream.shutdown().await.unwrap();
    let fin = soon(ended.recv()).await.unwrap();
    assert!(fin.contains("without a Close frame") && !fin.contains("H3_"), "{fin}");
}

#[tokio::test]
async fn requests_that_http3_can_not_carry_are_refused_here() {
    let running = serve_echo(Server::new()).await;
    let connection = running.connect().await;
    let without_scheme = Request::builder().uri("/path").body(()).unwrap();
    let mut of_http1 = connect(running.url(), "websocket");
    of_http1.headers_mut().insert("connection", "upgrade".parse().unwrap());
    let mut too_large = connect(running.url(), "websocket");
    too_large.headers_mut().insert("x-large", "x".repeat(100_000).parse().unwrap());
    for (request, why) in [
        (without_scheme, "a scheme and a host"),
        (of_http1, "the header connection"),
        (too_large, "SETTINGS_MAX_FIELD_SECTION_SIZE"),
    ] {
        let error = connection.tunnel(request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(why), "{error}");
    }
}

/// Bytes that were taken out of QUIC make room for others.
#[tokio::test]
async fn a_small_buffer_takes_no_more_out_of_quic_than_a_packet() {
    const WINDOW: usize = 64 * 1024;
    let server = RawServer::new();
    let url = format!("wss://{}/", server.address());
    let connector = server.connector().limits(Limits::default().stream_window(WINDOW));
    let opening = Http3Connection::open(&connector, &url);
    let ((quic, _kept), connection) =
        soon(async { tokio::join!(server.accept(&[SERVER_SETTINGS]), opening) }).await;
    let (connection, total) = (connection.unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&total);
    tokio::spawn(async move {
        let (mut send, _receive) = quic.accept_bi().await.unwrap();
        // The head of a DATA frame of 1 GiB.
        let head = [ACCEPTED, &[0x00, 0xc0, 0, 0, 0, 0x40, 0, 0, 0]].concat();
        let mut bytes = [head, vec![0; 2 * WINDOW]].concat();
        while let Ok(written) = send.write(&bytes).await {
            count.fetch_add(written, Ordering::Relaxed);
            bytes.drain(..written);
        }
    });
    let response = connection.tunnel(connect(&url, "something-else")).await.unwrap();
    let mut stream = response.into_body();
    let arriving = async {
        while total.load(Ordering::Relaxed) < WINDOW {
            yield_now().await;
        }
    };
    soon(arriving).await;
    // More than the first packet.
    for _ in 0..2000 {
        stream.read_u8().await.unwrap();
        yield_now().await;
    }
    for _ in 0..1000 {
        yield_now().await;
    }
    assert_eq!(total.load(Ordering::Relaxed), WINDOW);
}
