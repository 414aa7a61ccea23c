//! Code that the tests share. Each test program uses a part of it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

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
pub mod pairs;
pub mod random;
pub mod tls;
pub mod wire;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use bowline::{Acceptor, Adoption, Connector, Limits, Role, WebSocket};

use self::pairs::Carrier;
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

/// Creates a connection over `carrier`, which is [`Carrier::Memory`] or [`Carrier::Http2`].
pub async fn open_over(carrier: Carrier, role: Role, limits: Limits) -> (WebSocket, Wire) {
    match carrier {
        #[cfg(feature = "http2")]
        Carrier::Http2 => {
            let (socket, mut peer) = match role {
                Role::Client => http2::client(limits).await,
                Role::Server => http2::server(limits).await,
            };
            let (mut stream, wire) = wire();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut peer, &mut stream).await;
            });
            (socket, wire)
        }
        _ => open(role, limits),
    }
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

/// Polls a future this many times, lets other tasks run in between, and drops the future if it is not ready.
pub async fn poll_times<F: Future>(times: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Polls a future once.
pub async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
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
