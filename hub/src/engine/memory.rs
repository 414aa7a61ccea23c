//! The engine for the hubs of one process.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::bytes::Bytes;
use bowline::{Message, Utf8Bytes};
use tokio::time::Instant;

use crate::engine::inbox::{Inbox, Wakeup};
use crate::engine::{Delivery, Engine, EngineError, HistoryEntry, HistoryPage};
use crate::position::Position;
use crate::settings::rule::Retention;
use crate::topic::Topic;

/// The number of locks among which the topics are divided.
const SHARDS: usize = 16;

/// The size below which a message in a history is copied, in bytes. A message that was received can hold a
/// block of up to 4 KiB, which it shares with others.
const COPIED: usize = 4096;

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
}

/// A part of the topics.
#[derive(Default)]
struct Shard {
    topics: HashMap<Arc<str>, Channel>,
    /// The times at which histories may be forgotten. A history has one entry, which is put off while the
    /// topic is in use.
    expiry: BinaryHeap<Reverse<(Instant, Arc<str>)>>,
}

/// A topic: who wants it, and its history.
#[derive(Default)]
struct Channel {
    wants: Vec<(u64, Inbox)>,
    history: Option<History>,
}

struct History {
    top: Position,
    entries: VecDeque<(Instant, HistoryEntry)>,
    retention: Retention,
    last_use: Instant,
    /// The time of the entry in `Shard::expiry` that is about this history.
    look_at: Instant,
}

/// The values that are dropped after the lock: payloads and wakers are foreign code.
#[derive(Default)]
struct AfterLock {
    wakeups: Vec<Wakeup>,
    channels: Vec<Channel>,
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
        let now = Instant::now();
        let mut after = AfterLock::default();
        let mut shard = self.store.shard(topic.name());
        shard.expire(now, &mut after);
        let (entry, channel) = if let Some(retention) = topic.retention() {
            let channel = shard.tracked(topic.name(), retention, now, &mut after);
            let history = channel.history.as_mut().expect("the channel is tracked");
            (history.append(compact(message), tag, now, &mut after), Some(channel))
        } else {
            let entry = HistoryEntry { position: Position::UNTRACKED, previous: 0, message };
            (entry, shard.topics.get_mut(topic.name()))
        };
        if let Some(channel) = channel {
            after.wakeups = channel.deliver(topic, &entry);
        }
        drop(shard);
        Ok(entry.position)
    }

    async fn want(&self, topic: &Topic) -> Result<(), EngineError> {
        let link = self.link()?;
        let mut after = AfterLock::default();
        let mut shard = self.store.shard(topic.name());
        shard.expire(Instant::now(), &mut after);
        let channel = shard.channel(topic.name(), Instant::now(), &mut after);
        if channel.wants.iter().all(|(number, _)| *number != link.number) {
            // Most topics have one hub.
            channel.wants.reserve_exact(1);
            channel.wants.push((link.number, link.inbox.clone()));
        }
        drop(shard);
        Ok(())
    }

    async fn unwant(&self, topic: &Topic) -> Result<(), EngineError> {
        let link = self.link()?;
        let now = Instant::now();
        let mut after = AfterLock::default();
        let mut shard = self.store.shard(topic.name());
        shard.expire(now, &mut after);
        if let Some(channel) = shard.topics.get_mut(topic.name()) {
            channel.wants.retain(|(number, _)| *number != link.number);
            match &mut channel.history {
                Some(history) => history.last_use = now,
                None if channel.wants.is_empty() => after.channels.extend(shard.topics.remove(topic.name())),
                None => {}
            }
        }
        drop(shard);
        Ok(())
    }

    async fn history(&self, topic: &Topic, after: u64, limit: usize) -> Result<HistoryPage, EngineError> {
        let Some(retention) = topic.retention() else {
            return Err(EngineError::new("the topic has no history"));
        };
        let now = Instant::now();
        let mut after_lock = AfterLock::default();
        let mut shard = self.store.shard(topic.name());
        shard.expire(now, &mut after_lock);
        let channel = shard.tracked(topic.name(), retention, now, &mut after_lock);
        let history = channel.history.as_mut().expect("the channel is tracked");
        history.trim(now, &mut after_lock);
        let page = history.page(after, limit);
        drop(shard);
        Ok(page)
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
        Self { shards: Default::default(), hasher: RandomState::new(), links: AtomicU64::new(0) }
    }
}

impl Shard {
    fn channel(&mut self, topic: &str, now: Instant, after: &mut AfterLock) -> &mut Channel {
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.into(), Channel::default());
        }
        let channel = self.topics.get_mut(topic).expect("the channel was inserted");
        if channel.is_unused(now) {
            after.histories.extend(channel.history.take());
        }
        channel
    }

    /// Returns the channel of a topic with a history, which begins now if there was none.
    fn tracked(
        &mut self,
        topic: &str,
        retention: Retention,
        now: Instant,
        after: &mut AfterLock,
    ) -> &mut Channel {
        if self.channel(topic, now, after).history.is_none() {
            self.expiry.push(Reverse((now + retention.age, topic.into())));
        }
        let channel = self.topics.get_mut(topic).expect("the channel exists");
        let history = channel.history.get_or_insert_with(|| History::new(retention, now));
        history.last_use = now;
        history.retention = retention;
        channel
    }

    /// Removes the histories that nobody has used for longer than they keep messages.
    fn expire(&mut self, now: Instant, after: &mut AfterLock) {
        while self.expiry.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((at, name))) = self.expiry.pop() else { return };
            let Some(channel) = self.topics.get_mut(&name) else { continue };
            channel.wants.retain(|(_, inbox)| !inbox.is_closed());
            let is_unused = channel.is_unused(now);
            let Some(history) = channel.history.as_mut().filter(|history| history.look_at == at) else {
                // The entry is about a history that was forgotten.
                continue;
            };
            if is_unused {
                after.channels.extend(self.topics.remove(&name));
                continue;
            }
            history.look_at = history.unused_from().max(now + MIN_PAUSE);
            if !channel.wants.is_empty() {
                history.look_at = history.look_at.max(now + history.retention.age);
            }
            self.expiry.push(Reverse((history.look_at, name)));
        }
    }
}

impl Channel {
    fn is_unused(&self, now: Instant) -> bool {
        let until = self.history.as_ref().map(History::unused_from);
        self.wants.is_empty() && until.is_some_and(|until| until <= now)
    }

    /// Delivers to all hubs. The order of deliveries is that of the history, as the shard is locked.
    fn deliver(&mut self, topic: &Topic, entry: &HistoryEntry) -> Vec<Wakeup> {
        let delivery = || Delivery {
            topic: topic.clone(),
            position: entry.position,
            previous: entry.previous,
            message: entry.message.clone(),
        };
        self.wants.iter().map(|(_, inbox)| inbox.deliver(delivery())).collect()
    }
}

impl History {
    fn new(retention: Retention, now: Instant) -> Self {
        let (top, entries) = (Position::begin(), VecDeque::new());
        Self { top, entries, retention, last_use: now, look_at: now + retention.age }
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

    /// Removes the entries that are too many or too old.
    fn trim(&mut self, now: Instant, after: &mut AfterLock) {
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
        HistoryPage { top: self.top, anchor, entries }
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
