//! Presence: who is in a topic, and the leases of the nodes that say so.
//!
//! A stream of its own keeps the last message of each subject:
//!
//! | subject | message |
//! |---|---|
//! | `bowline.present.<topic>.<key>` | the information about a key, and the nodes with an entry |
//! | `bowline.node.<node>.<topic>.<key>` | nothing: the node may have this entry |
//! | `bowline.lease.<node>` | the time of a lease, from the time of the message on |
//! | `bowline.clock` | nothing: its time is that of the server |
//!
//! The message of a key decides. It is replaced on the condition that nobody else has replaced it, so of two
//! nodes that exit at once, one is the last. A lease is renewed and ended in the same way. The stream
//! publishes the message of a key again for the nodes that want the topic, and the message says if it is a
//! change.
//!
//! # A node enters
//!
//! First the index under `bowline.node`, then the message of the key, and then a look at the lease. A reaper
//! ends the lease first and reads the index afterwards. So either the reaper finds the entry, or the node
//! finds that its lease is over, and removes the entry itself. A node that dies in between is reaped again,
//! as a lease that is over stays for a while.
//!
//! # Calls that were given up
//!
//! A request may reach the stream long after its call was given up: over a connection that was lost, or from
//! the queue of a leader. It must not undo a later call. So the message of a key is replaced by each call,
//! even if nothing changes, and a late request finds that its condition doesn't hold any more. A key without
//! a message gets one without nodes first. Otherwise, a late request would find no message again once the
//! stream has forgotten the key.
//!
//! # Keys that are gone
//!
//! The message of a key without nodes stays for a while, so that replicas have seen it. The [`sweeper`] of
//! the node then removes it from the stream. Nodes that read a topic find those whose node has ended.
//!
//! # Lost data
//!
//! The numbers of a stream grow. A stream that acknowledges a message with a number that is not larger than
//! one before was lost or rolled back, and so is one without the lease that was renewed last. After NATS was
//! away, or a leader was elected, the stream must also have the last message of the engine, or a later one in
//! its place that agrees about the node of the engine. All leases of this engine have lapsed otherwise, and
//! the hub enters everything again.
//!
//! ```text
//! presence  begin, renew, enter, exit, present
//! reaper    the entries of nodes that are gone
//! orphans   entries of nodes without a lease
//! sweeper   the keys that are gone
//! person    the message of a key
//! term      the message of a lease
//! subjects  the subjects
//! ```

mod orphans;
pub(crate) mod person;
mod reaper;
mod subjects;
mod sweeper;
mod term;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline_hub::{EngineError, Lease, NodeId, Present, Topic};
use serde_json::json;

use crate::jetstream::{self, Refusal, call, nanoseconds, purge};
use crate::link::Link;
use crate::message::{Batch, Part, RawMessage, consume, last};
use crate::presence::person::Person;
use crate::presence::subjects::{index_subject, key_subject, lease_subject};
use crate::presence::sweeper::Gone;
use crate::presence::term::Term;
use crate::wire;

/// The number of attempts to replace a message.
const ATTEMPTS: usize = 100;

/// The number of looks at a leader that may be late.
const LATE: usize = 25;

/// The pause before a replica that is late is asked again.
const PAUSE: Duration = Duration::from_millis(20);

/// The time within which the servers of a cluster must agree on which of two messages in the same place was
/// the first: see [`jetstream::replace`]. Later, the leader knows by itself.
const AT_ONCE: Duration = Duration::from_secs(30);

/// The presence of the hub of an engine.
#[derive(Default)]
pub(crate) struct Presence {
    /// The number from [`Link::changes`] for which the stream exists, and one.
    ensured: AtomicU64,
    leases: Mutex<Leases>,
    /// The messages of keys without entries, to be removed from the stream.
    gone: Gone,
}

#[derive(Default)]
struct Leases {
    /// The leases of this engine, with the number of the last renewal.
    held: HashMap<NodeId, u64>,
    /// The message with the largest number that the stream has acknowledged.
    last: Last,
    /// The number from [`Link::changes`] for which the stream is known to have that message.
    verified: u64,
    /// The nodes that this engine reaps.
    reaping: Vec<String>,
    /// The time of the last lease.
    time: Duration,
}

