//! Peers over HTTP/2 that stall, flood and misbehave: memory is bounded, and the other WebSockets are unharmed.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bowline::{Acceptor, CloseCode, Connector, Http2Connection, Limits, Role, Server, WebSocket};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use support::allocations::Counting;
use support::frames::{Frame, take_frames};
use support::http::{HandlerResult, echo, soon, start};
use support::http2::connect_request;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Serves an echo, and on `/stall` reads nothing until the WebSocket is closed.
async fn serve(limits: Limits) -> (SocketAddr, mpsc::UnboundedReceiver<WebSocket>) {
    let (sender, stalled) = mpsc::unbounded_channel();
    let server = Server::new().acceptor(Acceptor::new().limits(limits)).http2();
    let address = start(server, move |head: http::request::Parts, socket: WebSocket| {
        let sender = sender.clone();
        async move {
            if head.uri.path() != "/stall" {
                return echo(socket).await;
            }
            let closed = socket.sender();
            // A test that is over does not listen any more.
            let _ = sender.send(socket);
            closed.closed().await;
            HandlerResult::Ok(())
        }
    })
    .await;
    (address, stalled)
}

async fn connection_to(address: SocketAddr) -> Http2Connection {
    soon(Connector::new().connect_http2(format!("ws://{address}"))).await.unwrap()
}

async fn assert_echoes(connection: &Http2Connection) {
    let (mut socket, _) = soon(connection.connect("/")).await.unwrap();
    socket.send("still there?").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("still there?".into()));
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
}

/// A client by h2 alone.
async fn raw_client(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_max_send_streams(100_000);
    let (requests, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(connection);
    requests
}

fn request(path: &str) -> http::Request<()> {
    let mut request = connect_request().map(drop);
    *request.uri_mut() = format!("http://localhost{path}").parse().unwrap();
    request.extensions_mut().clear();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    request
}

async fn open(requests: &mut SendRequest<Bytes>, path: &str) -> (SendStream<Bytes>, RecvStream) {
    let (response, send) = requests.send_request(request(path), false).unwrap();
    (send, soon(response).await.unwrap().into_body())
}

/// Sends as far as the peer's window lets it.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap()?;
        stream.send_data(data.split_to(capacity.min(data.len())), false)?;
    }
    Ok(())
}

/// What a server's first SETTINGS frame says (RFC 9113 6.5).
async fn setting(address: SocketAddr, wanted: u16) -> Option<u32> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00").await.unwrap();
    let mut header = [0; 9];
    soon(stream.read_exact(&mut header)).await.unwrap();
    assert_eq!(header[3], 4, "the first frame is SETTINGS");
    let mut settings = vec![0; usize::from(header[2])];
    soon(stream.read_exact(&mut settings)).await.unwrap();
    let found = settings.chunks(6).find(|setting| setting[..2] == wanted.to_be_bytes())?;
    Some(u32::from_be_bytes(found[2..].try_into().unwrap()))
}

#[tokio::test]
async fn the_stream_window_is_told_to_the_client() {
    const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;
    for (set, told) in [
        (None, 256 * 1024),
        (Some(32 * 1024), 32 * 1024),
        (Some(1), 16 * 1024),
        (Some(usize::MAX), (1 << 31) - 1),
    ] {
        let limits = set.map_or(Limits::default(), |bytes| Limits::default().stream_window(bytes));
        let (address, _) = serve(limits).await;
        assert_eq!(setting(address, SETTINGS_INITIAL_WINDOW_SIZE).await, Some(told), "with {set:?}");
    }
}

#[tokio::test]
async fn a_hundred_streams_of_which_all_but_one_are_stalled() {
    let (address, mut stalled) = serve(Limits::default()).await;
    let connection = connection_to(address).await;
    let mut held = Vec::new();
    for _ in 0..99 {
        let (client, _) = soon(connection.connect("/stall")).await.unwrap();
        held.push((client, soon(stalled.recv()).await.unwrap()));
    }
    support::settle().await;
    let before = support::allocations::held();
    for (client, server) in &held {
        // In both directions, and more than the windows hold.
        for socket in [client, server] {
            while socket.try_send(vec![0; 20_000]).is_ok() {}
        }
    }
    assert_echoes(&connection).await;
    let parked = (support::allocations::held() - before) / 99;
    // The receiver's window, what waits in the HTTP/2 connection, and in the WebSocket, at each end.
    assert!(parked < 2 * (256 + 64 + 64 + 20 + 60) * 1024, "{parked} bytes for each stalled WebSocket");
    let (mut socket, _) = soon(connection.connect("/")).await.unwrap();
    let message = vec![7; 500_000];
    for _ in 0..20 {
        socket.send(&message).await.unwrap();
        assert_eq!(soon(socket.recv()).await.unwrap().unwrap().as_bytes(), message);
    }
    drop(held);
    assert_echoes(&connection).await;
}

