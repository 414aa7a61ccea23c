//! The task that owns topics.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, WeakUnboundedSender};
use tokio::time::{Instant, sleep, sleep_until};

use crate::engine::HistoryPage;
use crate::engine::inbox::{Arrival, Arrivals, MissedChanges, Queue, Signal};
use crate::error::{Error, ErrorKind};
use crate::events::HubEvent;
use crate::node::Core;
use crate::node::command::{Command, Departure, Request};
use crate::node::membership::MemberKey;
use crate::node::news::Introduction;
use crate::node::topic_state::{Behind, Phase, Step, TopicState};
use crate::node::topic_table::TopicTable;
use crate::node::view::Outcome;
use crate::panics::catch_future;
use crate::position::Position;
use crate::presence::Present;
use crate::stats::{add, subtract};
use crate::topic::Topic;

/// The number of commands that are handled between two looks at the deliveries.
const COMMANDS: usize = 256;

/// The time for which a topic without members is still wanted.
const LINGER: Duration = Duration::from_secs(5);

/// The number of messages that are read at once from a history.
const PAGE: usize = 500;

/// The pause before the history is read again from an engine that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The part of the time of a lease that nodes have to enter their entries into a broker that was away.
const SETTLING: u32 = 6;

/// A worker of a hub: see [`node`](crate::node).
pub(crate) struct Worker {
    core: Arc<Core>,
    queue: Arc<Queue>,
    commands: UnboundedReceiver<Command>,
    /// For the tasks of the worker, without keeping the worker alive.
    own_commands: WeakUnboundedSender<Command>,
    topics: TopicTable,
    /// The topics without members, by the time at which they are no longer wanted.
    idle: VecDeque<(Instant, Topic)>,
    /// The topics with members that could not take the list of who is present, by the time of the next
    /// attempt.
    unaware: VecDeque<(Instant, Topic)>,
    /// Set if the worker is going to read who is present everywhere.
    looks_around_soon: bool,
}

impl Worker {
    pub(crate) fn new(
        core: Arc<Core>,
        queue: Arc<Queue>,
        commands: UnboundedReceiver<Command>,
        own_commands: WeakUnboundedSender<Command>,
    ) -> Self {
        let (topics, idle, unaware) = (TopicTable::default(), VecDeque::new(), VecDeque::new());
        let looks_around_soon = false;
        Self { core, queue, commands, own_commands, topics, idle, unaware, looks_around_soon }
    }

    /// Works until nobody can send commands any more. After a panic, such as one of a payload that is
    /// dropped, the connections of the members are closed: nobody serves them any more.
    pub(crate) async fn run(mut self) {
        if let Err(panicked) = catch_future(self.work()).await {
            self.queue.end();
            self.core.events.emit(HubEvent::WorkerPanicked { panic: panicked.to_string() });
            for member in self.topics.members() {
                member.0.close("the hub has failed");
            }
        }
    }

    async fn work(&mut self) {
        let mut commands = Vec::new();
        loop {
            let next = [&self.idle, &self.unaware].into_iter().filter_map(|queue| queue.front());
            let next = next.map(|(at, _)| *at).min();
            tokio::select! {
                count = self.commands.recv_many(&mut commands, COMMANDS) => if count == 0 { return },
                () = self.queue.ready() => {}
                () = at(next) => {}
            }
            // After the commands, and handled before them: see `node`.
            let arrivals = self.queue.take();
            self.arrive(arrivals).await;
            for command in commands.drain(..) {
                self.handle(command).await;
            }
            self.close_idle(Instant::now());
            self.introduce_again(Instant::now()).await;
        }
    }

