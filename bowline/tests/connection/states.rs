//! The states of a connection, walked along every path: what can be observed in each of them.
//!
//! Each walk prints one line for each step, in the words of ARCHITECTURE.md.

use std::io;
use std::time::Duration;

use bowline::{CloseCode, ErrorKind, Limits, Role, Sender, WebSocket};
use bowline_proto::Opcode;

use crate::support::frames::Frame;
use crate::support::wire::Wire;
use crate::support::{open, peer_of, settle};

/// A connection under observation.
struct Walk {
    role: Role,
    socket: Option<WebSocket>,
    sender: Sender,
    wire: Wire,
    trace: Vec<String>,
}

impl Walk {
    async fn begin(role: Role) -> Self {
        let (socket, wire) = open(role, Limits::default().close_timeout(Duration::from_secs(5)));
        let mut walk = Self { role, sender: socket.sender(), socket: Some(socket), wire, trace: Vec::new() };
        walk.step("begin").await;
        walk
    }

    /// Notes what `event` has led to.
    async fn step(&mut self, event: &str) {
        settle().await;
        let outbound = if self.sender.is_closed() { "Closed" } else { "Open" };
        let transport = match (self.wire.is_dropped(), self.wire.is_shut_down()) {
            (true, _) => "closed",
            (false, true) => "shut down",
            (false, false) => "open",
        };
        let written: Vec<String> = self.wire.take_frames(self.role).iter().map(name).collect();
        self.trace.push(format!("{event}: {outbound}, transport {transport}{}", written.concat()));
    }

    fn feed(&self, frame: &Frame) {
        self.wire.feed_frame(peer_of(self.role), frame);
    }

    fn socket(&mut self) -> &mut WebSocket {
        self.socket.as_mut().expect("it was not dropped")
    }

    /// Starts the closing handshake and lets it go on by itself.
    fn start_close(&self) {
        let sender = self.sender.clone();
        tokio::spawn(async move { sender.close(CloseCode::NORMAL, "").await });
    }
}

fn name(frame: &Frame) -> String {
    match frame.opcode {
        Opcode::Close => format!(", Close {}", frame.close_code()),
        opcode => format!(", {opcode:?}"),
    }
}

// Open -> Closing -> (ShuttingDown ->) Draining -> finished; Delivery: All -> Collecting -> Arrived.
#[tokio::test(start_paused = true)]
async fn our_close_comes_first() {
    for role in [Role::Client, Role::Server] {
        let mut walk = Walk::begin(role).await;
        walk.feed(&Frame::text("arrived"));
        walk.step("a message").await;
        walk.start_close();
        walk.step("close").await;
        walk.feed(&Frame::text("too late"));
        walk.step("a later message").await;
        walk.feed(&Frame::close(1000, ""));
        walk.step("the peer's Close").await;
        walk.wire.end();
        walk.step("the end of the stream").await;
        // RFC 6455 7.1.1: the server closes the TCP connection first.
        let then = if role == Role::Client { "open" } else { "shut down" };
        assert_eq!(
            walk.trace,
            [
                "begin: Open, transport open".to_owned(),
                "a message: Open, transport open".to_owned(),
                "close: Closed, transport open, Close 1000".to_owned(),
                "a later message: Closed, transport open".to_owned(),
                format!("the peer's Close: Closed, transport {then}"),
                "the end of the stream: Closed, transport closed".to_owned(),
            ]
        );
        assert_eq!(walk.socket().recv().await.unwrap(), Some("arrived".into()));
        assert_eq!(walk.socket().recv().await.unwrap(), None);
    }
}

// Open -> Closing -> Draining or ShuttingDown -> finished; End: by the peer, and not ours.
#[tokio::test(start_paused = true)]
async fn the_peers_close_comes_first() {
    for role in [Role::Client, Role::Server] {
        let mut walk = Walk::begin(role).await;
        walk.feed(&Frame::close(4001, "bye"));
        walk.step("the peer's Close").await;
        walk.wire.end();
        walk.step("the end of the stream").await;
        let then = if role == Role::Client { "open" } else { "shut down" };
        assert_eq!(
            walk.trace[1..],
            [
                format!("the peer's Close: Closed, transport {then}, Close 4001"),
                "the end of the stream: Closed, transport closed".to_owned(),
            ]
        );
        let error = walk.socket().recv().await.unwrap_err();
        assert_eq!(error.close_frame().unwrap().code(), CloseCode(4001));
    }
}

