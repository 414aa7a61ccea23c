//! The read loop, run by the application, or by the driver while the application does not read.
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
//! The work of one poll is bounded, so that a flood does not starve the other tasks of its thread. Each frame
//! and each read count as steps of a [`ReadPass`]. A unit of the budget of the tokio task pays for 32 frames
//! or 256 KiB. Without budget, or after 128 units, the poll ends, and the task is woken to go on.
//!
//! # What a reader leaves
//!
//! The application may compute for a long time after it was handed a message. The reader therefore leaves the
//! half so that others can go on: no empty buffer is kept, and the transport knows the connection's waker for
//! the next bytes. If more whole messages are in memory, they are left in the batch, and nobody reads past
//! them.

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
    /// Returns the next message: from the batch if it has one, otherwise by reading.
    ///
    /// `WRITES` says whether the replies to a batch are written before this call waits, or are left to the
    /// driver.
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

    /// Returns the next message of a batch that has one, without the lock of the inbound half.
    #[inline(never)]
    fn poll_batch(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
    ) -> Poll<Result<Option<Message>, Error>> {
        ready!(poll_proceed(cx)).made_progress();
        let message = batch.pop();
        if !batch.has_messages() {
            self.finish_batch(batch);
        } else if !self.is_corked() {
            // The driver has run since the last message. It has to write the replies to the others, too.
            self.cork();
        }
        Poll::Ready(Ok(message))
    }

    /// Starts to read the next message, and returns its kind.
    pub(crate) fn poll_start(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
    ) -> Poll<Result<Option<MessageKind>, Error>> {
        if !batch.has_messages() {
            return self.poll_next(cx, batch, Inbound::take_start);
        }
        ready!(poll_proceed(cx)).made_progress();
        Poll::Ready(Ok(self.read_from_batch(batch)))
    }

    /// Starts to read the next message of the batch, if there is one.
    fn read_from_batch(&self, batch: &mut Batch) -> Option<MessageKind> {
        let message = batch.pop()?;
        let kind = message.kind();
        let mut inbound = self.inbound();
        inbound.read_whole(message);
        inbound.hand_out();
        if !batch.has_messages() {
            inbound.end_batch();
            batch.has_more = inbound.has_more_frames();
        }
        Some(kind)
    }

    /// Moves a part of the reader's message into `buf`, or nothing at the end of the message.
    pub(crate) fn poll_read(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        self.poll_next(cx, batch, |inbound| inbound.take_bytes(buf))
    }

    /// Polls until `take` returns a value, reading from the transport as needed. The batch has to be empty.
    pub(crate) fn poll_next<T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        take: impl FnMut(&mut Inbound) -> Option<T>,
    ) -> Poll<T> {
        self.poll_next_in_batch::<true, T>(cx, batch, take)
    }

    /// Does the work of [`poll_next`](Self::poll_next). A spurious poll returns before either half is locked.
    #[inline]
    fn poll_next_in_batch<const WRITES: bool, T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        take: impl FnMut(&mut Inbound) -> Option<T>,
    ) -> Poll<T> {
        let mut is_corked = self.is_corked();
        if WRITES && is_corked && self.waker.is_quiet() {
            // The usual end of a batch: nothing is left in memory.
            self.uncork();
            is_corked = false;
        }
        if !is_corked && self.waker.try_sleep_quiet(cx.waker()) {
            return Poll::Pending;
        }
        let mut taken = None;
        let _ = self.poll_take::<WRITES, T>(cx, batch, take, &mut taken);
        taken.map_or(Poll::Pending, Poll::Ready)
    }

    /// The loop of the module's docs: lets `take` look for something, and parses or reads until there is
    /// something.
    ///
    /// Ready once `taken` is set. Measured: as a result instead, the message would be copied once more after
    /// the lock was released.
    #[inline(never)]
    fn poll_take<const WRITES: bool, T>(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        mut take: impl FnMut(&mut Inbound) -> Option<T>,
        taken: &mut Option<T>,
    ) -> Poll<()> {
        // One flooding connection must not starve the others on its thread, even if all of the flood is in
        // memory.
        let progress = ready!(poll_proceed(cx));
        let mut inbound = self.inbound();
        let mut pass = ReadPass::within(batch.hold());
        // The most frequent case is that the transport has woken the reader, and that nothing is in memory.
        if !self.is_corked() && inbound.is_bare() && self.waker.was_woken() {
            match self.poll_fill(&mut inbound) {
                Poll::Ready(Fill::Bytes(count)) => pass.add_read(count),
                Poll::Ready(Fill::Effect(effect)) => inbound = self.apply_effect(inbound, effect, &mut pass),
                Poll::Pending => {}
            }
        }
        loop {
            // `take` is called at a single place of a small function, so that the compiler inlines it.
            *taken = take(&mut inbound);
            if taken.is_some() {
                progress.made_progress();
                self.finish_reading(inbound, batch);
                self.write_pongs(&pass);
                return Poll::Ready(());
            }
            let Some(unlocked) = self.read_step::<WRITES>(inbound, cx, batch, &progress, &mut pass) else {
                break;
            };
            inbound = unlocked;
        }
        self.write_pongs(&pass);
        Poll::Pending
    }

    /// Parses the next frame, or reads. Returns `None` if the reader has to wait, either for the transport or
    /// for other tasks to have their turn.
    #[inline(never)]
    fn read_step<'a, const WRITES: bool>(
        self: &'a Arc<Self>,
        mut inbound: MutexGuard<'a, Inbound>,
        cx: &mut Context<'_>,
        batch: &mut Batch,
        progress: &RestoreOnPending,
        pass: &mut ReadPass,
    ) -> Option<MutexGuard<'a, Inbound>> {
        match inbound.advance() {
            Advance::Data => pass.add_data(&inbound),
            Advance::Effect(effect) => inbound = self.apply_effect(inbound, effect, pass),
            Advance::NeedsBytes if WRITES && self.is_corked() => {
                (batch.has_more, pass.hold) = (false, Hold::Never);
                drop(inbound);
                self.uncork();
                // The driver may have read meanwhile, while nothing was locked.
                return Some(self.inbound());
            }
            // A transport that had nothing, and has not woken the connection since, is not asked again.
            Advance::NeedsBytes if inbound.awaits_transport() && !self.waker.was_woken() => {
                return self.sleep_reader(inbound, cx);
            }
            Advance::NeedsBytes => match self.poll_fill(&mut inbound) {
                Poll::Ready(Fill::Bytes(count)) => pass.add_read(count),
                Poll::Ready(Fill::Effect(effect)) => inbound = self.apply_effect(inbound, effect, pass),
                Poll::Pending => return self.sleep_reader(inbound, cx),
            },
        }
        if !pass.is_unit() {
            return Some(inbound);
        }
        progress.made_progress();
        drop(inbound);
        let Poll::Ready(unit) = poll_proceed(cx) else { return None };
        unit.made_progress();
        if pass.begin_unit() {
            // Outside of tokio there is no budget, and nothing else bounds a poll.
            cx.waker().wake_by_ref();
            return None;
        }
        Some(self.inbound())
    }

    /// Applies an effect to the outbound half, and locks the inbound half again.
    #[inline(never)]
    fn apply_effect<'a>(
        self: &'a Arc<Self>,
        inbound: MutexGuard<'a, Inbound>,
        effect: Effect,
        pass: &mut ReadPass,
    ) -> MutexGuard<'a, Inbound> {
        match effect {
            // The first ping is answered at once, which shows whether the transport accepts anything. The
            // pongs to pings that have arrived together with it leave together.
            Effect::Answer(payload) if pass.has_answered && inbound.has_more_frames() => {
                pass.add(1);
                let mut outbound = self.outbound();
                outbound.answer(payload);
                if !outbound.gathers_pongs() {
                    self.write_locked(&mut outbound);
                }
                drop(inbound);
            }
            effect => {
                pass.has_answered |= matches!(effect, Effect::Answer(_));
                pass.add(ReadPass::UNIT);
                self.apply(inbound, [effect], pass.hold);
            }
        }
        self.inbound()
    }

    /// Registers the reader to be woken by the transport. Wakes the reader at once if the transport has woken
    /// us since its last `Pending`.
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

    /// Writes the pongs that were left for later, unless they leave with the replies to a batch.
    #[inline]
    fn write_pongs(self: &Arc<Self>, pass: &ReadPass) {
        if pass.has_answered {
            self.write(self.outbound(), pass.hold);
        }
    }

    /// Unregisters the waiting reader, whose future was dropped.
    #[cold]
    pub(crate) fn stop_waiting(&self) {
        // A reader that is not registered any more was woken by the transport. That reader will not read, so
        // the driver has to.
        if self.waker.remove_reader().is_none() {
            self.waker.watch(false);
            self.waker.wake_driver();
        }
    }

    /// Reads once. A wake-up by the transport counts from here on: see
    /// [`ConnectionWaker::begin_read`](crate::connection::waker::ConnectionWaker::begin_read).
    fn poll_fill(&self, inbound: &mut Inbound) -> Poll<Fill> {
        self.waker.begin_read();
        inbound.poll_fill(&mut self.context())
    }

    /// Leaves the inbound half in order, as the application was handed something and may compute for long.
    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    fn finish_reading(self: &Arc<Self>, inbound: MutexGuard<'_, Inbound>, batch: &mut Batch) {
        if self.waker.has_sleeping_reader() {
            return self.finish_reading_registered(inbound, batch);
        }
        self.prepare_for_next(inbound, batch);
    }

    /// Does the same for a reader that is still registered. Its waker is dropped once nothing is locked.
    #[cold]
    fn finish_reading_registered(self: &Arc<Self>, inbound: MutexGuard<'_, Inbound>, batch: &mut Batch) {
        let reader = self.waker.remove_reader();
        self.prepare_for_next(inbound, batch);
        drop(reader);
    }

    /// Leaves the inbound half in order after the last message of a batch.
    #[inline(never)]
    fn finish_batch(self: &Arc<Self>, batch: &mut Batch) {
        let mut inbound = self.inbound();
        inbound.end_batch();
        self.finish_reading(inbound, batch);
    }

    /// Notes that the application was handed something. Fills the next batch if whole frames are in memory.
    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    fn prepare_for_next(self: &Arc<Self>, mut inbound: MutexGuard<'_, Inbound>, batch: &mut Batch) {
        inbound.hand_out();
        if inbound.has_bytes() && !inbound.is_in_message() {
            if let Some(size) = inbound.next_frame_size() {
                return self.prepare_for_more(inbound, batch, size);
            }
        }
        batch.has_more = false;
        self.prepare_to_idle(inbound, batch);
    }

    /// Does the same if more frames are in memory, the next one of `size` bytes.
    #[inline]
    fn prepare_for_more(self: &Arc<Self>, inbound: MutexGuard<'_, Inbound>, batch: &mut Batch, size: usize) {
        if Batch::may_contain(size) && inbound.has_message() {
            return self.fill_batch(inbound, batch);
        }
        drop(inbound);
        batch.has_more = true;
        if !self.is_corked() {
            self.cork();
        }
    }

    /// Takes the whole messages that are in memory as the next batch.
    #[inline(never)]
    fn fill_batch(self: &Arc<Self>, mut inbound: MutexGuard<'_, Inbound>, batch: &mut Batch) {
        inbound.fill(batch);
        if !inbound.has_bytes() {
            inbound.park();
        }
        drop(inbound);
        batch.has_more = true;
        if !self.is_corked() {
            self.cork();
        }
    }

    /// Leaves the half in order if no whole frame that `recv` could take is in memory. Each case names who
    /// reads next:
    ///
    /// - The end, after which our direction is still open: nobody. The application has learned of the end by
    ///   now, so our direction ends, too.
    /// - A message that is being received: its reader.
    /// - Nothing at all: whoever the connection's waker wakes, as soon as the transport is ready. If nothing
    ///   was left for the application either, the half is quiet, and a `recv` sleeps without locking the
    ///   half.
    /// - A part of a data message: the application.
    /// - A part of anything else: the driver.
    fn prepare_to_idle(self: &Arc<Self>, mut inbound: MutexGuard<'_, Inbound>, batch: &mut Batch) {
        if inbound.has_ended() {
            if let Some(effect) = inbound.end_half_open() {
                self.apply(inbound, [effect], Hold::Never);
            }
            return;
        }
        if inbound.is_in_message() {
            // The reader of the message may compute for long. If whole frames are in memory, they are about
            // to be taken, and moving them is not worth a copy.
            if !inbound.has_more_frames() {
                inbound.park();
            }
            return;
        }
        if !inbound.has_bytes() {
            // The transport has to know the connection's waker, in case a ping arrives while the application
            // is busy.
            //
            // `begin_read` comes first. In the other order, a wake-up by the transport right after the check
            // would be forgotten, and the half be taken for quiet although bytes have arrived.
            self.waker.begin_read();
            if inbound.check_idle(&mut self.context()) {
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
        if let Some(size) = inbound.next_frame_size() {
            // More frames have just arrived.
            self.prepare_for_more(inbound, batch, size);
        } else if inbound.is_stopped_by_data() {
            // A part of the next message is in memory, which is no reason to keep a large buffer while the
            // application is busy.
            inbound.park();
        } else {
            drop(inbound);
            self.waker.wake_driver();
        }
    }

    /// Reads while nobody else does, up to the first message that nobody has asked for.
    pub(crate) fn read_unattended(self: &Arc<Self>, cx: &mut Context<'_>) {
        let mut pass = ReadPass::default();
        while let Poll::Ready(unit) = poll_proceed(cx) {
            unit.made_progress();
            // The driver runs on tokio, whose budget bounds it.
            let _ = pass.begin_unit();
            if self.read_unit(&mut pass) {
                break;
            }
        }
        self.write_pongs(&pass);
    }

    /// Reads for one unit of the budget. Returns whether there is nothing more to read for now.
    fn read_unit(self: &Arc<Self>, pass: &mut ReadPass) -> bool {
        let mut inbound = self.inbound();
        while !pass.is_unit() {
            if inbound.has_ended() || inbound.is_stopped_by_data() {
                inbound.park();
                drop(inbound);
                self.waker.wake_reader();
                return true;
            }
            match inbound.advance() {
                Advance::Data => pass.add_data(&inbound),
                Advance::Effect(effect) => inbound = self.apply_effect(inbound, effect, pass),
                Advance::NeedsBytes => match self.poll_fill(&mut inbound) {
                    Poll::Ready(Fill::Bytes(count)) => pass.add_read(count),
                    Poll::Ready(Fill::Effect(effect)) => inbound = self.apply_effect(inbound, effect, pass),
                    Poll::Pending => return true,
                },
            }
        }
        false
    }

    /// Takes the bytes that have arrived out of the HTTP/2 connection, although nobody asks for them. Left
    /// there, small frames cost more than their bytes.
    pub(crate) fn gather(&self) {
        if self.multiplexed.is_some() {
            self.inbound().gather(&mut self.context());
        }
    }
}

/// One pass of a poll over the inbound half: the work that was done, in units of the budget, and the pongs
/// that are still to be written.
#[derive(Default)]
struct ReadPass {
    /// The steps that no unit has paid for yet.
    steps: u32,
    /// The units that were paid for in this poll.
    units: u32,
    has_read: bool,
    /// Set if a pong was written, after which other pongs may still have to be written.
    has_answered: bool,
    /// Tells whether pongs may leave with the replies to a batch.
    hold: Hold,
}

impl ReadPass {
    /// The steps that one unit pays for: with the smallest frames they take about a microsecond.
    const UNIT: u32 = 32;

    /// The most units of one poll, as many as tokio's budget has.
    const UNITS_MAX: u32 = 128;

    /// The bytes that count as one step if they are read: a unit pays for 256 KiB.
    const STEP_SIZE: usize = 8 * 1024;

    /// Returns a pass that has done nothing yet.
    fn within(hold: Hold) -> Self {
        Self { hold, ..Self::default() }
    }

    fn add(&mut self, steps: u32) {
        self.steps = self.steps.saturating_add(steps);
    }

    /// Counts a frame, or a part of one. A message that comes out large is as much work as many messages.
    fn add_data(&mut self, inbound: &Inbound) {
        self.add(if inbound.has_more_to_decompress() { Self::UNIT } else { 1 });
    }

    /// Counts a read. The first read belongs to the first unit, and every further one costs a unit at least.
    fn add_read(&mut self, bytes: usize) {
        self.add(u32::try_from(bytes / Self::STEP_SIZE).unwrap_or(u32::MAX));
        if std::mem::replace(&mut self.has_read, true) {
            self.add(Self::UNIT);
        }
    }

    /// Returns whether another unit has to be paid.
    fn is_unit(&self) -> bool {
        self.steps >= Self::UNIT
    }

    /// Begins another unit, to which the surplus of steps is carried over. Returns whether the units of this
    /// poll are used up.
    fn begin_unit(&mut self) -> bool {
        self.steps = self.steps.saturating_sub(Self::UNIT);
        self.units += 1;
        self.units >= Self::UNITS_MAX
    }
}
