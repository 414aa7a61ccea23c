//! One connection: its two halves, each behind a lock of its own, and what passes between them.

pub(crate) mod batch;
mod clock;
pub(crate) mod driver;
mod effect;
pub(crate) mod inbound;
mod keepalive;
mod operations;
pub(crate) mod outbound;
mod verdict;
pub(crate) mod wait_queue;
pub(crate) mod waker;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use bowline_proto::{CloseFrame, MessageKind, ReceiveHalf, ReceiveLimits, Role};
use tokio::io::ReadBuf;
use tokio::task::coop::{RestoreOnPending, poll_proceed};
use tokio::task::yield_now;

use crate::compression::Window;
use crate::connection::batch::{Batch, Hold};
use crate::connection::effect::{Effect, Ending};
use crate::connection::inbound::{Advance, Fill, Receive};
use crate::connection::outbound::guard::Locked;
use crate::connection::outbound::{Transmit, closed_by_us};
use crate::connection::wait_queue::{Place, Turn};
use crate::connection::waker::Signals;
use crate::error::{Error, ErrorKind, TrySendError};
use crate::events;
use crate::handshake::negotiated::Agreed;
use crate::limits::Config;
use crate::message::{Message, Payload};
use crate::sync::{AtomicBool, Mutex, MutexGuard, Poller, poller};
use crate::transport::http2::Multiplexed;
use crate::transport::{Addresses, Transport};

/// What a `WebSocket`, its `Sender`s and the connection's task share.
pub(crate) struct Connection {
    /// The order of the locks: this one, then `transmit`, then those of `signals` and of a boxed stream. This and `transmit` are
    /// held together only where `transmit` has to hear of what was received, in order, and none across an await.
    ///
    /// Nothing foreign runs under any of them: no waker of a caller, and no drop of a waker, payload, stream or error (see
    /// `guard::Later`), no spawn and no event. Only what a stream of the user's does while it is polled; and the clone of a waker,
    /// where executors count references.
    receive: Mutex<Receive>,
    transmit: Mutex<Transmit>,
    pub(crate) signals: Arc<Signals>,
    /// The waker of `signals`, the only one that the transport ever sees.
    waker: Waker,
    /// Others share what the transport runs over, and its memory.
    multiplexed: Option<Multiplexed>,
    /// Someone else closes the connection when its `WebSocket` is dropped.
    supervised: AtomicBool,
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
        let multiplexed = write.multiplexed();
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
            multiplexed,
            supervised: AtomicBool::new(false),
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

