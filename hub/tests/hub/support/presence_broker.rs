//! A broker of presence that fails in all ways that brokers do. Each clone is the engine of one node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bowline::Message;
use bowline_hub::{
    Engine, EngineError, HistoryPage, Inbox, Lease, NodeId, Position, PresenceChange, Present, Topic, Wakeup,
};
use bowline_hub_testing::random::Random;
use tokio::time::{Instant, sleep};

/// The number of entries that are reaped at once.
const REAPED: usize = 2;

/// Faults by their frequency, in cases out of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CallFaults {
    /// A call is carried out, and the hub is told of an error.
    pub(crate) refused: u64,
    /// A call takes up to `delay` before it is carried out, and as long afterwards.
    pub(crate) delayed: u64,
    /// In milliseconds.
    pub(crate) delay: u64,
}

/// The data with which a broker restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    WithEverything,
    WithNothing,
    /// As it was at the last call of [`PresenceBroker::save`].
    RolledBack,
}

#[derive(Clone)]
pub(crate) struct PresenceBroker {
    state: Arc<Mutex<State>>,
    node: Option<usize>,
}

struct State {
    data: Data,
    saved: Data,
    /// The number of starts of the broker.
    starts: u64,
    nodes: Vec<Node>,
    faults: CallFaults,
    random: Random,
}

#[derive(Clone, Default)]
struct Data {
    leases: BTreeMap<NodeId, NodeLease>,
    people: BTreeMap<String, BTreeMap<String, Person>>,
}

#[derive(Clone)]
struct NodeLease {
    /// The end, or `None` while the entries that are left are reaped.
    ends: Option<Instant>,
    /// The start of the broker at which the lease began.
    began: u64,
    /// The topics and keys.
    entries: BTreeSet<(String, String)>,
}

#[derive(Clone, Default)]
struct Person {
    info: String,
    nodes: Vec<NodeId>,
}

struct Node {
    inbox: Inbox,
    wants: HashMap<String, Topic>,
    link: LinkState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Up,
    /// Calls fail.
    Down,
    /// Nothing arrives any more, and nobody is told.
    Dead,
}

/// A change of a key in a topic.
type Change = (String, String, Option<String>);

impl PresenceBroker {
    pub(crate) fn new(seed: u64, faults: CallFaults) -> Self {
        let state = State {
            data: Data::default(),
            saved: Data::default(),
            starts: 0,
            nodes: Vec::new(),
            faults,
            random: Random::new(seed),
        };
        Self { state: Arc::new(Mutex::new(state)), node: None }
    }

    pub(crate) fn set_faults(&self, faults: CallFaults) {
        self.state().faults = faults;
    }

