//! Dead peers are detected, at the right time: time is paused. `keepalive_carriers.rs` has tests over all
//! transports.

use std::time::Duration;

use bowline::{Acceptor, Adoption, CloseCode, Connector, ErrorKind, Limits, Role, WebSocket};
use bowline_proto::Opcode;
use tokio::time::{Instant, sleep};

use crate::support::frames::Frame;
use crate::support::pairs::CARRIERS_IN_MEMORY;
use crate::support::wire::{Wire, wire};
use crate::support::{self, open, open_over, peer_of, settle};

const INTERVAL: Duration = Duration::from_secs(20);

fn opened() -> (WebSocket, Wire) {
    open(Role::Server, Limits::default())
}

/// Connections over all transports in memory, in both roles.
async fn for_each(test: impl AsyncFn(Role, WebSocket, Wire)) {
    for &carrier in CARRIERS_IN_MEMORY {
        for role in [Role::Client, Role::Server] {
            let (socket, wire) = open_over(carrier, role, Limits::default()).await;
            test(role, socket, wire).await;
        }
    }
}

/// Returns whether a frame is a ping of the keepalive, whose payload is random.
fn is_ping(frame: &Frame) -> bool {
    frame.opcode == Opcode::Ping && frame.payload.len() == 8
}

#[tokio::test(start_paused = true)]
async fn a_dead_peer_ends_recv_in_the_keepalive_time() {
    for_each(async |role, mut socket, wire| {
        let start = Instant::now();
        let error = socket.recv().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        // Silence for one interval, a ping, and another interval.
        assert_eq!(start.elapsed(), 2 * INTERVAL);
        assert!(wire.take_frames(role).iter().map(is_ping).eq([true]));
        wire.until(|wire| wire.is_dropped() || wire.is_shut_down()).await;
        assert!(wire.take_written().is_empty(), "no Close frame that nobody would read");
        assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(socket.send("more").await.unwrap_err().kind(), ErrorKind::Timeout);
    })
    .await;
}

