//! Tasks that share a connection, in every interleaving of their threads with up to two preemptions.
//!
//! The library's own code runs on loom's locks and atomics, and each of its tasks is a thread. A lost wake-up
//! leaves a thread waiting forever, which loom reports. Time stands still, so that no timer hides a lost
//! wake-up.
//!
//! ```sh
//! RUSTFLAGS="--cfg bowline_loom" cargo test --release -p bowline-interleavings
//! ```
#![cfg(bowline_loom)]
#![allow(dead_code, unreachable_pub, reason = "parts of the library and of other tests")]

mod alone;
#[path = "../../../bowline/tests/support/frames.rs"]
mod frames;
mod line;
#[path = "../../../bowline/src/transport/polling.rs"]
mod polling;
#[path = "../../../bowline/src/sync.rs"]
mod sync;
mod transport {
    pub(crate) use crate::polling;
}
#[path = "../../../bowline/src/connection/waker.rs"]
mod waker;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bowline::{Acceptor, Adoption, CloseCode, Connector, ErrorKind, Limits, Role, WebSocket};
use bowline_proto::Opcode;
use loom::thread;

use frames::Frame;
use line::{Peer, line};
use sync::block_on;

/// A capacity that no model fills.
const ENOUGH: usize = 1000;

fn explore(model: fn(Role)) {
    // The runtime provides the clock, which stands still.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap();
    let _inside = runtime.enter();
    for role in [Role::Client, Role::Server] {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound.get_or_insert(2);
        builder.max_branches = 10_000;
        builder.check(move || model(role));
    }
}

/// Creates a connection with a write buffer of one byte, over a stream that accepts `room` bytes.
fn open(role: Role, room: usize) -> (WebSocket, Peer) {
    open_with(role, room, 1)
}

/// Does the same with a write buffer of `write_buffer` bytes.
fn open_with(role: Role, room: usize, write_buffer: usize) -> (WebSocket, Peer) {
    let (stream, peer) = line(room);
    let limits = Limits::default().write_buffer(write_buffer);
    let socket = match role {
        Role::Server => Acceptor::new().limits(limits).adopt(stream, Adoption::new()).unwrap(),
        Role::Client => Connector::new().limits(limits).adopt(stream, Adoption::new()).unwrap(),
    };
    (socket, peer)
}

fn from_peer(role: Role, frame: &Frame) -> Vec<u8> {
    frame.encode(match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    })
}

/// Polls once, with a waker that does nothing.
fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn texts(frames: &[Frame]) -> Vec<&[u8]> {
    let texts = frames.iter().filter(|frame| frame.opcode == Opcode::Text);
    texts.map(|frame| frame.payload.as_slice()).collect()
}

#[test]
fn a_reader_hears_of_a_message_and_of_the_end() {
    explore(|role| {
        let (mut socket, peer) = open(role, ENOUGH);
        let reader = thread::spawn(move || {
            assert_eq!(block_on(socket.recv()).unwrap(), Some("a".into()));
            assert_eq!(block_on(socket.recv()).unwrap_err().kind(), ErrorKind::Disconnected);
        });
        peer.feed(&from_peer(role, &Frame::text("a")));
        peer.end();
        reader.join().unwrap();
    });
}

#[test]
fn a_recv_that_is_dropped_leaves_no_one_behind() {
    explore(|role| {
        let (mut socket, peer) = open(role, ENOUGH);
        let reader = thread::spawn(move || {
            let received = match poll_once(socket.recv()) {
                Poll::Ready(received) => received,
                Poll::Pending => block_on(socket.recv()),
            };
            assert_eq!(received.unwrap(), Some("a".into()));
        });
        peer.feed(&from_peer(role, &Frame::text("a")));
        reader.join().unwrap();
        peer.end();
    });
}

#[test]
fn senders_get_their_turns() {
    explore(|role| {
        let (socket, peer) = open(role, 0);
        let senders = ["a", "b"].map(|text| {
            let sender = socket.sender();
            thread::spawn(move || block_on(sender.send(text)).unwrap())
        });
        peer.make_room(1);
        peer.make_room(ENOUGH);
        for sender in senders {
            sender.join().unwrap();
        }
        let frames = peer.wait_until(role, |frames| frames.len() == 2);
        assert_eq!(frames.len(), 2, "what was accepted is written");
        drop(socket);
        peer.end();
    });
}

#[test]
fn a_send_that_is_dropped_hands_its_turn_on() {
    explore(|role| {
        let (socket, peer) = open(role, 0);
        socket.try_send("first").unwrap();
        let (one, two) = (socket.sender(), socket.sender());
        let one = thread::spawn(move || drop(poll_once(one.send("dropped"))));
        let two = thread::spawn(move || block_on(two.send("last")).unwrap());
        peer.make_room(ENOUGH);
        one.join().unwrap();
        two.join().unwrap();
        let frames = peer.wait_until(role, |frames| texts(frames).contains(&b"last".as_slice()));
        assert_eq!(texts(&frames).first(), Some(&b"first".as_slice()));
        assert!(texts(&frames).contains(&b"last".as_slice()), "what was accepted is written");
        drop(socket);
        peer.end();
    });
}

