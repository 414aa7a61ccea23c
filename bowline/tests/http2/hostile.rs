//! Peers over HTTP/2 that stall, flood and misbehave. Memory is bounded, and other WebSockets are unharmed.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bowline::{
    Acceptor, CloseCode, Connector, ErrorKind, Http2Connection, HttpVersion, Limits, Role, Server,
    ServerError, WebSocket,
};
use bowline_proto::Opcode;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::support;
use crate::support::frames::{Frame, take_frames};
use crate::support::http::{HandlerResult, echo, soon, start};
use crate::support::http2::{
    DATA, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, SETTINGS_ENABLE_CONNECT_PROTOCOL,
    SETTINGS_INITIAL_WINDOW_SIZE, connect_headers, connect_request, frame, get_headers, headers, hello,
    read_frame, rst_stream, window_update,
};
use crate::support::tls::configs;

/// Serves an echo; on `/stall`, reads nothing until the WebSocket is closed.
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
            // The test may be over.
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

/// Connects a client that uses only h2.
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

/// Sends as much as the peer's window permits.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap()?;
        stream.send_data(data.split_to(capacity.min(data.len())), false)?;
    }
    Ok(())
}

/// Returns the settings in a server's first SETTINGS frame (RFC 9113 6.5).
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
    for (set, told) in [
        (None, 256 * 1024),
        (Some(32 * 1024), 32 * 1024),
        (Some(16 * 1024), 16 * 1024),
        (Some((1 << 31) - 1), (1 << 31) - 1),
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
    // The receiver's window, and the bytes that wait in the HTTP/2 connection and in the WebSocket, at each
    // end.
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
    // Waits until the window is full and no bytes move. The clock advances when all tasks wait.
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
    // The client's window of 256 KiB, and the server's write buffer and that of the HTTP/2 connection.
    assert!(held < (256 * 9 / 8 + 64 + 64 + 20) * 1024, "{held} bytes for each");
}

/// h2 ends a connection with too many small unread frames.
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
    // Other clients are unaffected.
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
    // A connection without WebSockets would end after the time of a handshake.
    let _in_use = soon(other.connect("/")).await.unwrap();
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
    // A client that ignores the limit.
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

// ---- connections that never become a WebSocket

/// The handshake timeout of the tests below. The clock is paused, and advances when all tasks wait.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Serves an echo on all paths except `/refused`, which is refused after a while.
async fn serve_impatiently(tls: Option<Arc<rustls::ServerConfig>>) -> SocketAddr {
    let limits = Limits::default().handshake_timeout(TIMEOUT);
    let server = Server::new().acceptor(Acceptor::new().limits(limits)).http2();
    let server = server.on_request(|head: http::request::Parts| async move {
        if head.uri.path() == "/refused" {
            tokio::time::sleep(TIMEOUT * 3 / 4).await;
            return Err(http::StatusCode::UNAUTHORIZED.into());
        }
        Ok(head)
    });
    let server = match tls {
        Some(config) => server.tls(config),
        None => server,
    };
    start(server, echo).await
}

