//! Links that are slow, and links that lose everything.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::{Acceptor, ErrorKind, Limits, Server, WebSocket};
use http::Response;
use http::request::Parts;
use quinn::TransportConfig;
use quinn::congestion::NewRenoConfig;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::raw::{RawClient, frame, request, soon};
use crate::support::allocations::peak_since_now;
use crate::support::{Running, serve, serve_echo};

/// The way of packets to the client.
#[derive(Clone, Copy)]
pub(crate) enum Speed {
    AtOnce,
    /// One packet each so long. None is lost.
    OneEach(Duration),
    /// All packets are lost.
    Never,
}

/// A link between a client and a server. Packets to the server pass it at once, or not at all.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    speed: Arc<Mutex<Speed>>,
    /// Set if packets to the server that may contain several bytes are lost, and each second of the others.
    has_gaps: Arc<AtomicBool>,
}

/// The size of a packet in which there may be more than a byte of a stream, in bytes.
const SEVERAL_BYTES: usize = 48;

impl Link {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let (outer, inner) = (bind().await, bind().await);
        inner.connect(server).await.unwrap();
        let address = outer.local_addr().unwrap();
        let speed = Arc::new(Mutex::new(Speed::AtOnce));
        let has_gaps = Arc::new(AtomicBool::new(false));
        tokio::spawn(relay(outer, inner, Arc::clone(&speed), Arc::clone(&has_gaps)));
        Self { address, speed, has_gaps }
    }

    pub(crate) fn becomes(&self, speed: Speed) {
        *self.speed.lock().unwrap() = speed;
    }
}

async fn bind() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

async fn relay(outer: UdpSocket, inner: UdpSocket, speed: Arc<Mutex<Speed>>, has_gaps: Arc<AtomicBool>) {
    let mut is_lost = false;
    let (mut from_client, mut from_server) = (vec![0; 2000], vec![0; 2000]);
    let (mut client, mut queue, mut next) = (None, VecDeque::new(), Instant::now());
    loop {
        tokio::select! {
            received = outer.recv_from(&mut from_client) => {
                let (count, address) = received.unwrap();
                client = Some(address);
                if has_gaps.load(Ordering::Relaxed) {
                    is_lost = !is_lost;
                    if is_lost || count >= SEVERAL_BYTES {
                        continue;
                    }
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

const PAGE_SIZE: usize = 300_000;

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
    link.becomes(Speed::OneEach(Duration::from_millis(35)));
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
    let mut running = serve_echo(Server::new()).await;
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
    link.has_gaps.store(true, Ordering::Relaxed);
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
