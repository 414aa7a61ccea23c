//! A part of the topics, under one lock: who wants them, their histories, and the people in them.
//!
//! A history is forgotten after it was neither used nor wanted for as long as it keeps messages. Each history
//! has one entry in a list by time, and is looked at when that time has come:
//!
//! ```text
//!     first use --> waits --its time--> unused, and wanted by nobody? --yes--> forgotten
//!                     ^                             | no
//!                     +------- with a new time -----+
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::inbox::{Inbox, Wakeup};
use crate::engine::memory::history::History;
use crate::engine::memory::people::{Effect, People};
use crate::engine::{Delivery, HistoryEntry, Predecessor};
use crate::presence::{NodeId, PresenceChange};
use crate::settings::rule::Retention;
use crate::topic::Topic;

/// The shortest time between two looks at the same history.
const MIN_PAUSE: Duration = Duration::from_millis(1);

/// A part of the topics.
#[derive(Default)]
pub(crate) struct Shard {
    /// A hub is here from its first topic on.
    pub(crate) hubs: Vec<Wants>,
    /// In boxes, as a map has many places that are empty.
    pub(crate) histories: HashMap<Topic, Box<History>>,
    /// The times at which histories may be forgotten, numbered, as times may be equal. A history has one
    /// entry, which is put off while the topic is in use.
    expiry: BTreeMap<(Instant, u64), Topic>,
    /// The number of entries so far in `expiry`.
    count: u64,
    /// The people in topics with presence.
    pub(crate) present: HashMap<Topic, People>,
}

/// The hub of a clone of the engine, among all that share a store.
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) inbox: Inbox,
}

/// The topics that a hub wants: a set for each hub, as this takes less than a list of hubs for each topic.
pub(crate) struct Wants {
    link: u64,
    pub(crate) inbox: Inbox,
    pub(crate) topics: HashSet<Topic>,
}

/// The values that are dropped after the lock: payloads and wakers are foreign code.
#[derive(Default)]
pub(crate) struct AfterLock {
    pub(crate) wakeups: Vec<Wakeup>,
    /// The hubs that are gone.
    pub(crate) hubs: Vec<Wants>,
    pub(crate) histories: Vec<History>,
    pub(crate) entries: Vec<(Instant, HistoryEntry)>,
}

impl Shard {
    /// Returns the topics that a hub wants.
    pub(crate) fn topics_of(&mut self, link: &Link, after: &mut AfterLock) -> &mut HashSet<Topic> {
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
    pub(crate) fn forget_unused(&mut self, topic: &Topic, now: Instant, after: &mut AfterLock) {
        let is_due = self.histories.get(topic).is_some_and(|history| history.unused_from() <= now);
        if is_due && !self.is_wanted(topic) {
            after.histories.extend(self.histories.remove(topic).map(|history| *history));
        }
    }

    /// Returns the history of a topic, which begins now if there was none.
    pub(crate) fn history(
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
    pub(crate) fn expire(&mut self, now: Instant, after: &mut AfterLock) {
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
    pub(crate) fn deliver(&self, topic: &Topic, entry: &HistoryEntry) -> Vec<Wakeup> {
        let deliver = |hub: &Wants| {
            let HistoryEntry { position, previous, ref message } = *entry;
            let previous = Predecessor::Tag(previous);
            let topic = hub.topics.get(topic)?.clone();
            Some(hub.inbox.deliver(Delivery { topic, position, previous, message: message.clone() }))
        };
        self.hubs.iter().filter_map(deliver).collect()
    }

    /// Adds the entry of a node to those who are present in a topic.
    pub(crate) fn enter(&mut self, topic: &Topic, node: NodeId, key: &Arc<str>, info: &str) -> Vec<Wakeup> {
        match self.present.entry(topic.clone()).or_default().enter(node, key, info) {
            Effect::Changed => self.change(topic, key, Some(info)),
            Effect::Unchanged => Vec::new(),
        }
    }

    /// Removes the entry of a node.
    pub(crate) fn exit(&mut self, topic: &Topic, node: NodeId, key: &str) -> Vec<Wakeup> {
        let Some(people) = self.present.get_mut(topic) else { return Vec::new() };
        let effect = people.exit(node, key);
        if people.is_empty() {
            self.present.remove(topic);
        }
        match effect {
            Effect::Changed => self.change(topic, key, None),
            Effect::Unchanged => Vec::new(),
        }
    }

    /// Delivers a change to all hubs.
    fn change(&self, topic: &Topic, key: &str, info: Option<&str>) -> Vec<Wakeup> {
        let change = |hub: &Wants| {
            let topic = hub.topics.get(topic)?.clone();
            let (key, info) = (key.to_owned(), info.map(str::to_owned));
            Some(hub.inbox.change(PresenceChange { topic, key, info }))
        };
        self.hubs.iter().filter_map(change).collect()
    }
}
