//! The engine for the hubs of one process.

mod presence;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::bytes::Bytes;
use bowline::{Message, Utf8Bytes};
use tokio::time::Instant;

use crate::engine::inbox::{Inbox, Wakeup};
use crate::engine::keys::Keys;
use crate::engine::memory::presence::{Leases, People};
use crate::engine::{Delivery, Engine, EngineError, HistoryEntry, HistoryPage, Predecessor};
use crate::position::Position;
use crate::presence::{Lease, NodeId, Present};
use crate::settings::rule::Retention;
use crate::topic::Topic;

/// The number of locks among which the topics are divided.
const SHARDS: usize = 16;

/// The size below which a message in a history is copied, in bytes. A message that was received can hold a
/// block of up to 4 KiB, which it shares with others.
const COPIED: usize = 4096;

/// The error for a topic without history.
const NO_HISTORY: &str = "the topic has no history";

/// The shortest time between two looks at the same history.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// The engine for topics within one process.
///
/// Histories are in memory, and gone with the process. Clones share their topics: the hubs of two clones
/// exchange messages as two machines with a broker between them would.
///
/// # Examples
///
/// ```
/// use bowline_hub::{Hub, Memory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = Memory::new();
/// let (here, there) = (Hub::builder(memory.clone()).build()?, Hub::builder(memory).build()?);
///
/// let (mut client, server) = bowline::pair();
/// let member = here.join(server.sender())?;
/// member.subscribe("news", None).await?;
/// there.publish("news", "hello").await?;
/// assert_eq!(client.recv().await?, Some("hello".into()));
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Memory {
    store: Arc<Store>,
    link: Option<Link>,
}

/// The hub of a clone, among all that share a store.
struct Link {
    number: u64,
    inbox: Inbox,
}

struct Store {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    links: AtomicU64,
    leases: Leases,
}

/// A part of the topics.
#[derive(Default)]
struct Shard {
    /// A hub is here from its first topic on.
    hubs: Vec<Wants>,
    /// In boxes, as a map has many places that are empty.
    histories: HashMap<Topic, Box<History>>,
    /// The times at which histories may be forgotten, numbered, as times may be equal. A history has one
    /// entry, which is put off while the topic is in use.
    expiry: BTreeMap<(Instant, u64), Topic>,
    /// The number of entries so far in `expiry`.
    count: u64,
    /// The people in topics with presence.
    present: HashMap<Topic, People>,
}

/// The topics that a hub wants: a set for each hub, as this takes less than a list of hubs for each topic.
struct Wants {
    link: u64,
    inbox: Inbox,
    topics: HashSet<Topic>,
}

struct History {
    top: Position,
    entries: VecDeque<(Instant, HistoryEntry)>,
    /// Without memory while no message has a key.
    keys: Option<Box<Keys>>,
    retention: Retention,
    last_use: Instant,
    /// The time of the entry in `Shard::expiry` that is about this history.
    look_at: Instant,
}

/// The values that are dropped after the lock: payloads and wakers are foreign code.
#[derive(Default)]
struct AfterLock {
    wakeups: Vec<Wakeup>,
    /// The hubs that are gone.
    hubs: Vec<Wants>,
    histories: Vec<History>,
    entries: Vec<(Instant, HistoryEntry)>,
}

impl Memory {
    /// Creates an engine without topics.
    pub fn new() -> Self {
        Self::default()
    }

    fn link(&self) -> Result<&Link, EngineError> {
        self.link.as_ref().ok_or_else(|| EngineError::new("the engine was not started by a hub"))
    }
}

