//! A simulated network in memory, controlled by a seed: delay, partial reads and writes, late and spurious
//! wake-ups, partitions, resets. Its clock is tokio's, which has to be paused.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::random::Random;

/// The behaviour of the network.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The longest transit time of bytes, in milliseconds.
    pub delay: usize,
    /// The largest number of bytes per call.
    pub chunk: usize,
    /// The number of bytes that may be in transit or unread in each direction.
    pub capacity: usize,
    /// The share of calls that return `Pending`, in percent.
    pub hesitation: usize,
    /// The longest delay of a wake-up, in milliseconds.
    pub lateness: usize,
    /// Set if written bytes leave only with a flush, or when no more fit.
    pub holds_back: bool,
    pub vectored: bool,
    /// Set if the stream remembers only the last waker, of either direction.
    pub one_waker: bool,
    pub fault: Option<(Duration, Fault)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Both ends get an error.
    Reset,
    /// From now on, bytes that this end writes are lost.
    Vanish([bool; 2]),
    /// Bytes that this end writes arrive only when the partition heals, if it does.
    Stall([bool; 2], Option<Duration>),
}

/// One end, for the library.
pub struct End {
    network: Network,
    side: usize,
}

/// The test's view of the network.
#[derive(Clone)]
pub struct Network(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    conditions: Conditions,
    random: Random,
    /// Indexed by the writing side.
    directions: [Direction; 2],
    /// Indexed by side, then by reading and writing.
    wakers: [[Option<Waker>; 2]; 2],
    /// The pending wake-ups.
    wakeups: Vec<(Instant, Waker)>,
    dropped: [bool; 2],
    resets: usize,
    /// A hash of all events.
    digest: u64,
}

#[derive(Default)]
struct Direction {
    held_back: Vec<u8>,
    flying: VecDeque<(Instant, Item)>,
    flying_size: usize,
    arrived: VecDeque<u8>,
    last_arrival: Option<Instant>,
    /// Set once the writing side has ended the stream.
    shut_down: bool,
    line: Line,
    end: DirectionEnd,
}

/// Tells whether bytes arrive.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Flowing,
    /// Bytes wait until the line flows again.
    Stalled,
    /// Bytes are lost.
    Vanishing,
}

/// The end of the bytes that arrive.
///
/// ```text
/// Open --the end arrives--> Ended --a reset--> Reset
///   '------------- a reset --------------------^
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum DirectionEnd {
    #[default]
    Open,
    Ended,
    Reset,
}

enum Item {
    Bytes(Vec<u8>),
    End,
    Reset,
}

const READ: usize = 0;
const WRITE: usize = 1;

/// Returns two ends of a network, and the network.
pub fn network(conditions: Conditions, random: Random) -> (Network, End, End) {
    let state = State {
        conditions,
        random,
        directions: Default::default(),
        wakers: Default::default(),
        wakeups: Vec::new(),
        dropped: [false; 2],
        resets: 0,
        digest: 0,
    };
    let network = Network(Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }));
    let end = |side| End { network: network.clone(), side };
    (network.clone(), end(0), end(1))
}

impl Network {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// Runs the network. Never returns.
    pub async fn run(self) {
        loop {
            let now = Instant::now();
            let (due, next) = {
                let mut state = self.state();
                state.arrive(now);
                (state.take_due(now), state.next_event())
            };
            due.into_iter().for_each(Waker::wake);
            let changed = self.0.changed.notified();
            match next {
                Some(at) => drop(timeout_at(at, changed).await),
                None => changed.await,
            }
        }
    }

    /// Causes the planned faults at their times.
    pub async fn run_fault(self) {
        let Some((after, fault)) = self.state().conditions.fault else { return };
        let start = Instant::now();
        sleep_until(start + after).await;
        let set = |state: &mut State, sides: [bool; 2], line| {
            for (direction, _) in state.directions.iter_mut().zip(sides).filter(|(_, chosen)| *chosen) {
                direction.line = line;
            }
        };
        match fault {
            Fault::Reset => {
                let mut state = self.state();
                state.reset(0);
                state.reset(1);
            }
            Fault::Vanish(sides) => set(&mut self.state(), sides, Line::Vanishing),
            Fault::Stall(sides, heals) => {
                set(&mut self.state(), sides, Line::Stalled);
                self.0.changed.notify_one();
                let Some(heals) = heals else { return };
                sleep_until(start + after + heals).await;
                set(&mut self.state(), sides, Line::Flowing);
            }
        }
        self.0.changed.notify_one();
    }