/// A part of a message is unread data only as long as nobody waits for the rest.
#[tokio::test(start_paused = true)]
async fn a_peer_that_dies_in_the_middle_of_a_message_ends_recv() {
    for_each(async |role, mut socket, wire| {
        let sender = socket.sender();
        // A ping that waits for its pong has the driver read, too.
        for pings in [false, true] {
            if pings {
                let sender = sender.clone();
                tokio::spawn(async move { sender.ping().await });
            }
            let frame = Frame::binary(vec![7; 100]).encode(peer_of(role));
            wire.feed(&frame[..50]);
            if pings {
                let end = tokio::time::timeout(Duration::from_secs(120), socket.recv()).await;
                assert_eq!(end.expect("the peer is found dead").unwrap_err().kind(), ErrorKind::Timeout);
                return;
            }
            // The rest comes, and all is well.
            let waiting = tokio::time::timeout(Duration::from_secs(10), socket.recv()).await;
            assert!(waiting.is_err());
            wire.feed(&frame[50..]);
            assert!(socket.recv().await.unwrap().is_some());
            // Without a ping.
            let (mut other, wire) = open(role, Limits::default());
            wire.feed(&frame[..50]);
            let end = tokio::time::timeout(Duration::from_secs(120), other.recv()).await;
            assert_eq!(end.expect("the peer is found dead").unwrap_err().kind(), ErrorKind::Timeout);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_peer_ends_senders_though_nobody_reads() {
    let (socket, _wire) = opened();
    let start = Instant::now();
    socket.sender().closed().await;
    assert_eq!(start.elapsed(), 2 * INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_takes_nothing_ends_a_blocked_send() {
    let (socket, wire) = open(Role::Client, Limits::default().write_buffer(10));
    wire.set_room(5);
    let start = Instant::now();
    socket.send("more than five bytes").await.unwrap();
    let error = socket.send("blocked").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(start.elapsed(), INTERVAL);
}

/// The peer sends, but accepts nothing.
#[tokio::test(start_paused = true)]
async fn a_transport_that_takes_nothing_is_dead_though_bytes_arrive() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.set_room(0);
    socket.send("stuck").await.unwrap();
    let start = Instant::now();
    let error = loop {
        tokio::select! {
            result = socket.recv() => break result.unwrap_err(),
            () = sleep(Duration::from_secs(5)) => wire.feed_frame(Role::Client, &Frame::pong("")),
        }
    };
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed(), INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn one_byte_taken_now_and_then_is_life() {
    let (socket, wire) = open(Role::Server, Limits::default().write_buffer(1));
    wire.set_room(0);
    socket.send(&[0; 50]).await.unwrap();
    for _ in 0..20 {
        sleep(Duration::from_secs(15)).await;
        wire.set_room(1);
        wire.feed_frame(Role::Client, &Frame::pong(""));
        settle().await;
    }
    assert!(!socket.sender().is_closed());
    assert_eq!(wire.written_len(), 20);
    let start = Instant::now();
    assert_eq!(socket.send("blocked").await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed(), INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn any_byte_that_arrives_is_life() {
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default());
        // No whole frame: one byte of a ping at a time, in the last second before the deadline.
        let bytes = Frame::ping([0; 100]).encode(peer_of(role));
        for byte in &bytes[..50] {
            sleep(INTERVAL + Duration::from_secs(19)).await;
            wire.feed(&[*byte]);
            settle().await;
        }
        assert!(!socket.sender().is_closed());
        // A peer that sends is pinged at most once per silence.
        assert!(wire.take_frames(role).len() <= 50);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_speaks_often_and_is_answered_is_not_pinged() {
    for_each(async |role, mut socket, wire| {
        for _ in 0..100 {
            sleep(Duration::from_secs(19)).await;
            wire.feed_frame(peer_of(role), &Frame::text("hello"));
            let message = socket.recv().await.unwrap().unwrap();
            socket.send(message).await.unwrap();
            assert_eq!(wire.next_frame(role).await, Frame::text("hello"));
        }
        assert!(wire.take_written().is_empty());
    })
    .await;
}

/// Servers and balancers close connections on which the client says nothing, often after a minute.
#[tokio::test(start_paused = true)]
async fn a_busy_feed_hears_from_us_though_we_have_nothing_to_say() {
    for_each(async |role, mut socket, wire| {
        let mut last = Instant::now();
        for _ in 0..1000 {
            sleep(Duration::from_secs(1)).await;
            wire.feed_frame(peer_of(role), &Frame::text("news"));
            socket.recv().await.unwrap().unwrap();
            settle().await;
            // The peer doesn't answer, and need not, since it sends.
            if wire.take_frames(role).iter().any(is_ping) {
                last = Instant::now();
            }
            assert!(last.elapsed() <= 2 * INTERVAL + Duration::from_secs(1), "{role:?} was silent");
        }
        assert!(!socket.sender().is_closed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_lives_though_nobody_reads() {
    for_each(async |role, socket, wire| {
        for _ in 0..100 {
            let ping = wire.next_frame(role).await;
            assert!(is_ping(&ping));
            wire.feed_frame(peer_of(role), &Frame::pong(""));
        }
        assert!(!socket.sender().is_closed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn silence_proves_nothing_while_an_unread_message_stops_us() {
    for_each(async |role, mut socket, wire| {
        wire.feed_frame(peer_of(role), &Frame::text("unread"));
        sleep(10 * INTERVAL).await;
        assert!(!socket.sender().is_closed());
        // The peer still receives pings, although its answers can't be read.
        let pings = wire.take_frames(role);
        assert!((5..=10).contains(&pings.len()), "{pings:?}");
        assert!(pings.iter().all(is_ping));
        assert_eq!(socket.recv().await.unwrap(), Some("unread".into()));
        // Now it starts afresh.
        let start = Instant::now();
        assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Timeout);
        assert!(start.elapsed() >= 2 * INTERVAL && start.elapsed() <= 3 * INTERVAL, "{:?}", start.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_time_for_an_answer_begins_when_the_ping_is_written() {
    let (mut socket, wire) = opened();
    wire.set_room(1);
    let start = Instant::now();
    let late = async {
        // The ping goes out at 20 s; its second byte is taken 15 s later.
        sleep(INTERVAL + Duration::from_secs(15)).await;
        wire.set_room(100);
    };
    let (error, ()) = tokio::join!(socket.recv(), late);
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed(), 2 * INTERVAL + Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn keepalive_can_be_changed_and_turned_off() {
    let (stream, _wire) = wire();
    let keepalive = Duration::from_secs(3);
    let mut socket = Acceptor::new().keepalive(keepalive).adopt(stream, Adoption::new()).unwrap();
    let start = Instant::now();
    assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed(), 2 * keepalive);

    let (stream, wire) = support::wire::wire();
    let socket = Connector::new().keepalive(None).adopt(stream, Adoption::new()).unwrap();
    sleep(Duration::from_secs(1_000_000)).await;
    assert!(!socket.sender().is_closed());
    assert!(wire.take_written().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_longest_times_mean_never() {
    let (stream, wire) = wire();
    let limits = Limits::default().close_timeout(Duration::MAX);
    let socket =
        Acceptor::new().limits(limits).keepalive(Duration::MAX).adopt(stream, Adoption::new()).unwrap();
    sleep(Duration::from_secs(1_000_000)).await;
    let sender = socket.sender();
    let close = tokio::spawn(async move { sender.close(CloseCode::NORMAL, "").await });
    sleep(Duration::from_secs(1_000_000)).await;
    assert!(!close.is_finished());
    wire.feed_frame(Role::Client, &Frame::close(1000, ""));
    wire.end();
    assert!(close.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_recv_does_not_end_the_connection() {
    for_each(async |role, mut socket, wire| {
        for _ in 0..10 {
            assert!(tokio::time::timeout(Duration::from_secs(1), socket.recv()).await.is_err());
        }
        wire.feed_frame(peer_of(role), &Frame::text("late"));
        assert_eq!(socket.recv().await.unwrap(), Some("late".into()));
    })
    .await;
}
