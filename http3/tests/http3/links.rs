//! Links that are slow, and links that lose everything.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bowline::{Acceptor, ErrorKind, Limits, Server, WebSocket};
use bowline_http3::Http3Connection;
use http::Response;
use http::request::Parts;
use quinn::congestion::NewRenoConfig;
use quinn::{TransportConfig, VarInt};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::raw::{ACCEPTED, RawClient, RawServer, SERVER_SETTINGS, frame, request, soon};
use crate::support::allocations::{held, peak_since_now};
use crate::support::{Running, serve, serve_echo};
use crate::tunnel::connect;

/// The way of packets to the client.
#[derive(Clone, Copy)]
pub(crate) enum Speed {
    AtOnce,
    /// One packet each so long. None is lost.
    OneEach(Duration),
    /// All packets are lost.
    Never,
}

/// The packets to the server that are lost.
#[derive(Clone, Copy, PartialEq)]
enum Losses {
    None,
    /// Packets that may contain several bytes, and each second of the others.
    Gaps,
    All,
}

/// A link between a client and a server. Packets to the server pass it at once, or not at all.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    speed: Arc<Mutex<Speed>>,
    losses: Arc<Mutex<Losses>>,
}

/// The size of a packet in which there may be more than a byte of a stream, in bytes.
const SEVERAL_BYTES: usize = 48;

impl Link {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let (outer, inner) = (bind().await, bind().await);
        inner.connect(server).await.unwrap();
        let address = outer.local_addr().unwrap();
        let speed = Arc::new(Mutex::new(Speed::AtOnce));
        let losses = Arc::new(Mutex::new(Losses::None));
        tokio::spawn(relay(outer, inner, Arc::clone(&speed), Arc::clone(&losses)));
        Self { address, speed, losses }
    }

    pub(crate) fn becomes(&self, speed: Speed) {
        *self.speed.lock().unwrap() = speed;
    }

    fn loses(&self, losses: Losses) {
        *self.losses.lock().unwrap() = losses;
    }
}

async fn bind() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

async fn relay(outer: UdpSocket, inner: UdpSocket, speed: Arc<Mutex<Speed>>, losses: Arc<Mutex<Losses>>) {
    let mut is_lost = false;
    let (mut from_client, mut from_server) = (vec![0; 2000], vec![0; 2000]);
    let (mut client, mut queue, mut next) = (None, VecDeque::new(), Instant::now());
    loop {
        tokio::select! {
            received = outer.recv_from(&mut from_client) => {
                let (count, address) = received.unwrap();
                client = Some(address);
                let losses = *losses.lock().unwrap();
                is_lost = !is_lost;
                if losses == Losses::All || losses == Losses::Gaps && (is_lost || count >= SEVERAL_BYTES) {
                    continue;
                }
                // A server that has gone refuses packets.
                let _ = inner.send(&from_client[..count]).await;
            }
            Ok(count) = inner.recv(&mut from_server) => {
                let packet = &from_server[..count];
                let speed = *speed.lock().unwrap();
                match speed {
                    Speed::AtOnce => drop(outer.send_to(packet, client.unwrap()).await),
                    Speed::OneEach(each) => {
                        next = next.max(Instant::now());
                        queue.push_back((next, packet.to_vec()));
                        next += each;
                    }
                    Speed::Never => {}
                }
            }
            () = sleep_until(queue.front().map_or(next, |(time, _)| *time)), if !queue.is_empty() => {
                let (_, packet) = queue.pop_front().unwrap();
                let _ = outer.send_to(&packet, client.unwrap()).await;
            }
        }
    }
}

/// The last of so many bytes leave later than the server ends a connection without use.
const PAGE_SIZE: usize = 500_000;

/// Serves a page, with times that are shorter than the page takes on a slow link.
async fn serve_page(server: Server) -> Running {
    let limits =
        Limits::default().handshake_timeout(Duration::from_secs(2)).close_timeout(Duration::from_secs(1));
    let page = |_: Parts| async { Response::new(vec![b'x'; PAGE_SIZE]) };
    serve_echo(server.acceptor(Acceptor::new().limits(limits)).fallback(page)).await
}

/// Returns the HEADERS frame of a GET.
fn get() -> Vec<u8> {
    // :method GET, :scheme https, :path /, :authority a.
    frame(0x01, &[0x00, 0x00, 0xd1, 0xd7, 0xc1, 0x50, 0x01, b'a'])
}