    /// Waits until the library has dropped both ends.
    pub async fn dropped(&self) {
        while self.state().dropped != [true; 2] {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Returns whether bytes were lost because an end was dropped before reading all, or because the network
    /// reset the connection.
    pub fn was_reset(&self) -> bool {
        self.state().resets > 0
    }

    pub fn digest(&self) -> u64 {
        self.state().digest
    }
}

impl State {
    fn note(&mut self, what: u64, side: usize, count: usize) {
        for number in [what, side as u64, count as u64] {
            self.digest = (self.digest.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }

    /// Delivers bytes that have been in transit for long enough.
    fn arrive(&mut self, now: Instant) {
        for side in 0..2 {
            loop {
                let direction = &mut self.directions[side];
                let due = direction.flying.front().is_some_and(|(at, _)| *at <= now);
                if !due || direction.line != Line::Flowing {
                    break;
                }
                match direction.flying.pop_front().expect("it was looked at").1 {
                    Item::Bytes(bytes) => {
                        direction.flying_size -= bytes.len();
                        if self.dropped[1 - side] {
                            // Nobody is left to read the bytes, which TCP reports to the writer.
                            self.send(1 - side, Item::Reset);
                            self.wake(side, WRITE);
                            continue;
                        }
                        direction.arrived.extend(&bytes);
                        self.note(1, side, bytes.len());
                    }
                    Item::End if direction.end == DirectionEnd::Open => direction.end = DirectionEnd::Ended,
                    Item::End => {}
                    Item::Reset => self.reset(1 - side),
                }
                self.wake(1 - side, READ);
            }
        }
        // A wakeup without a reason.
        if self.random.percent(self.conditions.hesitation) {
            let (side, direction) = (self.random.within(0..=1), self.random.within(0..=1));
            self.wake(side, direction);
        }
    }

    /// This side gets an error from now on.
    fn reset(&mut self, side: usize) {
        self.note(2, side, 0);
        self.resets += 1;
        let loses = self.random.percent(50);
        let incoming = &mut self.directions[1 - side];
        incoming.flying.clear();
        incoming.flying_size = 0;
        if loses {
            incoming.arrived.clear();
        }
        incoming.end = DirectionEnd::Reset;
        let outgoing = &mut self.directions[side];
        outgoing.end = DirectionEnd::Reset;
        self.wake(side, READ);
        self.wake(side, WRITE);
    }

    fn take_due(&mut self, now: Instant) -> Vec<Waker> {
        let (due, later) = std::mem::take(&mut self.wakeups).into_iter().partition(|(at, _)| *at <= now);
        self.wakeups = later;
        let mut due: Vec<(Instant, Waker)> = due;
        // In whatever order.
        let mut wakers = Vec::new();
        while !due.is_empty() {
            let index = self.random.within(0..=due.len() - 1);
            wakers.push(due.swap_remove(index).1);
        }
        wakers
    }

    fn next_event(&self) -> Option<Instant> {
        let flying = self.directions.iter().filter(|direction| direction.line == Line::Flowing);
        let arrivals = flying.filter_map(|direction| direction.flying.front().map(|(at, _)| *at));
        arrivals.chain(self.wakeups.iter().map(|(at, _)| *at)).min()
    }

    fn delay(&mut self, longest: usize) -> Duration {
        Duration::from_millis(self.random.within(0..=longest) as u64)
    }

    fn send(&mut self, side: usize, item: Item) {
        let at = Instant::now() + self.delay(self.conditions.delay);
        let direction = &mut self.directions[side];
        let at = direction.last_arrival.map_or(at, |last| last.max(at));
        direction.last_arrival = Some(at);
        if let Item::Bytes(bytes) = &item {
            direction.flying_size += bytes.len();
        }
        direction.flying.push_back((at, item));
    }

    fn release(&mut self, side: usize) {
        let bytes = std::mem::take(&mut self.directions[side].held_back);
        if !bytes.is_empty() && self.directions[side].line != Line::Vanishing {
            self.send(side, Item::Bytes(bytes));
        }
    }

    fn slot(&mut self, side: usize, direction: usize) -> &mut Option<Waker> {
        let index = if self.conditions.one_waker { READ } else { direction };
        &mut self.wakers[side][index]
    }

    fn wake(&mut self, side: usize, direction: usize) {
        if let Some(waker) = self.slot(side, direction).take() {
            let at = Instant::now() + self.delay(self.conditions.lateness);
            self.wakeups.push((at, waker));
        }
    }

    fn wait(&mut self, side: usize, direction: usize, cx: &Context<'_>) {
        *self.slot(side, direction) = Some(cx.waker().clone());
    }

    fn hesitates(&mut self, side: usize, cx: &Context<'_>) -> bool {
        let hesitates = self.random.percent(self.conditions.hesitation);
        if hesitates {
            self.note(3, side, 0);
            if self.random.percent(50) {
                cx.waker().wake_by_ref();
            } else {
                let at = Instant::now() + self.delay(self.conditions.lateness);
                self.wakeups.push((at, cx.waker().clone()));
            }
        }
        hesitates
    }

    fn poll_read(&mut self, side: usize, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.hesitates(side, cx) {
            return Poll::Pending;
        }
        let chunk = self.random.within(1..=self.conditions.chunk);
        let direction = &mut self.directions[1 - side];
        let count = direction.arrived.len().min(buf.remaining()).min(chunk);
        if count > 0 {
            for byte in direction.arrived.drain(..count) {
                buf.put_slice(&[byte]);
            }
            self.note(4, side, count);
            self.wake(1 - side, WRITE);
            return Poll::Ready(Ok(()));
        }
        match direction.end {
            DirectionEnd::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            DirectionEnd::Ended => return Poll::Ready(Ok(())),
            DirectionEnd::Open => {}
        }
        self.wait(side, READ, cx);
        Poll::Pending
    }

    fn poll_write(
        &mut self,
        side: usize,
        cx: &Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        assert!(!self.directions[side].shut_down, "nothing is written after the end of the stream");
        if self.hesitates(side, cx) {
            return Poll::Pending;
        }
        let chunk = self.random.within(1..=self.conditions.chunk);
        let capacity = self.conditions.capacity;
        let direction = &mut self.directions[side];
        if direction.end == DirectionEnd::Reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        if direction.line == Line::Vanishing {
            return Poll::Ready(Ok(offered.min(chunk)));
        }
        let waiting = direction.held_back.len() + direction.flying_size + direction.arrived.len();
        let count = offered.min(chunk).min(capacity.saturating_sub(waiting));
        if count == 0 && offered > 0 {
            self.release(side);
            self.wait(side, WRITE, cx);
            return Poll::Pending;
        }
        let bytes = slices.iter().flat_map(|slice| slice.iter().copied()).take(count);
        direction.held_back.extend(bytes);
        if !self.conditions.holds_back {
            self.release(side);
        }
        self.note(5, side, count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, side: usize, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.hesitates(side, cx) {
            return Poll::Pending;
        }
        self.release(side);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, side: usize, cx: &Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(side, cx))?;
        if !std::mem::replace(&mut self.directions[side].shut_down, true) {
            self.note(6, side, 0);
            self.send(side, Item::End);
        }
        Poll::Ready(Ok(()))
    }

    fn drop_end(&mut self, side: usize) {
        self.note(7, side, 0);
        self.dropped[side] = true;
        self.wakers[side] = [None, None];
        if self.directions[1 - side].arrived.is_empty() {
            if !std::mem::replace(&mut self.directions[side].shut_down, true) {
                self.release(side);
                self.send(side, Item::End);
            }
        } else {
            // Like TCP when an end with unread bytes is closed.
            self.send(side, Item::Reset);
        }
    }
}

impl End {
    fn change<T>(&self, change: impl FnOnce(&mut State, usize) -> T) -> T {
        let result = change(&mut self.network.state(), self.side);
        self.network.0.changed.notify_one();
        result
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.change(|state, side| state.poll_read(side, cx, buf))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.change(|state, side| state.poll_write(side, cx, &[io::IoSlice::new(buf)]))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.change(|state, side| state.poll_write(side, cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.network.state().conditions.vectored
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.change(|state, side| state.poll_flush(side, cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.change(|state, side| state.poll_shutdown(side, cx))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.change(State::drop_end);
    }
}
