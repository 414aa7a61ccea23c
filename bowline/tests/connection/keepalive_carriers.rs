//! Dead peers are detected over real transports, by a short interval. `keepalive.rs` has the exact times.
//! `http3/tests` includes this file, for HTTP/3.

use std::time::Duration;

use bowline::{ErrorKind, Role, WebSocket};
use bowline_proto::Opcode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::frames::{Frame, take_frames};
use crate::support::options::Options;
use crate::support::pairs::{CARRIERS, Carrier, Stream, with_raw_peer};
use crate::support::peer_of;

const INTERVAL: Duration = Duration::from_millis(200);

/// A time far longer than any of these tests takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The end of the peer, by hand.
struct Peer {
    role: Role,
    stream: Box<dyn Stream>,
    received: Vec<u8>,
}

impl Peer {
    async fn send(&mut self, frame: Frame) {
        self.stream.write_all(&frame.encode(self.role)).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Returns the next frame, or `None` at the end of the stream.
    async fn receive(&mut self) -> Option<Frame> {
        next_frame(&mut self.stream, &mut self.received, peer_of(self.role)).await
    }

    /// Expects a ping of the keepalive, whose payload is random.
    async fn receive_ping(&mut self) {
        let frame = self.receive().await.expect("a ping, and not the end");
        assert_eq!((frame.opcode, frame.payload.len()), (Opcode::Ping, 8));
    }
}

/// Returns the next frame of `role`, or `None` at the end of the stream.
async fn next_frame(
    stream: &mut (impl AsyncRead + Unpin),
    received: &mut Vec<u8>,
    role: Role,
) -> Option<Frame> {
    loop {
        if let Some(frame) = take_frames(role, received).pop() {
            return Some(frame);
        }
        // One byte at a time, so that there is one frame at most.
        received.push(stream.read_u8().await.ok()?);
    }
}

/// Runs the test over all carriers, in both roles, at the same time.
async fn for_each<F: Future<Output = ()> + Send + 'static>(test: impl Fn(WebSocket, Peer) -> F) {
    let mut tests = JoinSet::new();
    for (role, carrier) in CARRIERS.iter().flat_map(|it| [(Role::Client, *it), (Role::Server, *it)]) {
        let (socket, peer) = opened(role, carrier).await;
        let bounded = timeout(PATIENCE, test(socket, peer));
        tests.spawn(async move {
            bounded.await.unwrap_or_else(|_| panic!("{role:?} over {carrier:?} hangs"));
        });
    }
    while let Some(result) = tests.join_next().await {
        result.unwrap();
    }
}

async fn opened(role: Role, carrier: Carrier) -> (WebSocket, Peer) {
    let (socket, stream) = with_raw_peer(role, carrier, Options::keepalive(INTERVAL)).await;
    (socket, Peer { role: peer_of(role), stream, received: Vec::new() })
}

#[tokio::test]
async fn a_dead_peer_ends_recv_and_the_transport() {
    for_each(|mut socket: WebSocket, mut peer: Peer| async move {
        let start = Instant::now();
        let error = socket.recv().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        // Silence, of which a part may have passed before, and one interval after the ping.
        assert!(start.elapsed() >= INTERVAL, "{:?}", start.elapsed());
        assert_eq!(socket.send("more").await.unwrap_err().kind(), ErrorKind::Timeout);
        drop(socket);
        peer.receive_ping().await;
        assert_eq!(peer.receive().await, None, "no Close frame that nobody would read");
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_dies_in_the_middle_of_a_message_ends_recv() {
    for_each(|mut socket: WebSocket, mut peer: Peer| async move {
        let frame = Frame::binary(vec![7; 100]).encode(peer.role);
        peer.stream.write_all(&frame[..50]).await.unwrap();
        peer.stream.flush().await.unwrap();
        assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Timeout);
    })
    .await;
}

#[tokio::test]
async fn a_dead_peer_ends_senders_though_nobody_reads() {
    for_each(|socket: WebSocket, peer: Peer| async move {
        let _open = peer;
        socket.sender().closed().await;
        assert_eq!(socket.send("more").await.unwrap_err().kind(), ErrorKind::Timeout);
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_answers_pings_lives_though_nobody_reads() {
    for_each(|socket: WebSocket, mut peer: Peer| async move {
        for _ in 0..6 {
            peer.receive_ping().await;
            assert!(!socket.sender().is_closed());
            peer.send(Frame::pong("")).await;
        }
    })
    .await;
}

#[tokio::test]
async fn silence_proves_nothing_while_an_unread_message_stops_us() {
    for_each(|mut socket: WebSocket, mut peer: Peer| async move {
        peer.send(Frame::text("unread")).await;
        // Nobody answers them.
        for _ in 0..4 {
            peer.receive_ping().await;
        }
        assert!(!socket.sender().is_closed());
        assert_eq!(socket.recv().await.unwrap(), Some("unread".into()));
        // Now it starts afresh.
        let start = Instant::now();
        assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Timeout);
        assert!(start.elapsed() >= INTERVAL, "{:?}", start.elapsed());
    })
    .await;
}

/// The peer sends all the time, but reads nothing.
#[tokio::test]
async fn a_transport_that_takes_nothing_is_dead_though_bytes_arrive() {
    for_each(|socket: WebSocket, peer: Peer| async move {
        let pong = Frame::pong("").encode(peer.role);
        // Both halves stay open.
        let (_reading, mut writing) = tokio::io::split(peer.stream);
        let pongs = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL / 4);
            loop {
                ticks.tick().await;
                if writing.write_all(&pong).await.is_err() || writing.flush().await.is_err() {
                    return;
                }
            }
        });
        let error = loop {
            if let Err(error) = socket.send(vec![7; 100_000]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains("accepted no byte"), "{error}");
        pongs.abort();
    })
    .await;
}

/// Servers and balancers close connections on which the client says nothing.
#[tokio::test]
async fn a_busy_feed_hears_from_us_though_we_have_nothing_to_say() {
    for_each(|mut socket: WebSocket, peer: Peer| async move {
        let news = Frame::text("news").encode(peer.role);
        let (mut reading, mut writing) = tokio::io::split(peer.stream);
        let feeding = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL / 8);
            loop {
                ticks.tick().await;
                if writing.write_all(&news).await.is_err() || writing.flush().await.is_err() {
                    return;
                }
            }
        });
        let role = peer_of(peer.role);
        let hearing = tokio::spawn(async move {
            let mut received = Vec::new();
            for _ in 0..3 {
                let frame = next_frame(&mut reading, &mut received, role).await;
                assert_eq!(frame.map(|frame| frame.opcode), Some(Opcode::Ping));
            }
            reading
        });
        // Nobody answers the pings, and nobody need do so.
        while !hearing.is_finished() {
            assert_eq!(socket.recv().await.unwrap(), Some("news".into()));
        }
        feeding.abort();
        hearing.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_timeout_around_recv_does_not_end_the_connection() {
    for_each(|mut socket: WebSocket, mut peer: Peer| async move {
        for _ in 0..20 {
            assert!(timeout(Duration::from_millis(1), socket.recv()).await.is_err());
        }
        peer.send(Frame::text("late")).await;
        assert_eq!(socket.recv().await.unwrap(), Some("late".into()));
    })
    .await;
}
