//! The entries of this node: who is present in which topic, and what the broker knows of it.
//!
//! An entry is a topic and a key, whatever the number of members that have appeared with it: the broker is
//! told of the first and of the last. Each entry compares what should be with what the broker was told, and
//! calls the engine until both are equal. At most one call for an entry is under way, so calls can't overtake
//! each other. A few tasks, the scribes, make the calls of all entries. [`entry`] has the states.
//!
//! When the lease of the node has lapsed, nothing that the broker was told counts any more. The keeper
//! (`keeper.rs`) gets a new number for the node, and all entries are told again.
//!
//! A call that failed may have been carried out, so its entry is remembered until the broker is told of the
//! end. Clients could make a node remember ever more keys while the broker is away. If most entries have
//! failed, and that are many, the node gives up its lease instead: whatever the broker knows of the node ends
//! with the lease.

pub(crate) mod entry;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::events::HubEvent;
use crate::node::Core;
use crate::node::roster::entry::{Entry, EntryKey, Told, Turn};
use crate::presence::{Lease, NodeId, Present};
use crate::stats::{add, subtract};

/// The number of tasks that call the engine.
const SCRIBES: usize = 64;

/// The number of failed entries above which a node may give up its lease.
const FAILED: usize = 10_000;

/// The entries of a node.
#[derive(Default)]
pub(crate) struct Roster {
    state: Mutex<RosterState>,
    /// Wakes the keeper, which has something to do.
    news: Notify,
    /// The node could not renew its lease in time.
    is_cut_off: AtomicBool,
}

#[derive(Default)]
struct RosterState {
    /// The number of the node, while it has a lease.
    node: Option<NodeId>,
    entries: HashMap<EntryKey, Entry>,
    /// The entries that are `Queued`, by their places.
    queue: BTreeMap<u64, EntryKey>,
    /// The entries that are, or were, `Failed`, each once.
    failed: HashSet<EntryKey>,
    /// The entries with lost connections, each once, by the time at which the linger time of the first is
    /// over. Numbered, as times may be equal.
    lingering: BTreeMap<(Instant, u64), EntryKey>,
    /// The number of entries so far in `queue` and `lingering`.
    count: u64,
    scribes: usize,
}

/// The call of a scribe.
struct Job {
    entry: EntryKey,
    node: NodeId,
    call: Call,
}

enum Call {
    Enter(Present, u64),
    Exit,
}

/// Everything that is done after the lock: tasks are spawned, and wakers are foreign code.
#[derive(Default)]
#[must_use]
pub(crate) struct Afterwards {
    scribes: usize,
    answers: Vec<Answer>,
}

/// The answer to a member that appears.
struct Answer {
    reply: oneshot::Sender<Result<(), Error>>,
    outcome: Result<(), Error>,
}

/// The part that a call to [`Roster::appear`] plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appearance {
    /// A member appears.
    First,
    /// A member that has appeared has other information.
    Update,
}

impl Roster {
    /// Lets a member appear, and returns a receiver of the outcome.
    ///
    /// The caller may hold a lock, and runs the first value after it.
    pub(crate) fn appear(
        &self,
        core: &Arc<Core>,
        key: &EntryKey,
        info: String,
        appearance: Appearance,
    ) -> (Afterwards, oneshot::Receiver<Result<(), Error>>) {
        let (reply, outcome) = oneshot::channel();
        let mut state = self.state();
        if !state.entries.contains_key(key) {
            add(&core.counters.entries, 1);
            state.entries.insert(key.clone(), Entry::new());
        }
        let entry = state.entries.get_mut(key).expect("the entry was inserted");
        if appearance == Appearance::First {
            entry.members += 1;
            if !entry.lost.is_empty() {
                // One of the lost connections has come back.
                entry.lost.remove(0);
            }
        }
        if entry.info != info {
            entry.info = info;
            entry.version += 1;
        }
        entry.add_waiting(reply);
        (state.look_at(core, key), outcome)
    }

    /// Lets a member disappear that says so.
    pub(crate) fn disappear(&self, core: &Arc<Core>, key: &EntryKey) {
        self.remove(core, key, None);
    }

    /// Lets a member disappear that may come back.
    pub(crate) fn lose(&self, core: &Arc<Core>, key: &EntryKey) {
        let linger = core.limits.presence_linger;
        self.remove(core, key, (!linger.is_zero()).then(|| Instant::now() + linger));
    }