    /// Handles what the engine has delivered. All messages of a topic become one run.
    async fn arrive(&mut self, arrivals: Arrivals) {
        let mut touched = Vec::new();
        // First: a message of a history that has changed must not be taken for the next one.
        let doubted = match arrivals.signal {
            Signal::Verify => self.doubt(self.topics.tracked()),
            Signal::Open | Signal::Ended => self.doubt(arrivals.unverified.into_iter().collect()),
        };
        for arrival in arrivals.deliveries {
            let Some(topic) = self.topics.wake(arrival.topic()) else { continue };
            let step = match arrival {
                Arrival::Message(delivery) => topic.deliver(&self.core, delivery),
                Arrival::Change(change) => {
                    topic.change(&self.core, change);
                    Step::Done
                }
            };
            // A topic is settled once for all of its deliveries.
            if topic.run.len() == 1 {
                touched.push(topic.topic.clone());
            }
            if step == Step::Read || topic.run.is_empty() {
                let topic = topic.topic.clone();
                if step == Step::Read {
                    self.read(&topic, Duration::ZERO);
                }
                self.topics.rest(&topic);
            }
        }
        for topic in doubted {
            if let Some(state) = self.topics.awake(&topic) {
                state.begin_read();
                self.read(&topic, Duration::ZERO);
            }
        }
        for topic in touched {
            self.settle(&topic).await;
        }
        for (topic, count) in arrivals.overflowed {
            self.overflow(&topic, count);
        }
        match arrivals.missed {
            MissedChanges::Of(topics) => topics.iter().for_each(|topic| self.look(topic, Duration::ZERO)),
            MissedChanges::All => self.look_around_later(),
        }
    }

    async fn handle(&mut self, command: Command) {
        let topic = match command {
            Command::Admit(topic, request) => {
                let topic = self.open(topic);
                if let Some(state) = self.topics.wake(&topic) {
                    state.request(request);
                }
                topic
            }
            Command::Leave(topic, member, departure) => {
                self.leave(&topic, &member, departure);
                topic
            }
            Command::Opened(topic, outcome) => {
                self.opened(&topic, outcome);
                topic
            }
            Command::Page(topic, number, outcome) => {
                self.page(&topic, number, outcome);
                topic
            }
            Command::Seen(topic, number, outcome) => {
                self.seen(&topic, number, outcome);
                topic
            }
            Command::LookAround => return self.look_around(),
            Command::Closed(topic) => {
                self.closed(&topic);
                topic
            }
        };
        self.settle(&topic).await;
    }

    /// Finishes a step: sends the run, answers requests, and notes whether somebody is left.
    async fn settle(&mut self, name: &Topic) {
        let Some(topic) = self.topics.wake(name) else { return };
        topic.flush(&self.core, &self.own_commands).await;
        let mut step = Step::Done;
        if matches!(topic.phase, Phase::Filling { .. }) {
            topic.send_to_history(&self.core, None);
        } else if topic.is_level() {
            for request in std::mem::take(&mut topic.waiting) {
                if topic.is_level() {
                    step = topic.admit(&self.core, request);
                } else {
                    // A request before this one has begun to read the history.
                    topic.waiting.push(request);
                }
            }
        }
        let introduction = topic.introduce(&self.core).await;
        if !topic.is_empty() {
            topic.empty_since = None;
        } else if topic.empty_since.is_none() {
            let now = Instant::now();
            topic.empty_since = Some(now);
            self.idle.push_back((now + LINGER, topic.topic.clone()));
        }
        if step == Step::Read {
            self.read(name, Duration::ZERO);
        }
        if introduction == Introduction::Full {
            self.introduce_later(name);
        }
        self.topics.rest(name);
    }

    /// Returns the topic as the worker holds it, and wants the topic if it is new.
    fn open(&mut self, topic: Topic) -> Topic {
        if let Some(held) = self.topics.held(&topic) {
            return held;
        }
        add(&self.core.counters.topics, 1);
        self.topics.insert(TopicState::new(&self.core, topic.clone()));
        self.want(&topic);
        topic
    }

    fn leave(&mut self, topic: &Topic, member: &MemberKey, departure: Departure) {
        let Some(topic) = self.topics.wake(topic) else { return };
        match departure {
            Departure::CatchUp(ticket) => {
                if topic.behind.get(member).map(Behind::ticket) == Some(ticket) {
                    topic.remove_behind(&self.core, member);
                }
            }
            Departure::Unsubscribe(reply) => {
                topic.remove_live(&self.core, member);
                topic.waiting.retain(|request| request.member != *member);
                let Some(Behind::CatchingUp { task, .. }) = topic.remove_behind(&self.core, member) else {
                    // A receiver that is gone wants no answer.
                    let _ = reply.map(|reply| reply.send(()));
                    return;
                };
                task.abort();
                if let Some(reply) = reply {
                    // The task may be sending at this moment.
                    tokio::spawn(async move {
                        let _ = task.await;
                        let _ = reply.send(());
                    });
                }
            }
        }
    }