impl Engine for Memory {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        let number = self.store.links.fetch_add(1, Ordering::Relaxed);
        self.link = Some(Link { number, inbox });
        Ok(())
    }

    async fn publish(&self, topic: &Topic, message: Message, tag: u64) -> Result<Position, EngineError> {
        // Before the lock, as it may drop the publisher's payload.
        let message = if topic.retention().is_some() { compact(message) } else { message };
        let now = Instant::now();
        let mut after = AfterLock::default();
        let mut shard = self.store.shard(topic.name());
        shard.expire(now, &mut after);
        let entry = match topic.retention() {
            Some(retention) => {
                let history = shard.history(topic, retention, now, &mut after);
                history.append(message, tag, now, &mut after)
            }
            None => HistoryEntry { position: Position::UNTRACKED, previous: 0, message },
        };
        after.wakeups = shard.deliver(topic, &entry);
        drop(shard);
        Ok(entry.position)
    }

    async fn publish_once(
        &self,
        topic: &Topic,
        key: &str,
        message: Message,
        tag: u64,
    ) -> Result<Position, EngineError> {
        let retention = topic.retention().ok_or_else(|| EngineError::new(NO_HISTORY))?;
        // Before the lock, as it may drop the publisher's payload.
        let message = compact(message);
        let now = Instant::now();
        let mut after = AfterLock::default();
        let mut shard = self.store.shard(topic.name());
        shard.expire(now, &mut after);
        let history = shard.history(topic, retention, now, &mut after);
        history.trim(now, &mut after);
        if let Some(position) = history.keys.as_ref().and_then(|keys| keys.position(key)) {
            return Ok(position);
        }
        let entry = history.append(message, tag, now, &mut after);
        history.keys.get_or_insert_default().remember(key, entry.position, now);
        after.wakeups = shard.deliver(topic, &entry);
        drop(shard);
        Ok(entry.position)
    }

    async fn want(&self, topic: &Topic) -> Result<(), EngineError> {
        let link = self.link()?;
        let now = Instant::now();
        let mut after = AfterLock::default();
        let mut shard = self.store.shard(topic.name());
        shard.expire(now, &mut after);
        shard.forget_unused(topic, now, &mut after);
        shard.topics_of(link, &mut after).insert(topic.clone());
        drop(shard);
        Ok(())
    }

    async fn unwant(&self, topic: &Topic) -> Result<(), EngineError> {
        let link = self.link()?;
        let now = Instant::now();
        let mut after = AfterLock::default();
        let mut shard = self.store.shard(topic.name());
        shard.expire(now, &mut after);
        shard.topics_of(link, &mut after).remove(topic);
        if let Some(history) = shard.histories.get_mut(topic) {
            history.last_use = now;
        }
        drop(shard);
        Ok(())
    }

    async fn history(&self, topic: &Topic, after: u64, limit: usize) -> Result<HistoryPage, EngineError> {
        let Some(retention) = topic.retention() else {
            return Err(EngineError::new(NO_HISTORY));
        };
        let now = Instant::now();
        let mut after_lock = AfterLock::default();
        let mut shard = self.store.shard(topic.name());
        shard.expire(now, &mut after_lock);
        let history = shard.history(topic, retention, now, &mut after_lock);
        history.trim(now, &mut after_lock);
        let page = history.page(after, limit);
        drop(shard);
        Ok(page)
    }

    async fn begin(&self, node: NodeId, time: Duration) -> Result<(), EngineError> {
        self.store.begin(node, time);
        Ok(())
    }

    async fn renew(&self, node: NodeId, time: Duration) -> Result<Lease, EngineError> {
        Ok(self.store.renew(node, time))
    }

    async fn enter(&self, topic: &Topic, node: NodeId, present: &Present) -> Result<Lease, EngineError> {
        Ok(self.store.enter(topic, node, present))
    }

    async fn exit(&self, topic: &Topic, node: NodeId, key: &str) -> Result<(), EngineError> {
        self.store.exit(topic, node, key);
        Ok(())
    }

    async fn present(&self, topic: &Topic) -> Result<Vec<Present>, EngineError> {
        Ok(self.store.present(topic))
    }

    async fn count(&self, topic: &Topic) -> Result<usize, EngineError> {
        Ok(self.store.count(topic))
    }

    async fn reap(&self, caller: NodeId) -> Result<usize, EngineError> {
        Ok(self.store.reap(caller))
    }
}

impl Store {
    fn shard(&self, topic: &str) -> MutexGuard<'_, Shard> {
        let shard = self.hasher.hash_one(topic) % SHARDS as u64;
        let shard = usize::try_from(shard).expect("the number is less than that of the shards");
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            links: AtomicU64::new(0),
            leases: Leases::default(),
        }
    }
}

impl Shard {
    /// Returns the topics that a hub wants.
    fn topics_of(&mut self, link: &Link, after: &mut AfterLock) -> &mut HashSet<Topic> {
        self.forget_hubs(after);
        let known = self.hubs.iter().position(|hub| hub.link == link.number);
        let index = known.unwrap_or_else(|| {
            let inbox = link.inbox.clone();
            self.hubs.push(Wants { link: link.number, inbox, topics: HashSet::new() });
            self.hubs.len() - 1
        });
        &mut self.hubs[index].topics
    }

    /// Removes the hubs that are gone.
    fn forget_hubs(&mut self, after: &mut AfterLock) {
        while let Some(index) = self.hubs.iter().position(|hub| hub.inbox.is_closed()) {
            after.hubs.push(self.hubs.swap_remove(index));
        }
    }

    fn is_wanted(&self, topic: &Topic) -> bool {
        self.hubs.iter().any(|hub| hub.topics.contains(topic))
    }

    /// Removes the history of a topic that nobody has used for longer than it keeps messages.
    fn forget_unused(&mut self, topic: &Topic, now: Instant, after: &mut AfterLock) {
        let is_due = self.histories.get(topic).is_some_and(|history| history.unused_from() <= now);
        if is_due && !self.is_wanted(topic) {
            after.histories.extend(self.histories.remove(topic).map(|history| *history));
        }
    }