    fn remove(&self, core: &Arc<Core>, key: &EntryKey, until: Option<Instant>) {
        let mut state = self.state();
        let Some(entry) = state.entries.get_mut(key) else { return };
        entry.members = entry.members.saturating_sub(1);
        if let Some(until) = until {
            entry.lost.push(until);
            state.await_end(key);
            self.news.notify_one();
        }
        let afterwards = state.look_at(core, key);
        drop(state);
        afterwards.run(core);
    }

    /// Ends the linger times that are over, and returns the end of the next.
    pub(crate) fn expire(&self, core: &Arc<Core>, now: Instant) -> Option<Instant> {
        let (mut state, mut afterwards) = (self.state(), Afterwards::default());
        while let Some(first) = state.lingering.first_entry().filter(|first| first.key().0 <= now) {
            let key = first.remove();
            let Some(entry) = state.entries.get_mut(&key) else { continue };
            entry.lost.retain(|until| *until > now);
            entry.expiry = None;
            state.await_end(&key);
            afterwards.merge(state.look_at(core, &key));
        }
        let next = state.lingering.keys().next().map(|(until, _)| *until);
        drop(state);
        afterwards.run(core);
        next
    }

    /// Returns the number of the node, if it has a lease.
    pub(crate) fn node(&self) -> Option<NodeId> {
        self.state().node
    }

    /// Begins a lease: all entries, which were queued without a lease, are told to the broker.
    pub(crate) fn begin(&self, core: &Arc<Core>, node: NodeId) {
        let (mut state, mut afterwards) = (self.state(), Afterwards::default());
        state.node = Some(node);
        state.engage(&mut afterwards);
        drop(state);
        afterwards.run(core);
    }

    /// Ends the lease of a node: it has lapsed, or is given up. All entries are queued for the next one.
    pub(crate) fn lapse(&self, core: &Arc<Core>, node: NodeId) {
        let (mut state, mut afterwards) = (self.state(), Afterwards::default());
        if state.node != Some(node) {
            return;
        }
        state.node = None;
        state.failed.clear();
        let keys: Vec<_> = state.entries.keys().cloned().collect();
        for key in keys {
            if let Some(entry) = state.entries.get_mut(&key) {
                entry.told = Told::Nothing;
            }
            afterwards.merge(state.look_at(core, &key));
        }
        let entries = state.entries.len();
        drop(state);
        afterwards.run(core);
        add(&core.counters.lapses, 1);
        core.events.emit(HubEvent::LeaseLapsed { entries });
        self.news.notify_one();
    }

    /// Tries again what has failed.
    pub(crate) fn retry(&self, core: &Arc<Core>) {
        let (mut state, mut afterwards) = (self.state(), Afterwards::default());
        for key in mem::take(&mut state.failed) {
            afterwards.merge(state.look_at(core, &key));
        }
        drop(state);
        afterwards.run(core);
    }

    /// Waits until the keeper should look. The future is cancel safe.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }

    pub(crate) fn set_cut_off(&self, is_cut_off: bool) {
        self.is_cut_off.store(is_cut_off, Ordering::Relaxed);
    }

    /// Returns the next call, or ends a scribe.
    fn next(&self, core: &Arc<Core>) -> Option<Job> {
        let (mut state, mut afterwards) = (self.state(), Afterwards::default());
        let job = state.next(core, &mut afterwards);
        if job.is_none() {
            state.scribes -= 1;
        }
        drop(state);
        afterwards.run(core);
        job
    }

    /// Notes the outcome of a call.
    fn finish(&self, core: &Arc<Core>, job: &Job, outcome: Result<Lease, Error>) {
        let mut lapsed = matches!(outcome, Ok(Lease::Lapsed));
        let mut state = self.state();
        let is_current = state.node == Some(job.node);
        let Some(entry) = state.entries.get_mut(&job.entry) else { return };
        let mut afterwards = Afterwards::default();
        entry.turn = Turn::Idle;
        match (outcome, &job.call) {
            // The call was made for a lease that is over.
            _ if !is_current => {}
            (Ok(Lease::Held), Call::Enter(_, version)) => entry.told = Told::Entered(*version),
            (Ok(_), _) => entry.told = Told::Nothing,
            (Err(error), _) => {
                entry.told = Told::Unclear;
                entry.turn = Turn::Failed;
                for reply in entry.waiting.drain(..) {
                    let error = Error::new(ErrorKind::Unavailable, error.to_string());
                    afterwards.answers.push(Answer { reply, outcome: Err(error) });
                }
                state.failed.insert(job.entry.clone());
                lapsed = state.failed.len() > FAILED.max(state.entries.len() / 2);
            }
        }
        if state.entries.get(&job.entry).is_some_and(|entry| entry.turn == Turn::Idle) {
            afterwards.merge(state.look_at(core, &job.entry));
        }
        drop(state);
        if lapsed {
            self.lapse(core, job.node);
        }
        afterwards.run(core);
    }

