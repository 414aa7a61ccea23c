//! One connection: the state that its handles and its driver share.
//!
//! A connection consists of two halves, each behind a lock of its own, so that reading and writing never wait
//! for each other. [`Inbound`] turns bytes into messages, and [`Outbound`] turns messages into bytes.
//!
//! ```text
//!   WebSocket      Sender ...                 the driver (one task)
//!       |              |                               |
//!       |  read_loop   |  operations, write_path, cork |  keepalive, end
//!       v              v                               v
//!  +--------------------------------------------------------------+
//!  | Connection                                                   |
//!  |            inbound --- Effect, reaction ---> outbound        |
//!  |               ^                                  |           |
//!  |               '------------- waker --------------'           |
//!  +--------------------------------------------------------------+
//!            ^ poll_read                        | poll_write
//!            |                                  v
//!                          transport
//! ```
//!
//! - [`read_loop`] reads for the application, and for the driver while the application does not read.
//! - [`reaction`] carries out what the inbound half asks of the outbound half: pongs, the echo of a Close
//!   frame, failures.
//! - [`write_path`] accepts and writes messages; [`cork`] decides which replies are held back for a moment.
//! - [`operations`] contains the futures of the callers; [`close`] ends the connection on behalf of our own
//!   side.
//! - [`driver`] is the task that does everything that belongs to no caller.
//! - [`waker`] is the only waker that the transport ever sees.
//!
//! # Locks
//!
//! The order is: inbound, outbound, the lock of a boxed stream, the slots of the waker. The slots come last,
//! since a stream may wake the connection's waker while it is polled. Both halves are locked together in two
//! cases. Where an effect passes from inbound to outbound, answers thereby keep the order in which frames
//! were received. Where our side starts the closing handshake, both halves have to agree on which Close frame
//! was first. No lock is held across an await.
//!
//! Nothing foreign runs under any of these locks: no waker of a caller; no hook; no drop of a waker, payload,
//! stream or error; no spawn; no tracing event. A locked half collects such work in a list of
//! [`Deferred`](outbound::deferred::Deferred), and the guard runs the list after it has unlocked. There are
//! two exceptions. A stream of the application is polled under its own lock and that of its half. Where the
//! read loop answers several pings that arrived together, the stream is written to under the locks of both
//! halves. A waker is cloned under a lock, since executors count references there. Tests in
//! `tests/connection/reentrancy.rs` hold the rule.
//!
//! # Memory
//!
//! Servers are sized for idle connections, so every field here is weighed. Rare state is in boxes, points in
//! time take four bytes (see [`clock`]), and buffers belong to threads while nobody reads or writes. The test
//! `an_idle_connection_takes_few_blocks` bounds the sum.

mod clock;
mod close;
mod cork;
pub(crate) mod driver;
pub(crate) mod inbound;
mod keepalive;
pub(crate) mod operations;
pub(crate) mod outbound;
pub(crate) mod parts;
mod reaction;
mod read_loop;
mod verdict;
pub(crate) mod waker;
mod write_path;

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Waker};

use bowline_proto::{ReceiveHalf, ReceiveLimits, Role};

use crate::connection::inbound::Inbound;
use crate::connection::outbound::guard::OutboundGuard;
use crate::connection::outbound::{Outbound, Outgoing};
use crate::connection::parts::ConnectionParts;
use crate::connection::waker::ConnectionWaker;
use crate::error::Error;
use crate::handshake::negotiated::Negotiated;
use crate::message::compression::DeflateWindow;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard};
use crate::transport::http2::Multiplexed;
use crate::transport::{Addresses, limit_unsent};

/// The state that a `WebSocket`, its `Sender`s and the driver share.
pub(crate) struct Connection {
    /// The lock order is: `inbound`, `outbound`, the lock of a boxed stream, the slots of `waker`. See the
    /// module's docs.
    inbound: Mutex<Inbound>,
    outbound: Mutex<Outbound>,
    pub(crate) waker: Arc<ConnectionWaker>,
    /// The task form of `waker`, and the only waker that the transport ever sees.
    transport_waker: Waker,
    /// Present if the transport is one of several streams of an HTTP/2 connection, with which it shares
    /// memory.
    multiplexed: Option<Multiplexed>,
    /// The thread on which the `WebSocket` works through a batch and holds its replies back, or on which a
    /// `SendBatch` does. The value is 0 if there is no such thread, or once the driver has written the
    /// messages. While the value is not 0, something is about to write them: see [`cork`].
    corked: AtomicUsize,
    /// Set if a supervisor closes the connection, instead of the drop of its `WebSocket`.
    supervised: AtomicBool,
    pub(crate) role: Role,
    /// Set if the transport is a stream of an unknown type, which runs code of others when it is polled.
    is_foreign: bool,
    /// This field and the next are in boxes, so that the rest of a connection fits between the blocks that
    /// tokio aligns to 128 bytes. Measured: 100 bytes less of resident memory.
    pub(crate) negotiated: Box<Negotiated>,
    pub(crate) addresses: Box<Addresses>,
}