#[tokio::test]
async fn a_page_arrives_whole_however_slow_the_link_is() {
    let mut running = serve_page(Server::new()).await;
    let link = Link::to(running.address).await;
    running.address = link.address;
    let client = RawClient::connect(&running).await;
    link.becomes(Speed::OneEach(Duration::from_millis(30)));
    let begin = Instant::now();
    let (mut send, mut receive) = client.request(&get()).await;
    send.finish().unwrap();
    let page = soon(receive.read_to_end(2 * PAGE_SIZE)).await.unwrap();
    assert!(page.len() > PAGE_SIZE);
    // Otherwise, the test would show nothing.
    assert!(begin.elapsed() > Duration::from_secs(6), "{:?}", begin.elapsed());
    // A client without further requests is not kept.
    assert_eq!(client.code().await, 0x100);
}

/// Such a connection is accepted to be answered, and a slow client must not keep it.
#[tokio::test]
async fn a_connection_over_the_limit_is_not_kept_for_a_slow_link() {
    let mut running = serve_page(Server::new().connections(1)).await;
    let first = running.connect().await;
    let _socket = soon(first.connect("/")).await.unwrap();
    let link = Link::to(running.address).await;
    running.address = link.address;
    let client = RawClient::connect(&running).await;
    link.becomes(Speed::OneEach(Duration::from_millis(50)));
    let (mut send, mut receive) = client.request(&get()).await;
    send.finish().unwrap();
    assert!(soon(receive.read_to_end(2 * PAGE_SIZE)).await.is_err());
}

#[tokio::test]
async fn a_page_is_not_kept_for_a_client_that_acknowledges_nothing() {
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async { stopped.await.unwrap_or(()) };
    let mut running = serve_page(Server::new().shutdown(signal, Duration::from_secs(100))).await;
    let link = Link::to(running.address).await;
    running.address = link.address;
    let client = RawClient::connect(&running).await;
    let (_send, mut receive) = client.request(&get()).await;
    soon(receive.read_exact(&mut [0; 100])).await.unwrap();
    link.becomes(Speed::Never);
    stop.send(()).unwrap();
    soon(running.task).await.unwrap().unwrap();
}

/// Its packets arrive, so QUIC considers it alive.
#[tokio::test]
async fn a_websocket_ends_whose_client_acknowledges_nothing() {
    let (reports, mut reported) = mpsc::unbounded_channel();
    let limits =
        Limits::default().handshake_timeout(Duration::from_secs(2)).close_timeout(Duration::from_secs(1));
    let acceptor = Acceptor::new().limits(limits).keepalive(Duration::from_secs(1));
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async { stopped.await.unwrap_or(()) };
    let server = Server::new().acceptor(acceptor).shutdown(signal, Duration::from_secs(100));
    let mut running = serve(server, move |socket: WebSocket| {
        let reports = reports.clone();
        async move {
            let mut sent = 0;
            let error = loop {
                match socket.send(vec![0; 10_000]).await {
                    Ok(()) => sent += 10_000,
                    Err(error) => break error,
                }
            };
            let _ = reports.send((sent, error));
            Ok(())
        }
    })
    .await;
    let link = Link::to(running.address).await;
    running.address = link.address;
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_millis(100)));
    // The windows of this client bound nothing.
    transport.stream_receive_window(VarInt::MAX);
    let client = RawClient::connect_with(&running, transport).await;
    let (_send, mut receive) = client.request(&request()).await;
    soon(receive.read_exact(&mut [0; 5])).await.unwrap();
    let peak = peak_since_now();
    link.becomes(Speed::Never);
    let (sent, error) = soon(reported.recv()).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let peak = peak();
    assert!(sent < 3_000_000 && peak < 4_000_000, "{sent} bytes were sent, {peak} bytes taken");
    stop.send(()).unwrap();
    soon(running.task).await.unwrap().unwrap();
}

