//! State that the tasks of one thread share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::bench::load::dial::Dialer;
use crate::bench::plan::{Mode, Plan};
use crate::bench::tally::Tally;
use crate::bench::units::nanos;

/// The state that the tasks of one thread share. No other thread sees any of this, so there are no locks and
/// no atomics on the path of a message.
pub(crate) struct Station {
    pub(crate) plan: Arc<Plan>,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) tally: RefCell<Tally>,
    /// The text of the message that is being sent.
    pub(crate) scratch: RefCell<String>,
    /// The number of messages that wait for a reply.
    outstanding: Cell<u64>,
    /// The number of connections that are being opened.
    opening: Cell<u64>,
    /// The number of open connections.
    open: Cell<u64>,
    orders: watch::Receiver<Order>,
    stage: Cell<Stage>,
    start: Cell<Instant>,
    /// Notified when nothing is outstanding, opening or open any more.
    settled: Notify,
}

/// The orders to all threads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// Open the connections.
    Connect,
    /// Begin the run at this time.
    Run(Instant),
    /// End early.
    Stop,
}

/// The stage of a run, on one thread.
///
/// ```text
/// Connecting --all are open--> Running --duration--> Draining --all replied, or grace--> Closing
///     |                           |                      |                                  ^
///     +---------------------------+---------- Ctrl-C ----+----------------------------------+
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// The connections are being opened.
    Connecting,
    /// Messages are sent and received.
    Running,
    /// No more messages are sent. Replies still count.
    Draining,
    /// The connections are being closed. Their ends are no errors.
    Closing,
}

impl Station {
    pub(crate) fn new(plan: Arc<Plan>, dialer: Arc<Dialer>, orders: watch::Receiver<Order>) -> Rc<Self> {
        let tally = RefCell::new(Tally::new(plan.nanos()));
        Rc::new(Self {
            plan,
            dialer,
            tally,
            scratch: RefCell::default(),
            outstanding: Cell::default(),
            opening: Cell::default(),
            open: Cell::default(),
            orders,
            stage: Cell::new(Stage::Connecting),
            start: Cell::new(Instant::now()),
            settled: Notify::new(),
        })
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage.get()
    }

    pub(crate) fn enter(&self, stage: Stage) {
        self.stage.set(stage);
    }

    /// Begins the run if that was ordered. Returns the time of the start, which is the same for all threads.
    ///
    /// A connection may receive a message of another thread before its own thread has seen the order.
    pub(crate) fn begin_as_ordered(&self) -> Option<Instant> {
        let Order::Run(start) = *self.orders.borrow() else { return None };
        self.start.set(start);
        self.enter(Stage::Running);
        Some(start)
    }

    /// The time since the start of the run, in nanoseconds.
    pub(crate) fn now(&self) -> u64 {
        nanos(Instant::now().saturating_duration_since(self.start.get()))
    }

    /// The time at which something is due.
    pub(crate) fn instant(&self, due: u64) -> Instant {
        self.start.get() + Duration::from_nanos(due)
    }

    /// Counts messages that wait for a reply.
    pub(crate) fn expect_replies(&self, count: u64) {
        self.outstanding.set(self.outstanding.get() + count);
    }

    /// Counts a handshake that is begun.
    pub(crate) fn begin_handshake(&self) {
        self.tally.borrow_mut().sent.messages += 1;
        self.expect_replies(1);
    }

    /// The number of messages that wait for a reply.
    pub(crate) fn outstanding(&self) -> u64 {
        self.outstanding.get()
    }

    /// Records the reply to a message that was due at a time.
    pub(crate) fn replied(&self, due: u64, now: u64, bytes: usize) {
        let mut tally = self.tally.borrow_mut();
        tally.received.count(bytes);
        tally.last_reply = now;
        tally.record_latency(due, now.saturating_sub(due));
        drop(tally);
        self.failed();
    }

    /// Counts a message as answered, or as one that never will be.
    pub(crate) fn failed(&self) {
        self.outstanding.set(self.outstanding.get().saturating_sub(1));
        if self.outstanding.get() == 0 && self.stage() == Stage::Draining {
            self.settled.notify_one();
        }
    }

    /// Counts a connection that is being opened.
    pub(crate) fn begin_opening(&self) {
        self.opening.set(self.opening.get() + 1);
    }

    /// Counts a connection that was opened, or has failed.
    pub(crate) fn end_opening(&self) {
        self.opening.set(self.opening.get() - 1);
        self.settled.notify_one();
    }

    /// The number of open connections.
    pub(crate) fn open(&self) -> u64 {
        self.open.get()
    }

    /// Counts a connection that is open.
    pub(crate) fn opened(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// Counts a connection that has ended.
    pub(crate) fn ended(&self) {
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 {
            self.settled.notify_one();
        }
    }

    /// Waits until all connections are open, or have failed.
    pub(crate) async fn all_opened(&self) {
        self.until(|| self.opening.get() == 0).await;
    }

    /// Waits until all replies have arrived, or none can arrive any more.
    pub(crate) async fn all_replied(&self) {
        let may_arrive = || self.plan.mode == Mode::Connect || self.open.get() > 0;
        self.until(|| self.outstanding.get() == 0 || !may_arrive()).await;
    }

    /// Waits until no connection is open.
    pub(crate) async fn all_ended(&self) {
        self.until(|| self.open.get() == 0).await;
    }

    /// Waits for a condition. One task of the thread waits at a time.
    async fn until(&self, is_met: impl Fn() -> bool) {
        while !is_met() {
            self.settled.notified().await;
        }
    }

    /// Counts an error.
    pub(crate) fn error(&self, kind: impl Into<String>) {
        self.tally.borrow_mut().error(kind);
    }
}