/// A message that the stream has acknowledged.
#[derive(Clone, Default)]
struct Last {
    sequence: u64,
    subject: String,
    /// A node that the message of a key has, or lacks. Other engines change only their own nodes.
    node: Option<(String, bool)>,
}

impl Presence {
    /// Starts the tasks that remove keys that are gone, and look for entries without a lease.
    pub(crate) fn start(self: &Arc<Self>, link: &Arc<Link>) {
        tokio::spawn(sweeper::run(Arc::downgrade(link), Arc::downgrade(self)));
        tokio::spawn(orphans::run(Arc::downgrade(link), Arc::downgrade(self)));
    }

    /// Begins the lease of a node.
    pub(crate) async fn begin(&self, link: &Link, node: NodeId, time: Duration) -> Result<(), EngineError> {
        self.ensure(link).await?;
        let term = Term::Lasting(time).encode();
        let changes = link.changes();
        let sequence = self.replace(link, &lease_subject(&node.to_string()), 0, &term).await?;
        let mut leases = self.leases();
        if leases.held.is_empty() {
            leases.verified = changes;
        }
        leases.held.insert(node, sequence);
        leases.time = time;
        Ok(())
    }

    /// Renews the lease of a node.
    pub(crate) async fn renew(
        &self,
        link: &Link,
        node: NodeId,
        time: Duration,
    ) -> Result<Lease, EngineError> {
        self.verify(link).await?;
        let (subject, term) = (lease_subject(&node.to_string()), Term::Lasting(time).encode());
        for _ in 0..ATTEMPTS {
            let Some(known) = self.leases().held.get(&node).copied() else { return Ok(Lease::Lapsed) };
            match self.replace(link, &subject, known, &term).await {
                Ok(sequence) => {
                    // If the stream has rolled back, the lease is no longer there.
                    let mut leases = self.leases();
                    let Some(held) = leases.held.get_mut(&node) else { return Ok(Lease::Lapsed) };
                    *held = sequence;
                    leases.time = time;
                    return Ok(Lease::Held);
                }
                Err(Refusal::Overtaken) => {
                    // A renewal whose acknowledgement was lost, or another hub has ended the lease.
                    let stored = last(link, wire::PRESENCE, &subject).await?;
                    let renewed = stored.filter(|stored| {
                        stored.sequence > known
                            && matches!(Term::parse(&stored.payload), Some(Term::Lasting(_)))
                    });
                    match renewed {
                        Some(stored) => {
                            self.leases().held.insert(node, stored.sequence);
                        }
                        None => self.lapse(node),
                    }
                }
                Err(Refusal::NoStream) => self.lapse(node),
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Err(EngineError::new("the lease changes again and again"))
    }

    /// Adds an entry.
    pub(crate) async fn enter(
        &self,
        link: &Link,
        topic: &Topic,
        node: NodeId,
        present: &Present,
    ) -> Result<Lease, EngineError> {
        self.verify(link).await?;
        if !self.leases().held.contains_key(&node) {
            return Ok(Lease::Lapsed);
        }
        let name = node.to_string();
        self.put(link, &index_subject(&name, topic.name(), &present.key), "").await?;
        let subject = key_subject(topic.name(), &present.key);
        self.update(link, &subject, &present.key, &name, |person| person.with(&name, present)).await?;
        let lease = last(link, wire::PRESENCE, &lease_subject(&name)).await?;
        let is_lasting =
            lease.is_some_and(|lease| matches!(Term::parse(&lease.payload), Some(Term::Lasting(_))));
        if is_lasting && self.leases().held.contains_key(&node) {
            return Ok(Lease::Held);
        }
        self.lapse(node);
        self.remove(link, topic.name(), &name, &present.key).await?;
        Ok(Lease::Lapsed)
    }

    /// Removes an entry.
    pub(crate) async fn exit(
        &self,
        link: &Link,
        topic: &Topic,
        node: NodeId,
        key: &str,
    ) -> Result<(), EngineError> {
        self.verify(link).await?;
        match self.remove(link, topic.name(), &node.to_string(), key).await {
            Ok(()) | Err(Refusal::NoStream) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Returns all who are present in a topic.
    pub(crate) async fn present(&self, link: &Link, topic: &Topic) -> Result<Vec<Present>, EngineError> {
        self.ensure(link).await?;
        let subjects = format!("{}.*", wire::subject(wire::PRESENT, topic.name()));
        loop {
            let (stream, subject, part) = (wire::PRESENCE, subjects.as_str(), Part::Everything);
            let batch = Batch { stream, subject, after: 0, limit: usize::MAX, part };
            // The consumer may be on a replica that is late. The leader is not. Later changes are delivered.
            let newest = last(link, wire::PRESENCE, &subjects).await?.map_or(0, |last| last.sequence);
            let (found, _) = consume(link, &batch).await?;
            if found.last().map_or(0, |last| last.sequence) >= newest {
                return Ok(self.people(&found));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Returns the people of the messages of a topic. The last message of each key counts: a message that is
    /// replaced while the others are read comes again.
    fn people(&self, found: &[RawMessage]) -> Vec<Present> {
        let (mut people, mut subjects) = (Vec::with_capacity(found.len()), HashSet::new());
        for found in found.iter().rev().filter(|found| subjects.insert(found.subject.as_str())) {
            match Person::parse(&found.payload) {
                Some(person) if person.is_gone() => self.gone.note_old(found),
                Some(person) => people.push(Present::new(person.key).info(person.info)),
                None => {}
            }
        }
        people
    }

    /// Removes an entry, if it is there.
    async fn remove(&self, link: &Link, topic: &str, node: &str, key: &str) -> Result<(), Refusal> {
        let index = index_subject(node, topic, key);
        let indexed = last(link, wire::PRESENCE, &index).await?;
        let subject = key_subject(topic, key);
        self.update(link, &subject, key, node, |person| person.without(node)).await?;
        if let Some(indexed) = indexed {
            purge(link, wire::PRESENCE, &index, indexed.sequence).await?;
        }
        Ok(())
    }

    /// Replaces the message of a key, even by an equal one.
    async fn update(
        &self,
        link: &Link,
        subject: &str,
        key: &str,
        node: &str,
        change: impl Fn(&Person) -> Person,
    ) -> Result<(), Refusal> {
        let nobody = Person::nobody(key);
        for _ in 0..ATTEMPTS {
            let (sequence, before) = match last(link, wire::PRESENCE, subject).await? {
                Some(found) => {
                    (found.sequence, Person::parse(&found.payload).unwrap_or_else(|| nobody.clone()))
                }
                // The message of somebody is never the first one: see "Calls that were given up".
                None => match self.put_person(link, subject, 0, &nobody).await? {
                    Some(sequence) => (sequence, nobody.clone()),
                    None => continue,
                },
            };
            let after = change(&before);
            if let Some(sequence) = self.put_person(link, subject, sequence, &after).await? {
                let last = &mut self.leases().last;
                if last.sequence == sequence {
                    last.node = Some((node.to_owned(), after.has(node)));
                }
                return Ok(());
            }
        }
        Err(EngineError::new("too many nodes change the presence of a key").into())
    }

    /// Publishes the message of a key in the place of the one with a number. Returns the number of the new
    /// message, or `None` if somebody else was faster.
    async fn put_person(
        &self,
        link: &Link,
        subject: &str,
        replaced: u64,
        person: &Person,
    ) -> Result<Option<u64>, Refusal> {
        match self.replace(link, subject, replaced, &person.encode()).await {
            Ok(sequence) => {
                if person.is_gone() {
                    self.gone.note(subject, sequence);
                } else {
                    self.gone.forget(subject);
                }
                Ok(Some(sequence))
            }
            Err(Refusal::Overtaken) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Publishes a message in the place of the last one on its subject, if that has a number: 0 if there is
    /// none. Returns the number of the new message.
    async fn replace(
        &self,
        link: &Link,
        subject: &str,
        replaced: u64,
        payload: &str,
    ) -> Result<u64, Refusal> {
        let before = self.leases().last.sequence;
        let sequence = jetstream::replace(link, subject, replaced, &[], payload.as_bytes()).await?;
        self.check(before, sequence, subject);
        Ok(sequence)
    }

    /// Publishes a message, whatever the last one on its subject is.
    async fn put(&self, link: &Link, subject: &str, payload: &str) -> Result<(), Refusal> {
        let before = self.leases().last.sequence;
        let stored = jetstream::publish(link, subject, &[], payload.as_bytes()).await?;
        self.check(before, stored.sequence, subject);
        Ok(())
    }

    /// Compares the number of a message with the largest one before it was published.
    fn check(&self, before: u64, sequence: u64, subject: &str) {
        let mut leases = self.leases();
        if sequence <= before {
            // The stream has forgotten messages.
            leases.held.clear();
        }
        if sequence <= before || sequence > leases.last.sequence {
            leases.last = Last { sequence, subject: subject.to_owned(), node: None };
        }
    }

    /// Makes sure that the stream still has the last message of this engine, if the stream may have changed.
    /// Otherwise, all leases lapse, as the stream may have lost entries or exits. Others may have published
    /// since, so that numbers alone don't tell.
    async fn verify(&self, link: &Link) -> Result<(), Refusal> {
        // Before anything is read.
        self.ensure(link).await?;
        let changes = link.changes();
        let expected = {
            let leases = self.leases();
            if leases.verified == changes || leases.held.is_empty() {
                return Ok(());
            }
            leases.last.clone()
        };
        let mut is_there = false;
        // A leader that was just elected may be late.
        let looks = if link.is_clustered() { LATE } else { 1 };
        for look in 0..looks {
            if look > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            is_there = has(link, &expected).await?;
            if is_there {
                break;
            }
        }
        let mut leases = self.leases();
        if !is_there {
            leases.held.clear();
        }
        leases.verified = changes;
        Ok(())
    }

    /// Makes sure that the stream exists.
    async fn ensure(&self, link: &Link) -> Result<(), Refusal> {
        if self.is_ensured(link) {
            return Ok(());
        }
        let ensured = link.changes() + 1;
        let config = json!({
            "name": wire::PRESENCE,
            "description": "The presence of bowline-hub",
            "subjects": [
                format!("{}>", wire::PRESENT),
                format!("{}>", wire::NODE),
                format!("{}*", wire::LEASE),
                wire::CLOCK,
            ],
            "republish": { "src": format!("{}>", wire::PRESENT), "dest": format!("{}>", wire::WHO) },
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "num_replicas": jetstream::replicas(link),
            "max_msgs_per_subject": 1,
            "max_age": 0,
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "duplicate_window": nanoseconds(AT_ONCE),
        });
        match call(link, &format!("STREAM.INFO.{}", wire::PRESENCE), &json!({})).await {
            Ok(info) => {
                jetstream::check_replicas(&info)?;
                jetstream::wait_for_stream(link, wire::CLOCK).await?;
            }
            Err(Refusal::NoStream) => {
                jetstream::create(link, &config).await?;
            }
            Err(refusal) => return Err(refusal),
        }
        self.ensured.store(ensured, Ordering::Relaxed);
        Ok(())
    }

    /// Notes that a node with entries has no lease, for a time in which the node finds out by itself.
    async fn miss_lease(&self, link: &Link, node: &str) -> Result<(), Refusal> {
        let term = Term::Missing(self.leases().time).encode();
        match self.replace(link, &lease_subject(node), 0, &term).await {
            // Another hub may be faster.
            Ok(_) | Err(Refusal::Overtaken) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// Returns `true` if the stream is known to exist.
    fn is_ensured(&self, link: &Link) -> bool {
        self.ensured.load(Ordering::Relaxed) == link.changes() + 1
    }

    fn lapse(&self, node: NodeId) {
        self.leases().held.remove(&node);
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns `true` if the stream has a message, or a later one in its place that fits.
async fn has(link: &Link, expected: &Last) -> Result<bool, Refusal> {
    let found = match last(link, wire::PRESENCE, &expected.subject).await {
        Err(Refusal::NoStream) => None,
        found => found?,
    };
    let Some(found) = found.filter(|found| found.sequence >= expected.sequence) else { return Ok(false) };
    let Some((node, is_here)) = &expected.node else { return Ok(true) };
    Ok(Person::parse(&found.payload).is_some_and(|person| person.has(node) == *is_here))
}
