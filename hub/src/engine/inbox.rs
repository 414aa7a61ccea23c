//! The place where an engine delivers messages.
//!
//! Each worker of a hub has a queue of its own, and the name of a topic decides which one. An engine never
//! waits: a queue that is full notes which topics it has turned away.
//!
//! ```text
//!     Open <--> Verify          the broker may have been away: the worker reads all histories again
//!       |         |
//!       v         v
//!        Ended                  the worker is gone, and so is the content
//! ```

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::engine::Delivery;
use crate::events::{EventSource, HubEvent, WeakEventSource};
use crate::presence::PresenceChange;
use crate::settings::rule::Rules;
use crate::topic::Topic;

/// The place where an [`Engine`](crate::Engine) delivers the messages for one hub. Cloning is cheap.
#[derive(Clone)]
pub struct Inbox(Arc<Queues>);

struct Queues {
    workers: Box<[Arc<Queue>]>,
    hasher: RandomState,
    rules: Rules,
    events: WeakEventSource,
    /// The parts of the broker that are out of reach. The whole broker has no name.
    away: Mutex<HashSet<String>>,
    /// Wakes the keeper of the node's lease.
    returned: Notify,
}

impl Inbox {
    pub(crate) fn new(workers: usize, capacity: usize, rules: Rules, events: &EventSource) -> Self {
        let workers = (0..workers).map(|_| Arc::new(Queue::new(capacity))).collect();
        let (hasher, away, returned) = (RandomState::new(), Mutex::default(), Notify::new());
        let events = events.downgrade();
        Self(Arc::new(Queues { workers, hasher, rules, events, away, returned }))
    }

    /// Delivers a message, without waiting.
    ///
    /// The hub is woken when the returned value is dropped. An engine that delivers under a lock keeps the
    /// value until it has unlocked; all others drop it at once.
    pub fn deliver(&self, delivery: Delivery) -> Wakeup {
        self.push(Arrival::Message(delivery))
    }

    /// Delivers a change of who is present in a topic, like [`deliver`](Self::deliver). The order among all
    /// deliveries of the topic is kept.
    pub fn change(&self, change: PresenceChange) -> Wakeup {
        self.push(Arrival::Change(change))
    }

    fn push(&self, arrival: Arrival) -> Wakeup {
        let queue = &self.0.workers[self.worker_of(arrival.topic().name())];
        // What is turned away is dropped here, after the lock.
        let _refused = queue.push(arrival);
        Wakeup(Arc::clone(queue))
    }

    /// Returns the topic with a name, for an engine that receives names from a broker.
    pub fn topic(&self, name: &str) -> Topic {
        Topic::new(name, self.0.rules.of(name))
    }

    /// Reports that the broker is out of reach.
    pub fn disconnected(&self, reason: impl Into<String>) {
        self.away().insert(String::new());
        self.0.events.emit(HubEvent::Disconnected(reason.into()));
    }

    /// Reports that the broker is back, and that all topics are wanted again. The hub then looks for messages
    /// and changes of presence that it missed.
    pub fn reconnected(&self) {
        self.away().remove("");
        self.verify();
        self.0.returned.notify_one();
        self.0.events.emit(HubEvent::Reconnected);
    }

    /// Reports that messages or changes of presence may have been missed, or that histories may have changed,
    /// while the broker was in reach. The hub reads all histories again before it accepts a later delivery.
    pub fn verify(&self) {
        for queue in &self.0.workers {
            queue.verify_all();
        }
        self.all_changes_lost();
    }

    /// Reports the same of one topic: see [`verify`](Self::verify).
    pub fn verify_topic(&self, topic: &str) {
        self.0.workers[self.worker_of(topic)].verify(vec![self.topic(topic)]);
    }

    /// Reports that a part of the broker is out of reach: one of several servers among which topics are
    /// divided.
    pub fn part_disconnected(&self, part: impl Into<String>, reason: impl Into<String>) {
        let (part, reason) = (part.into(), reason.into());
        self.away().insert(part.clone());
        self.0.events.emit(HubEvent::PartDisconnected { part, reason });
    }

    /// Reports that a part of the broker is back, and that its topics are wanted again. The hub then looks
    /// for messages of these topics that it missed.
    pub fn part_reconnected(&self, part: impl Into<String>, topics: impl IntoIterator<Item = Topic>) {
        let part = part.into();
        self.away().remove(&part);
        let mut divided = vec![Vec::new(); self.0.workers.len()];
        for topic in topics {
            divided[self.worker_of(topic.name())].push(topic);
        }
        for (queue, topics) in self.0.workers.iter().zip(divided) {
            queue.verify(topics);
        }
        self.all_changes_lost();
        self.0.returned.notify_one();
        self.0.events.emit(HubEvent::PartReconnected { part });
    }

    /// Reports that changes of who is present in a topic may be lost, while the broker was in reach. The hub
    /// then reads who is present.
    pub fn changes_lost(&self, topic: &str) {
        self.0.workers[self.worker_of(topic)].changes_lost(Some(self.topic(topic)));
    }

    /// Lets the workers read who is present in all topics.
    pub(crate) fn all_changes_lost(&self) {
        for queue in &self.0.workers {
            queue.changes_lost(None);
        }
    }

    /// Waits until the broker is back. The future is cancel safe.
    pub(crate) async fn returned(&self) {
        self.0.returned.notified().await;
    }

    /// Returns `true` once the hub is gone, or has failed. Deliveries are then dropped.
    pub fn is_closed(&self) -> bool {
        self.0.workers.iter().any(|queue| queue.is_ended.load(Ordering::Relaxed))
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.away().is_empty()
    }

