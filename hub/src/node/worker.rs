//! The task that owns topics: its loop, and the steps of which it consists.

mod histories;
mod views;
mod wants;

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, WeakUnboundedSender};
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep_until};

use crate::engine::inbox::{Arrival, Arrivals, MissedChanges, Queue, Signal};
use crate::events::HubEvent;
use crate::node::Core;
use crate::node::command::{Command, Departure};
use crate::node::membership::{Cause, MemberKey};
use crate::node::news::Introduction;
use crate::node::topic_state::{Behind, Phase, Step};
use crate::node::topic_table::TopicTable;
use crate::panics::catch_future;
use crate::topic::Topic;

/// The number of commands that are handled between two looks at the deliveries.
const COMMANDS: usize = 256;

/// The time for which a topic without members is still wanted.
const LINGER: Duration = Duration::from_secs(5);

/// The pause before something is read again from an engine that failed.
const PAUSE: Duration = Duration::from_secs(1);

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

    /// Works until nobody can send commands any more, or until a panic, such as one of a payload that is
    /// dropped.
    pub(crate) async fn run(mut self) {
        if let Err(panicked) = catch_future(self.work()).await {
            self.queue.end();
            self.core.events.emit(HubEvent::WorkerPanicked { panic: panicked.to_string() });
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
            // Each topic may have a single member, so the pauses of `flush` are not enough.
            consume_budget().await;
            touched.extend(self.deliver(arrival));
        }
        for topic in doubted {
            consume_budget().await;
            if let Some(state) = self.topics.awake(&topic) {
                state.begin_read();
                self.read(&topic, Duration::ZERO);
            }
        }
        for topic in touched {
            consume_budget().await;
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

    /// Handles a delivery. Returns the topic if its run begins with this one, as a topic is settled once for
    /// all of its deliveries.
    fn deliver(&mut self, arrival: Arrival) -> Option<Topic> {
        let topic = self.topics.wake(arrival.topic())?;
        let step = match arrival {
            Arrival::Message(delivery) => topic.deliver(&self.core, delivery),
            Arrival::Change(change) => {
                topic.change(&self.core, change);
                Step::Done
            }
        };
        let first = (topic.run.len() == 1).then(|| topic.topic.clone());
        if step == Step::Read || topic.run.is_empty() {
            let name = topic.topic.clone();
            if step == Step::Read {
                self.read(&name, Duration::ZERO);
            }
            self.topics.rest(&name);
        }
        first
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
            for request in mem::take(&mut topic.waiting) {
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

    fn leave(&mut self, topic: &Topic, member: &MemberKey, departure: Departure) {
        let Some(topic) = self.topics.wake(topic) else { return };
        match departure {
            Departure::CatchUp(ticket) => {
                if topic.behind.get(member).map(Behind::ticket) == Some(ticket) {
                    topic.remove_behind(&self.core, member);
                }
            }
            Departure::Request => topic.waiting.retain(|request| request.member != *member),
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
    /// Closes the connections of all members: nobody serves them any more. There are none at the end of a
    /// hub, but after a panic, and at the end of a runtime. The connections may be on another one.
    fn drop(&mut self) {
        self.queue.end();
        for member in self.topics.members() {
            member.0.close(Cause::HubEnded);
        }
    }
}

/// Waits until a time, or forever.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
