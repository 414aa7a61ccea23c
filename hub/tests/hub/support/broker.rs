//! A broker that fails in all ways that brokers do.
//!
//! Each clone is the engine of one node. The broker remembers every message that it has ever stored, also of
//! histories that it has lost or rolled back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bowline::Message;
use bowline_hub::{
    Delivery, Engine, EngineError, HistoryEntry, HistoryPage, Inbox, Position, Predecessor, Topic, Wakeup,
};
use bowline_hub_testing::random::Random;
use tokio::time::sleep;

/// Faults by their frequency, in cases out of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// A delivery is lost.
    pub(crate) dropped: u64,
    /// A delivery is made twice.
    pub(crate) repeated: u64,
    /// A delivery is made after the next one.
    pub(crate) late: u64,
    /// A delivery is made again, some time later.
    pub(crate) stale: u64,
    /// A message is stored and delivered, and the publisher is told of an error.
    pub(crate) refused: u64,
    /// A read of the history takes up to 50 ms before, and up to 50 ms after.
    pub(crate) delayed: u64,
    /// A page of the history arrives one second after it was read.
    pub(crate) slow_answers: u64,
}

/// A message as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) previous: u64,
    pub(crate) text: String,
}

#[derive(Clone)]
pub(crate) struct Broker {
    state: Arc<Mutex<State>>,
    node: Option<usize>,
}

struct State {
    topics: HashMap<String, Log>,
    offsets: Offsets,
    nodes: Vec<Node>,
    faults: Faults,
    random: Random,
    stored: HashMap<Position, Stored>,
}

/// The way in which the broker numbers messages and names the one before.
enum Offsets {
    /// Each history counts its own messages. Deliveries name tags.
    PerTopic,
    /// All histories share their numbers, and are lost and saved together. Deliveries name offsets, and the
    /// hubs are told when histories have changed.
    Shared { last: u64, saved: Option<(HashMap<String, Log>, u64)> },
}

#[derive(Clone)]
struct Log {
    top: Position,
    /// Each message with the position before.
    entries: Vec<(Position, HistoryEntry)>,
    keys: HashMap<String, Position>,
    snapshot: Option<Box<Log>>,
}

struct Node {
    inbox: Inbox,
    wants: HashMap<String, Topic>,
    link: LinkState,
    /// The deliveries that are late.
    late: Vec<Delivery>,
    /// The last deliveries, which may be repeated.
    past: Vec<Delivery>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Up,
    Down,
}

