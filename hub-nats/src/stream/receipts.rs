//! Messages that NATS has acknowledged, until they are found to have stayed.
//!
//! In a cluster, an acknowledged message can vanish. If a leader stops for longer than an election takes, and
//! goes on, the servers of NATS 2.9 may drop messages that were acknowledged around the election: see
//! `examples/stopped_leader.rs`. Members that have received such a message are told of a loss, as its tag is
//! not in the history. The others would see a gap in silence: the messages around it fit together.
//!
//! So the engine looks up what was acknowledged to it, once the servers must have agreed. If a message is
//! gone, the engine breaks the history of the topic with a mark, and all members, on all nodes, are told.
//!
//! ```text
//!   acknowledged --15 s--> looked up --found--> forgotten
//!                             |
//!                             +--gone, at three looks--> a mark in the history
//! ```
//!
//! A look costs NATS a request. While nothing happens in the cluster, a sample is looked up.

use std::collections::{HashSet, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bowline_hub::{EngineError, Topic};
use tokio::time::{Instant, sleep, timeout};

use crate::jetstream::{self, Refusal, all};
use crate::link::Link;
use crate::message::{next, nth};
use crate::wire;

/// The age of a receipt that is looked up. A leader without a majority gives up after 10 s.
const SETTLED: Duration = Duration::from_secs(15);

/// The number of receipts that are kept, beyond which the oldest are forgotten: those of 15 s at a rate of
/// 4,000 messages a second.
const KEPT: usize = 65_536;

/// The pause between two rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// The number of receipts in the sample of a round.
const SAMPLE: usize = 20;

/// The number of looks at a message before it counts as gone. A server that is late may answer one of them.
const LOOKS: usize = 3;

/// The number of messages that are looked up at the same time.
const AT_ONCE: usize = 64;

/// The time for that.
const PATIENCE: Duration = Duration::from_secs(5);

/// The receipts of an engine, the oldest first.
#[derive(Default)]
pub(crate) struct Receipts(Mutex<VecDeque<Receipt>>);

/// The place of a message that was acknowledged.
#[derive(Clone, Debug)]
struct Receipt {
    topic: Topic,
    sequence: u64,
    tag: u64,
    at: Instant,
}

/// The fate of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The message is there, or the limits of the stream have removed it with all messages before.
    Stayed,
    Gone,
}

impl Receipts {
    /// Notes a message that was acknowledged.
    pub(crate) fn note(&self, topic: &Topic, sequence: u64, tag: u64) {
        let mut receipts = self.receipts();
        if receipts.len() >= KEPT {
            receipts.pop_front();
        }
        receipts.push_back(Receipt { topic: topic.clone(), sequence, tag, at: Instant::now() });
    }

    /// Takes the receipts that are old enough.
    fn due(&self, now: Instant) -> Vec<Receipt> {
        let mut receipts = self.receipts();
        let count = receipts.iter().take_while(|receipt| receipt.at + SETTLED <= now).count();
        let due = receipts.drain(..count).collect();
        if receipts.is_empty() {
            // A burst leaves no memory behind.
            *receipts = VecDeque::new();
        }
        due
    }

    /// Keeps receipts that could not be looked up.
    fn keep(&self, due: Vec<Receipt>) {
        let mut receipts = self.receipts();
        let room = KEPT.saturating_sub(receipts.len());
        for receipt in due.into_iter().rev().take(room) {
            receipts.push_front(receipt);
        }
    }

    fn receipts(&self) -> MutexGuard<'_, VecDeque<Receipt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks up what was acknowledged, until the engine is dropped.
pub(crate) async fn run(link: Weak<Link>, receipts: Arc<Receipts>) {
    // The topics whose histories are to be broken.
    let mut broken = HashSet::new();
    loop {
        sleep(PAUSE).await;
        let Some(link) = link.upgrade() else { return };
        let due = receipts.due(Instant::now());
        match gone(&link, &due).await {
            Ok(gone) => broken.extend(gone),
            // All of them vanished with the stream, which the tags of its successor show.
            Err(Refusal::NoStream) => {}
            Err(_) => receipts.keep(due),
        }
        for topic in mem::take(&mut broken) {
            if break_history(&link, &receipts, &topic).await.is_err() {
                broken.insert(topic);
            }
        }
    }
}

/// Returns the topics with messages that are gone.
async fn gone(link: &Link, due: &[Receipt]) -> Result<HashSet<Topic>, Refusal> {
    let step = if link.is_restless() { 1 } else { due.len().div_ceil(SAMPLE).max(1) };
    // The newest is part of the sample.
    let mut suspects: Vec<_> = due.iter().rev().step_by(step).cloned().collect();
    suspects = missing(link, suspects).await?;
    if step > 1 && !suspects.is_empty() {
        suspects = missing(link, due.to_vec()).await?;
    }
    for _ in 1..LOOKS {
        if suspects.is_empty() {
            break;
        }
        sleep(PAUSE).await;
        suspects = missing(link, suspects).await?;
    }
    Ok(suspects.into_iter().map(|receipt| receipt.topic).collect())
}

/// Returns the receipts whose messages are gone.
async fn missing(link: &Link, receipts: Vec<Receipt>) -> Result<Vec<Receipt>, Refusal> {
    let mut missing = Vec::new();
    for some in receipts.chunks(AT_ONCE) {
        let fates = timeout(PATIENCE, all(some.iter().map(|receipt| fate(link, receipt)))).await;
        let fates = fates.map_err(|_| EngineError::new("NATS does not answer"))?;
        for (receipt, fate) in some.iter().zip(fates) {
            if fate? == Fate::Gone {
                missing.push(receipt.clone());
            }
        }
    }
    Ok(missing)
}

async fn fate(link: &Link, receipt: &Receipt) -> Result<Fate, Refusal> {
    let subject = wire::subject(wire::STORE, receipt.topic.name());
    if let Some(found) = nth(link, wire::STREAM, receipt.sequence).await? {
        let tag = found.header.as_deref().and_then(wire::tag);
        let is_same = found.subject == subject && tag == Some(receipt.tag);
        return Ok(if is_same { Fate::Stayed } else { Fate::Gone });
    }
    // The limits remove the oldest messages of a topic. No client continues from before them.
    let first = next(link, wire::STREAM, &subject, 1).await?;
    let is_between = first.is_some_and(|first| first.sequence < receipt.sequence);
    Ok(if is_between { Fate::Gone } else { Fate::Stayed })
}

/// Breaks the history of a topic with a mark, so that everybody is told of a loss.
async fn break_history(link: &Link, receipts: &Receipts, topic: &Topic) -> Result<(), Refusal> {
    let tag = getrandom::u64().map_err(EngineError::new)?;
    let (subject, header) = (wire::subject(wire::STORE, topic.name()), wire::mark(tag));
    let headers = [(wire::HEADER, header.as_str()), ("Nats-Msg-Id", header.as_str())];
    let marked = timeout(PATIENCE, jetstream::publish(link, &subject, &headers, b"")).await;
    let marked = marked.map_err(|_| EngineError::new("NATS does not answer"))??;
    receipts.note(topic, marked.sequence, tag);
    Ok(())
}
