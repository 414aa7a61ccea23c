//! The shutdown of a server: its signal, its options, and the times at which it closes the connections.
//!
//! Connections are closed evenly over [`ShutdownOptions::spread`], however they are divided among listeners,
//! clones of the server, and calls of `serve_connection`. Nobody has to know their number for that: each
//! connection draws a ticket, and the multiples of the golden ratio, modulo 1, are spread evenly whatever
//! their number (Fibonacci hashing).
//!
//! ```text
//! ticket     0      1      2      3      4
//! share      0  0.618  0.236  0.854  0.472    of the spread has passed when the connection is closed
//!
//!            |---0-------2--------4-----1---------3---|
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bowline_proto::{CloseCode, CloseFrame};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::error::{Error, ErrorKind};
use crate::handshake::deadline::FAR;

/// The shortest time between two looks at the schedule. Connections that are due between them are closed
/// together.
const TICK: Duration = Duration::from_millis(10);

/// The golden ratio's fraction, in units of 2^-32.
const GOLDEN_RATIO: u32 = 0x9E37_79B9;

/// The way in which a [`Server`](crate::Server) or [`Connections`](crate::Connections) shut down: the
/// deadline, the Close frame and the pace.
///
/// A [`Duration`] converts into options with this deadline.
///
/// ```
/// use std::time::Duration;
///
/// use bowline::{CloseCode, Server, ShutdownOptions};
///
/// let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
/// let options = ShutdownOptions::new(Duration::from_secs(30))
///     .spread(Duration::from_secs(20))
///     .close_frame(CloseCode::SERVICE_RESTART, "please connect again");
/// let server = Server::new().shutdown(ctrl_c, options);
/// ```
#[derive(Clone, Debug)]
pub struct ShutdownOptions {
    pub(crate) deadline: Duration,
    spread: Duration,
    frame: Result<CloseFrame, Error>,
}

impl ShutdownOptions {
    /// Returns options with a deadline, which close all connections at once, with 1001 (RFC 6455 7.4.1).
    ///
    /// The time begins with the signal, or with the call of `Connections::shutdown`. At `deadline`, the
    /// transports of the remaining connections are closed.
    pub fn new(deadline: Duration) -> Self {
        let frame = CloseFrame::new(CloseCode::GOING_AWAY, "").expect("1001 may be sent");
        Self { deadline, spread: Duration::ZERO, frame: Ok(frame) }
    }

    /// Sets the time over which the connections are closed evenly. Default: zero; at most the deadline.
    ///
    /// Clients that are all closed at once also connect again at once, to the servers that remain. Until a
    /// connection is closed, it and its handler go on as before. The deadline should leave the last clients a
    /// few seconds more to answer.
    ///
    /// The oldest connection is closed first, and the others in an order that is not specified.
    ///
    /// A process that is stopped meanwhile, or overloaded, does not close more at once to catch up. The rest
    /// is closed later, or ended at the deadline.
    pub fn spread(mut self, spread: Duration) -> Self {
        self.spread = spread;
        self
    }