    /// Cuts a node off.
    pub(crate) fn disconnect(&self, node: usize) {
        let inbox = {
            let mut state = self.state();
            state.nodes[node].link = LinkState::Down;
            state.nodes[node].inbox.clone()
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

    /// Stops everything between a node and the broker, as if the node were killed or stopped.
    pub(crate) fn kill(&self, node: usize) {
        self.state().nodes[node].link = LinkState::Dead;
    }

    /// Lets a node go on that was stopped.
    pub(crate) fn resume(&self, node: usize) {
        self.state().nodes[node].link = LinkState::Up;
    }

    /// Saves a snapshot.
    pub(crate) fn save(&self) {
        let mut state = self.state();
        state.saved = state.data.clone();
    }

    /// Loses everything, without a restart.
    pub(crate) fn flush(&self) {
        self.state().data = Data::default();
    }

    pub(crate) fn restart(&self, restart: Restart) {
        let inboxes: Vec<_> = {
            let mut state = self.state();
            state.starts += 1;
            match restart {
                Restart::WithEverything => {}
                Restart::WithNothing => state.data = Data::default(),
                Restart::RolledBack => state.data = state.saved.clone(),
            }
            let up = state.nodes.iter().filter(|node| node.link == LinkState::Up);
            up.map(|node| node.inbox.clone()).collect()
        };
        for inbox in inboxes {
            inbox.disconnected("the test has restarted the broker");
            inbox.reconnected();
        }
    }

    /// Carries out a call, with the faults of the broker.
    async fn call<T>(
        &self,
        call: impl FnOnce(&mut State, usize) -> (T, Vec<Change>),
    ) -> Result<T, EngineError> {
        let (before, after) = self.delays();
        sleep(before).await;
        let (output, is_refused, wakeups) = {
            let mut state = self.state();
            let node = self.node.unwrap();
            match state.nodes[node].link {
                LinkState::Down => return Err(EngineError::new("the broker is out of reach")),
                LinkState::Dead => (None, false, Vec::new()),
                LinkState::Up => {
                    let (output, changes) = call(&mut state, node);
                    let faults = state.faults;
                    let is_refused = state.random.permille(faults.refused);
                    (Some(output), is_refused, state.deliver(changes))
                }
            }
        };
        drop(wakeups);
        sleep(after).await;
        match output {
            None => std::future::pending().await,
            Some(_) if is_refused => Err(EngineError::new("the answer was lost")),
            Some(output) => Ok(output),
        }
    }

    fn delays(&self) -> (Duration, Duration) {
        let mut state = self.state();
        let faults = state.faults;
        if !state.random.permille(faults.delayed) {
            return (Duration::ZERO, Duration::ZERO);
        }
        let mut delay = || Duration::from_millis(state.random.below(faults.delay + 1));
        (delay(), delay())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn deliver(&self, changes: Vec<Change>) -> Vec<Wakeup> {
        let mut wakeups = Vec::new();
        for (name, key, info) in changes {
            for node in self.nodes.iter().filter(|node| node.link == LinkState::Up) {
                if let Some(topic) = node.wants.get(&name).cloned() {
                    let (key, info) = (key.clone(), info.clone());
                    wakeups.push(node.inbox.change(PresenceChange { topic, key, info }));
                }
            }
        }
        wakeups
    }
}

impl Data {
    fn exit(&mut self, topic: &str, node: NodeId, key: &str) -> Vec<Change> {
        if let Some(lease) = self.leases.get_mut(&node) {
            lease.entries.remove(&(topic.to_owned(), key.to_owned()));
        }
        let Some(people) = self.people.get_mut(topic) else { return Vec::new() };
        let Some(person) = people.get_mut(key) else { return Vec::new() };
        person.nodes.retain(|other| *other != node);
        if !person.nodes.is_empty() {
            return Vec::new();
        }
        people.remove(key);
        vec![(topic.to_owned(), key.to_owned(), None)]
    }

    fn enter(&mut self, topic: &str, node: NodeId, present: &Present) -> (Lease, Vec<Change>) {
        let lease = self.leases.get_mut(&node).filter(|lease| lease.ends.is_some());
        let Some(lease) = lease else { return (Lease::Lapsed, Vec::new()) };
        lease.entries.insert((topic.to_owned(), present.key.clone()));
        let person = self.people.entry(topic.to_owned()).or_default().entry(present.key.clone()).or_default();
        let is_news = person.nodes.is_empty() || person.info != present.info;
        person.info.clone_from(&present.info);
        if !person.nodes.contains(&node) {
            person.nodes.push(node);
        }
        let change = (topic.to_owned(), present.key.clone(), Some(present.info.clone()));
        (Lease::Held, if is_news { vec![change] } else { Vec::new() })
    }

    fn reap(&mut self, caller: NodeId) -> (usize, Vec<Change>) {
        let now = Instant::now();
        if self.leases.get(&caller).is_none_or(|lease| lease.ends <= Some(now)) {
            return (0, Vec::new());
        }
        let ended = self.leases.iter().filter(|(_, lease)| lease.ends <= Some(now));
        let entries =
            ended.flat_map(|(node, lease)| lease.entries.iter().map(|entry| (*node, entry.clone())));
        let entries: Vec<_> = entries.take(REAPED).collect();
        let mut changes = Vec::new();
        for (node, (topic, key)) in &entries {
            // From now on, the lease is over for good.
            self.leases.entry(*node).and_modify(|lease| lease.ends = None);
            changes.extend(self.exit(topic, *node, key));
        }
        self.leases.retain(|_, lease| lease.ends > Some(now) || !lease.entries.is_empty());
        (entries.len(), changes)
    }
}

impl Engine for PresenceBroker {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        let node = Node { inbox, wants: HashMap::new(), link: LinkState::Up };
        let mut state = self.state.lock().unwrap();
        self.node = Some(state.nodes.len());
        state.nodes.push(node);
        Ok(())
    }

    async fn publish(&self, _: &Topic, _: Message, _: u64) -> Result<Position, EngineError> {
        Err(EngineError::new("this broker has no messages"))
    }

    async fn want(&self, topic: &Topic) -> Result<(), EngineError> {
        let want = |state: &mut State, node: usize| {
            state.nodes[node].wants.insert(topic.name().to_owned(), topic.clone());
            ((), Vec::new())
        };
        self.call(want).await
    }

    async fn unwant(&self, topic: &Topic) -> Result<(), EngineError> {
        let unwant = |state: &mut State, node: usize| {
            state.nodes[node].wants.remove(topic.name());
            ((), Vec::new())
        };
        self.call(unwant).await
    }

    async fn history(&self, _: &Topic, _: u64, _: usize) -> Result<HistoryPage, EngineError> {
        Err(EngineError::new("this broker has no histories"))
    }

    async fn begin(&self, node: NodeId, time: Duration) -> Result<(), EngineError> {
        let begin = |state: &mut State, _: usize| {
            let ends = Some(Instant::now() + time);
            let lease = NodeLease { ends, began: state.starts, entries: BTreeSet::new() };
            state.data.leases.insert(node, lease);
            ((), Vec::new())
        };
        self.call(begin).await
    }

    async fn renew(&self, node: NodeId, time: Duration) -> Result<Lease, EngineError> {
        let renew = |state: &mut State, _: usize| {
            let starts = state.starts;
            let lease = state.data.leases.get_mut(&node);
            let held = lease.filter(|lease| lease.ends.is_some() && lease.began == starts);
            match held {
                Some(lease) => {
                    lease.ends = Some(Instant::now() + time);
                    (Lease::Held, Vec::new())
                }
                None => (Lease::Lapsed, Vec::new()),
            }
        };
        self.call(renew).await
    }

    async fn enter(&self, topic: &Topic, node: NodeId, present: &Present) -> Result<Lease, EngineError> {
        self.call(|state, _| state.data.enter(topic.name(), node, present)).await
    }

    async fn exit(&self, topic: &Topic, node: NodeId, key: &str) -> Result<(), EngineError> {
        self.call(|state, _| ((), state.data.exit(topic.name(), node, key))).await
    }

    async fn present(&self, topic: &Topic) -> Result<Vec<Present>, EngineError> {
        let read = |state: &mut State, _: usize| {
            let people = state.data.people.get(topic.name()).into_iter().flatten();
            let present = people.map(|(key, person)| Present::new(key).info(&person.info)).collect();
            (present, Vec::new())
        };
        self.call(read).await
    }

    async fn count(&self, topic: &Topic) -> Result<usize, EngineError> {
        self.call(|state, _| (state.data.people.get(topic.name()).map_or(0, BTreeMap::len), Vec::new())).await
    }

    async fn reap(&self, caller: NodeId) -> Result<usize, EngineError> {
        self.call(|state, _| state.data.reap(caller)).await
    }
}
