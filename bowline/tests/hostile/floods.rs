//! Floods of frames, and peers that accept nothing.
//!
//! The largest tests are slow without optimisation:
//! `cargo test --release -p bowline --all-features --test hostile floods:: -- --include-ignored`.
//! `cargo test --release -p bowline --all-features --test hostile floods:: -- --include-ignored`.

use std::time::Duration;

use bowline::{Acceptor, Adoption, CloseCode, Connector, ErrorKind, Limits, Role, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep};

use crate::support::allocations::{held, peak_since_now};
use crate::support::frames::{Frame, encode_all};
use crate::support::http::soon;
use crate::support::wire::{Wire, wire};
use crate::support::{self, open, peer_of, poll_times, settle, warm_up};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// Feeds frames in batches of a thousand, each after the previous one was read.
async fn flood(wire: &Wire, role: Role, count: usize, mut frame: impl FnMut(usize) -> Frame) {
    for start in (0..count).step_by(1000) {
        let frames: Vec<_> = (start..start + 1000).map(&mut frame).collect();
        wire.feed(&encode_all(peer_of(role), &frames));
        drop(frames);
        wire.until(|wire| wire.unread() == 0).await;
    }
    settle().await;
}

// ---- control frames

/// RFC 6455 5.5.3: of several unanswered pings, only the newest needs a pong.
async fn ping_flood(count: usize) {
    for role in ROLES {
        for reads in [false, true] {
            warm_up().await;
            // The keepalive must neither end the blocked connection nor send pings.
            let (stream, wire) = wire();
            let mut socket = match role {
                Role::Client => Connector::new().keepalive(None).adopt(stream, Adoption::new()).unwrap(),
                Role::Server => Acceptor::new().keepalive(None).adopt(stream, Adoption::new()).unwrap(),
            };
            // The first pong is stuck in the middle.
            wire.set_room(2);
            settle().await;
            let before = held();
            let peak = peak_since_now();
            let flooding = flood(&wire, role, count, |number| Frame::ping(number.to_string()));
            // In the connection's task, and in `recv`.
            if reads {
                tokio::select! {
                    biased;
                    result = socket.recv() => panic!("nothing came: {result:?}"),
                    () = flooding => {}
                }
            } else {
                flooding.await;
            }
            let (peak, held) = (peak(), held() - before);
            assert!(peak < 400_000, "{role:?}: {peak} bytes were held, the test's own included");
            assert!(held < 2000, "{role:?}: {held} bytes are held at the end");
            wire.set_room(usize::MAX);
            let newest = count - 1;
            settle().await;
            let pongs = wire.take_frames(role);
            assert_eq!(pongs, [Frame::pong("0"), Frame::pong(newest.to_string())], "{role:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_pings_from_a_peer_that_never_reads_is_owed_the_newest_pong() {
    ping_flood(100_000).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes long without optimisation"]
async fn four_hundred_thousand_pings_from_a_peer_that_never_reads() {
    ping_flood(400_000).await;
}

/// The keepalive ends a connection whose peer never reads, however much it sends.
#[tokio::test(start_paused = true)]
async fn a_peer_that_pings_and_never_reads_ends_by_keepalive() {
    for role in ROLES {
        let (socket, wire) = open(role, Limits::default());
        wire.set_room(0);
        let start = Instant::now();
        let sender = socket.sender();
        let flooding = async {
            loop {
                flood(&wire, role, 1000, |_| Frame::ping("flood")).await;
                sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = sender.closed() => {}
            () = flooding => {}
        }
        // The seconds are those of the test's pings.
        assert_eq!(start.elapsed().as_secs(), 20, "{role:?}");
        assert_eq!(socket.send("more").await.unwrap_err().kind(), ErrorKind::Timeout);
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_pongs_and_of_close_frames_is_nothing() {
    for role in ROLES {
        warm_up().await;
        let (mut socket, wire) = open(role, Limits::default());
        let before = held();
        flood(&wire, role, 50_000, |number| Frame::pong(number.to_string())).await;
        // As long as those of our own pings.
        flood(&wire, role, 50_000, |number| Frame::pong(number.to_be_bytes())).await;
        flood(&wire, role, 50_000, |_| Frame::close(1001, "going away")).await;
        let held = held() - before;
        assert!(held < 2000, "{role:?}: {held} bytes are held");
        assert_eq!(socket.recv().await.unwrap(), None);
        assert_eq!(wire.take_frames(role), [Frame::close(1001, "going away")]);
    }
}

// ---- messages

async fn message_flood(count: usize) {
    for role in ROLES {
        warm_up().await;
        let (mut socket, wire) = open(role, Limits::default());
        let flooding = tokio::spawn(async move {
            flood(&wire, role, count, |number| Frame::binary([number.to_be_bytes()[7]])).await;
            wire
        });
        let peak = peak_since_now();
        for number in 0..count {
            let message = socket.recv().await.unwrap().unwrap();
            assert_eq!(message.as_bytes(), [number.to_be_bytes()[7]]);
        }
        let peak = peak();
        assert!(peak < 400_000, "{role:?}: {peak} bytes were held, the test's own included");
        drop(flooding.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_one_byte_messages_all_arrives() {
    message_flood(400_000).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes long without optimisation"]
async fn four_million_one_byte_messages_all_arrive() {
    message_flood(4_000_000).await;
}

/// An application that doesn't receive accepts no more bytes than its transport and one read hold.
#[tokio::test]
async fn a_flood_that_nobody_receives_stops_at_its_sender() {
    for role in ROLES {
        warm_up().await;
        let (ours, mut peer) = duplex(64 * 1024);
        let socket = adopt(role, ours, Limits::default());
        settle().await;
        let batch = encode_all(peer_of(role), &vec![Frame::binary("x"); 1000]);
        let before = held();
        let mut sent = 0;
        while let Some(count) = poll_times(100, peer.write(&batch)).await {
            sent += count.unwrap();
        }
        settle().await;
        let held = held() - before;
        assert!(sent < 400_000, "{role:?}: {sent} bytes were taken");
        assert!(held < 400_000, "{role:?}: {held} bytes are held");
        drop(socket);
    }
}

#[tokio::test]
#[ignore = "takes long without optimisation"]
async fn a_million_empty_continuations_under_the_default_limits_are_refused_early() {
    for role in ROLES {
        let (mut socket, wire) = open(role, Limits::default());
        wire.feed_frame(peer_of(role), &Frame::text("").unfinished());
        let flooding = flood(&wire, role, 1_000_000, |_| Frame::continuation("").unfinished());
        let (result, ()) = tokio::join!(socket.recv(), flooding);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Limit);
        assert_eq!(wire.next_frame(role).await.close_code(), 1008);
    }
}

// ---- peers that don't read

fn adopt(role: Role, stream: DuplexStream, limits: Limits) -> WebSocket {
    match role {
        Role::Client => Connector::new().limits(limits).adopt(stream, Adoption::new()).unwrap(),
        Role::Server => Acceptor::new().limits(limits).adopt(stream, Adoption::new()).unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_senders_to_a_peer_that_stops_reading_wait_and_then_end_by_keepalive() {
    const SENDERS: usize = 100;
    const SIZE: usize = 10_000;
    for role in ROLES {
        warm_up().await;
        let (ours, mut peer) = duplex(16 * 1024);
        let socket = adopt(role, ours, Limits::default());
        settle().await;
        let start = Instant::now();
        let before = held();
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let sender = socket.sender();
                tokio::spawn(async move {
                    let mut sent = 0_usize;
                    loop {
                        match sender.send(&[7; SIZE]).await {
                            Ok(()) => sent += 1,
                            Err(error) => return (sent, error),
                        }
                    }
                })
            })
            .collect();
        // The peer reads for a while, and then never again.
        let mut some = vec![0; 300_000];
        peer.read_exact(&mut some).await.unwrap();
        settle().await;
        let held = held() - before;
        // The futures of the test hold the messages that wait.
        let waiting = isize::try_from(SENDERS * (SIZE + 2000) + 300_000).unwrap();
        assert!(held < waiting + 64 * 1024 + 2 * 16 * 1024, "{role:?}: {held} bytes are held");
        assert!(senders.iter().all(|sender| !sender.is_finished()));
        let mut accepted = 0;
        for sender in senders {
            let (sent, error) = sender.await.unwrap();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{role:?}: {error}");
            accepted += sent;
        }
        assert_eq!(start.elapsed(), Duration::from_secs(20), "{role:?}");
        // The bytes of a read, those in the stream, the write buffer and one message.
        let most = (300_000 + 16 * 1024 + 64 * 1024) / SIZE + 1;
        assert!(accepted <= most, "{role:?}: {accepted} messages were accepted");
        assert!(accepted >= 300_000 / (SIZE + 14), "{role:?}: {accepted} messages were accepted");
        assert_eq!(socket.close(CloseCode::NORMAL, "").await.unwrap_err().kind(), ErrorKind::Timeout);
    }
}

/// The peer is slow but alive. The connection stays open, memory stays bounded, and a close takes no longer
/// than usual.
#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_one_byte_a_second_costs_bounded_memory() {
    for role in ROLES {
        warm_up().await;
        let (ours, mut peer) = duplex(16);
        let limits = Limits::default().write_buffer(200);
        let socket = adopt(role, ours, limits);
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            while let Ok(byte) = peer.read_u8().await {
                read.push(byte);
                sleep(Duration::from_secs(1)).await;
            }
            read
        });
        let sender = socket.sender();
        let sending = tokio::spawn(async move {
            for number in 0_usize.. {
                if let Err(error) = sender.send(format!("message {number:05}").as_str()).await {
                    return (number, error);
                }
            }
            unreachable!("it ends before")
        });
        // The peer sends nothing of its own, so only its pongs keep the keepalive from ending the connection.
        let start = Instant::now();
        settle().await;
        let before = held();
        sleep(Duration::from_secs(35)).await;
        let held = held() - before;
        assert!(held < 2000, "{role:?}: {held} bytes more are held");
        assert!(!sending.is_finished() && !socket.sender().is_closed());
        let closing = Instant::now();
        let error = socket.close(CloseCode::NORMAL, "").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{role:?}: {error}");
        assert_eq!(closing.elapsed(), Duration::from_secs(5), "{role:?}");
        assert_eq!(start.elapsed(), Duration::from_secs(40));
        let (number, error) = sending.await.unwrap();
        assert_eq!(error.kind(), ErrorKind::Closed, "{role:?}: {error}");
        assert!(number < 60, "{role:?}: {number} messages were accepted");
        let read = reading.await.unwrap();
        assert!((40..80).contains(&read.len()), "{role:?}: {} bytes were read", read.len());
    }
}

/// The slowest live reader still receives every byte correctly.
#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_one_byte_a_second_gets_everything() {
    for role in ROLES {
        let (ours, mut peer) = duplex(16);
        let socket = adopt(role, ours, Limits::default().write_buffer(50));
        let start = Instant::now();
        let sending = tokio::spawn(async move {
            for number in 0..50 {
                socket.send(format!("message {number}").as_str()).await.unwrap();
            }
            socket.flush().await.unwrap();
            socket
        });
        let mut read = Vec::new();
        let mut frames = Vec::new();
        while frames.len() < 50 {
            read.push(peer.read_u8().await.unwrap());
            sleep(Duration::from_secs(1)).await;
            // Pings of the keepalive lie in between, and are answered.
            for frame in support::frames::take_frames(role, &mut read) {
                if frame.opcode == bowline_proto::Opcode::Ping {
                    peer.write_all(&Frame::pong(&frame.payload).encode(peer_of(role))).await.unwrap();
                } else {
                    frames.push(frame);
                }
            }
            if read.len() % 10 == 0 {
                // The slow peer is alive, and answers pings.
                peer.write_all(&Frame::pong("").encode(peer_of(role))).await.unwrap();
            }
        }
        let expected: Vec<_> = (0..50).map(|number| Frame::text(format!("message {number}"))).collect();
        assert_eq!(frames, expected);
        assert!(start.elapsed() > Duration::from_secs(500), "{:?}", start.elapsed());
        drop(soon(sending).await.unwrap());
    }
}
