//! The leases of hubs, and their entries.
//!
//! The leases know the entries of each node, so that reaping is no search. Both are changed under the lock of
//! the leases, which comes before that of a shard. The lock of the shard makes the order of changes and
//! messages.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::memory::Store;
use crate::engine::memory::people::People;
use crate::presence::{Lease, NodeId, Present};
use crate::topic::Topic;

/// The number of entries that are reaped at once.
const REAPED: usize = 100;

/// The leases of all nodes.
#[derive(Default)]
pub(crate) struct Leases(Mutex<HashMap<NodeId, NodeLease>>);

/// The lease of a node, and its entries.
struct NodeLease {
    term: Term,
    entries: HashSet<(Topic, Arc<str>)>,
}

/// The time of a lease.
///
/// ```text
///     Until --renewed--> Until --the first entry is reaped--> Over
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    Until(Instant),
    /// The entries that are left are reaped, whatever the node does.
    Over,
}

impl Term {
    fn has_ended(self, now: Instant) -> bool {
        match self {
            Self::Until(end) => end <= now,
            Self::Over => true,
        }
    }
}

impl Store {
    pub(crate) fn begin(&self, node: NodeId, time: Duration) {
        let term = Term::Until(Instant::now() + time);
        self.leases().insert(node, NodeLease { term, entries: HashSet::new() });
    }

    pub(crate) fn renew(&self, node: NodeId, time: Duration) -> Lease {
        match self.leases().get_mut(&node) {
            Some(NodeLease { term: term @ Term::Until(_), .. }) => {
                *term = Term::Until(Instant::now() + time);
                Lease::Held
            }
            _ => Lease::Lapsed,
        }
    }

    pub(crate) fn enter(&self, topic: &Topic, node: NodeId, present: &Present) -> Lease {
        let mut leases = self.leases();
        let lease = leases.get_mut(&node).filter(|lease| lease.term != Term::Over);
        let Some(lease) = lease else { return Lease::Lapsed };
        let key: Arc<str> = present.key.as_str().into();
        lease.entries.insert((topic.clone(), Arc::clone(&key)));
        let mut shard = self.shard(topic.name());
        let wakeups = shard.enter(topic, node, &key, &present.info);
        drop(shard);
        drop(leases);
        drop(wakeups);
        Lease::Held
    }

    pub(crate) fn exit(&self, topic: &Topic, node: NodeId, key: &str) {
        let mut leases = self.leases();
        if let Some(lease) = leases.get_mut(&node) {
            lease.entries.remove(&(topic.clone(), key.into()));
        }
        let mut shard = self.shard(topic.name());
        let wakeups = shard.exit(topic, node, key);
        drop(shard);
        drop(leases);
        drop(wakeups);
    }

    pub(crate) fn present(&self, topic: &Topic) -> Vec<Present> {
        let shard = self.shard(topic.name());
        shard.present.get(topic).map(|people| people.iter().collect()).unwrap_or_default()
    }

    pub(crate) fn count(&self, topic: &Topic) -> usize {
        self.shard(topic.name()).present.get(topic).map_or(0, People::len)
    }

    pub(crate) fn reap(&self, caller: NodeId) -> usize {
        let now = Instant::now();
        let (mut reaped, mut wakeups) = (0, Vec::new());
        let mut leases = self.leases();
        if leases.get(&caller).is_none_or(|lease| lease.term.has_ended(now)) {
            return 0;
        }
        let ended = leases.iter().filter(|(_, lease)| lease.term.has_ended(now));
        let ended: Vec<_> = ended.map(|(node, _)| *node).collect();
        for node in ended {
            let Some(lease) = leases.get_mut(&node) else { continue };
            lease.term = Term::Over;
            let entries: Vec<_> = lease.entries.iter().take(REAPED - reaped).cloned().collect();
            for entry in entries {
                lease.entries.remove(&entry);
                let (topic, key) = entry;
                wakeups.extend(self.shard(topic.name()).exit(&topic, node, &key));
                reaped += 1;
            }
            if lease.entries.is_empty() {
                leases.remove(&node);
            }
            if reaped == REAPED {
                break;
            }
        }
        drop(leases);
        drop(wakeups);
        reaped
    }

    fn leases(&self) -> MutexGuard<'_, HashMap<NodeId, NodeLease>> {
        self.leases.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::rule::Rule;

    const TIME: Duration = Duration::from_secs(10);

    /// From the first entry that is reaped on, the lease is over, whatever its node does.
    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_reaped_is_never_held_again() {
        let (store, topic) = (Store::default(), Topic::new("room", &Arc::new(Rule::new().presence())));
        let (dead, alive) = (NodeId::new(), NodeId::new());
        store.begin(dead, TIME);
        for number in 0..=REAPED {
            assert_eq!(store.enter(&topic, dead, &Present::new(number.to_string())), Lease::Held);
        }
        // A lease whose time is over is held again, until somebody reaps it.
        tokio::time::advance(2 * TIME).await;
        assert_eq!(store.renew(dead, TIME), Lease::Held);
        tokio::time::advance(2 * TIME).await;
        assert_eq!((store.reap(alive), store.reap(dead)), (0, 0), "the callers have no lease");
        store.begin(alive, TIME);
        assert_eq!(store.reap(alive), REAPED);
        assert_eq!(store.count(&topic), 1);
        assert_eq!(store.renew(dead, TIME), Lease::Lapsed);
        assert_eq!(store.enter(&topic, dead, &Present::new("late")), Lease::Lapsed);
        assert_eq!((store.reap(alive), store.reap(alive)), (1, 0));
        assert_eq!(store.count(&topic), 0);
        assert!(store.leases().keys().eq([&alive]) && store.shard("room").present.is_empty());
    }
}