#[tokio::test]
async fn what_nobody_reads_takes_little_more_than_the_window() {
    const STREAMS: isize = 20;
    let (address, mut stalled) = serve(Limits::default()).await;
    let connection = connection_to(address).await;
    let before = support::allocations::held();
    let mut unread = Vec::new();
    let message = Bytes::from(vec![7; 64 * 1024]);
    for _ in 0..STREAMS {
        unread.push(soon(connection.connect("/stall")).await.unwrap());
        let (server, message) = (soon(stalled.recv()).await.unwrap(), message.clone());
        tokio::spawn(async move { while server.send(message.clone()).await.is_ok() {} });
    }
    // Until the window is full, and nothing moves any more. The clock goes on when there is nothing else to do.
    tokio::time::pause();
    let steady = async {
        let (mut held, mut last) = (0, 0);
        while held <= 256 * 1024 || held != last {
            tokio::time::sleep(Duration::from_secs(1)).await;
            last = std::mem::replace(&mut held, (support::allocations::held() - before) / STREAMS);
        }
        held
    };
    let held = soon(steady).await;
    // At the client the window of 256 KiB, at the server its write buffer and that of the HTTP/2 connection.
    assert!(held < (256 * 9 / 8 + 64 + 64 + 20) * 1024, "{held} bytes for each");
}

/// h2 ends a connection in which too many small frames lie unread.
#[tokio::test]
async fn small_frames_that_nobody_reads() {
    let (address, mut stalled) = serve(Limits::default()).await;
    let mut requests = raw_client(address).await;
    let (mut stream, _receive) = open(&mut requests, "/stall").await;
    let mut socket = soon(stalled.recv()).await.unwrap();
    let before = support::allocations::held();
    let message = Frame::binary([7; 4]).encode(Role::Client);
    // One DATA frame for each message.
    for _ in 0..20_000 {
        send(&mut stream, message.clone().into()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let parked = support::allocations::held() - before;
    assert!(parked < 4 * 1024 * 1024, "{parked} bytes");
    for _ in 0..20_000 {
        assert_eq!(soon(socket.recv()).await.unwrap().unwrap().as_bytes(), [7; 4]);
    }
    drop(socket);
    let (mut stream, mut receive) = open(&mut requests, "/").await;
    send(&mut stream, Frame::text("still there").encode(Role::Client).into()).await.unwrap();
    let data = soon(receive.data()).await.unwrap().unwrap();
    assert_eq!(take_frames(Role::Server, &mut data.to_vec()), [Frame::text("still there")]);
}

#[tokio::test]
async fn a_flood_of_empty_frames_ends_the_connection() {
    let (address, mut stalled) = serve(Limits::default()).await;
    let mut requests = raw_client(address).await;
    let (mut stream, mut receive) = open(&mut requests, "/stall").await;
    let mut socket = soon(stalled.recv()).await.unwrap();
    let before = support::allocations::held();
    let mut count = 0;
    while stream.send_data(Bytes::new(), false).is_ok() {
        count += 1;
        assert!(count < 1_000_000, "it is not noticed");
        if count % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(support::allocations::held() - before < 4 * 1024 * 1024);
    // GOAWAY, with ENHANCE_YOUR_CALM; the end of the TCP connection may overtake it.
    soon(receive.data()).await.unwrap().unwrap_err();
    soon(socket.recv()).await.unwrap_err();
    // Other clients are not concerned.
    assert_echoes(&connection_to(address).await).await;
}

#[tokio::test]
async fn a_flood_of_streams_that_are_reset_at_once() {
    let (address, _) = serve(Limits::default()).await;
    let other = connection_to(address).await;
    let mut requests = raw_client(address).await;
    let before = support::allocations::held();
    for count in 0..10_000 {
        let Ok((_response, mut stream)) = requests.send_request(request("/"), false) else { break };
        stream.send_reset(Reason::CANCEL);
        if count % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    drop(requests);
    assert_echoes(&other).await;
    support::settle().await;
    let kept = support::allocations::held() - before;
    assert!(kept < 8 * 1024 * 1024, "{kept} bytes");
}

#[tokio::test]
async fn ten_thousand_opens_at_once() {
    let (address, _) = serve(Limits::default()).await;
    let other = connection_to(address).await;
    let connection = connection_to(address).await;
    let opens: Vec<_> = (0..10_000)
        .map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move {
                let (mut socket, _) = connection.connect("/").await.unwrap();
                socket.send("one of many").await.unwrap();
                assert_eq!(soon(socket.recv()).await.unwrap(), Some("one of many".into()));
                soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
            })
        })
        .collect();
    support::settle().await;
    assert_echoes(&other).await;
    for open in opens {
        open.await.unwrap();
    }
    // And a client that does not care for the limit.
    let mut requests = raw_client(address).await;
    let opens: Vec<_> =
        (0..10_000).map_while(|_| requests.send_request(request("/stall"), false).ok()).collect();
    let (mut accepted, mut refused) = (0, 0);
    for (response, _stream) in &mut opens.into_iter().map(|(response, stream)| (Box::pin(response), stream)) {
        match tokio::time::timeout(Duration::from_secs(10), response).await.unwrap() {
            Ok(_) => accepted += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(accepted <= 100 && refused > 0, "{accepted} accepted, {refused} refused");
    assert_echoes(&other).await;
}