/// The server can read none of these bytes, and would have to keep each of them. QUIC ends the connection.
#[tokio::test]
async fn gaps_between_single_bytes_take_bounded_memory() {
    // The connection without a use is there as long as the test takes.
    let limits = Limits::default().handshake_timeout(Duration::from_secs(10_000));
    let mut running = serve_echo(Server::new().acceptor(Acceptor::new().limits(limits))).await;
    let direct = running.connect().await;
    let link = Link::to(running.address).await;
    running.address = link.address;
    let (mut transport, mut window) = (TransportConfig::default(), NewRenoConfig::default());
    window.initial_window(1 << 30);
    transport
        .congestion_controller_factory(Arc::new(window))
        // A packet that is lost is not sent again.
        .packet_threshold(u32::MAX)
        .time_threshold(1e6)
        .mtu_discovery_config(None)
        .enable_segmentation_offload(false);
    let client = RawClient::connect_with(&running, transport).await;
    let (mut send, mut receive) = client.request(&request()).await;
    soon(receive.read_chunk(100, true)).await.unwrap();
    // A DATA frame of 64 KiB with the header of a message.
    let start =
        [&[0x00, 0x80, 0x01, 0x00, 0x00, 0x82, 0xff][..], &60_000_u64.to_be_bytes(), &[0; 4]].concat();
    send.write_all(&start).await.unwrap();
    let peak = peak_since_now();
    link.loses(Losses::Gaps);
    let mut pieces = 0;
    while pieces < 20_000 && send.write_all(&[0]).await.is_ok() {
        pieces += 1;
        // The packet leaves the client and the link.
        for _ in 0..3 {
            yield_now().await;
        }
    }
    let end = client.quic.close_reason().expect("the gaps are too many");
    assert!(end.to_string().contains("too many gaps"), "{end}");
    // The packets that the client has not seen acknowledged are among these.
    let peak = peak();
    assert!(peak < 4_000_000, "{peak} bytes taken by {pieces} bytes");
    // Others are served.
    let (mut socket, _) = soon(direct.connect("/")).await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap().unwrap().as_text(), Some("hello"));
}

/// QUIC keeps each part of a stream that was written on its own until the peer has acknowledged it.
#[tokio::test]
async fn a_window_that_opens_byte_by_byte_takes_bounded_memory() {
    const WINDOW: u32 = 4096;
    const GRANTS: u32 = 3000;
    let mut transport = TransportConfig::default();
    transport.receive_window(WINDOW.into()).mtu_discovery_config(None).congestion_controller_factory({
        let mut window = NewRenoConfig::default();
        window.initial_window(1 << 30);
        Arc::new(window)
    });
    let server = RawServer::with_transport(transport);
    let link = Link::to(server.address()).await;
    let url = format!("wss://{}/", link.address);
    // After losses, a request takes long.
    let limits = Limits::default().handshake_timeout(Duration::from_secs(10_000));
    let (connector, accepting) = (server.connector().limits(limits), server.accept(&[SERVER_SETTINGS]));
    let connecting = Http3Connection::open(&connector, &url);
    let ((quic, _kept), connection) = soon(async { tokio::join!(accepting, connecting) }).await;
    let connection = connection.unwrap();
    let open = || async {
        let answering = async {
            let (mut send, receive) = quic.accept_bi().await.unwrap();
            send.write_all(ACCEPTED).await.unwrap();
            (send, receive)
        };
        let opening = connection.tunnel(connect(&url, "something-else"));
        let (streams, response) = soon(async { tokio::join!(answering, opening) }).await;
        (response.unwrap().into_body(), streams)
    };
    let (mut stream, _streams) = open().await;
    let block = [0; 16 * 1024];
    assert!(soon(stream.write(&block)).await.unwrap() < WINDOW as usize);

    // From here on, the server acknowledges nothing.
    link.loses(Losses::All);
    let mut written = 0;
    for grant in 1..=GRANTS {
        quic.set_receive_window((WINDOW + grant).into());
        // The packet leaves the server and the link.
        for _ in 0..5 {
            yield_now().await;
        }
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(count) = Pin::new(&mut stream).poll_write(&mut cx, &block) {
            written += count.unwrap();
        }
    }
    // Without these, the test would show nothing.
    assert!(written > 900, "{written} bytes written");
    let before = held();
    drop(stream);
    let kept = before - held();
    assert!(kept < 100_000, "{kept} bytes kept by {written} bytes");
    // The connection goes on.
    link.loses(Losses::None);
    let (mut other, (_send, mut receive)) = open().await;
    other.write_all(b"hello").await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"hello") {
        let chunk = soon(receive.read_chunk(1000, true)).await.unwrap().unwrap();
        received.extend_from_slice(&chunk.bytes);
    }

    // A peer whose windows are large again has the whole send window again.
    quic.set_receive_window((2_u32 << 20).into());
    let arrived = Arc::new(AtomicUsize::new(0));
    let reading = tokio::spawn({
        let arrived = Arc::clone(&arrived);
        async move {
            while let Ok(Some(chunk)) = receive.read_chunk(1 << 20, true).await {
                arrived.fetch_add(chunk.bytes.len(), Ordering::Relaxed);
            }
        }
    });
    let mut written = 0;
    while written < 16 << 20 {
        written += soon(other.write(&block)).await.unwrap();
    }
    link.loses(Losses::All);
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(count) = Pin::new(&mut other).poll_write(&mut cx, &block) {
        written += count.unwrap();
    }
    let arrived = arrived.load(Ordering::Relaxed);
    assert!(written > arrived + 500_000, "{arrived} of {written} bytes arrived");
    reading.abort();
}
