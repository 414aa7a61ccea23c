//! Code that the tests share. Each test program uses a part of it.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test file uses its part")]

pub mod allocations;
pub mod cable;
pub mod conversation;
pub mod cpu_time;
pub mod frames;
pub mod http;
#[cfg(feature = "http2")]
pub mod http2;
pub mod modes;
pub mod network;
pub mod options;
pub mod pairs;
pub mod polls;
pub mod random;
pub mod slow;
pub mod tls;
pub mod wire;

use bowline::{Acceptor, Adoption, Connector, Limits, Role, WebSocket};

pub use self::polls::{poll_once, poll_times};

use self::pairs::{Carrier, with_raw_peer};
use self::wire::{Wire, wire};

/// Returns a connection over a scripted stream.
pub fn open(role: Role, limits: Limits) -> (WebSocket, Wire) {
    let (stream, wire) = wire();
    let socket = match role {
        Role::Server => Acceptor::new().limits(limits).adopt(stream, Adoption::new()).unwrap(),
        Role::Client => Connector::new().limits(limits).adopt(stream, Adoption::new()).unwrap(),
    };
    (socket, wire)
}

/// Creates a connection over `carrier`, whose other end is a wire.
pub async fn open_over(carrier: Carrier, role: Role, limits: Limits) -> (WebSocket, Wire) {
    if carrier == Carrier::Memory {
        return open(role, limits);
    }
    let (socket, peer) = with_raw_peer(role, carrier, limits).await;
    (socket, wire::beyond(peer))
}

/// Warms up the thread: the memory that it keeps for its next connection must not count for the first.
pub async fn warm_up() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        wire.feed_frame(peer_of(role), &frames::Frame::binary(vec![1; 200_000]));
        let message = socket.recv().await.unwrap().unwrap();
        socket.send(message).await.unwrap();
    }
    settle().await;
}

/// Lets all other tasks run until they wait. Only for a current-thread runtime.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Lets written bytes arrive, if other tasks carry them. Only for a current-thread runtime.
pub async fn arrive(wire: &Wire) {
    loop {
        let before = wire.written_len();
        settle().await;
        if wire.written_len() == before {
            return;
        }
    }
}

/// Returns the role of the other end.
pub fn peer_of(role: Role) -> Role {
    match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}
