//! An index of the newest messages of the stream, for reading many histories.
//!
//! After NATS was away, a node reads the histories of all its topics. To find the next message of a topic,
//! NATS 2.9 looks at all messages in between, of whatever topic, which takes up to 3 ms. So once many topics
//! turn out to have missed messages, the engine reads the headers of the newest messages of all topics, in
//! one pass, and notes which topic each of them belongs to. From then on, the messages of a topic are read by
//! their numbers.
//!
//! ```text
//!   Counting --many topics have missed messages--> Reading --> Known --a minute, or a change--> Counting
//!      ^                                              |
//!      +-------------------- failed ------------------+
//! ```
//!
//! The index has all messages in its range, or it could hide one. A server of a cluster may lack messages, so
//! the pass reads from the leader. A server that was the leader, was stopped, and has not yet learnt of its
//! successor, may have other messages at its end. So the last message of the pass must be that of the leader
//! afterwards, too.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::jetstream::{Refusal, call};
use crate::link::Link;
use crate::message::{Batch, Part, RawMessage, nth, scan_leader};
use crate::wire;

/// The number of topics that must have missed messages. To look for these takes about as long as a pass.
const MANY: usize = 500;

/// The largest number of messages in the index, which take 24 bytes each.
const MOST: u64 = 500_000;

/// The time for which the index is kept.
const KEPT: Duration = Duration::from_secs(60);

/// The index, if there is one.
#[derive(Clone, Default)]
pub(crate) struct Index(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    link: Weak<Link>,
    stage: Stage,
}

/// The state of the index: see the module.
enum Stage {
    /// The number of topics that have missed messages, and the smallest number after which one has.
    Counting(usize, u64),
    Reading,
    Known(Range),
}

/// All messages with the numbers of a range.
struct Range {
    /// The number from [`Link::changes`] for which the range is valid.
    changes: u64,
    /// The number before the first one.
    after: u64,
    /// The last number.
    until: u64,
    hasher: RandomState,
    /// In the order of the hashes, and of the numbers.
    messages: Vec<Noted>,
}

/// A message in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Noted {
    /// The hash of the subject. The order of the fields matters.
    hash: u64,
    sequence: u64,
    tag: u64,
}

/// The place of the next message of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Its number, unless the hashes of two subjects are the same.
    At(u64),
    /// A number before which there is none.
    From(u64),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Counting(0, u64::MAX)
    }
}

impl Index {
    pub(crate) fn start(&self, link: &Arc<Link>) {
        self.state().link = Arc::downgrade(link);
    }

    /// Notes that a topic has missed messages after a number. If these are many topics, a task reads the
    /// index.
    pub(crate) fn note(&self, link: &Link, after: u64) {
        let mut state = self.state();
        if matches!(&state.stage, Stage::Known(range) if range.changes != link.changes()) {
            state.stage = Stage::default();
        }
        let Stage::Counting(topics, oldest) = &mut state.stage else { return };
        (*topics, *oldest) = (*topics + 1, after.min(*oldest));
        if *topics >= MANY {
            let oldest = *oldest;
            state.stage = Stage::Reading;
            tokio::spawn(self.clone().read(state.link.clone(), oldest));
        }
    }

    /// Returns the place of the next message of a topic after a number.
    pub(crate) fn place(&self, link: &Link, subject: &str, after: u64) -> Place {
        match &self.state().stage {
            Stage::Known(range) if range.changes == link.changes() => range.place(subject, after),
            _ => Place::From(after + 1),
        }
    }

    /// Returns the tag of the message before some others, if these are all messages of the topic from there
    /// to the last one of them, and none was removed before they were found.
    pub(crate) fn tag_before(
        &self,
        link: &Link,
        subject: &str,
        before: u64,
        messages: impl IntoIterator<Item = u64>,
    ) -> Option<u64> {
        match &self.state().stage {
            Stage::Known(range) if range.changes == link.changes() => {
                range.tag_before(subject, before, messages)
            }
            _ => None,
        }
    }