    fn state(&self) -> MutexGuard<'_, RosterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RosterState {
    /// Queues an entry whose broker should be told something, and removes one that is of no use any more.
    fn look_at(&mut self, core: &Core, key: &EntryKey) -> Afterwards {
        let mut afterwards = Afterwards::default();
        let now = Instant::now();
        let Some(entry) = self.entries.get_mut(key) else { return afterwards };
        match (entry.turn, entry.is_settled(now)) {
            (Turn::Underway, _) | (Turn::Queued(_), false) => return afterwards,
            (Turn::Idle | Turn::Failed, false) => {
                self.count += 1;
                entry.turn = Turn::Queued(self.count);
                self.queue.insert(self.count, key.clone());
                self.engage(&mut afterwards);
                return afterwards;
            }
            (Turn::Queued(place), true) => drop(self.queue.remove(&place)),
            (Turn::Idle | Turn::Failed, true) => {}
        }
        entry.turn = Turn::Idle;
        let is_here = entry.is_here(now);
        for reply in entry.waiting.drain(..) {
            let outcome = if is_here { Ok(()) } else { Err(Error::left()) };
            afterwards.answers.push(Answer { reply, outcome });
        }
        if !is_here {
            if let Some(Entry { expiry: Some(expiry), .. }) = self.entries.remove(key) {
                self.lingering.remove(&expiry);
            }
            subtract(&core.counters.entries, 1);
        }
        afterwards
    }

    /// Looks at an entry again when the linger time of its first lost connection is over.
    fn await_end(&mut self, key: &EntryKey) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.expiry.is_none()) else { return };
        let Some(until) = entry.lost.first() else { return };
        self.count += 1;
        entry.expiry = Some((*until, self.count));
        self.lingering.insert((*until, self.count), key.clone());
    }

    /// Engages as many scribes as there is work for.
    fn engage(&mut self, afterwards: &mut Afterwards) {
        if self.node.is_some() {
            let more = self.queue.len().min(SCRIBES.saturating_sub(self.scribes));
            self.scribes += more;
            afterwards.scribes += more;
        }
    }

    fn next(&mut self, core: &Core, afterwards: &mut Afterwards) -> Option<Job> {
        let node = self.node?;
        let now = Instant::now();
        while let Some((_, key)) = self.queue.pop_first() {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.is_settled(now) {
                entry.turn = Turn::Idle;
                afterwards.merge(self.look_at(core, &key));
                continue;
            }
            entry.turn = Turn::Underway;
            let call = if entry.is_here(now) {
                Call::Enter(Present::new(&*key.key).info(entry.info.as_str()), entry.version)
            } else {
                Call::Exit
            };
            return Some(Job { entry: key, node, call });
        }
        None
    }
}

impl Afterwards {
    fn merge(&mut self, other: Self) {
        self.scribes += other.scribes;
        self.answers.extend(other.answers);
    }

    pub(crate) fn run(self, core: &Arc<Core>) {
        for _ in 0..self.scribes {
            core.engine.spawn(write(Arc::clone(core)));
        }
        for Answer { reply, outcome } in self.answers {
            // A receiver that is gone wants no answer.
            let _ = reply.send(outcome);
        }
    }
}

/// The task of a scribe: makes calls while there are some.
async fn write(core: Arc<Core>) {
    while let Some(job) = core.roster.next(&core) {
        let (topic, key) = (&job.entry.topic, &*job.entry.key);
        let outcome = match &job.call {
            Call::Enter(present, _) => core.engine.enter(topic, job.node, present).await,
            Call::Exit => core.engine.exit(topic, job.node, key).await.map(|()| Lease::Held),
        };
        core.roster.finish(&core, &job, outcome);
    }
}
