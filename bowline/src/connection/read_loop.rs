//! The read loop: for the application, and in its place while it does not read.
//!
//! ```text
//!              .--------------------------------------------------------.
//!              v                                                        |
//! take: is there what the caller wants? --no--> advance: parse one frame |
//!   |                                              |        |           |
//!   yes                                          data     effect   needs bytes
//!   |                                              |        |           |
//!   v                                              |     reaction   read once --pending--> sleep
//! leave the half in order, return                  '--------'-----------'
//! ```
//!
//! # Budget
//!
//! The work of one poll is bounded, so that a flood does not starve the other tasks of its thread. Each frame and each read count as
//! [`Work`]. A unit of the budget of the tokio task pays for 32 frames or 256 KiB. Without budget, or after 128 units, the poll
//! ends, and the task is woken to go on.
//!
//! # What a reader leaves
//!
//! The application may compute for a long time after it was handed a message. The reader therefore leaves the half so that others can
//! go on: no buffer is kept while nothing is in it, and the transport knows to call the connection's waker for the next bytes. If
//! more whole messages are in memory, they are left in the batch, and nobody reads past them.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bowline_proto::MessageKind;
use tokio::io::ReadBuf;
use tokio::task::coop::{RestoreOnPending, poll_proceed};

use crate::connection::Connection;
use crate::connection::inbound::batch::{Batch, Hold};
use crate::connection::inbound::effect::Effect;
use crate::connection::inbound::{Advance, Fill, Inbound};
use crate::error::Error;
use crate::message::Message;
use crate::sync::MutexGuard;