    /// Sets the code and the reason with which the connections are closed. Default: 1001 and no reason.
    ///
    /// 1012 ([`SERVICE_RESTART`](CloseCode::SERVICE_RESTART)) is the code of a server that will be back. The
    /// code must be one that may be sent, and the reason have at most 123 bytes.
    pub fn close_frame(mut self, code: CloseCode, reason: &str) -> Self {
        self.frame = CloseFrame::new(code, reason).map_err(|error| {
            let text = format!("ShutdownOptions::close_frame can't be sent: {error}");
            Error::new(ErrorKind::InvalidInput, text)
        });
        self
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let Self { deadline, spread, frame } = self;
        if spread > deadline {
            let text = format!(
                "ShutdownOptions::spread is {spread:?}, but may be at most the deadline, {deadline:?}"
            );
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        frame.clone().map(drop)
    }
}

impl From<Duration> for ShutdownOptions {
    fn from(deadline: Duration) -> Self {
        Self::new(deadline)
    }
}

/// The plan by which connections are closed.
pub(crate) struct ClosingPlan {
    pub(crate) options: ShutdownOptions,
    /// The number of connections that have drawn a ticket.
    tickets: AtomicU32,
}

/// The shutdown that an application has asked for, which the clones of a server share.
#[derive(Clone)]
pub(crate) struct Shutdown {
    pub(crate) plan: Arc<ClosingPlan>,
    signal: Arc<Signal>,
}

/// The application's signal, for which any number of tasks wait.
///
/// The future wakes all of them, and the first one polls it. So a wait that somebody keeps without polling it
/// is no hindrance for the others.
struct Signal {
    stage: Mutex<SignalStage>,
    /// Notified when the stage is worth a look.
    changed: Notify,
}

/// The stage of a signal. Nothing foreign runs under its lock.
///
/// ```text
/// Waiting <----- not ready, or a panic ------ Polling --ready--> Completed
///    |                                           ^
///    +--the first task that was woken polls it---+
/// ```
enum SignalStage {
    Waiting(SignalFuture),
    /// A task polls the future, which it has taken out.
    Polling {
        /// The future is to be polled again.
        woken: bool,
    },
    Completed,
}

type SignalFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Signal {
    /// Waits until the future has completed.
    async fn completed(self: &Arc<Self>) {
        loop {
            // `notify_waiters` reaches this from now on, before its first poll.
            let changed = self.changed.notified();
            if self.poll() {
                return;
            }
            changed.await;
        }
    }

    /// Polls the future, unless another task does so. Returns `true` if the future has completed.
    fn poll(self: &Arc<Self>) -> bool {
        let mut stage = self.stage();
        let future = match std::mem::replace(&mut *stage, SignalStage::Polling { woken: false }) {
            SignalStage::Waiting(future) => future,
            other => {
                *stage = other;
                return matches!(*stage, SignalStage::Completed);
            }
        };
        drop(stage);
        let mut taken = TakenFuture { signal: self, future: Some(future) };
        let waker = Waker::from(Arc::new(SignalWaker(Arc::downgrade(self))));
        taken.poll(&mut Context::from_waker(&waker))
    }

    fn stage(&self) -> MutexGuard<'_, SignalStage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The waker of a signal, which does not own it: the future owns its waker.
struct SignalWaker(Weak<Signal>);

impl Wake for SignalWaker {
    fn wake(self: Arc<Self>) {
        let Some(signal) = self.0.upgrade() else { return };
        if let SignalStage::Polling { woken } = &mut *signal.stage() {
            *woken = true;
        }
        signal.changed.notify_waiters();
    }
}

/// The future of a signal, which the drop puts back if it has not completed.
struct TakenFuture<'a> {
    signal: &'a Signal,
    future: Option<SignalFuture>,
}

impl TakenFuture<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let is_ready = self.future.as_mut().is_some_and(|future| future.as_mut().poll(cx).is_ready());
        if is_ready {
            self.future = None;
        }
        is_ready
    }
}

impl Drop for TakenFuture<'_> {
    fn drop(&mut self) {
        let next = self.future.take().map_or(SignalStage::Completed, SignalStage::Waiting);
        let is_completed = matches!(next, SignalStage::Completed);
        let last = std::mem::replace(&mut *self.signal.stage(), next);
        // Those whom a wake-up has reached meanwhile have found no future.
        if is_completed || matches!(last, SignalStage::Polling { woken: true }) {
            self.signal.changed.notify_waiters();
        }
    }
}

impl Shutdown {
    pub(crate) fn new(signal: impl Future<Output = ()> + Send + 'static, options: ShutdownOptions) -> Self {
        let stage = Mutex::new(SignalStage::Waiting(Box::pin(signal)));
        let signal = Arc::new(Signal { stage, changed: Notify::new() });
        Self { plan: Arc::new(ClosingPlan::new(options)), signal }
    }

    /// Waits until the signal has completed.
    pub(crate) async fn signalled(&self) {
        self.signal.completed().await;
    }
}

impl ClosingPlan {
    /// Creates the plan of a shutdown with valid `options`.
    pub(crate) fn new(options: ShutdownOptions) -> Self {
        Self { options, tickets: AtomicU32::default() }
    }

    /// Returns the frame that closes the connections.
    pub(crate) fn frame(&self) -> &CloseFrame {
        self.options.frame.as_ref().expect("`validate` refuses others")
    }

    /// Schedules the close of each of `connections`.
    pub(crate) fn schedule<T>(&self, connections: impl IntoIterator<Item = T>) -> Schedule<T> {
        let close_at = |connection| {
            let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
            let share = f64::from(ticket.wrapping_mul(GOLDEN_RATIO)) / f64::from(u32::MAX);
            (self.options.spread.min(FAR).mul_f64(share), connection)
        };
        let mut pending: Vec<_> = connections.into_iter().map(close_at).collect();
        // The first one is last, where it can be taken out.
        pending.sort_unstable_by_key(|(at, _)| std::cmp::Reverse(*at));
        Schedule { pending, elapsed: Duration::ZERO, last: Instant::now() }
    }
}

/// The connections that are still to be closed, with the times since the signal.
pub(crate) struct Schedule<T> {
    pending: Vec<(Duration, T)>,
    /// The time since the signal, without times in which the runtime was late.
    elapsed: Duration,
    last: Instant,
}

impl<T> Schedule<T> {
    /// Waits until the next connection is due, and returns it. Returns `None` if all have been returned.
    pub(crate) async fn next(&mut self) -> Option<T> {
        let (at, _) = self.pending.last()?;
        let pause = at.saturating_sub(self.elapsed);
        if !pause.is_zero() {
            let pause = pause.max(TICK);
            sleep_until(self.last + pause).await;
            let now = Instant::now();
            self.elapsed += (now - self.last).min(pause + TICK);
            self.last = now;
        }
        self.pending.pop().map(|(_, connection)| connection)
    }
}