    async fn read(self, link: Weak<Link>, oldest: u64) {
        let Some(link) = link.upgrade() else { return };
        let range = Range::read(&link, oldest).await;
        drop(link);
        let Ok(Some(range)) = range else {
            self.state().stage = Stage::default();
            return;
        };
        let changes = range.changes;
        self.state().stage = Stage::Known(range);
        sleep(KEPT).await;
        let mut state = self.state();
        if matches!(&state.stage, Stage::Known(range) if range.changes == changes) {
            state.stage = Stage::default();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Range {
    /// Reads the newest messages, after a number at least. Returns `None` if the leader has changed.
    async fn read(link: &Link, oldest: u64) -> Result<Option<Self>, Refusal> {
        let changes = link.changes();
        let info = call(link, &format!("STREAM.INFO.{}", wire::STREAM), &json!({})).await?;
        let last = info["state"]["last_seq"].as_u64().unwrap_or_default();
        let after = oldest.saturating_sub(1).max(last.saturating_sub(MOST));
        let mut range =
            Self { changes, after, until: after, hasher: RandomState::new(), messages: Vec::new() };
        // Without a subject: NATS 2.9 counts the messages of each subject before it begins.
        let limit = usize::try_from(MOST).unwrap_or(usize::MAX);
        let batch = Batch { stream: wire::STREAM, subject: "", after, limit, part: Part::Headers };
        let tag_of = |message: &RawMessage| message.header.as_deref().and_then(wire::tag).unwrap_or_default();
        let mut newest = 0;
        let scanned = scan_leader(link, &batch, |message| {
            newest = tag_of(&message);
            range.add(&message.subject, message.sequence, newest);
        })
        .await?;
        if scanned.is_none() {
            return Ok(None);
        }
        let last = nth(link, wire::STREAM, range.until).await?;
        range.messages.sort_unstable();
        let is_same = last.is_some_and(|last| tag_of(&last) == newest);
        Ok((is_same || range.messages.is_empty()).then_some(range))
    }

    fn add(&mut self, subject: &str, sequence: u64, tag: u64) {
        self.messages.push(Noted { hash: self.hasher.hash_one(subject), sequence, tag });
        self.until = sequence;
    }

    fn place(&self, subject: &str, after: u64) -> Place {
        if after < self.after || after >= self.until {
            return Place::From(after + 1);
        }
        let hash = self.hasher.hash_one(subject);
        let next = self.messages.partition_point(|noted| (noted.hash, noted.sequence) <= (hash, after));
        match self.messages.get(next) {
            Some(noted) if noted.hash == hash => Place::At(noted.sequence),
            _ => Place::From(self.until + 1),
        }
    }

    fn tag_before(&self, subject: &str, before: u64, messages: impl IntoIterator<Item = u64>) -> Option<u64> {
        let hash = self.hasher.hash_one(subject);
        let first =
            self.messages.binary_search_by_key(&(hash, before), |noted| (noted.hash, noted.sequence)).ok()?;
        let mut known = self.messages[first + 1..].iter();
        let is_known =
            |sequence| known.next().is_some_and(|noted| (noted.hash, noted.sequence) == (hash, sequence));
        messages.into_iter().all(is_known).then_some(self.messages[first].tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_knows_the_next_message_of_each_subject_and_nothing_outside() {
        let mut range =
            Range { changes: 0, after: 10, until: 10, hasher: RandomState::new(), messages: Vec::new() };
        for (subject, sequence) in [("a", 11), ("b", 12), ("a", 14), ("c", 20)] {
            range.add(subject, sequence, sequence + 100);
        }
        range.messages.sort_unstable();
        assert_eq!(range.place("a", 10), Place::At(11));
        assert_eq!(range.place("a", 11), Place::At(14));
        assert_eq!(range.place("a", 14), Place::From(21));
        assert_eq!(range.place("d", 10), Place::From(21));
        assert_eq!(range.place("a", 9), Place::From(10));
        assert_eq!(range.place("a", 20), Place::From(21));
        assert_eq!(range.place("a", 99), Place::From(100));
        assert_eq!(range.tag_before("a", 11, [14]), Some(111));
        assert_eq!(range.tag_before("a", 11, [15]), None);
        assert_eq!(range.tag_before("a", 10, [11, 14]), None);
        assert_eq!(range.tag_before("b", 12, [14]), None);
    }
}