// Every stage of the driver ends with the close timeout.
#[tokio::test(start_paused = true)]
async fn the_close_timeout_ends_every_stage() {
    for role in [Role::Client, Role::Server] {
        for answers in [false, true] {
            let mut walk = Walk::begin(role).await;
            walk.start_close();
            if answers {
                walk.feed(&Frame::close(1000, ""));
            }
            walk.step("close").await;
            tokio::time::sleep(Duration::from_secs(4)).await;
            walk.step("before the timeout").await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            walk.step("after the timeout").await;
            let then = if answers && role == Role::Server { "shut down" } else { "open" };
            assert_eq!(
                walk.trace[1..],
                [
                    format!("close: Closed, transport {then}, Close 1000"),
                    format!("before the timeout: Closed, transport {then}"),
                    "after the timeout: Closed, transport closed".to_owned(),
                ],
                "{role:?}, answers: {answers}"
            );
        }
    }
}

// Open -> Closing: the connection fails, and later bytes are discarded.
#[tokio::test(start_paused = true)]
async fn a_violation_fails_the_connection() {
    for role in [Role::Client, Role::Server] {
        let mut walk = Walk::begin(role).await;
        walk.wire.feed(&Frame::ping("masked the wrong way").encode(role));
        walk.step("a violation").await;
        walk.feed(&Frame::ping("discarded"));
        walk.step("a later ping").await;
        walk.wire.end();
        walk.step("the end of the stream").await;
        assert_eq!(
            walk.trace[1..],
            [
                "a violation: Closed, transport shut down, Close 1002",
                "a later ping: Closed, transport shut down",
                "the end of the stream: Closed, transport closed",
            ]
        );
        assert_eq!(walk.socket().recv().await.unwrap_err().kind(), ErrorKind::Protocol);
    }
}

// Open -> HalfOpen -> Told, if the application may be about to reply; Open -> Told otherwise.
#[tokio::test(start_paused = true)]
async fn the_stream_ends_without_a_close() {
    for role in [Role::Client, Role::Server] {
        for replies in [false, true] {
            let mut walk = Walk::begin(role).await;
            if replies {
                walk.feed(&Frame::text("question"));
                assert_eq!(walk.socket().recv().await.unwrap(), Some("question".into()));
            }
            walk.wire.end();
            tokio::time::sleep(Duration::from_secs(1)).await;
            walk.step("the end of the stream").await;
            if replies {
                walk.socket().send("answer").await.unwrap();
                walk.step("a reply").await;
            }
            assert_eq!(walk.socket().recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
            walk.step("told").await;
            let expected: &[&str] = if replies {
                &[
                    "the end of the stream: Open, transport open",
                    "a reply: Open, transport open, Text",
                    "told: Closed, transport closed",
                ]
            } else {
                &["the end of the stream: Closed, transport closed", "told: Closed, transport closed"]
            };
            assert_eq!(walk.trace[1..], *expected, "{role:?}");
        }
    }
}

// Every state -> finished.
#[tokio::test(start_paused = true)]
async fn a_lost_transport_ends_every_state() {
    for role in [Role::Client, Role::Server] {
        for closing in [false, true] {
            let mut walk = Walk::begin(role).await;
            if closing {
                walk.start_close();
                walk.step("close").await;
            }
            walk.wire.break_off(io::ErrorKind::ConnectionReset);
            walk.step("a reset").await;
            assert_eq!(walk.trace.last().unwrap(), "a reset: Closed, transport closed");
            let end = walk.socket().recv().await;
            // After our Close frame, the application has its end already.
            assert_eq!(end.is_ok(), closing, "{end:?}");
        }
    }
}

// Delivery: All -> Nothing.
#[tokio::test(start_paused = true)]
async fn the_websocket_is_dropped() {
    for role in [Role::Client, Role::Server] {
        let mut walk = Walk::begin(role).await;
        walk.socket().send("accepted").await.unwrap();
        walk.feed(&Frame::text("unread"));
        walk.socket = None;
        walk.step("drop").await;
        walk.wire.end();
        walk.step("the end of the stream").await;
        assert_eq!(
            walk.trace[1..],
            ["drop: Closed, transport shut down, Text", "the end of the stream: Closed, transport closed",]
        );
    }
}
