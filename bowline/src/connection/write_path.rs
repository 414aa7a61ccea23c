//! The write path: an accepted message is written in the call that accepts it.
//!
//! There are two exceptions. While the transport is blocked, the message stays in the queue, and the driver
//! writes the queue once the transport accepts bytes again. A reply to a batch, or a message of a
//! `SendBatch`, may be held back for a moment: see [`cork`](super::cork).

use std::io;
use std::sync::Arc;
use std::thread::panicking;

use crate::connection::Connection;
use crate::connection::inbound::batch::Hold;
use crate::connection::outbound::Outbound;
use crate::connection::outbound::guard::OutboundGuard;
use crate::connection::outbound::wait_queue::{Place, Turn};
use crate::error::{Error, TrySendError};
use crate::message::{Payload, Prepared};

impl Connection {
    /// Accepts `message` if this is possible without waiting, and returns it otherwise.
    pub(crate) fn try_send<'a, M: Into<Payload<'a>>>(
        self: &Arc<Self>,
        message: M,
        hold: Hold,
    ) -> Result<(), TrySendError<M>> {
        if hold == Hold::InSendBatch {
            self.cork_send_batch();
        }
        let mut outbound = self.outbound();
        if outbound.closed().is_some() {
            return Err(TrySendError::Closed(message));
        }
        if outbound.ask_turn(&Place::default()) != Turn::Now {
            return Err(TrySendError::Full(message));
        }
        let accepted = self.accept(outbound, message.into(), hold);
        debug_assert!(accepted.is_ok(), "an open connection with room accepts a message");
        Ok(())
    }

    /// Accepts messages for a `SendBatch` under one lock, and returns those for which there is no room.
    pub(crate) fn try_send_all<'a>(
        self: &Arc<Self>,
        messages: &'a [Prepared],
    ) -> Result<(), TrySendError<&'a [Prepared]>> {
        self.cork_send_batch();
        let mut outbound = self.outbound();
        let mut rest = messages;
        let result = loop {
            let Some((message, after)) = rest.split_first() else { break Ok(()) };
            // Writing may find that the connection has failed, and does not always make room.
            if outbound.closed().is_some() {
                break Err(TrySendError::Closed(rest));
            }
            if outbound.ask_turn(&Place::default()) != Turn::Now {
                break Err(TrySendError::Full(rest));
            }
            let accepted = outbound.accept(&mut message.into());
            debug_assert!(accepted.is_ok(), "an open connection with room accepts a message");
            if !outbound.has_space() && !outbound.is_blocked() {
                self.write_locked(&mut outbound);
            }
            rest = after;
        };
        self.write_in_send_batch(outbound);
        result
    }

    /// Accepts a message for which there is room, and writes as [`write`](Self::write) does.
    #[inline]
    pub(crate) fn accept(
        self: &Arc<Self>,
        mut outbound: OutboundGuard<'_>,
        mut payload: Payload<'_>,
        hold: Hold,
    ) -> Result<(), Error> {
        let accepted = outbound.accept(&mut payload);
        self.write(outbound, hold);
        // The rest of the payload is dropped here, after the lock: its drop may be the application's code.
        accepted
    }

    /// Writes and unlocks, unless the message is better held back.
    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    pub(crate) fn write(self: &Arc<Self>, mut outbound: OutboundGuard<'_>, hold: Hold) {
        if hold == Hold::InSendBatch {
            return self.write_in_send_batch(outbound);
        }
        if !outbound.is_blocked() && (!self.holds_back(hold) || outbound.note_reply()) {
            self.write_locked(&mut outbound);
        }
        outbound.unlock();
    }

    /// Unlocks, and leaves a message to the end of its `SendBatch` unless the queue is full.
    #[inline(never)]
    fn write_in_send_batch(&self, mut outbound: OutboundGuard<'_>) {
        if !outbound.is_blocked() && (!self.is_corked_here() || !outbound.has_space()) {
            self.write_locked(&mut outbound);
        }
        outbound.unlock();
    }

    /// Writes what a `SendBatch` has gathered.
    pub(crate) fn end_send_batch(self: &Arc<Self>) {
        // A foreign stream may panic, which would now abort the process. The driver is due anyway.
        if panicking() && self.is_foreign {
            return;
        }
        self.end_cork_here();
        self.write_now(self.outbound());
    }

    /// Writes the whole queue and unlocks. A transport that is blocked is left to the driver.
    pub(crate) fn write_now(&self, mut outbound: OutboundGuard<'_>) {
        if !outbound.is_blocked() {
            self.write_locked(&mut outbound);
        }
        outbound.unlock();
    }

    /// Writes as much as the transport accepts, and has the driver go on if that is not all.
    #[inline(never)]
    pub(crate) fn write_locked(&self, outbound: &mut Outbound) {
        let was_blocked = outbound.is_blocked();
        if let Err(error) = outbound.write(&mut self.context()) {
            self.write_failed(outbound, error);
        } else if outbound.is_blocked() && !was_blocked {
            // The driver has to wait for the transport, and to know since when it waits.
            self.waker.set_driver_waits(true);
            self.waker.wake_driver();
        }
    }

    #[cold]
    fn write_failed(&self, outbound: &mut Outbound, error: io::Error) {
        outbound.close_transport(Error::of_transport("writing to the peer failed", error));
        self.waker.wake_driver();
    }

    /// Accepts nothing more, and writes as much as the transport accepts. No driver will look after the
    /// connection any more.
    pub(crate) fn write_last(&self, error: Error) {
        let mut outbound = self.outbound();
        // Both happen under one lock, so everything that was accepted is written.
        outbound.stop_accepting(error);
        self.end_cork();
        self.write_locked(&mut outbound);
    }
}