impl Broker {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        Self::numbered(seed, faults, Offsets::PerTopic)
    }

    /// Creates a broker whose histories share their numbers.
    pub(crate) fn with_shared_offsets(seed: u64, faults: Faults) -> Self {
        Self::numbered(seed, faults, Offsets::Shared { last: 0, saved: None })
    }

    fn numbered(seed: u64, faults: Faults, offsets: Offsets) -> Self {
        let state = State {
            topics: HashMap::new(),
            offsets,
            nodes: Vec::new(),
            faults,
            random: Random::new(seed),
            stored: HashMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), node: None }
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Returns everything that was ever stored.
    pub(crate) fn stored(&self) -> HashMap<Position, Stored> {
        self.state().stored.clone()
    }

    /// Makes the deliveries that are late.
    pub(crate) fn deliver_late(&self) {
        let mut wakeups = Vec::new();
        for node in &mut self.state().nodes {
            wakeups.extend(node.late.drain(..).map(|delivery| node.inbox.deliver(delivery)));
        }
    }

    /// Forgets the history of a topic, as a broker without persistence does at a restart.
    pub(crate) fn lose_history(&self, topic: &str) {
        let mut state = self.state();
        if let Offsets::Shared { last, .. } = &mut state.offsets {
            *last = 0;
            state.change(HashMap::new());
        } else {
            state.topics.remove(topic);
        }
    }

    /// Saves the history of a topic.
    pub(crate) fn save(&self, topic: &str) {
        let state = &mut *self.state();
        if let Offsets::Shared { last, saved } = &mut state.offsets {
            *saved = Some((state.topics.clone(), *last));
            return;
        }
        let log = state.log(topic);
        let saved = Log { snapshot: None, ..log.clone() };
        log.snapshot = Some(Box::new(saved));
    }

    /// Returns to the saved history of a topic, as a broker does that is killed and restarts.
    pub(crate) fn roll_back(&self, topic: &str) {
        let state = &mut *self.state();
        if let Offsets::Shared { last, saved } = &mut state.offsets {
            if let Some((topics, saved_last)) = saved.take() {
                *last = saved_last;
                state.change(topics);
            }
            return;
        }
        let log = state.log(topic);
        if let Some(saved) = log.snapshot.take() {
            *log = *saved;
        }
    }

    /// Cuts a node off.
    pub(crate) fn disconnect(&self, node: usize) {
        let inbox = {
            let mut state = self.state();
            let node = &mut state.nodes[node];
            node.link = LinkState::Down;
            node.late.clear();
            node.past.clear();
            node.inbox.clone()
        };
        inbox.disconnected("the test has cut the link");
    }

    pub(crate) fn reconnect(&self, node: usize) {
        let inbox = {
            let mut state = self.state();
            state.nodes[node].link = LinkState::Up;
            state.nodes[node].inbox.clone()
        };
        inbox.reconnected();
    }

    /// Stores and delivers a message. With a key that is known, it does neither.
    fn append(
        &self,
        topic: &Topic,
        key: Option<&str>,
        message: &Message,
        tag: u64,
    ) -> Result<Position, EngineError> {
        let (position, is_refused, wakeups);
        {
            let (mut state, _) = self.link()?;
            let known = key.and_then(|key| state.log(topic.name()).keys.get(key).copied());
            (position, wakeups) = if let Some(position) = known {
                (position, Vec::new())
            } else {
                let (entry, previous) = state.store(topic, message, tag);
                if let Some(key) = key {
                    state.log(topic.name()).keys.insert(key.to_owned(), entry.position);
                }
                (entry.position, state.deliver(topic, &entry, previous))
            };
            let faults = state.faults;
            is_refused = state.random.permille(faults.refused);
        }
        drop(wakeups);
        if is_refused { Err(EngineError::new("the answer was lost")) } else { Ok(position) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn link(&self) -> Result<(MutexGuard<'_, State>, usize), EngineError> {
        let state = self.state();
        let node = self.node.unwrap();
        match state.nodes[node].link {
            LinkState::Up => Ok((state, node)),
            LinkState::Down => Err(EngineError::new("the broker is out of reach")),
        }
    }
}

impl State {
    /// Replaces all histories, and tells the hubs before the next delivery.
    fn change(&mut self, topics: HashMap<String, Log>) {
        self.topics = topics;
        for node in &mut self.nodes {
            node.late.clear();
            node.past.clear();
            node.inbox.verify();
        }
    }

    /// Returns the position of the next message after another one.
    fn next(&mut self, before: Position, tag: u64) -> Position {
        match &mut self.offsets {
            Offsets::PerTopic => before.next(tag),
            Offsets::Shared { last, .. } => {
                *last += 1;
                Position::new(before.epoch(), *last, tag)
            }
        }
    }

    fn log(&mut self, topic: &str) -> &mut Log {
        let begin = match self.offsets {
            _ if self.topics.contains_key(topic) => Position::UNTRACKED,
            Offsets::PerTopic => Position::begin(),
            // The beginning has a number and a tag of its own, as it takes the place of a message.
            Offsets::Shared { .. } => {
                let tag = self.random.number();
                self.next(Position::new(1, 0, 0), tag)
            }
        };
        self.topics.entry(topic.to_owned()).or_insert_with(|| Log {
            top: begin,
            entries: Vec::new(),
            keys: HashMap::new(),
            snapshot: None,
        })
    }

    fn store(&mut self, topic: &Topic, message: &Message, tag: u64) -> (HistoryEntry, Predecessor) {
        let before = self.log(topic.name()).top;
        let (position, previous) = (self.next(before, tag), before.tag());
        let entry = HistoryEntry { position, previous, message: message.clone() };
        let log = self.log(topic.name());
        log.top = position;
        log.entries.push((before, entry.clone()));
        let excess = log.entries.len().saturating_sub(topic.retention().unwrap().count);
        log.entries.drain(..excess);
        let text = message.as_text().unwrap().to_owned();
        self.stored.insert(position, Stored { previous, text });
        let previous = match self.offsets {
            Offsets::PerTopic => Predecessor::Tag(previous),
            Offsets::Shared { .. } => Predecessor::Offset(before.offset()),
        };
        (entry, previous)
    }

    fn deliver(&mut self, topic: &Topic, entry: &HistoryEntry, previous: Predecessor) -> Vec<Wakeup> {
        let (faults, mut wakeups) = (self.faults, Vec::new());
        for node in &mut self.nodes {
            let (true, Some(topic)) = (node.link == LinkState::Up, node.wants.get(topic.name())) else {
                continue;
            };
            let delivery = Delivery {
                topic: topic.clone(),
                position: entry.position,
                previous,
                message: entry.message.clone(),
            };
            let mut now = Vec::new();
            if self.random.permille(faults.late) {
                node.late.push(delivery.clone());
            } else if !self.random.permille(faults.dropped) {
                now.push(delivery.clone());
                now.append(&mut node.late);
            }
            if self.random.permille(faults.repeated) {
                now.push(delivery.clone());
            }
            if self.random.permille(faults.stale) && !node.past.is_empty() {
                now.push(node.past[self.random.index(node.past.len())].clone());
            }
            if node.past.len() == 50 {
                node.past.remove(0);
            }
            node.past.push(delivery);
            wakeups.extend(now.into_iter().map(|delivery| node.inbox.deliver(delivery)));
        }
        wakeups
    }
}

impl Engine for Broker {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        let node =
            Node { inbox, wants: HashMap::new(), link: LinkState::Up, late: Vec::new(), past: Vec::new() };
        let mut state = self.state.lock().unwrap();
        self.node = Some(state.nodes.len());
        state.nodes.push(node);
        Ok(())
    }

    async fn publish(&self, topic: &Topic, message: Message, tag: u64) -> Result<Position, EngineError> {
        self.append(topic, None, &message, tag)
    }

    async fn publish_once(
        &self,
        topic: &Topic,
        key: &str,
        message: Message,
        tag: u64,
    ) -> Result<Position, EngineError> {
        self.append(topic, Some(key), &message, tag)
    }

    async fn want(&self, topic: &Topic) -> Result<(), EngineError> {
        let (mut state, node) = self.link()?;
        state.nodes[node].wants.insert(topic.name().to_owned(), topic.clone());
        Ok(())
    }

    async fn unwant(&self, topic: &Topic) -> Result<(), EngineError> {
        let (mut state, node) = self.link()?;
        state.nodes[node].wants.remove(topic.name());
        Ok(())
    }

    async fn history(&self, topic: &Topic, after: u64, limit: usize) -> Result<HistoryPage, EngineError> {
        let (delay, slow) = {
            let mut state = self.state();
            let faults = state.faults;
            let delay = if state.random.permille(faults.delayed) { state.random.below(50) } else { 0 };
            (delay, if state.random.permille(faults.slow_answers) { 1000 } else { 0 })
        };
        sleep(Duration::from_millis(delay)).await;
        let page = {
            let (mut state, _) = self.link()?;
            let log = state.log(topic.name());
            let tag_at = |offset: u64| {
                let befores = log.entries.iter().map(|(before, _)| *before);
                let known = befores.chain([log.top]).find(|position| position.offset() == offset);
                known.map(Position::tag)
            };
            let anchor = if after > log.top.offset() { None } else { tag_at(after) };
            let newer = || {
                let entries = log.entries.iter().map(|(_, entry)| entry);
                entries.filter(|entry| entry.position.offset() > after)
            };
            let limit = if anchor.is_some() { limit } else { 0 };
            let entries = newer().take(limit).cloned().collect();
            HistoryPage { top: log.top, anchor, newer: newer().count() as u64, entries }
        };
        sleep(Duration::from_millis(delay + slow)).await;
        Ok(page)
    }
}