    fn opened(&mut self, name: &Topic, outcome: Result<HistoryPage, Error>) {
        let Some(topic) = self.topics.wake(name) else { return };
        match outcome {
            Ok(page) => {
                if topic.opened(&self.core, &page) == Step::Read {
                    self.read(name, Duration::ZERO);
                }
                self.look(name, Duration::ZERO);
            }
            Err(error) => {
                refuse(&mut topic.waiting, &error);
                self.close(name);
            }
        }
    }

    fn page(&mut self, name: &Topic, number: u64, outcome: Result<HistoryPage, Error>) {
        let Some(topic) = self.topics.wake(name) else { return };
        match outcome {
            Ok(page) => {
                if topic.page(&self.core, number, &page) == Step::Read {
                    topic.send_to_history(&self.core, Some(page.top));
                    self.read(name, Duration::ZERO);
                }
            }
            Err(_) if !topic.is_reading(number) => {}
            Err(error) => {
                // Those that ask are told, and those that are live stay.
                refuse(&mut topic.waiting, &error);
                self.read(name, PAUSE);
            }
        }
    }

    /// A message of a topic found no room.
    fn overflow(&mut self, topic: &Topic, count: u64) {
        if topic.retention().is_some() {
            return self.verify(topic);
        }
        if self.topics.held(topic).is_none() {
            return;
        }
        let messages = usize::try_from(count).unwrap_or(usize::MAX);
        add(&self.core.counters.overflowed, messages);
        let topic = topic.name().to_owned();
        self.core.events.emit(HubEvent::InboxOverflow { topic, messages: count });
    }

    /// Holds the deliveries of topics whose histories may have changed. Returns the topics whose histories
    /// are to be read.
    fn doubt(&mut self, mut topics: Vec<Topic>) -> Vec<Topic> {
        topics.retain(|topic| {
            self.topics.wake(topic).is_some_and(|state| state.doubt(&self.core) == Step::Read)
        });
        topics
    }

    fn verify(&mut self, name: &Topic) {
        let Some(topic) = self.topics.wake(name) else { return };
        if topic.verify(&self.core) == Step::Read {
            self.read(name, Duration::ZERO);
        }
    }

    /// Reads who is present, if members are told.
    fn look(&mut self, name: &Topic, pause: Duration) {
        let Some(topic) = self.topics.awake(name) else { return };
        if matches!(topic.phase, Phase::Opening(_) | Phase::Closing) {
            // The topic is read once it is wanted.
            return;
        }
        let Some(number) = topic.look(&self.core) else { return };
        self.ask_who_is_present(name, number, pause);
    }

    /// Makes the call of a read that has begun.
    fn ask_who_is_present(&mut self, name: &Topic, number: u64, pause: Duration) {
        let Some(topic) = self.topics.awake(name) else { return };
        let (core, name) = (Arc::clone(&self.core), topic.topic.clone());
        self.spawn(async move {
            sleep(pause).await;
            let _permit = core.fills.acquire().await;
            let outcome = core.engine.present(&name).await;
            Command::Seen(name, number, outcome)
        });
    }

    fn seen(&mut self, name: &Topic, number: u64, outcome: Result<Vec<Present>, Error>) {
        let Some(topic) = self.topics.awake(name) else { return };
        let (kind, pause) = match outcome {
            Ok(_) => (Outcome::Answered, Duration::ZERO),
            Err(_) => (Outcome::Failed, PAUSE),
        };
        if let Some(number) = topic.look_again(&self.core, number, kind) {
            self.ask_who_is_present(name, number, pause);
        } else if let Ok(present) = outcome {
            topic.seen(&self.core, number, present);
        }
    }

    /// Reads who is present in all topics, after a while: a broker that was away may have lost all entries,
    /// and the nodes enter them again.
    fn look_around_later(&mut self) {
        if mem::replace(&mut self.looks_around_soon, true) {
            return;
        }
        let settling = self.core.limits.presence_lease / SETTLING;
        self.spawn(async move {
            sleep(settling).await;
            Command::LookAround
        });
    }

