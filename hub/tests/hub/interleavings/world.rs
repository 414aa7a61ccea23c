//! An engine whose every step is taken by a test.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use bowline::Message;
use bowline_hub::{
    Delivery, Engine, EngineError, HistoryEntry, HistoryPage, Inbox, Position, Predecessor, Topic,
};
use tokio::sync::oneshot;

/// The engine, which the test and the hub share.
#[derive(Clone)]
pub(super) struct Steered(Arc<Mutex<World>>);

/// A step of the engine that can be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A message is published, on another node.
    Append,
    Deliver,
    /// The next delivery is lost.
    Lose,
    /// A call, by its number, has its effect, or sees the history.
    Read(usize),
    /// The call is answered.
    Answer(usize),
}

struct World {
    inbox: Option<Inbox>,
    top: Position,
    log: Vec<HistoryEntry>,
    wanted: Option<Topic>,
    deliveries: VecDeque<HistoryEntry>,
    calls: Vec<Call>,
    call_count: usize,
    /// The messages that may be published.
    messages: usize,
    /// The deliveries that may be lost.
    losses: usize,
}

struct Call {
    number: usize,
    request: Request,
    outcome: Option<Answer>,
    reply: oneshot::Sender<Answer>,
}

/// The answer to a call.
enum Answer {
    Done,
    Page(HistoryPage),
}

enum Request {
    Want(Topic),
    Unwant,
    History { after: u64, limit: usize },
}

impl Steered {
    /// Creates an engine with a history of two messages.
    pub(super) fn new(messages: usize, losses: usize) -> Self {
        let mut world = World {
            inbox: None,
            top: Position::new(7, 0, 0),
            log: Vec::new(),
            wanted: None,
            deliveries: VecDeque::new(),
            calls: Vec::new(),
            call_count: 0,
            messages,
            losses,
        };
        world.append();
        world.append();
        Self(Arc::new(Mutex::new(world)))
    }

    /// Returns the steps that can be taken. Deliveries are in order, and so are calls of a kind.
    pub(super) fn steps(&self) -> Vec<Step> {
        let world = self.world();
        let mut steps = Vec::new();
        if world.messages > 0 {
            steps.push(Step::Append);
        }
        if !world.deliveries.is_empty() {
            steps.push(Step::Deliver);
            if world.losses > 0 && world.deliveries.len() > 1 {
                // Another message follows: nobody can notice the loss of the last one.
                steps.push(Step::Lose);
            }
        }
        steps.extend(world.calls.iter().map(|call| match call.outcome {
            None => Step::Read(call.number),
            Some(_) => Step::Answer(call.number),
        }));
        steps
    }

    pub(super) fn has_calls(&self) -> bool {
        !self.world().calls.is_empty()
    }

    /// Returns the number of messages so far.
    pub(super) fn count(&self) -> usize {
        self.world().log.len()
    }

    /// Returns the position of a message.
    pub(super) fn position(&self, number: usize) -> Position {
        self.world().log[number - 1].position
    }

    /// Takes all steps of all calls.
    pub(super) fn answer_all(&self) {
        while let Some(step) = self.steps().into_iter().find(|step| !matches!(step, Step::Append)) {
            self.take(step);
        }
    }

    pub(super) fn take(&self, step: Step) {
        let mut world = self.world();
        match step {
            Step::Append => {
                world.messages -= 1;
                world.append();
            }
            Step::Deliver => {
                let entry = world.deliveries.pop_front().unwrap();
                let (inbox, topic) = (world.inbox.clone().unwrap(), world.wanted.clone());
                drop(world);
                let Some(topic) = topic else { return };
                let position = if topic.retention().is_some() { entry.position } else { Position::UNTRACKED };
                let (previous, message) = (Predecessor::Tag(entry.previous), entry.message);
                drop(inbox.deliver(Delivery { topic, position, previous, message }));
            }
            Step::Lose => {
                world.losses -= 1;
                world.deliveries.pop_front();
            }
            Step::Read(number) => world.read(number),
            Step::Answer(number) => {
                let index = world.calls.iter().position(|call| call.number == number).unwrap();
                let call = world.calls.remove(index);
                drop(world);
                // The caller may be gone.
                let _ = call.reply.send(call.outcome.unwrap());
            }
        }
    }

    async fn call(&self, request: Request) -> Result<Answer, EngineError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut world = self.world();
            world.call_count += 1;
            let number = world.call_count;
            world.calls.push(Call { number, request, outcome: None, reply });
        }
        answer.await.map_err(EngineError::new)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl World {
    /// Appends a message, whose text is its number.
    fn append(&mut self) {
        let number = self.log.len() as u64 + 1;
        let (previous, position) = (self.top.tag(), self.top.next(1000 + number));
        self.top = position;
        let entry = HistoryEntry { position, previous, message: Message::from(number.to_string()) };
        self.log.push(entry.clone());
        if self.wanted.is_some() {
            self.deliveries.push_back(entry);
        }
    }

    fn read(&mut self, number: usize) {
        let index = self.calls.iter().position(|call| call.number == number).unwrap();
        let outcome = match &self.calls[index].request {
            Request::Want(topic) => {
                self.wanted = Some(topic.clone());
                Answer::Done
            }
            Request::Unwant => {
                self.wanted = None;
                self.deliveries.clear();
                Answer::Done
            }
            Request::History { after, limit } => {
                let after = usize::try_from(*after).unwrap();
                let anchor = after.checked_sub(1).map_or(0, |before| self.log[before].position.tag());
                let entries = self.log.iter().skip(after).take(*limit).cloned().collect();
                let newer = (self.log.len() - after) as u64;
                Answer::Page(HistoryPage { top: self.top, anchor: Some(anchor), newer, entries })
            }
        };
        self.calls[index].outcome = Some(outcome);
    }
}

impl Engine for Steered {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        self.world().inbox = Some(inbox);
        Ok(())
    }

    async fn publish(&self, _: &Topic, _: Message, _: u64) -> Result<Position, EngineError> {
        Err(EngineError::new("messages come from another node"))
    }

    async fn want(&self, topic: &Topic) -> Result<(), EngineError> {
        self.call(Request::Want(topic.clone())).await.map(drop)
    }

    async fn unwant(&self, _: &Topic) -> Result<(), EngineError> {
        self.call(Request::Unwant).await.map(drop)
    }

    async fn history(&self, _: &Topic, after: u64, limit: usize) -> Result<HistoryPage, EngineError> {
        match self.call(Request::History { after, limit }).await? {
            Answer::Page(page) => Ok(page),
            Answer::Done => unreachable!("a read is answered with a page"),
        }
    }
}
