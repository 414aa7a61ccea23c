//! One connection: its two halves, each behind a lock of its own, and what passes between them.

pub(crate) mod batch;
mod clock;
mod close;
mod cork;
pub(crate) mod driver;
mod effect;
pub(crate) mod inbound;
mod keepalive;
mod operations;
pub(crate) mod outbound;
pub(crate) mod parts;
mod read_loop;
mod verdict;
pub(crate) mod wait_queue;
pub(crate) mod waker;

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Waker};

use bowline_proto::{ReceiveHalf, ReceiveLimits, Role};

use crate::compression::DeflateWindow;
use crate::connection::inbound::Inbound;
use crate::connection::outbound::Outbound;
use crate::connection::outbound::guard::OutboundGuard;
use crate::connection::parts::ConnectionParts;
use crate::connection::waker::ConnectionWaker;
use crate::handshake::negotiated::Negotiated;
use crate::sync::{AtomicBool, Mutex, MutexGuard};
use crate::transport::Addresses;

/// What a `WebSocket`, its `Sender`s and the connection's task share.
pub(crate) struct Connection {
    /// The order of the locks: this one, then `transmit`, then those of `signals` and of a boxed stream. This and `transmit` are
    /// held together only where `transmit` has to hear of what was received, in order, and none across an await.
    ///
    /// Nothing foreign runs under any of them: no waker of a caller, and no drop of a waker, payload, stream or error (see
    /// `guard::Later`), no spawn and no event. Only what a stream of the user's does while it is polled; and the clone of a waker,
    /// where executors count references.
    inbound: Mutex<Inbound>,
    outbound: Mutex<Outbound>,
    pub(crate) waker: Arc<ConnectionWaker>,
    /// The waker of `signals`, the only one that the transport ever sees.
    transport_waker: Waker,
    /// Others share what the transport runs over, and its memory.
    #[cfg(feature = "http2")]
    is_multiplexed: bool,
    /// Someone else closes the connection when its `WebSocket` is dropped.
    supervised: AtomicBool,
    /// These two are in boxes, so that what is left of a connection fits between the blocks that tokio aligns to 128 bytes:
    /// measured, 100 bytes less of resident memory.
    pub(crate) agreed: Box<Negotiated>,
    pub(crate) addresses: Box<Addresses>,
}

impl Connection {
    /// A connection whose handshake is done.
    pub(crate) fn new(parts: ConnectionParts<'_>) -> Self {
        let ConnectionParts { transport, role, leftover, config, negotiated: agreed } = parts;
        // The builders refuse a `write_buffer` of zero, with which nothing is ever sent; `adopt` can't.
        let limits = &config.limits;
        let addresses = transport.addresses;
        let (read, write) = transport.split();
        #[cfg(feature = "http2")]
        let is_multiplexed = write.is_multiplexed();
        let half = ReceiveHalf::new(
            role,
            ReceiveLimits {
                message_size: limits.message_size as u64,
                frames_per_message: limits.frames_per_message,
            },
        );
        let waker = Arc::new(ConnectionWaker::default());
        let (mut inbound, mut outbound) =
            (Inbound::new(read, half, leftover), Outbound::new(write, role, limits.write_buffer.max(1)));
        if let Some(agreed) = agreed.deflate {
            let peer = if role == Role::Server { Role::Client } else { Role::Server };
            inbound.decompress(DeflateWindow::of(agreed, peer));
            outbound.compress(config.compression.of_sender(agreed, role));
        }
        Self {
            inbound: Mutex::new(inbound),
            outbound: Mutex::new(outbound),
            transport_waker: Waker::from(Arc::clone(&waker)),
            waker,
            #[cfg(feature = "http2")]
            is_multiplexed,
            supervised: AtomicBool::new(false),
            agreed: Box::new(agreed),
            addresses: Box::new(addresses),
        }
    }

    pub(crate) fn inbound(&self) -> MutexGuard<'_, Inbound> {
        let inbound = self.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        self.waker.set_quiet(false);
        inbound
    }

    pub(crate) fn outbound(&self) -> OutboundGuard<'_> {
        OutboundGuard::new(&self.outbound)
    }

    /// The context in which the transport is polled.
    pub(crate) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.transport_waker)
    }

    /// From now on someone else closes the connection, not the drop of its `WebSocket`.
    #[cfg(feature = "server")]
    pub(crate) fn supervise(&self) {
        self.supervised.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_supervised(&self) -> bool {
        self.supervised.load(Ordering::Relaxed)
    }
}
