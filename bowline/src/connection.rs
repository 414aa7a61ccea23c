//! One connection: its two halves, each behind a lock of its own, and what passes between them.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bowline_proto::{CloseFrame, ReceiveHalf, ReceiveLimits, Role};
use tokio::task::coop::poll_proceed;

use crate::agreed::Agreed;
use crate::compression::Window;
use crate::effect::{Effect, Ending};
use crate::error::{Error, ErrorKind, TrySendError};
use crate::events;
use crate::limits::Config;
use crate::locked::Locked;
use crate::message::Payload;
use crate::receive::{Advance, Receive};
use crate::signals::Signals;
use crate::sync::{AtomicBool, Mutex, MutexGuard};
use crate::transmit::{Transmit, closed_by_us};
use crate::transport::{Addresses, Transport};
use crate::wait::Place;

/// What a `WebSocket`, its `Sender`s and the connection's task share.
pub(crate) struct Connection {
    /// Locked only inside a poll, and before `transmit` where that has to hear of what was received, in order.
    receive: Mutex<Receive>,
    transmit: Mutex<Transmit>,
    pub(crate) signals: Arc<Signals>,
    /// The waker of `signals`, the only one that the transport ever sees.
    waker: Waker,
    /// Others share what the transport runs over, and its memory.
    #[cfg(feature = "http2")]
    is_multiplexed: bool,
    /// More messages are in memory, so that writing may wait until the reader wants to.
    corked: AtomicBool,
    /// These two are in boxes, so that what is left of a connection fits between the blocks that tokio aligns to 128 bytes:
    /// measured, 100 bytes less of resident memory.
    pub(crate) agreed: Box<Agreed>,
    pub(crate) addresses: Box<Addresses>,
}

impl Connection {
    /// A connection whose handshake is done. `leftover` came behind the handshake.
    pub(crate) fn new(
        transport: Transport,
        role: Role,
        leftover: &[u8],
        config: &Config,
        agreed: Agreed,
    ) -> Self {
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
        let signals = Arc::new(Signals::default());
        let (mut receive, mut transmit) =
            (Receive::new(read, half, leftover), Transmit::new(write, role, limits.write_buffer));
        if let Some(agreed) = agreed.deflate {
            let peer = if role == Role::Server { Role::Client } else { Role::Server };
            receive.decompress(Window::of(agreed, peer));
            transmit.compress(config.compression.of_sender(agreed, role));
        }
        Self {
            receive: Mutex::new(receive),
            transmit: Mutex::new(transmit),
            waker: Waker::from(Arc::clone(&signals)),
            signals,
            #[cfg(feature = "http2")]
            is_multiplexed,
            corked: AtomicBool::new(false),
            agreed: Box::new(agreed),
            addresses: Box::new(addresses),
        }
    }

