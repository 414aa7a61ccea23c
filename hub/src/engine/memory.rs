//! The engine for the hubs of one process.

mod history;
mod leases;
mod people;
mod shard;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline::Message;
use tokio::time::Instant;

use crate::engine::inbox::Inbox;
use crate::engine::memory::history::compact;
use crate::engine::memory::leases::Leases;
use crate::engine::memory::shard::{AfterLock, Link, Shard};
use crate::engine::{Engine, EngineError, HistoryEntry, HistoryPage};
use crate::position::Position;
use crate::presence::{Lease, NodeId, Present};
use crate::topic::Topic;

/// The number of locks among which the topics are divided.
const SHARDS: usize = 16;

/// The error for a topic without history.
const NO_HISTORY: &str = "the topic has no history";

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
/// let _ = member.subscribe("news", None).await?;
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

struct Store {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
    links: AtomicU64,
    leases: Leases,
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
                history.append(message, tag, now, &mut after.entries)
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
        history.trim(now, &mut after.entries);
        if let Some(position) = history.keys.as_ref().and_then(|keys| keys.position(key)) {
            return Ok(position);
        }
        let entry = history.append(message, tag, now, &mut after.entries);
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
        history.trim(now, &mut after_lock.entries);
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
