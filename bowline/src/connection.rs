//! One connection: its two halves, each behind a lock of its own, and what passes between them.

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

use bowline_proto::{CloseFrame, ReceiveHalf, ReceiveLimits, Role};
use tokio::task::coop::{RestoreOnPending, poll_proceed};
use tokio::task::yield_now;

use crate::compression::Window;
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
use crate::message::Payload;
use crate::sync::{AtomicUsize, Mutex, MutexGuard, is_in_block_on};
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
    #[cfg(feature = "http2")]
    is_multiplexed: bool,
    /// More messages are in memory, so that the replies that this thread sends may wait until the reader wants to; 0 if not.
    corked: AtomicUsize,
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
            corked: AtomicUsize::new(0),
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
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        take: impl FnMut(&mut Receive) -> Option<T>,
    ) -> Poll<T> {
        self.poll_next_in_batch::<true, T>(cx, take)
    }

    /// The same; whether the replies to a batch are written before it waits, or are left to the connection's task.
    #[inline]
    pub(crate) fn poll_next_in_batch<const WRITES: bool, T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        take: impl FnMut(&mut Receive) -> Option<T>,
    ) -> Poll<T> {
        if !self.is_corked() && self.signals.sleep_in_quiet(cx.waker()) {
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
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut Receive) -> Option<T>,
        taken: &mut Option<T>,
    ) -> Poll<()> {
        // One flooding connection must not starve the others of its thread, even if all of the flood is in memory.
        let progress = ready!(poll_proceed(cx));
        let mut receive = self.receive();
        let mut work = Work::default();
        loop {
            // Called at one place only, and little else in this function, so that it is inlined.
            *taken = take(&mut receive);
            if taken.is_some() {
                progress.made_progress();
                self.leave_reading(receive);
                self.finish(&work);
                return Poll::Ready(());
            }
            let Some(unlocked) = self.step::<WRITES>(receive, cx, &progress, &mut work) else { break };
            receive = unlocked;
        }
        self.finish(&work);
        Poll::Pending
    }

    /// Looks at the next frame, or reads; `None` if the reader has to wait, for the transport or for others to have their turn.
    #[inline(never)]
    fn step<'a, const WRITES: bool>(
        &'a self,
        mut receive: MutexGuard<'a, Receive>,
        cx: &mut Context<'_>,
        progress: &RestoreOnPending,
        work: &mut Work,
    ) -> Option<MutexGuard<'a, Receive>> {
        match receive.advance() {
            Advance::Data => work.add_data(&receive),
            Advance::Effect(effect) => receive = self.act(receive, effect, work),
            Advance::NeedsBytes if WRITES && self.is_corked() => {
                drop(receive);
                self.uncork();
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
        &'a self,
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
                if !transmit.gathers_pongs() && !self.is_corked() {
                    self.write_locked(&mut transmit);
                }
                drop(receive);
            }
            effect => {
                work.has_answered |= matches!(effect, Effect::Answer(_));
                work.add(Work::UNIT);
                self.apply(receive, [effect]);
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
    fn finish(&self, work: &Work) {
        if work.has_answered && !self.is_corked() {
            self.write_now(self.transmit());
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
    fn leave_reading(self: &Arc<Self>, mut receive: MutexGuard<'_, Receive>) {
        if self.signals.has_sleeping_reader() {
            return self.leave_reading_awake(receive);
        }
        receive.hand_out();
        if !receive.has_more_frames() || receive.is_in_message() {
            return self.leave_idle(receive);
        }
        drop(receive);
        if !self.is_corked() {
            self.cork();
        }
    }

    /// The same for a reader that was not woken: its waker is dropped once nothing is locked.
    #[cold]
    fn leave_reading_awake(self: &Arc<Self>, mut receive: MutexGuard<'_, Receive>) {
        let reader = self.signals.remove_reader();
        receive.hand_out();
        if !receive.has_more_frames() || receive.is_in_message() {
            self.leave_idle(receive);
        } else {
            drop(receive);
            self.cork();
        }
        drop(reader);
    }

    /// Begins to hold back the replies to a batch. Should the application never read again, they are written when the task
    /// that is being polled yields.
    #[inline(never)]
    fn cork(self: &Arc<Self>) {
        if self.corked.swap(this_thread(), Ordering::SeqCst) != 0 {
            return;
        }
        if is_in_block_on() {
            EndOfPoll::watch(self);
        } else {
            self.signals.wake_task();
        }
    }

    /// The same, with no whole frame in memory that a `recv` could take.
    fn leave_idle(self: &Arc<Self>, mut receive: MutexGuard<'_, Receive>) {
        if receive.has_ended() {
            if let Some(effect) = receive.tell() {
                self.apply(receive, [effect]);
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
                return self.apply(receive, [effect]);
            }
        }
        if receive.has_more_frames() {
            // More has just come.
            drop(receive);
            self.cork();
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
    fn read_unit_unattended(&self, work: &mut Work) -> bool {
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
        match self.apply_locked(&mut transmit, effects) {
            Some(end) => {
                self.write_now(transmit);
                self.conclude(end);
            }
            None => self.write(transmit, Hold::InBatch),
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
        &self,
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
        &self,
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
    pub(crate) fn write(&self, mut transmit: Locked<'_>, hold: Hold) {
        // What another thread sends is none, and the thread that works off the batch may be busy for long.
        let is_reply = || hold == Hold::InBatch && self.corked.load(Ordering::SeqCst) == this_thread();
        if !transmit.is_blocked() && (!is_reply() || transmit.is_reply_due()) {
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

    /// Ends the time in which writes are left for later.
    pub(crate) fn uncork(&self) {
        if self.corked.swap(0, Ordering::SeqCst) != 0 {
            self.write_now(self.transmit());
        }
    }

    /// Writes what it can, now that nobody will look after the connection any more.
    pub(crate) fn write_last(&self) {
        self.corked.store(0, Ordering::SeqCst);
        self.write_locked(&mut self.transmit());
    }

    #[inline]
    fn is_corked(&self) -> bool {
        self.corked.load(Ordering::SeqCst) != 0
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
        self.corked.store(0, Ordering::SeqCst);
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
        self.corked.store(0, Ordering::SeqCst);
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

/// Whether a message may wait for those behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// While the `WebSocket`, which sends it, works off a batch.
    InBatch,
    Never,
}

/// What was done since the last unit of the task's budget was paid.
#[derive(Default)]
struct Work {
    steps: u32,
    units: u32,
    has_read: bool,
    /// A pong was written; others may be still to be.
    has_answered: bool,
}

impl Work {
    /// How many steps one unit pays for: of the smallest frames, they take about a microsecond.
    const UNIT: u32 = 32;

    /// As many as tokio's budget has.
    const UNITS_MAX: u32 = 128;

    /// How many bytes that were read are a step: a unit pays for 256 KiB.
    const STEP_SIZE: usize = 8 * 1024;

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

thread_local! {
    static THREAD: u8 = const { 0 };
}

/// Something that tells this thread from all others that run.
#[inline]
fn this_thread() -> usize {
    THREAD.with(|thread| std::ptr::from_ref(thread).addr())
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
        let waker = Waker::from(end);
        // Its first poll defers the waker; where there is nothing to defer to, it is woken.
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
        if let Some(connection) = self.connection.as_ref().filter(|connection| connection.is_corked()) {
            connection.signals.wake_task();
        }
    }
}

impl Drop for EndOfPoll {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.uncork();
        }
    }
}