    fn away(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of the worker to which a topic belongs.
    pub(crate) fn worker_of(&self, topic: &str) -> usize {
        let workers = self.0.workers.len() as u64;
        let worker = self.0.hasher.hash_one(topic) % workers;
        usize::try_from(worker).expect("the number is less than that of the workers")
    }

    /// Waits until less than half of the room for the messages of a topic is taken. The future is cancel
    /// safe.
    pub(crate) async fn room(&self, topic: &Topic) {
        self.0.workers[self.worker_of(topic.name())].room().await;
    }

    pub(crate) fn queues(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.0.workers.iter()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("workers", &self.0.workers.len()).finish_non_exhaustive()
    }
}

/// A guard that wakes the hub when it is dropped. [`Inbox::deliver`] returns one.
pub struct Wakeup(Arc<Queue>);

impl Drop for Wakeup {
    fn drop(&mut self) {
        self.0.ready.notify_one();
    }
}

impl fmt::Debug for Wakeup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wakeup").finish_non_exhaustive()
    }
}

/// The deliveries for one worker.
pub(crate) struct Queue {
    state: Mutex<Arrivals>,
    ready: Notify,
    /// Wakes those that wait for room.
    emptied: Notify,
    capacity: usize,
    /// `Signal::Ended`, to be read without the lock.
    is_ended: AtomicBool,
}

/// A delivery of an engine.
pub(crate) enum Arrival {
    Message(Delivery),
    Change(PresenceChange),
}

/// Everything that has arrived since the worker looked.
#[derive(Default)]
pub(crate) struct Arrivals {
    pub(crate) deliveries: Vec<Arrival>,
    /// The topics of deliveries that found no room, with the number of these deliveries.
    pub(crate) overflowed: HashMap<Topic, u64>,
    /// The topics whose histories are read again.
    pub(crate) unverified: HashSet<Topic>,
    pub(crate) missed: MissedChanges,
    pub(crate) signal: Signal,
}

/// The topics whose changes of presence may be lost.
#[derive(Debug)]
pub(crate) enum MissedChanges {
    Of(HashSet<Topic>),
    All,
}

impl Default for MissedChanges {
    fn default() -> Self {
        Self::Of(HashSet::new())
    }
}

impl Arrival {
    pub(crate) fn topic(&self) -> &Topic {
        match self {
            Self::Message(delivery) => &delivery.topic,
            Self::Change(change) => &change.topic,
        }
    }
}

impl MissedChanges {
    /// Adds a topic, or all of them.
    fn add(&mut self, topic: Option<Topic>) {
        match (self, topic) {
            (Self::Of(topics), Some(topic)) => {
                topics.insert(topic);
            }
            (missed, None) => *missed = Self::All,
            (Self::All, _) => {}
        }
    }
}

/// The state of a queue: see the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Signal {
    #[default]
    Open,
    Verify,
    Ended,
}

impl Queue {
    fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::default(),
            ready: Notify::new(),
            emptied: Notify::new(),
            capacity,
            is_ended: AtomicBool::new(false),
        }
    }

    /// Returns the delivery if there is no room.
    fn push(&self, arrival: Arrival) -> Option<Arrival> {
        let mut state = self.state();
        if state.signal == Signal::Ended {
            return Some(arrival);
        }
        if state.deliveries.len() < self.capacity {
            state.deliveries.push(arrival);
            return None;
        }
        match &arrival {
            Arrival::Change(change) => state.missed.add(Some(change.topic.clone())),
            Arrival::Message(delivery) => match state.overflowed.get_mut(&delivery.topic) {
                Some(count) => *count += 1,
                None => {
                    state.overflowed.insert(delivery.topic.clone(), 1);
                }
            },
        }
        Some(arrival)
    }

    /// Notes that changes of presence are lost: of one topic, or of all.
    fn changes_lost(&self, topic: Option<Topic>) {
        let mut state = self.state();
        if state.signal != Signal::Ended {
            state.missed.add(topic);
        }
        drop(state);
        self.ready.notify_one();
    }

    fn verify(&self, topics: Vec<Topic>) {
        let mut state = self.state();
        if state.signal == Signal::Open {
            state.unverified.extend(topics);
        }
        drop(state);
        self.ready.notify_one();
    }

    fn verify_all(&self) {
        let mut state = self.state();
        if state.signal == Signal::Open {
            state.signal = Signal::Verify;
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Waits until something may have arrived. The future is cancel safe.
    pub(crate) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Takes everything that has arrived.
    pub(crate) fn take(&self) -> Arrivals {
        let arrivals = mem::take(&mut *self.state());
        self.emptied.notify_waiters();
        arrivals
    }

    /// Waits until less than half of the room is taken, or the worker is gone.
    async fn room(&self) {
        loop {
            let mut emptied = pin!(self.emptied.notified());
            // Registers before the look, so that no wakeup in between is missed.
            emptied.as_mut().enable();
            if self.state().deliveries.len() <= self.capacity / 2 {
                return;
            }
            emptied.await;
        }
    }

    /// Ends the queue: its worker is gone.
    pub(crate) fn end(&self) {
        self.is_ended.store(true, Ordering::Relaxed);
        let ended = Arrivals { signal: Signal::Ended, ..Arrivals::default() };
        // The content is dropped after the lock.
        let _content = mem::replace(&mut *self.state(), ended);
        self.emptied.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, Arrivals> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