/// Connects a stream to such a server, over TLS or not, that has negotiated HTTP/2.
async fn impatient_stream(tls: bool) -> Box<dyn Stream> {
    if !tls {
        return Box::new(TcpStream::connect(serve_impatiently(None).await).await.unwrap());
    }
    let (server, mut client) = configs();
    let stream = TcpStream::connect(serve_impatiently(Some(server)).await).await.unwrap();
    Arc::make_mut(&mut client).alpn_protocols = vec![b"h2".to_vec()];
    let name = "localhost".try_into().unwrap();
    Box::new(tokio_rustls::TlsConnector::from(client).connect(name, stream).await.unwrap())
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Sends `first`, and then the bytes of `then` each second, until the server has ended the connection.
/// Returns the time until the end. The server's bytes are all read, or not at all.
async fn lifetime(tls: bool, reads: bool, first: &[u8], mut then: impl FnMut(u32) -> Vec<u8>) -> Duration {
    let stream = impatient_stream(tls).await;
    let begun = Instant::now();
    let (mut read, mut write) = tokio::io::split(stream);
    write.write_all(first).await.unwrap();
    let mut scratch = vec![0; 64 * 1024];
    for second in 1..100 {
        let until = begun + Duration::from_secs(1) * second;
        while reads && let Ok(count) = timeout_at(until, read.read(&mut scratch)).await {
            if count.map_or(0, |count| count) == 0 {
                return begun.elapsed();
            }
        }
        // When the server stops reading, this side stops writing.
        if let Ok(Err(_)) =
            timeout_at(until + Duration::from_millis(500), write.write_all(&then(second))).await
        {
            return begun.elapsed();
        }
        sleep_until(until).await;
    }
    panic!("it has not ended after {:?}", begun.elapsed());
}

/// Whatever the client does, its connection ends after the time of a handshake, of an idle connection, and of
/// a graceful end.
#[tokio::test(start_paused = true)]
async fn a_connection_without_websockets_ends() {
    let nothing = |_: u32| Vec::new();
    let no_window = hello(&[(SETTINGS_INITIAL_WINDOW_SIZE, 0)]);
    let ping = frame(PING, 0, 0, &[7; 8]);
    for (tls, reads) in [(false, true), (true, true), (false, false)] {
        let gone = async |name: &str, first: Vec<u8>, then: &mut dyn FnMut(u32) -> Vec<u8>| {
            let lifetime = lifetime(tls, reads, &first, then).await;
            // Detection takes up to a second.
            let bound = TIMEOUT * 3 + Duration::from_millis(1500);
            assert!(lifetime <= bound, "{name}, TLS {tls}, reads {reads}: {lifetime:?}");
        };
        if reads {
            gone("the preface", PREFACE.to_vec(), &mut { nothing }).await;
            gone("settings", hello(&[]), &mut { nothing }).await;
            gone("a GET", [hello(&[]), get_headers(1)].concat(), &mut { nothing }).await;
            let get = [&*no_window, &get_headers(1)].concat();
            gone("a GET without a window", get, &mut { nothing }).await;
            let connect = [&*no_window, &connect_headers(1, "/", "12")].concat();
            gone("a bad CONNECT without a window", connect, &mut { nothing }).await;
            let trickle = [&*no_window, &get_headers(1)].concat();
            gone("a window of a byte a second", trickle, &mut |_| window_update(1, 1)).await;
            let half = [&*hello(&[]), &get_headers(1)[..12]].concat();
            gone("half a frame", half, &mut { nothing }).await;
        }
        gone("GETs", hello(&[]), &mut |second| get_headers(2 * second - 1)).await;
        gone("bad CONNECTs", hello(&[]), &mut |second| connect_headers(2 * second - 1, "/", "12")).await;
        gone("slow refusals", hello(&[]), &mut |second| connect_headers(2 * second - 1, "/refused", "13"))
            .await;
        gone("pings", hello(&[]), &mut |_| ping.repeat(20_000)).await;
        gone("resets", hello(&[]), &mut |second| {
            let streams = (0..50).map(|count| 2 * (50 * second + count) + 1);
            streams.flat_map(|id| [connect_headers(id, "/refused", "13"), rst_stream(id)].concat()).collect()
        })
        .await;
    }
}

/// The connection also ends after its last WebSocket, and stays while there is one.
#[tokio::test(start_paused = true)]
async fn a_connection_ends_behind_its_last_websocket() {
    let (mut read, mut write) = TcpStream::connect(serve_impatiently(None).await).await.unwrap().into_split();
    write.write_all(&[hello(&[]), connect_headers(1, "/", "13")].concat()).await.unwrap();
    // The client answers pings of the WebSocket, but not those of HTTP/2.
    let begun = Instant::now();
    let mut closed = None;
    let life = async {
        while let Some((kind, _, _, mut payload)) = read_frame(&mut read).await {
            if kind != DATA || closed.is_some() {
                continue;
            }
            for ping in take_frames(Role::Server, &mut payload) {
                assert_eq!(ping.opcode, Opcode::Ping);
                let answer = if begun.elapsed() < Duration::from_secs(200) {
                    Frame::pong(ping.payload)
                } else {
                    closed = Some(Instant::now());
                    Frame::close(1000, "")
                };
                write.write_all(&frame(DATA, 0, 1, &answer.encode(Role::Client))).await.unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(1000), life).await.expect("it ends");
    let lifetime = closed.expect("it has stayed").elapsed();
    // The client does not end its stream either: `Limits::close_timeout`.
    assert!(lifetime <= Duration::from_secs(5) + TIMEOUT * 3, "{lifetime:?}");
}

/// Even on a connection in use, an answer for which the client opens no window is not kept.
#[tokio::test(start_paused = true)]
async fn an_answer_that_never_fits_is_reset() {
    let mut stream = TcpStream::connect(serve_impatiently(None).await).await.unwrap();
    let websocket = [connect_headers(1, "/", "13"), window_update(1, 1 << 20)].concat();
    let first = [hello(&[(SETTINGS_INITIAL_WINDOW_SIZE, 0)]), websocket, get_headers(3)].concat();
    stream.write_all(&first).await.unwrap();
    let begun = Instant::now();
    let reset = async { while !matches!(read_frame(&mut stream).await.unwrap(), (RST_STREAM, _, 3, _)) {} };
    soon(reset).await;
    assert!((TIMEOUT..TIMEOUT * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

// ---- work for streams that are gone

/// A gauge: the current number, and the largest so far.
#[derive(Default)]
struct Work {
    now: AtomicUsize,
    most: AtomicUsize,
    begun: AtomicUsize,
}

struct UnderWay(Arc<Work>);

impl UnderWay {
    fn begin(work: &Arc<Work>) -> Self {
        work.begun.fetch_add(1, Ordering::Relaxed);
        let now = work.now.fetch_add(1, Ordering::Relaxed) + 1;
        work.most.fetch_max(now, Ordering::Relaxed);
        Self(Arc::clone(work))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves at most ten streams per connection. The checks on `/check` and the handlers on other paths never
/// return.
async fn serve_slowly() -> (SocketAddr, Arc<Work>) {
    let work = Arc::new(Work::default());
    let (checks, handlers) = (Arc::clone(&work), Arc::clone(&work));
    let server = Server::new().acceptor(Acceptor::new().limits(Limits::default().max_streams(10))).http2();
    let server = server.on_request(move |head: http::request::Parts| {
        let checks = Arc::clone(&checks);
        async move {
            if head.uri.path() == "/check" {
                let _checking = UnderWay::begin(&checks);
                pending::<()>().await;
            }
            Ok(head)
        }
    });
    let address = start(server, move |_: WebSocket| {
        let handlers = Arc::clone(&handlers);
        async move {
            let _handling = UnderWay::begin(&handlers);
            pending::<HandlerResult>().await
        }
    });
    (address.await, work)
}

/// Writes frames, and waits until the server has read them. Returns `false` if the server has ended the
/// connection.
async fn arrives(stream: &mut TcpStream, frames: &[u8]) -> bool {
    let ping = frame(PING, 0, 0, &[7; 8]);
    if stream.write_all(&[frames, &ping].concat()).await.is_err() {
        return false;
    }
    loop {
        match soon(read_frame(stream)).await {
            None => return false,
            Some((PING, ..)) => break,
            Some(_) => {}
        }
    }
    support::settle().await;
    true
}

/// Opens streams and has them reset, ten at a time, until the server ends the connection. Returns `false` if
/// it did.
async fn flood(stream: &mut TcpStream, path: &str, reset: &dyn Fn(u32) -> Vec<u8>) -> bool {
    for round in 0..200 {
        let streams = (0..10).map(|count| 2 * (10 * round + count) + 1);
        for make in [&|id| connect_headers(id, path, "13"), reset] {
            let frames: Vec<u8> = streams.clone().flat_map(make).collect();
            if !arrives(stream, &frames).await {
                return false;
            }
        }
    }
    true
}

/// CVE-2023-44487, and CVE-2025-8671, in which the server resets the streams.
#[tokio::test]
async fn a_check_ends_with_its_stream() {
    let overflow = |id| window_update(id, (1 << 31) - 1);
    for reset in [&rst_stream as &dyn Fn(u32) -> Vec<u8>, &overflow] {
        let (address, work) = serve_slowly().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&hello(&[])).await.unwrap();
        let goes_on = flood(&mut stream, "/check", reset).await;
        let most = work.most.load(Ordering::Relaxed);
        assert!(most <= 10, "{most} checks at once");
        let begun = work.begun.load(Ordering::Relaxed);
        assert!(begun >= 2000 || !goes_on && begun >= 1000, "{begun} checks in all");
        support::settle().await;
        assert_eq!(work.now.load(Ordering::Relaxed), 0, "behind the last reset");

        // The check also ends with the connection.
        if goes_on {
            assert!(arrives(&mut stream, &connect_headers(5001, "/check", "13")).await);
            assert_eq!(work.now.load(Ordering::Relaxed), 1);
        }
        drop(stream);
        let ends = async {
            while work.now.load(Ordering::Relaxed) > 0 {
                tokio::task::yield_now().await;
            }
        };
        soon(ends).await;
    }
}

/// A handler may continue after the end of its stream, and counts until it returns.
#[tokio::test]
async fn handlers_of_streams_that_are_gone_are_bounded() {
    let (address, work) = serve_slowly().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&hello(&[])).await.unwrap();
    flood(&mut stream, "/", &rst_stream).await;
    assert_eq!(work.most.load(Ordering::Relaxed), 10);
}

// ---- small pieces in large buffers

/// Each byte follows an ignored frame that fills a buffer of h2, which the byte would keep allocated.
async fn assert_pins_nothing(stream: &mut TcpStream, id: u32, name: &str) {
    let before = support::allocations::held();
    let unit = [frame(0x77, 0, 0, &[0; 8_100]), frame(DATA, 0, id, &[0x82])].concat();
    for _ in 0..20 {
        assert!(arrives(stream, &unit.repeat(100)).await, "{name}");
    }
    let grown = support::allocations::held() - before;
    assert!(grown < 512 * 1024, "{name}: 2,000 bytes hold {grown}");
}

#[tokio::test]
async fn small_pieces_pin_no_large_buffers() {
    // While the check runs.
    let (address, _work) = serve_slowly().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(arrives(&mut stream, &[hello(&[]), connect_headers(1, "/check", "13")].concat()).await);
    assert_pins_nothing(&mut stream, 1, "checked").await;

    // While the request waits for a slot.
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(arrives(&mut stream, &hello(&[])).await);
    let waiting = use_up_slots(&mut stream).await;
    assert_pins_nothing(&mut stream, waiting, "waiting").await;

    // While the response doesn't fit into the client's window.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let first = [hello(&[(SETTINGS_INITIAL_WINDOW_SIZE, 0)]), get_headers(1)].concat();
    assert!(arrives(&mut stream, &first).await);
    assert_pins_nothing(&mut stream, 1, "refused").await;
}

/// Fills the ten slots of a slow server with handlers of closed streams. Returns the stream of a waiting
/// request.
async fn use_up_slots(stream: &mut TcpStream) -> u32 {
    let opens: Vec<u8> = (0..10).flat_map(|count| connect_headers(2 * count + 1, "/", "13")).collect();
    assert!(arrives(stream, &opens).await);
    let resets: Vec<u8> = (0..10).flat_map(|count| rst_stream(2 * count + 1)).collect();
    assert!(arrives(stream, &resets).await);
    assert!(arrives(stream, &connect_headers(21, "/", "13")).await);
    21
}

#[tokio::test]
async fn too_many_headers_are_refused_by_name() {
    let (sender, mut errors) = mpsc::unbounded_channel();
    let acceptor = Acceptor::new().limits(Limits::default().max_headers(1));
    let server = Server::new().acceptor(acceptor).http2().on_error(move |error| {
        // The test may be over.
        let _ = sender.send(error.to_string());
    });
    let address = start(server, echo).await;
    let mut requests = raw_client(address).await;
    let mut request = request("/");
    request.headers_mut().append("x-one", "1".parse().unwrap());
    request.headers_mut().append("x-two", "2".parse().unwrap());
    let (response, _send) = requests.send_request(request, false).unwrap();
    assert_eq!(soon(response).await.unwrap().status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let error = soon(errors.recv()).await.unwrap();
    assert!(error.contains("over the limit of 1 headers (Limits::max_headers)"), "{error}");
}

/// A client that breaks HTTP/2 after it has begun to use the connection is no port scanner.
#[tokio::test]
async fn a_violation_of_http2_is_reported() {
    let (sender, mut errors) = mpsc::unbounded_channel();
    let server = Server::new().http2().on_error(move |error| {
        // The test may be over.
        let _ = sender.send(error);
    });
    let address = start(server, |_: WebSocket| pending::<HandlerResult>()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(arrives(&mut stream, &[hello(&[]), connect_headers(1, "/", "13")].concat()).await);
    // RFC 9113 6.1: data belongs to a stream.
    stream.write_all(&frame(DATA, 0, 0, b"x")).await.unwrap();
    let error: ServerError = soon(errors.recv()).await.unwrap();
    assert_eq!(error.kind(), Some(ErrorKind::Protocol), "{error}");
    assert!(!error.is_noise());
    let expected = format!("{}: a client broke the protocol of HTTP/2: ", stream.local_addr().unwrap());
    assert!(error.to_string().starts_with(&expected), "{error}");
}

/// RFC 9113 8.7: the refusal permits the client to retry.
#[tokio::test(start_paused = true)]
async fn rfc9113_8_7_a_request_that_waits_for_a_slot_is_refused_in_time() {
    let (address, work) = serve_slowly().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert!(arrives(&mut stream, &hello(&[])).await);
    let waiting = use_up_slots(&mut stream).await;
    let reason = async {
        loop {
            match read_frame(&mut stream).await.expect("the connection goes on") {
                (RST_STREAM, _, id, reason) if id == waiting => break reason,
                (_, _, id, _) => assert_ne!(id, waiting),
            }
        }
    };
    assert_eq!(soon(reason).await, [0, 0, 0, 7], "REFUSED_STREAM");
    assert_eq!(work.begun.load(Ordering::Relaxed), 10);
}

// ---- frames that cost much more than their bytes

/// The number of bytes that may be read before other tasks run: 16 KiB, plus the size of one read.
const BEFORE_OTHERS: usize = 32 * 1024;

fn floods() -> [(&'static str, Vec<u8>); 2] {
    // Changes of the initial window, each of which affects all streams.
    let settings = [1, 0].map(|size| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, size])).concat();
    [("settings", settings.repeat(30_000)), ("unknown frames", frame(0x77, 0, 0, &[]).repeat(200_000))]
}

/// Returns how often other tasks run while a flood that has already arrived is read, until the PING after it
/// is answered.
async fn turns_until_answered<S>(stream: S, rest: Vec<u8>) -> usize
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let answered = tokio::spawn(async move {
        let asking = async {
            write.write_all(&[rest, frame(PING, 0, 0, &[3; 8])].concat()).await.unwrap();
        };
        // In large pieces, so that reading takes few turns.
        let reading = async {
            let (mut piece, mut tail) = (vec![0; 1 << 20], Vec::new());
            while !tail.ends_with(&[3; 8]) {
                let count = read.read(&mut piece).await.unwrap();
                assert!(count > 0, "the connection goes on");
                tail.extend_from_slice(&piece[..count]);
                tail.drain(..tail.len().saturating_sub(8));
            }
        };
        soon(async { tokio::join!(asking, reading) }).await;
    });
    let mut turns = 0;
    while !answered.is_finished() {
        tokio::task::yield_now().await;
        turns += 1;
    }
    answered.await.unwrap();
    turns
}

#[tokio::test]
async fn small_frames_let_others_have_their_turn() {
    for (name, flood) in floods() {
        let least = flood.len() / BEFORE_OTHERS;
        // Against a server. Bytes that the operating system accepts have arrived before the server runs
        // again.
        let (address, _stalled) = serve(Limits::default()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(arrives(&mut stream, &hello(&[(SETTINGS_INITIAL_WINDOW_SIZE, 0)])).await);
        for count in 0..10 {
            assert!(arrives(&mut stream, &connect_headers(2 * count + 1, "/", "13")).await);
        }
        let mut taken = 0;
        while taken < flood.len()
            && let Ok(count) = stream.try_write(&flood[taken..])
        {
            taken += count;
        }
        let turns = turns_until_answered(stream, flood[taken..].to_vec()).await;
        assert!(turns > least, "{turns} turns beside a server, {name}");

        // Against a client.
        let (near, mut server) = duplex(4 << 20);
        let connector = Connector::new().http_version(HttpVersion::Http2);
        let connecting = connector.connect_over("ws://localhost/", near);
        let accepting = accept_by_hand(&mut server, &[]);
        let (connected, ()) = soon(async { tokio::join!(connecting, accepting) }).await;
        let _socket = connected.unwrap();
        let turns = turns_until_answered(server, flood).await;
        assert!(turns > least, "{turns} turns beside a client, {name}");
    }
}

// ---- windows that open a byte at a time

/// Connects a hand-written HTTP/2 client that opens no stream windows, and whose TCP connection is full after
/// some unread KiB. Each of its WebSockets receives an endless flow of messages.
async fn narrow_connection(streams: u32) -> (TcpStream, Vec<u32>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Server::new().http2().serve(listener, |socket: WebSocket| async move {
        loop {
            socket.send(vec![7; 60_000]).await?;
        }
    }));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(&hello(&[(SETTINGS_INITIAL_WINDOW_SIZE, 0)])).await.unwrap();
    stream.write_all(&window_update(0, 1 << 30)).await.unwrap();
    let ids: Vec<u32> = (0..streams).map(|count| 2 * count + 1).collect();
    for id in &ids {
        assert!(arrives(&mut stream, &connect_headers(*id, "/", "13")).await);
    }
    (stream, ids)
}

/// Each byte would be a DATA frame in the HTTP/2 connection, which takes hundreds of bytes while TCP accepts
/// none.
#[tokio::test]
async fn windows_that_open_a_byte_at_a_time() {
    let (mut stream, ids) = narrow_connection(99).await;
    let before = support::allocations::held();
    let round: Vec<u8> = ids.iter().flat_map(|id| window_update(*id, 1)).collect();
    for _ in 0..1000 {
        soon(stream.write_all(&round)).await.unwrap();
        tokio::task::yield_now().await;
    }
    support::settle().await;
    let grown = (support::allocations::held() - before) / 99;
    assert!(grown < 16 * 1024, "{grown} bytes for each WebSocket");
}

/// Here the server opens the windows.
#[tokio::test]
async fn a_servers_windows_that_open_a_byte_at_a_time() {
    let (near, mut server) = duplex(4096);
    let connector = Connector::new().http_version(HttpVersion::Http2);
    let connecting = connector.connect_over("ws://localhost/", near);
    let accepting = accept_by_hand(&mut server, &[(SETTINGS_INITIAL_WINDOW_SIZE, 0)]);
    let (connected, ()) = soon(async { tokio::join!(connecting, accepting) }).await;
    let (socket, _) = connected.unwrap();
    while socket.try_send(vec![7; 10_000]).is_ok() {}
    let mut before = 0;
    for count in 0..5000 {
        soon(server.write_all(&window_update(1, 1))).await.unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        if count == 100 {
            support::settle().await;
            before = support::allocations::held();
        }
    }
    support::settle().await;
    let grown = support::allocations::held() - before;
    assert!(grown < 32 * 1024, "{grown} bytes");
}

/// However small the window, the bytes that fit are sent.
#[tokio::test]
async fn a_window_of_one_byte() {
    let (mut stream, ids) = narrow_connection(3).await;
    let mut received = vec![Vec::new(); ids.len()];
    let frame = Frame::binary(vec![7; 60_000]).encode(Role::Server);
    for round in 0..300 {
        // One byte, and many updates at once.
        let updates = if round % 3 == 0 { 50 } else { 1 };
        for id in &ids {
            soon(stream.write_all(&window_update(*id, 1).repeat(updates))).await.unwrap();
        }
        let wanted = received[0].len() + updates;
        while received.iter().any(|bytes: &Vec<u8>| bytes.len() < wanted) {
            let (kind, _, id, payload) = soon(read_frame(&mut stream)).await.unwrap();
            if kind == DATA {
                received[usize::try_from(id / 2).unwrap()].extend(payload);
            }
        }
    }
    for bytes in &received {
        assert_eq!(bytes[..], frame[..bytes.len()]);
    }
}

/// Here the messages are small.
#[tokio::test]
async fn small_messages_that_nobody_reads() {
    let (address, mut stalled) = serve(Limits::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&hello(&[])).await.unwrap();
    assert!(arrives(&mut stream, &connect_headers(1, "/stall", "13")).await);
    let socket = soon(stalled.recv()).await.unwrap();
    let before = support::allocations::held();
    // No other task runs in between, as if TCP accepted nothing.
    while socket.try_send(&[7]).is_ok() {}
    let grown = support::allocations::held() - before;
    assert!(grown < (64 + 64 + 32) * 1024, "{grown} bytes");
    support::settle().await;
}

// ---- servers that never let go

/// A stream that holds a value until it is dropped.
struct Holding(DuplexStream, #[expect(dead_code, reason = "it is only held")] Arc<()>);

impl AsyncRead for Holding {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Holding {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Accepts a WebSocket of the library, as a hand-written server with these settings.
async fn accept_by_hand(stream: &mut DuplexStream, settings: &[(u16, u32)]) {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface).await.unwrap();
    let settings = [settings, &[(SETTINGS_ENABLE_CONNECT_PROTOCOL, 1)]].concat();
    stream.write_all(&hello(&settings)[PREFACE.len()..]).await.unwrap();
    while read_frame(stream).await.unwrap().0 != HEADERS {}
    stream.write_all(&headers(1, &[(":status", "200")])).await.unwrap();
}

/// A client that no longer uses its connection keeps no part of it, although the server reads nothing.
#[tokio::test(start_paused = true)]
async fn a_connection_ends_though_its_server_reads_nothing() {
    let (near, mut server) = duplex(4096);
    let held = Arc::new(());
    let connector = Connector::new().http_version(HttpVersion::Http2);
    let connecting = connector.connect_over("ws://localhost/", Holding(near, Arc::clone(&held)));
    let (connected, ()) = soon(async { tokio::join!(connecting, accept_by_hand(&mut server, &[])) }).await;
    let (socket, _) = connected.unwrap();
    while socket.try_send(vec![7; 10_000]).is_ok() {
        tokio::task::yield_now().await;
    }
    drop(socket);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(Arc::strong_count(&held), 1, "the stream is still there");
    drop(server);
}