#[test]
fn a_close_beside_a_send_and_a_drop_ends_all() {
    explore(|role| {
        let (socket, peer) = open(role, ENOUGH);
        let (one, two) = (socket.sender(), socket.sender());
        let send = thread::spawn(move || block_on(one.send("a")).is_ok());
        let close = thread::spawn(move || block_on(two.close(CloseCode::NORMAL, "")).is_ok());
        drop(socket);
        let is_close = |frame: &Frame| frame.opcode == Opcode::Close;
        let frames = peer.wait_until(role, |frames| frames.iter().any(is_close));
        if frames.iter().any(is_close) {
            peer.feed(&from_peer(role, &Frame::close(1000, "")));
        }
        peer.end();
        let (sent, closed) = (send.join().unwrap(), close.join().unwrap());
        let frames = peer.frames(role);
        assert_eq!(
            texts(&frames).len(),
            usize::from(sent),
            "{frames:?}: what was accepted is written, and nothing else"
        );
        let end = frames.iter().position(is_close);
        assert!(end.is_none_or(|end| end + 1 == frames.len()), "nothing is behind the Close frame");
        assert!(end.is_none() || closed, "who closes gets the peer's Close frame");
    });
}

#[test]
fn a_flush_ends_once_the_transport_takes_bytes() {
    explore(|role| {
        let (socket, peer) = open(role, 0);
        socket.try_send("a").unwrap();
        let sender = socket.sender();
        let flush = thread::spawn(move || block_on(sender.flush()).unwrap());
        peer.make_room(1);
        peer.make_room(ENOUGH);
        flush.join().unwrap();
        assert_eq!(texts(&peer.frames(role)), [b"a"]);
        drop(socket);
        peer.end();
    });
}

#[test]
fn a_ping_ends_with_its_pong() {
    explore(|role| {
        let (socket, peer) = open(role, ENOUGH);
        let sender = socket.sender();
        let ping = thread::spawn(move || block_on(sender.ping()).map(drop).unwrap());
        let frames = peer.wait_until(role, |frames| !frames.is_empty());
        assert_eq!(frames[0].opcode, Opcode::Ping);
        peer.feed(&from_peer(role, &Frame::pong(&frames[0].payload)));
        ping.join().unwrap();
        drop(socket);
        peer.end();
    });
}

#[test]
fn a_send_behind_a_cork_is_written_though_nobody_reads_on() {
    explore(|role| {
        let (mut socket, peer) = open(role, ENOUGH);
        peer.feed(&[from_peer(role, &Frame::text("1")), from_peer(role, &Frame::text("2"))].concat());
        let sender = socket.sender();
        let reader = thread::spawn(move || {
            assert_eq!(block_on(socket.recv()).unwrap(), Some("1".into()));
            socket
        });
        let send = thread::spawn(move || block_on(sender.send("a")).unwrap());
        assert_eq!(texts(&peer.wait_until(role, |frames| !frames.is_empty())), [b"a"]);
        send.join().unwrap();
        drop(reader.join().unwrap());
        peer.end();
    });
}

/// The second reply needs no look at the connection, and fills the write buffer.
#[test]
fn replies_to_a_batch_leave_room_for_a_sender_and_are_written_though_nobody_reads_on() {
    explore(|role| {
        let (mut socket, peer) = open_with(role, ENOUGH, if role == Role::Client { 2 } else { 1 });
        peer.feed(&["1", "2", "3"].map(|text| from_peer(role, &Frame::text(text))).concat());
        let sender = socket.sender();
        let send = thread::spawn(move || sender.try_send("x").is_ok());
        for (received, reply) in [("1", "a"), ("2", "b")] {
            assert_eq!(block_on(socket.recv()).unwrap(), Some(received.into()));
            block_on(socket.send(reply)).unwrap();
        }
        assert!(send.join().unwrap(), "the transport takes everything, so there is room");
        let frames = peer.wait_until(role, |frames| frames.len() == 3);
        let texts = texts(&frames);
        assert_eq!(texts.len(), 3, "what was accepted is written");
        let replies: Vec<_> = texts.into_iter().filter(|text| text != b"x").collect();
        assert_eq!(replies, [b"a", b"b"]);
        drop(socket);
        peer.end();
    });
}

#[test]
fn pings_are_answered_in_their_order_and_before_the_end_whoever_reads_them() {
    explore(|role| {
        let (mut socket, peer) = open(role, ENOUGH);
        let pings = ["1", "2"].map(|payload| from_peer(role, &Frame::ping(payload)));
        peer.feed(&pings.concat());
        peer.end();
        let reader = thread::spawn(move || {
            assert_eq!(block_on(socket.recv()).unwrap_err().kind(), ErrorKind::Disconnected);
        });
        let frames = peer.wait_until(role, |frames| frames.len() == 2);
        assert_eq!(frames, ["1", "2"].map(Frame::pong));
        reader.join().unwrap();
    });
}