    fn look_around(&mut self) {
        self.looks_around_soon = false;
        for topic in self.topics.with_presence() {
            self.look(&topic, Duration::ZERO);
        }
    }

    fn introduce_later(&mut self, name: &Topic) {
        let Some(topic) = self.topics.awake(name) else { return };
        let Some(view) = topic.view.as_mut().filter(|view| view.next_attempt.is_none()) else { return };
        let at = Instant::now() + PAUSE;
        view.next_attempt = Some(at);
        self.unaware.push_back((at, topic.topic.clone()));
    }

    /// Sends the list of who is present to members whose connections were full.
    async fn introduce_again(&mut self, now: Instant) {
        while self.unaware.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, name)) = self.unaware.pop_front() else { return };
            if let Some(view) = self.topics.awake(&name).and_then(|topic| topic.view.as_mut()) {
                view.next_attempt = None;
                self.settle(&name).await;
            }
        }
    }

    /// Reads the history after the top.
    fn read(&mut self, name: &Topic, pause: Duration) {
        let Some(topic) = self.topics.awake(name) else { return };
        let Phase::Filling { number, .. } = topic.phase else { return };
        add(&self.core.counters.gaps, 1);
        let (core, name, after) = (Arc::clone(&self.core), topic.topic.clone(), topic.top.offset());
        self.spawn(async move {
            sleep(pause).await;
            let _permit = core.fills.acquire().await;
            let page = core.engine.history(&name, after, PAGE).await;
            Command::Page(name, number, page)
        });
    }

    fn want(&self, topic: &Topic) {
        let (core, topic) = (Arc::clone(&self.core), topic.clone());
        self.spawn(async move {
            let outcome = want(&core, &topic).await;
            Command::Opened(topic, outcome)
        });
    }

    /// Wants a topic no longer, and forgets it after that.
    fn close(&mut self, name: &Topic) {
        let Some(topic) = self.topics.wake(name) else { return };
        topic.phase = Phase::Closing;
        let (core, topic) = (Arc::clone(&self.core), topic.topic.clone());
        self.spawn(async move {
            // An engine that fails delivers messages that nobody wants, which the worker ignores.
            let _ = core.engine.unwant(&topic).await;
            Command::Closed(topic)
        });
    }

    fn closed(&mut self, name: &Topic) {
        let Some(topic) = self.topics.wake(name) else { return };
        if topic.is_empty() {
            self.topics.remove(name);
            subtract(&self.core.counters.topics, 1);
            return;
        }
        topic.phase = Phase::Opening(Box::default());
        topic.view = topic.view.take().map(|_| Box::default());
        self.want(name);
    }

    fn close_idle(&mut self, now: Instant) {
        while self.idle.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, name)) = self.idle.pop_front() else { return };
            let Some(topic) = self.topics.awake(&name) else { continue };
            let is_due = topic.empty_since.is_some_and(|since| since + LINGER <= now);
            if is_due && topic.is_empty() && !matches!(topic.phase, Phase::Opening(_) | Phase::Closing) {
                topic.empty_since = None;
                self.close(&name);
            }
        }
    }

    /// Runs a call of the engine, and sends its outcome to this worker.
    fn spawn(&self, call: impl Future<Output = Command> + Send + 'static) {
        let commands = self.own_commands.clone();
        tokio::spawn(async move {
            let outcome = call.await;
            if let Some(commands) = commands.upgrade() {
                // Without a worker, nobody wants to know.
                let _ = commands.send(outcome);
            }
        });
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.queue.end();
    }
}

/// Wants a topic, and reads the top of its history.
async fn want(core: &Core, topic: &Topic) -> Result<HistoryPage, Error> {
    core.engine.want(topic).await?;
    match topic.retention() {
        Some(_) => core.engine.history(topic, 0, 0).await,
        None => Ok(HistoryPage { top: Position::UNTRACKED, anchor: None, newer: 0, entries: Vec::new() }),
    }
}

/// Answers requests with the error of an engine.
fn refuse(waiting: &mut Vec<Request>, error: &Error) {
    for request in waiting.drain(..) {
        // A receiver that is gone wants no answer.
        let _ = request.reply.send(Err(Error::new(ErrorKind::Unavailable, error.to_string())));
    }
}

/// Waits until a time, or forever.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