    pub(crate) fn receive(&self) -> MutexGuard<'_, Receive> {
        let receive = self.receive.lock().unwrap_or_else(PoisonError::into_inner);
        self.signals.set_quiet(false);
        receive
    }

    pub(crate) fn transmit(&self) -> Locked<'_> {
        Locked::new(&self.transmit)
    }

    /// The context in which the transport is polled.
    pub(crate) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    // ---- receiving

    /// Ready once `take` finds what it wants in what has arrived, which is read as needed.
    pub(crate) fn poll_next<T>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnMut(&mut Receive) -> Option<T>,
    ) -> Poll<T> {
        self.poll_next_in_batch::<true, T>(cx, take)
    }

    /// The same; whether the replies to a batch are written before it waits, or are left to the connection's task.
    #[inline]
    pub(crate) fn poll_next_in_batch<const WRITES: bool, T>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnMut(&mut Receive) -> Option<T>,
    ) -> Poll<T> {
        if !self.corked.load(Ordering::SeqCst) && self.signals.sleep_in_quiet(cx.waker()) {
            return Poll::Pending;
        }
        let mut taken = None;
        let _ = self.poll_take::<WRITES, T>(cx, take, &mut taken);
        taken.map_or(Poll::Pending, Poll::Ready)
    }

    /// The same, if it is not known that there is nothing to take. It is ready once `taken` has something: measured, as a result it
    /// would be copied once more after the lock was given back.
    #[inline(never)]
    fn poll_take<const WRITES: bool, T>(
        &self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Receive) -> Option<T>,
        taken: &mut Option<T>,
    ) -> Poll<()> {
        // One flooding connection must not starve the others of its thread, even if all of the flood is in memory.
        let progress = ready!(poll_proceed(cx));
        let mut has_read = false;
        let mut receive = self.receive();
        loop {
            *taken = take(&mut receive);
            if taken.is_some() {
                progress.made_progress();
                self.leave_reading(receive);
                return Poll::Ready(());
            }
            match receive.advance() {
                // A message that comes out large is as much work as many.
                Advance::Data if receive.has_more_to_inflate() => {
                    progress.made_progress();
                    ready!(poll_proceed(cx)).made_progress();
                }
                Advance::Data => {}
                Advance::Effect(effect) => {
                    self.apply(receive, [effect]);
                    // A flood of control frames is work, too.
                    progress.made_progress();
                    ready!(poll_proceed(cx)).made_progress();
                    receive = self.receive();
                }
                Advance::NeedsBytes => {
                    if WRITES && self.corked.load(Ordering::SeqCst) {
                        drop(receive);
                        self.uncork();
                        // The task may have read meanwhile.
                        receive = self.receive();
                        continue;
                    }
                    // A transport that had nothing, and has not called since, is not asked again.
                    let idle = receive.awaits_transport() && !self.signals.was_called();
                    let filled = if idle { Poll::Pending } else { self.poll_fill(&mut receive) };
                    match filled {
                        // The first is paid for.
                        Poll::Ready(None) if !has_read => has_read = true,
                        Poll::Ready(None) => {
                            progress.made_progress();
                            ready!(poll_proceed(cx)).made_progress();
                        }
                        Poll::Ready(Some(effect)) => {
                            self.apply(receive, [effect]);
                            receive = self.receive();
                        }
                        Poll::Pending => {
                            if !self.signals.sleep_reader(cx.waker()) {
                                cx.waker().wake_by_ref();
                            }
                            return Poll::Pending;
                        }
                    }
                }
            }
        }
    }

    /// Whoever was waiting to read does so no more.
    #[cold]
    pub(crate) fn stop_waiting(&self) {
        // If it is not asleep any more then it was woken, and leaves the work to the task.
        if !self.signals.remove_reader() {
            self.signals.watch(false);
            self.signals.wake_task();
        }
    }

    fn poll_fill(&self, receive: &mut Receive) -> Poll<Option<Effect>> {
        self.signals.begin_read();
        receive.poll_fill(&mut self.context())
    }

    /// The application has got something, and may be away for long.
    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    fn leave_reading(&self, mut receive: MutexGuard<'_, Receive>) {
        self.signals.remove_reader();
        receive.hand_out();
        if !receive.has_more_frames() || receive.is_in_message() {
            return self.leave_idle(receive);
        }
        drop(receive);
        // The task flushes what the application sends now, in case that it never reads again.
        if !self.corked.load(Ordering::SeqCst) && !self.corked.swap(true, Ordering::SeqCst) {
            self.signals.wake_task();
        }
    }

    /// The same, with no whole frame in memory that a `recv` could take.
    fn leave_idle(&self, mut receive: MutexGuard<'_, Receive>) {
        if receive.has_ended() {
            return;
        }
        if receive.is_in_message() {
            // Its reader may take its time. Whole frames are about to be taken, and not worth a copy.
            if !receive.has_more_frames() {
                receive.park();
            }
            return;
        }
        if !receive.has_bytes() {
            // The transport has to know whom to wake if a ping comes while the application is busy.
            self.signals.begin_read();
            if receive.is_idle(&mut self.context()) {
                receive.park();
                return self.signals.set_quiet(receive.is_quiet());
            }
            let Poll::Ready(effect) = self.poll_fill(&mut receive) else {
                return self.signals.set_quiet(receive.is_quiet());
            };
            if let Some(effect) = effect {
                return self.apply(receive, [effect]);
            }
        }
        if receive.has_more_frames() {
            // More has just come.
            drop(receive);
            if !self.corked.swap(true, Ordering::SeqCst) {
                self.signals.wake_task();
            }
        } else if receive.is_stopped_by_data() {
            // A part of the next message: no reason to hold a large buffer while the application is busy.
            receive.park();
        } else {
            drop(receive);
            self.signals.wake_task();
        }
    }

    /// Reads while nobody else does: as far as the first message that nobody has asked for.
    pub(crate) fn read_unattended(&self, cx: &mut Context<'_>) {
        loop {
            let Poll::Ready(progress) = poll_proceed(cx) else { return };
            let mut receive = self.receive();
            if receive.has_ended() || receive.is_stopped_by_data() {
                receive.park();
                drop(receive);
                self.signals.wake_reader();
                return;
            }
            let effect = match receive.advance() {
                Advance::Data => None,
                Advance::Effect(effect) => Some(effect),
                Advance::NeedsBytes => match self.poll_fill(&mut receive) {
                    Poll::Ready(effect) => effect,
                    Poll::Pending => return,
                },
            };
            progress.made_progress();
            if let Some(effect) = effect {
                self.apply(receive, [effect]);
            }
        }
    }

    /// Takes what has arrived, though nobody asks for it, where it must not be left to the transport.
    #[cfg(feature = "http2")]
    pub(crate) fn gather(&self) {
        if self.is_multiplexed {
            self.receive().gather(&mut self.context());
        }
    }

    /// Does what receiving asks of the sending half.
    fn apply(&self, receive: MutexGuard<'_, Receive>, effects: impl IntoIterator<Item = Effect>) {
        // Locked before the other is given back: whoever reads on is answered behind this.
        let mut transmit = self.transmit();
        drop(receive);
        // An answer to our Close frame decides nothing.
        let decides = transmit.closed().is_none();
        let mut ending = None;
        for effect in effects {
            if let Effect::Lost(error) = &effect {
                // What waits behind a cork is still written. If that fails, the reason is known already.
                transmit.refuse(error.clone());
                self.write_locked(&mut transmit);
            }
            ending = effect.apply(&mut transmit).or(ending);
        }
        let Some(ending) = ending else { return self.write(transmit) };
        self.write_now(transmit);
        self.settle();
        match ending {
            Ending::ClosedByPeer(code) if decides => {
                events::connection_closed(self.addresses.peer, "peer", code);
            }
            Ending::Failed(code, error) => events::connection_failed(self.addresses.peer, code, &error),
            Ending::ClosedByPeer(_) | Ending::Lost => {}
        }
    }

    /// The application may hear of the end now, and do with the connection what it wants.
    fn settle(&self) {
        self.receive().settle();
        self.signals.wake_reader();
        self.signals.wake_task();
    }

    // ---- sending

    pub(crate) fn try_send<'a, M: Into<Payload<'a>>>(&self, message: M) -> Result<(), TrySendError<M>> {
        let mut transmit = self.transmit();
        if transmit.closed().is_some() {
            return Err(TrySendError::Closed(message));
        }
        if !transmit.has_room(&Place::default()) {
            return Err(TrySendError::Full(message));
        }
        let accepted = transmit.accept(&mut message.into());
        debug_assert!(accepted.is_ok(), "an open connection with room accepts a message");
        self.write(transmit);
        Ok(())
    }

    /// Writes, unless that is better left for later; gives the lock back.
    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    pub(crate) fn write(&self, mut transmit: Locked<'_>) {
        if (!self.corked.load(Ordering::SeqCst) || !transmit.has_space()) && !transmit.is_blocked() {
            self.write_locked(&mut transmit);
        }
        transmit.give_back();
    }

    /// Writes all that waits, unless the transport takes no more.
    fn write_now(&self, mut transmit: Locked<'_>) {
        if !transmit.is_blocked() {
            self.write_locked(&mut transmit);
        }
        transmit.give_back();
    }

    /// Writes as much as the transport takes.
    #[inline(never)]
    pub(crate) fn write_locked(&self, transmit: &mut Transmit) {
        let was_blocked = transmit.is_blocked();
        if let Err(error) = transmit.write(&mut self.context()) {
            self.writing_failed(transmit, error);
        } else if transmit.is_blocked() && !was_blocked {
            // From here on the task waits for the transport, and knows since when.
            self.signals.set_task_waits(true);
            self.signals.wake_task();
        }
    }

    #[cold]
    fn writing_failed(&self, transmit: &mut Transmit, error: io::Error) {
        transmit.lose(Error::with_source(ErrorKind::Io, "writing to the peer failed", error));
        self.signals.wake_task();
    }

    /// Ends the time in which writes are left for later.
    pub(crate) fn uncork(&self) {
        if self.corked.swap(false, Ordering::SeqCst) {
            self.write_now(self.transmit());
        }
    }

    // ---- closing

    pub(crate) fn begin_close(&self, frame: &CloseFrame) {
        // If the transport takes nothing more, that is how the connection ends, not by us.
        let lost = !self.transmit().has_transport();
        if !lost {
            let mut receive = self.receive();
            let effects = receive.close();
            self.apply(receive, effects);
        }
        let mut transmit = self.transmit();
        let decides = transmit.closed().is_none();
        transmit.close(Some(frame), closed_by_us());
        self.corked.store(false, Ordering::SeqCst);
        self.write_now(transmit);
        self.signals.set_task_waits(true);
        self.signals.wake_reader();
        self.signals.wake_task();
        if decides {
            events::connection_closed(self.addresses.peer, "us", Some(frame.code()));
        }
    }

    /// The application will neither read nor close: writes what was accepted, and ends the transport.
    pub(crate) fn abandon(&self) {
        let mut transmit = self.transmit();
        if transmit.closed().is_some() {
            drop(transmit);
            // The closing handshake goes on, but nobody wants the messages that are left.
            return self.stop_reading();
        }
        // Before the lock is given back, so that a close beside this one comes first or is refused.
        let error = Error::new(ErrorKind::Closed, "the connection is closed: its WebSocket was dropped");
        transmit.refuse(error.clone());
        self.corked.store(false, Ordering::SeqCst);
        self.write_now(transmit);
        let mut receive = self.receive();
        receive.discard();
        receive.lose(error);
        drop(receive);
        self.signals.wake_task();
        events::connection_closed(self.addresses.peer, "us", None);
    }

    /// The application will not read any more, but someone will close.
    pub(crate) fn stop_reading(&self) {
        self.receive().discard();
        self.signals.wake_task();
    }

    /// Ends the transport at once.
    pub(crate) fn lose(&self, error: &Error) {
        let mut receive = self.receive();
        receive.lose(error.clone());
        receive.release();
        drop(receive);
        let mut transmit = self.transmit();
        transmit.lose(error.clone());
        transmit.finish();
        drop(transmit);
        self.settle();
    }
}