    /// Returns the history of a topic, which begins now if there was none.
    fn history(
        &mut self,
        topic: &Topic,
        retention: Retention,
        now: Instant,
        after: &mut AfterLock,
    ) -> &mut History {
        self.forget_unused(topic, now, after);
        if !self.histories.contains_key(topic) {
            self.look_again(now + retention.age, topic.clone());
            self.histories.insert(topic.clone(), Box::new(History::new(retention, now)));
        }
        let history = self.histories.get_mut(topic).expect("the history exists");
        history.last_use = now;
        history.retention = retention;
        history
    }

    /// Looks at a time whether a history may be forgotten.
    fn look_again(&mut self, at: Instant, topic: Topic) {
        self.count += 1;
        self.expiry.insert((at, self.count), topic);
    }

    /// Removes the histories that nobody has used for longer than they keep messages.
    fn expire(&mut self, now: Instant, after: &mut AfterLock) {
        while let Some(entry) = self.expiry.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((at, _), topic) = entry.remove_entry();
            self.forget_hubs(after);
            let is_wanted = self.is_wanted(&topic);
            let Some(history) = self.histories.get_mut(&topic).filter(|history| history.look_at == at) else {
                // The entry is about a history that was forgotten.
                continue;
            };
            if !is_wanted && history.unused_from() <= now {
                after.histories.extend(self.histories.remove(&topic).map(|history| *history));
                continue;
            }
            let mut look_at = history.unused_from().max(now + MIN_PAUSE);
            if is_wanted {
                look_at = look_at.max(now + history.retention.age);
            }
            history.look_at = look_at;
            self.look_again(look_at, topic);
        }
    }

    /// Delivers to all hubs. The order of deliveries is that of the history, as the shard is locked.
    fn deliver(&self, topic: &Topic, entry: &HistoryEntry) -> Vec<Wakeup> {
        let deliver = |hub: &Wants| {
            let HistoryEntry { position, previous, ref message } = *entry;
            let previous = Predecessor::Tag(previous);
            let topic = hub.topics.get(topic)?.clone();
            Some(hub.inbox.deliver(Delivery { topic, position, previous, message: message.clone() }))
        };
        self.hubs.iter().filter_map(deliver).collect()
    }
}

impl History {
    fn new(retention: Retention, now: Instant) -> Self {
        let (top, entries) = (Position::begin(), VecDeque::new());
        Self { top, entries, keys: None, retention, last_use: now, look_at: now + retention.age }
    }

    /// Returns the time from which on the history is forgotten, if nobody wants or uses it.
    fn unused_from(&self) -> Instant {
        self.last_use + self.retention.age
    }

    /// Appends a message, and removes the entries that are no longer kept.
    fn append(&mut self, message: Message, tag: u64, now: Instant, after: &mut AfterLock) -> HistoryEntry {
        let entry = HistoryEntry { position: self.top.next(tag), previous: self.top.tag(), message };
        self.top = entry.position;
        self.entries.push_back((now, entry.clone()));
        self.trim(now, after);
        entry
    }

    /// Removes the entries and the keys that are too many or too old.
    fn trim(&mut self, now: Instant, after: &mut AfterLock) {
        self.keys.take_if(|keys| !keys.trim(self.retention, now));
        while let Some((at, _)) = self.entries.front() {
            if self.entries.len() <= self.retention.count && *at + self.retention.age > now {
                return;
            }
            after.entries.extend(self.entries.pop_front());
        }
    }

    fn page(&self, after: u64, limit: usize) -> HistoryPage {
        let start = self.start_after(after);
        let entries = match start {
            Some(start) => self.entries.range(start..).take(limit).map(|(_, entry)| entry.clone()).collect(),
            None => Vec::new(),
        };
        let anchor = match start {
            Some(start) if start < self.entries.len() => Some(self.entries[start].1.previous),
            Some(_) => Some(self.top.tag()),
            None => None,
        };
        let newer = self.top.offset().saturating_sub(after);
        HistoryPage { top: self.top, anchor, newer, entries }
    }

    /// Returns the index of the entry after an offset, or `None` if messages in between are gone, or if the
    /// offset is not reached.
    fn start_after(&self, after: u64) -> Option<usize> {
        let newer = self.top.offset().checked_sub(after)?;
        self.entries.len().checked_sub(usize::try_from(newer).ok()?)
    }
}

/// Copies a small message, so that a history doesn't hold the memory that the message shares with others.
fn compact(message: Message) -> Message {
    if message.len() >= COPIED {
        return message;
    }
    match message {
        Message::Text(text) => Message::Text(Utf8Bytes::from(text.as_str())),
        Message::Binary(bytes) => Message::Binary(Bytes::copy_from_slice(&bytes)),
    }
}

impl Clone for Memory {
    /// Creates an engine for another hub, with the same topics.
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), link: None }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}