    /// Returns the next message of the batch, or else what comes of reading.
    ///
    /// `WRITES` says whether the replies to a batch are written before it waits, or are left to the connection's task.
    #[expect(clippy::inline_always, reason = "measured: 30 instructions less of a small message")]
    #[inline(always)]
    pub(crate) fn poll_message<const WRITES: bool>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
    ) -> Poll<Result<Option<Message>, Error>> {
        if !batch.has_messages() {
            return self.poll_next_in_batch::<WRITES, _>(cx, batch, Receive::take_message);
        }
        self.poll_batch(cx, batch)
    }

    #[inline(never)]
    fn poll_batch(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
    ) -> Poll<Result<Option<Message>, Error>> {
        ready!(poll_proceed(cx)).made_progress();
        let message = batch.pop();
        if !batch.has_messages() {
            self.leave_batch(batch);
        }
        Poll::Ready(Ok(message))
    }

    /// Begins to read the next message, and returns its kind.
    pub(crate) fn poll_start(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
    ) -> Poll<Result<Option<MessageKind>, Error>> {
        match self.read_from_batch(batch) {
            Some(kind) => Poll::Ready(Ok(Some(kind))),
            None => self.poll_next(cx, batch, Receive::take_start),
        }
    }

    /// Begins to read the next message of the batch, if there is one.
    fn read_from_batch(&self, batch: &mut Batch) -> Option<MessageKind> {
        let message = batch.pop()?;
        let kind = message.kind();
        let mut receive = self.receive();
        receive.read_whole(message);
        if !batch.has_messages() {
            receive.end_batch();
            batch.has_more = receive.has_more_frames();
        }
        Some(kind)
    }

    /// Moves a part of the reader's message into `buf`; nothing at its end.
    pub(crate) fn poll_read(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        self.poll_next(cx, batch, |receive| receive.take_bytes(buf))
    }

    /// Ready once `take` finds what it wants in what has arrived, which is read as needed. The batch has to be empty.
    pub(crate) fn poll_next<T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        take: impl FnMut(&mut Receive) -> Option<T>,
    ) -> Poll<T> {
        self.poll_next_in_batch::<true, T>(cx, batch, take)
    }

    #[inline]
    fn poll_next_in_batch<const WRITES: bool, T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        take: impl FnMut(&mut Receive) -> Option<T>,
    ) -> Poll<T> {
        if !batch.has_more && self.signals.sleep_in_quiet(cx.waker()) {
            return Poll::Pending;
        }
        let mut taken = None;
        let _ = self.poll_take::<WRITES, T>(cx, batch, take, &mut taken);
        taken.map_or(Poll::Pending, Poll::Ready)
    }

    /// The same, if it is not known that there is nothing to take. It is ready once `taken` has something: measured, as a result it
    /// would be copied once more after the lock was given back.
    #[inline(never)]
    fn poll_take<const WRITES: bool, T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        mut take: impl FnMut(&mut Receive) -> Option<T>,
        taken: &mut Option<T>,
    ) -> Poll<()> {
        // One flooding connection must not starve the others of its thread, even if all of the flood is in memory.
        let progress = ready!(poll_proceed(cx));
        let mut receive = self.receive();
        let mut work = Work::within(batch.hold());
        // The most frequent case: woken by the transport, with nothing in memory.
        if !batch.has_more && receive.is_bare() && self.signals.was_called() {
            match self.poll_fill(&mut receive) {
                Poll::Ready(Fill::Bytes(count)) => work.add_read(count),
                Poll::Ready(Fill::Effect(effect)) => receive = self.act(receive, effect, &mut work),
                Poll::Pending => {}
            }
        }
        loop {
            // Called at one place only, and little else in this function, so that it is inlined.
            *taken = take(&mut receive);
            if taken.is_some() {
                progress.made_progress();
                self.leave_reading(receive, batch);
                self.finish(&work);
                return Poll::Ready(());
            }
            let Some(unlocked) = self.step::<WRITES>(receive, cx, batch, &progress, &mut work) else { break };
            receive = unlocked;
        }
        self.finish(&work);
        Poll::Pending
    }

    /// Looks at the next frame, or reads; `None` if the reader has to wait, for the transport or for others to have their turn.
    #[inline(never)]
    fn step<'a, const WRITES: bool>(
        self: &'a Arc<Self>,
        mut receive: MutexGuard<'a, Receive>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        progress: &RestoreOnPending,
        work: &mut Work,
    ) -> Option<MutexGuard<'a, Receive>> {
        match receive.advance() {
            Advance::Data => work.add_data(&receive),
            Advance::Effect(effect) => receive = self.act(receive, effect, work),
            Advance::NeedsBytes if batch.has_more => {
                (batch.has_more, work.hold) = (false, Hold::Never);
                if !WRITES {
                    return Some(receive);
                }
                drop(receive);
                self.write_held();
                // The task may have read meanwhile.
                return Some(self.receive());
            }
            // A transport that had nothing, and has not called since, is not asked again.
            Advance::NeedsBytes if receive.awaits_transport() && !self.signals.was_called() => {
                return self.sleep_reader(receive, cx);
            }
            Advance::NeedsBytes => match self.poll_fill(&mut receive) {
                Poll::Ready(Fill::Bytes(count)) => work.add_read(count),
                Poll::Ready(Fill::Effect(effect)) => receive = self.act(receive, effect, work),
                Poll::Pending => return self.sleep_reader(receive, cx),
            },
        }
        if !work.is_unit() {
            return Some(receive);
        }
        progress.made_progress();
        drop(receive);
        let Poll::Ready(unit) = poll_proceed(cx) else { return None };
        unit.made_progress();
        if work.begin_unit() {
            // Nobody but us bounds a poll outside of tokio.
            cx.waker().wake_by_ref();
            return None;
        }
        Some(self.receive())
    }

    /// Does what receiving asks of the sending half, and goes on.
    #[inline(never)]
    fn act<'a>(
        self: &'a Arc<Self>,
        receive: MutexGuard<'a, Receive>,
        effect: Effect,
        work: &mut Work,
    ) -> MutexGuard<'a, Receive> {
        match effect {
            // The first is answered at once, which shows whether the transport takes anything. The others leave together, as far as
            // their pings have arrived together.
            Effect::Answer(payload) if work.has_answered && receive.has_more_frames() => {
                work.add(1);
                let mut transmit = self.transmit();
                transmit.answer(payload);
                if !transmit.gathers_pongs() && work.hold == Hold::Never {
                    self.write_locked(&mut transmit);
                }
                drop(receive);
            }
            effect => {
                work.has_answered |= matches!(effect, Effect::Answer(_));
                work.add(Work::UNIT);
                self.apply(receive, [effect], work.hold);
            }
        }
        self.receive()
    }

    /// Has the reader woken by the transport; at once if it has called since it had nothing.
    fn sleep_reader<'a>(
        &'a self,
        receive: MutexGuard<'a, Receive>,
        cx: &Context<'_>,
    ) -> Option<MutexGuard<'a, Receive>> {
        let mut retired = None;
        let is_asleep = self.signals.sleep_reader(cx.waker(), &mut retired);
        drop(receive);
        drop(retired);
        if !is_asleep {
            cx.waker().wake_by_ref();
        }
        None
    }

    /// Writes the answers that were left for later, unless they leave with the replies to a batch.
    #[inline]
    fn finish(self: &Arc<Self>, work: &Work) {
        if work.has_answered {
            self.write(self.transmit(), work.hold);
        }
    }

    /// Whoever was waiting to read does so no more.
    #[cold]
    pub(crate) fn stop_waiting(&self) {
        // If it is not asleep any more then it was woken, and leaves the work to the task.
        if self.signals.remove_reader().is_none() {
            self.signals.watch(false);
            self.signals.wake_task();
        }
    }

    fn poll_fill(&self, receive: &mut Receive) -> Poll<Fill> {
        self.signals.begin_read();
        receive.poll_fill(&mut self.context())
    }

    /// The application has got something, and may be away for long.
    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    fn leave_reading(self: &Arc<Self>, receive: MutexGuard<'_, Receive>, batch: &mut Batch) {
        if self.signals.has_sleeping_reader() {
            return self.leave_reading_awake(receive, batch);
        }
        self.leave(receive, batch);
    }

    /// The same for a reader that was not woken: its waker is dropped once nothing is locked.
    #[cold]
    fn leave_reading_awake(self: &Arc<Self>, receive: MutexGuard<'_, Receive>, batch: &mut Batch) {
        let reader = self.signals.remove_reader();
        self.leave(receive, batch);
        drop(reader);
    }

    /// The application has got the last message of its batch.
    #[inline(never)]
    fn leave_batch(self: &Arc<Self>, batch: &mut Batch) {
        let mut receive = self.receive();
        receive.end_batch();
        self.leave_reading(receive, batch);
    }

    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    fn leave(self: &Arc<Self>, mut receive: MutexGuard<'_, Receive>, batch: &mut Batch) {
        receive.hand_out();
        if !receive.has_more_frames() || receive.is_in_message() {
            batch.has_more = false;
            return self.leave_idle(receive, batch);
        }
        Self::leave_busy(receive, batch);
    }

    /// The same, with more frames in memory.
    #[inline(never)]
    fn leave_busy(mut receive: MutexGuard<'_, Receive>, batch: &mut Batch) {
        receive.fill(batch);
        batch.has_more = true;
    }

    /// The same, with no whole frame in memory that a `recv` could take.
    fn leave_idle(self: &Arc<Self>, mut receive: MutexGuard<'_, Receive>, batch: &mut Batch) {
        if receive.has_ended() {
            if let Some(effect) = receive.tell() {
                self.apply(receive, [effect], Hold::Never);
            }
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
            let Poll::Ready(fill) = self.poll_fill(&mut receive) else {
                return self.signals.set_quiet(receive.is_quiet());
            };
            if let Fill::Effect(effect) = fill {
                return self.apply(receive, [effect], Hold::Never);
            }
        }
        if receive.has_more_frames() {
            // More has just come.
            Self::leave_busy(receive, batch);
        } else if receive.is_stopped_by_data() {
            // A part of the next message: no reason to hold a large buffer while the application is busy.
            receive.park();
        } else {
            drop(receive);
            self.signals.wake_task();
        }
    }

    /// Reads while nobody else does: as far as the first message that nobody has asked for.
    pub(crate) fn read_unattended(self: &Arc<Self>, cx: &mut Context<'_>) {
        let mut work = Work::default();
        while let Poll::Ready(unit) = poll_proceed(cx) {
            unit.made_progress();
            // The task runs on tokio, within its budget.
            let _ = work.begin_unit();
            if self.read_unit_unattended(&mut work) {
                break;
            }
        }
        self.finish(&work);
    }

    /// Does one unit of that; whether it is done.
    fn read_unit_unattended(self: &Arc<Self>, work: &mut Work) -> bool {
        let mut receive = self.receive();
        while !work.is_unit() {
            if receive.has_ended() || receive.is_stopped_by_data() {
                receive.park();
                drop(receive);
                self.signals.wake_reader();
                return true;
            }
            match receive.advance() {
                Advance::Data => work.add_data(&receive),
                Advance::Effect(effect) => receive = self.act(receive, effect, work),
                Advance::NeedsBytes => match self.poll_fill(&mut receive) {
                    Poll::Ready(Fill::Bytes(count)) => work.add_read(count),
                    Poll::Ready(Fill::Effect(effect)) => receive = self.act(receive, effect, work),
                    Poll::Pending => return true,
                },
            }
        }
        false
    }

    /// Takes what has arrived, though nobody asks for it, where it must not be left to the transport.
    pub(crate) fn gather(&self) {
        if self.multiplexed.is_some() {
            self.receive().gather(&mut self.context());
        }
    }

    /// Does what receiving asks of the sending half.
    fn apply(
        self: &Arc<Self>,
        receive: MutexGuard<'_, Receive>,
        effects: impl IntoIterator<Item = Effect>,
        hold: Hold,
    ) {
        // Locked before the other is given back: whoever reads on is answered behind this.
        let mut transmit = self.transmit();
        drop(receive);
        match self.apply_locked(&mut transmit, effects) {
            Some(end) => {
                self.write_now(transmit);
                self.conclude(end);
            }
            None => self.write(transmit, hold),
        }
    }

    /// The same; to be followed by writing, and by [`conclude`](Self::conclude) if that was the end.
    fn apply_locked(
        &self,
        transmit: &mut Transmit,
        effects: impl IntoIterator<Item = Effect>,
    ) -> Option<Concluded> {
        // An answer to our Close frame decides nothing.
        let decides = transmit.closed().is_none();
        let mut ending = None;
        for effect in effects {
            if let Effect::Lost(error) = &effect {
                // What waits behind a cork is still written. If that fails, the reason is known already.
                transmit.refuse(error.clone());
                self.write_locked(transmit);
            }
            ending = effect.apply(transmit).or(ending);
        }
        ending.map(|ending| Concluded { ending, decides })
    }

    /// The connection has ended for us.
    fn conclude(&self, Concluded { ending, decides }: Concluded) {
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

    pub(crate) fn try_send<'a, M: Into<Payload<'a>>>(
        self: &Arc<Self>,
        message: M,
        hold: Hold,
    ) -> Result<(), TrySendError<M>> {
        let mut transmit = self.transmit();
        if transmit.closed().is_some() {
            return Err(TrySendError::Closed(message));
        }
        if transmit.turn(&Place::default()) != Turn::Now {
            return Err(TrySendError::Full(message));
        }
        let accepted = self.accept(transmit, message.into(), hold);
        debug_assert!(accepted.is_ok(), "an open connection with room accepts a message");
        Ok(())
    }

    /// Accepts a message for which there is room.
    #[inline]
    pub(crate) fn accept(
        self: &Arc<Self>,
        mut transmit: Locked<'_>,
        mut payload: Payload<'_>,
        hold: Hold,
    ) -> Result<(), Error> {
        let accepted = transmit.accept(&mut payload);
        self.write(transmit, hold);
        // What is left of the payload is dropped here, behind the lock: that may be the application's code.
        accepted
    }

    /// Writes, unless that is better left for later; gives the lock back.
    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    pub(crate) fn write(self: &Arc<Self>, mut transmit: Locked<'_>, hold: Hold) {
        if !transmit.is_blocked() {
            if hold == Hold::InBatch && !transmit.is_reply_due() {
                let is_first = transmit.holds_one();
                transmit.give_back();
                if is_first {
                    self.write_later();
                }
                return;
            }
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
        transmit.lose(Error::of_transport("writing to the peer failed", error));
        self.signals.wake_task();
    }

    /// Has what is held back written even if the application never calls again: when the poll under way has ended, by the
    /// connection's task or by us.
    #[inline(never)]
    fn write_later(self: &Arc<Self>) {
        match poller() {
            Poller::Task => self.signals.wake_task(),
            Poller::BlockOn => EndOfPoll::watch(self),
            Poller::Foreign => self.write_held(),
        }
    }

    /// Writes what is held back.
    pub(crate) fn write_held(&self) {
        let transmit = self.transmit();
        if transmit.holds() {
            self.write_now(transmit);
        }
    }

    /// Writes what it can, now that nobody will look after the connection any more.
    pub(crate) fn write_last(&self) {
        self.write_locked(&mut self.transmit());
    }

    // ---- closing

    /// Begins the closing handshake, unless it has begun.
    pub(crate) fn begin_close(&self, frame: &CloseFrame) {
        self.begin_close_with(frame, closed_by_us(), |_| ());
    }

    /// The same. Later senders get `error`; `prepare` is called right before.
    pub(crate) fn begin_close_with(
        &self,
        frame: &CloseFrame,
        error: Error,
        prepare: impl FnOnce(&mut Transmit),
    ) {
        // Both are locked, so that whoever reads on finds that ours was the first Close frame, and whoever sends that it was sent.
        let mut receive = self.receive();
        let mut transmit = self.transmit();
        if !transmit.has_transport() {
            // That is how the connection ends, not by us; and there is nobody to wait for.
            drop(receive);
            prepare(&mut transmit);
            let lost = transmit.closed().filter(|_| !transmit.is_finished()).cloned();
            drop(transmit);
            return lost.iter().for_each(|error| self.lose(error));
        }
        let effects = receive.close();
        drop(receive);
        let concluded = self.apply_locked(&mut transmit, effects);
        let decides = transmit.closed().is_none();
        prepare(&mut transmit);
        transmit.close(Some(frame), error);
        self.write_now(transmit);
        if let Some(concluded) = concluded {
            self.conclude(concluded);
        }
        self.signals.set_task_waits(true);
        self.signals.wake_reader();
        self.signals.wake_task();
        if decides {
            events::connection_closed(self.addresses.peer, "us", Some(frame.code()));
        }
    }

    /// From now on someone else closes the connection, not the drop of its `WebSocket`.
    #[cfg(feature = "server")]
    pub(crate) fn supervise(&self) {
        self.supervised.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_supervised(&self) -> bool {
        self.supervised.load(Ordering::Relaxed)
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
        let read_half = receive.release();
        drop(receive);
        drop(read_half);
        let mut transmit = self.transmit();
        transmit.lose(error.clone());
        transmit.finish();
        drop(transmit);
        self.settle();
    }
}

/// What was done since the last unit of the task's budget was paid.
#[derive(Default)]
struct Work {
    steps: u32,
    units: u32,
    has_read: bool,
    /// A pong was written; others may be still to be.
    has_answered: bool,
    /// Whether what is answered may leave with the replies to a batch.
    hold: Hold,
}

impl Work {
    /// How many steps one unit pays for: of the smallest frames, they take about a microsecond.
    const UNIT: u32 = 32;

    /// As many as tokio's budget has.
    const UNITS_MAX: u32 = 128;

    /// How many bytes that were read are a step: a unit pays for 256 KiB.
    const STEP_SIZE: usize = 8 * 1024;

    fn within(hold: Hold) -> Self {
        Self { hold, ..Self::default() }
    }

    fn add(&mut self, steps: u32) {
        self.steps = self.steps.saturating_add(steps);
    }

    /// A frame, or a part of one. A message that comes out large is as much work as many.
    fn add_data(&mut self, receive: &Receive) {
        self.add(if receive.has_more_to_inflate() { Self::UNIT } else { 1 });
    }

    /// The first read belongs to the first unit, all others are one each at least.
    fn add_read(&mut self, bytes: usize) {
        self.add(u32::try_from(bytes / Self::STEP_SIZE).unwrap_or(u32::MAX));
        if std::mem::replace(&mut self.has_read, true) {
            self.add(Self::UNIT);
        }
    }

    fn is_unit(&self) -> bool {
        self.steps >= Self::UNIT
    }

    /// Begins another unit, for which what is more than a unit is left; whether that makes more of them than a poll may take.
    fn begin_unit(&mut self) -> bool {
        self.steps = self.steps.saturating_sub(Self::UNIT);
        self.units += 1;
        self.units >= Self::UNITS_MAX
    }
}

/// How the connection has ended for us, to be told once nothing is locked.
struct Concluded {
    ending: Ending,
    /// The first Close frame, or what stands in for it, was this.
    decides: bool,
}

/// Finds the end of the poll under way: tokio wakes a waker that was deferred when the future has yielded, and drops it when
/// the future is ready, since then nobody is left to be woken.
struct EndOfPoll {
    /// Until it was woken.
    connection: Option<Arc<Connection>>,
}

thread_local! {
    /// One of this thread that was woken, so that a batch takes no allocation.
    static SPARE: Cell<Option<Arc<EndOfPoll>>> = const { Cell::new(None) };
}

impl EndOfPoll {
    fn watch(connection: &Arc<Connection>) {
        let mut end =
            SPARE.try_with(Cell::take).ok().flatten().unwrap_or_else(|| Arc::new(Self { connection: None }));
        if let Some(end) = Arc::get_mut(&mut end) {
            end.connection = Some(Arc::clone(connection));
        }
        let waker = Waker::from(Arc::clone(&end));
        // Its first poll defers the waker. Where there is nothing to defer to, nobody but us keeps `end`, and it writes as it is
        // dropped.
        let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
    }
}

impl Wake for EndOfPoll {
    fn wake(mut self: Arc<Self>) {
        self.wake_by_ref();
        if let Some(end) = Arc::get_mut(&mut self) {
            end.connection = None;
            // It fails only while the thread ends.
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Most of the time the reader has written it all.
        let holds = |connection: &&Arc<Connection>| connection.transmit().holds();
        if let Some(connection) = self.connection.as_ref().filter(holds) {
            connection.signals.wake_task();
        }
    }
}

impl Drop for EndOfPoll {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.write_held();
        }
    }
}
