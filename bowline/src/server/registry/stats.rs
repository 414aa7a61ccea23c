//! The numbers of a server.

#[cfg(target_has_atomic = "64")]
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(target_has_atomic = "64"))]
use std::sync::{Mutex, PoisonError};

use crate::server::rejection::RejectionReason;

/// The counters of a server, which its clones share.
///
/// They are touched when a connection is accepted, when its handshake ends, and when it ends, but never by a
/// message.
#[derive(Default)]
pub(crate) struct Counters {
    accepted: Counter,
    ended: Counter,
    shut_down: Counter,
    handlers_failed: Counter,
    accept_errors: Counter,
    rejected: [Counter; RejectionReason::ALL.len()],
}

impl Counters {
    pub(crate) fn accepted(&self) {
        self.accepted.add_one();
    }

    pub(crate) fn ended(&self) {
        self.ended.add_one();
    }

    /// Counts a WebSocket that was open at the shutdown.
    pub(crate) fn shut_down(&self) {
        self.shut_down.add_one();
    }

    pub(crate) fn handler_failed(&self) {
        self.handlers_failed.add_one();
    }

    pub(crate) fn accept_failed(&self) {
        self.accept_errors.add_one();
    }

    pub(crate) fn rejected(&self, reason: RejectionReason) {
        self.rejected[reason as usize].add_one();
    }

    pub(crate) fn snapshot(&self) -> ServerStats {
        // In this order, no connection has ended that was not accepted.
        let ended = self.ended.read();
        ServerStats {
            ended,
            accepted: self.accepted.read().max(ended),
            shut_down: self.shut_down.read(),
            handlers_failed: self.handlers_failed.read(),
            accept_errors: self.accept_errors.read(),
            rejected: std::array::from_fn(|reason| self.rejected[reason].read()),
        }
    }
}

/// A number that several threads count up. It orders nothing, so `Relaxed` suffices.
#[cfg(target_has_atomic = "64")]
#[derive(Default)]
struct Counter(AtomicU64);

#[cfg(target_has_atomic = "64")]
impl Counter {
    fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that several threads count up, on a processor without atomic operations on 64 bits.
#[cfg(not(target_has_atomic = "64"))]
#[derive(Default)]
struct Counter(Mutex<u64>);

#[cfg(not(target_has_atomic = "64"))]
impl Counter {
    fn add_one(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn read(&self) -> u64 {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbers of a server at one moment, from [`Server::stats`](crate::Server::stats).
///
/// All of them but [`open`](Self::open) count from the creation of the server, and only rise. The numbers are
/// read one after the other, while others may change.
///
/// The example `metrics` of the repository prints them in the format of Prometheus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStats {
    accepted: u64,
    ended: u64,
    shut_down: u64,
    handlers_failed: u64,
    accept_errors: u64,
    rejected: [u64; RejectionReason::ALL.len()],
}

impl ServerStats {
    /// Returns the number of WebSockets that are open now: those whose handlers run, or whose closing
    /// handshakes are not finished.
    pub fn open(&self) -> u64 {
        self.accepted - self.ended
    }

    /// Returns the number of WebSockets that have been opened.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Returns the number of WebSockets that ended after the signal to shut down, in whatever way.
    /// [`ShutdownSummary`](crate::ShutdownSummary) tells the ways apart.
    pub fn shut_down(&self) -> u64 {
        self.shut_down
    }

    /// Returns the number of WebSockets whose handler returned an error or panicked.
    pub fn handlers_failed(&self) -> u64 {
        self.handlers_failed
    }

    /// Returns the number of times that the listener failed to accept a connection.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors
    }

    /// Returns the number of requests and connections that did not become WebSockets, for all reasons
    /// together.
    pub fn rejected(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// Returns the numbers of requests and connections that did not become WebSockets, for each reason,
    /// including those with zero.
    pub fn rejections(&self) -> impl Iterator<Item = (RejectionReason, u64)> {
        RejectionReason::ALL.into_iter().zip(self.rejected)
    }
}
