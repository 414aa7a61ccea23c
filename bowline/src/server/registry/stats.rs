//! The numbers of a server.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::server::rejection::RejectionReason;

/// The counters of a server, which its clones share.
///
/// They are touched when a connection is accepted, when its handshake ends, and when it ends, but never by a
/// message. The numbers order nothing, so `Relaxed` suffices.
#[derive(Default)]
pub(crate) struct Counters {
    accepted: AtomicU64,
    ended: AtomicU64,
    shut_down: AtomicU64,
    handlers_failed: AtomicU64,
    accept_errors: AtomicU64,
    rejected: [AtomicU64; RejectionReason::ALL.len()],
}

impl Counters {
    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a WebSocket that was open at the shutdown.
    pub(crate) fn shut_down(&self) {
        self.shut_down.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn handler_failed(&self) {
        self.handlers_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn accept_failed(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self, reason: RejectionReason) {
        self.rejected[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> ServerStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // In this order, no connection has ended that was not accepted.
        let ended = read(&self.ended);
        ServerStats {
            ended,
            accepted: read(&self.accepted).max(ended),
            shut_down: read(&self.shut_down),
            handlers_failed: read(&self.handlers_failed),
            accept_errors: read(&self.accept_errors),
            rejected: std::array::from_fn(|reason| read(&self.rejected[reason])),
        }
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