impl Connection {
    /// Returns a connection whose opening handshake is complete.
    pub(crate) fn new(parts: ConnectionParts<'_>) -> Self {
        let ConnectionParts { transport, role, leftover, config, negotiated } = parts;
        // The builders refuse a `write_buffer` of zero, with which nothing would ever be sent.
        let limits = &config.limits;
        limit_unsent(transport.tcp(), limits.unsent);
        let (addresses, is_foreign) = (transport.addresses, transport.is_foreign());
        let (read, write) = transport.split();
        let multiplexed = write.multiplexed();
        let half = ReceiveHalf::new(
            role,
            ReceiveLimits {
                message_size: limits.message_size as u64,
                frames_per_message: limits.frames_per_message,
            },
        );
        let waker = Arc::new(ConnectionWaker::default());
        let (mut inbound, mut outbound) =
            (Inbound::new(read, half, leftover), Outbound::new(write, role, limits.write_buffer));
        if let Some(hook) = &config.control_hook {
            outbound.set_control_hook(hook.clone());
        }
        if let Some(deflate) = negotiated.deflate {
            let peer = if role == Role::Server { Role::Client } else { Role::Server };
            inbound.enable_compression(DeflateWindow::of(deflate, peer));
            outbound.enable_compression(config.compression.of_sender(deflate, role));
        }
        Self {
            inbound: Mutex::new(inbound),
            outbound: Mutex::new(outbound),
            transport_waker: Waker::from(Arc::clone(&waker)),
            waker,
            multiplexed,
            corked: AtomicUsize::new(0),
            supervised: AtomicBool::new(false),
            role,
            is_foreign,
            negotiated: Box::new(negotiated),
            addresses: Box::new(addresses),
        }
    }

    /// Locks the inbound half. Every access may change the half, so the waker is no longer quiet.
    pub(crate) fn inbound(&self) -> MutexGuard<'_, Inbound> {
        let inbound = self.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        self.waker.set_quiet(false);
        inbound
    }

    /// Accepts a reply to a batch and holds it back if it is free: if nothing has changed since an earlier
    /// reply could be accepted. Returns `None` if the reply is not free.
    ///
    /// Everything else that locks the outbound half does so by [`outbound`](Self::outbound), which ends the
    /// free replies. So neither the end of the connection, nor other senders, nor the transport have to be
    /// looked at.
    #[inline(never)]
    pub(crate) fn accept_free<M: Outgoing>(&self, message: &mut M) -> Option<Result<M::Accepted, Error>> {
        let mut outbound = self.outbound.lock().unwrap_or_else(PoisonError::into_inner);
        if !outbound.note_free_reply() {
            return None;
        }
        let accepted = message.accept(&mut outbound);
        debug_assert!(outbound.deferred.is_empty(), "accepting a message defers nothing");
        if !outbound.has_space() {
            // Under the same lock, as another sender would find the queue full in between.
            self.write_now(OutboundGuard::from(outbound));
        }
        Some(accepted)
    }

    /// Locks the outbound half. Every access may change the half, so no reply is free any more.
    pub(crate) fn outbound(&self) -> OutboundGuard<'_> {
        OutboundGuard::new(&self.outbound)
    }

    /// Returns whether nothing more can be sent.
    pub(crate) fn is_closed(&self) -> bool {
        self.outbound().closed().is_some()
    }

    /// Returns the context in which the transport is polled.
    pub(crate) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.transport_waker)
    }

    /// Leaves the closing of the connection to a supervisor: the drop of its `WebSocket` only discards input.
    #[cfg(feature = "server")]
    pub(crate) fn supervise(&self) {
        self.supervised.store(true, Ordering::Relaxed);
    }

    /// Returns whether a supervisor closes the connection.
    pub(crate) fn is_supervised(&self) -> bool {
        self.supervised.load(Ordering::Relaxed)
    }
}