impl Connection {
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
            return self.poll_next_in_batch::<WRITES, _>(cx, batch, Inbound::take_message);
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
            None => self.poll_next(cx, batch, Inbound::take_start),
        }
    }

    /// Begins to read the next message of the batch, if there is one.
    fn read_from_batch(&self, batch: &mut Batch) -> Option<MessageKind> {
        let message = batch.pop()?;
        let kind = message.kind();
        let mut inbound = self.inbound();
        inbound.read_whole(message);
        if !batch.has_messages() {
            inbound.end_batch();
            batch.has_more = inbound.has_more_frames();
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
        self.poll_next(cx, batch, |inbound| inbound.take_bytes(buf))
    }

    /// Ready once `take` finds what it wants in what has arrived, which is read as needed. The batch has to be empty.
    pub(crate) fn poll_next<T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        take: impl FnMut(&mut Inbound) -> Option<T>,
    ) -> Poll<T> {
        self.poll_next_in_batch::<true, T>(cx, batch, take)
    }

    #[inline]
    fn poll_next_in_batch<const WRITES: bool, T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        take: impl FnMut(&mut Inbound) -> Option<T>,
    ) -> Poll<T> {
        if !batch.has_more && self.waker.sleep_in_quiet(cx.waker()) {
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
        mut take: impl FnMut(&mut Inbound) -> Option<T>,
        taken: &mut Option<T>,
    ) -> Poll<()> {
        // One flooding connection must not starve the others of its thread, even if all of the flood is in memory.
        let progress = ready!(poll_proceed(cx));
        let mut inbound = self.inbound();
        let mut work = Work::within(batch.hold());
        // The most frequent case: woken by the transport, with nothing in memory.
        if !batch.has_more && inbound.is_bare() && self.waker.was_called() {
            match self.poll_fill(&mut inbound) {
                Poll::Ready(Fill::Bytes(count)) => work.add_read(count),
                Poll::Ready(Fill::Effect(effect)) => inbound = self.act(inbound, effect, &mut work),
                Poll::Pending => {}
            }
        }
        loop {
            // Called at one place only, and little else in this function, so that it is inlined.
            *taken = take(&mut inbound);
            if taken.is_some() {
                progress.made_progress();
                self.leave_reading(inbound, batch);
                self.finish(&work);
                return Poll::Ready(());
            }
            let Some(unlocked) = self.step::<WRITES>(inbound, cx, batch, &progress, &mut work) else { break };
            inbound = unlocked;
        }
        self.finish(&work);
        Poll::Pending
    }

    /// Looks at the next frame, or reads; `None` if the reader has to wait, for the transport or for others to have their turn.
    #[inline(never)]
    fn step<'a, const WRITES: bool>(
        self: &'a Arc<Self>,
        mut inbound: MutexGuard<'a, Inbound>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        progress: &RestoreOnPending,
        work: &mut Work,
    ) -> Option<MutexGuard<'a, Inbound>> {
        match inbound.advance() {
            Advance::Data => work.add_data(&inbound),
            Advance::Effect(effect) => inbound = self.act(inbound, effect, work),
            Advance::NeedsBytes if batch.has_more => {
                (batch.has_more, work.hold) = (false, Hold::Never);
                if !WRITES {
                    return Some(inbound);
                }
                drop(inbound);
                self.write_held();
                // The task may have read meanwhile.
                return Some(self.inbound());
            }
            // A transport that had nothing, and has not called since, is not asked again.
            Advance::NeedsBytes if inbound.awaits_transport() && !self.waker.was_called() => {
                return self.sleep_reader(inbound, cx);
            }
            Advance::NeedsBytes => match self.poll_fill(&mut inbound) {
                Poll::Ready(Fill::Bytes(count)) => work.add_read(count),
                Poll::Ready(Fill::Effect(effect)) => inbound = self.act(inbound, effect, work),
                Poll::Pending => return self.sleep_reader(inbound, cx),
            },
        }
        if !work.is_unit() {
            return Some(inbound);
        }
        progress.made_progress();
        drop(inbound);
        let Poll::Ready(unit) = poll_proceed(cx) else { return None };
        unit.made_progress();
        if work.begin_unit() {
            // Nobody but us bounds a poll outside of tokio.
            cx.waker().wake_by_ref();
            return None;
        }
        Some(self.inbound())
    }

    /// Does what receiving asks of the sending half, and goes on.
    #[inline(never)]
    fn act<'a>(
        self: &'a Arc<Self>,
        inbound: MutexGuard<'a, Inbound>,
        effect: Effect,
        work: &mut Work,
    ) -> MutexGuard<'a, Inbound> {
        match effect {
            // The first is answered at once, which shows whether the transport takes anything. The others leave together, as far as
            // their pings have arrived together.
            Effect::Answer(payload) if work.has_answered && inbound.has_more_frames() => {
                work.add(1);
                let mut outbound = self.outbound();
                outbound.answer(payload);
                if !outbound.gathers_pongs() && work.hold == Hold::Never {
                    self.write_locked(&mut outbound);
                }
                drop(inbound);
            }
            effect => {
                work.has_answered |= matches!(effect, Effect::Answer(_));
                work.add(Work::UNIT);
                self.apply(inbound, [effect], work.hold);
            }
        }
        self.inbound()
    }

    /// Has the reader woken by the transport; at once if it has called since it had nothing.
    fn sleep_reader<'a>(
        &'a self,
        inbound: MutexGuard<'a, Inbound>,
        cx: &Context<'_>,
    ) -> Option<MutexGuard<'a, Inbound>> {
        let mut retired = None;
        let is_asleep = self.waker.sleep_reader(cx.waker(), &mut retired);
        drop(inbound);
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
            self.write(self.outbound(), work.hold);
        }
    }

    /// Whoever was waiting to read does so no more.
    #[cold]
    pub(crate) fn stop_waiting(&self) {
        // If it is not asleep any more then it was woken, and leaves the work to the task.
        if self.waker.remove_reader().is_none() {
            self.waker.watch(false);
            self.waker.wake_task();
        }
    }

    fn poll_fill(&self, inbound: &mut Inbound) -> Poll<Fill> {
        self.waker.begin_read();
        inbound.poll_fill(&mut self.context())
    }

    /// The application has got something, and may be away for long.
    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    fn leave_reading(self: &Arc<Self>, inbound: MutexGuard<'_, Inbound>, batch: &mut Batch) {
        if self.waker.has_sleeping_reader() {
            return self.leave_reading_awake(inbound, batch);
        }
        self.leave(inbound, batch);
    }

    /// The same for a reader that was not woken: its waker is dropped once nothing is locked.
    #[cold]
    fn leave_reading_awake(self: &Arc<Self>, inbound: MutexGuard<'_, Inbound>, batch: &mut Batch) {
        let reader = self.waker.remove_reader();
        self.leave(inbound, batch);
        drop(reader);
    }

    /// The application has got the last message of its batch.
    #[inline(never)]
    fn leave_batch(self: &Arc<Self>, batch: &mut Batch) {
        let mut inbound = self.inbound();
        inbound.end_batch();
        self.leave_reading(inbound, batch);
    }

    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    fn leave(self: &Arc<Self>, mut inbound: MutexGuard<'_, Inbound>, batch: &mut Batch) {
        inbound.hand_out();
        if !inbound.has_more_frames() || inbound.is_in_message() {
            batch.has_more = false;
            return self.leave_idle(inbound, batch);
        }
        Self::leave_busy(inbound, batch);
    }

    /// The same, with more frames in memory.
    #[inline(never)]
    fn leave_busy(mut inbound: MutexGuard<'_, Inbound>, batch: &mut Batch) {
        inbound.fill(batch);
        batch.has_more = true;
    }

    /// The same, with no whole frame in memory that a `recv` could take.
    fn leave_idle(self: &Arc<Self>, mut inbound: MutexGuard<'_, Inbound>, batch: &mut Batch) {
        if inbound.has_ended() {
            if let Some(effect) = inbound.tell() {
                self.apply(inbound, [effect], Hold::Never);
            }
            return;
        }
        if inbound.is_in_message() {
            // Its reader may take its time. Whole frames are about to be taken, and not worth a copy.
            if !inbound.has_more_frames() {
                inbound.park();
            }
            return;
        }
        if !inbound.has_bytes() {
            // The transport has to know whom to wake if a ping comes while the application is busy.
            self.waker.begin_read();
            if inbound.is_idle(&mut self.context()) {
                inbound.park();
                return self.waker.set_quiet(inbound.is_quiet());
            }
            let Poll::Ready(fill) = self.poll_fill(&mut inbound) else {
                return self.waker.set_quiet(inbound.is_quiet());
            };
            if let Fill::Effect(effect) = fill {
                return self.apply(inbound, [effect], Hold::Never);
            }
        }
        if inbound.has_more_frames() {
            // More has just come.
            Self::leave_busy(inbound, batch);
        } else if inbound.is_stopped_by_data() {
            // A part of the next message: no reason to hold a large buffer while the application is busy.
            inbound.park();
        } else {
            drop(inbound);
            self.waker.wake_task();
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
        let mut inbound = self.inbound();
        while !work.is_unit() {
            if inbound.has_ended() || inbound.is_stopped_by_data() {
                inbound.park();
                drop(inbound);
                self.waker.wake_reader();
                return true;
            }
            match inbound.advance() {
                Advance::Data => work.add_data(&inbound),
                Advance::Effect(effect) => inbound = self.act(inbound, effect, work),
                Advance::NeedsBytes => match self.poll_fill(&mut inbound) {
                    Poll::Ready(Fill::Bytes(count)) => work.add_read(count),
                    Poll::Ready(Fill::Effect(effect)) => inbound = self.act(inbound, effect, work),
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
            self.inbound().gather(&mut self.context());
        }
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
    fn add_data(&mut self, inbound: &Inbound) {
        self.add(if inbound.has_more_to_inflate() { Self::UNIT } else { 1 });
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
