//! Reading a history for one member, up to the handover.
//!
//! One loop serves a member that subscribes, in the future of `subscribe`, and a slow member, in a task.
//! Sending waits for the connection, so the member decides on the speed, and at most one page of messages is
//! in memory.
//!
//! ```text
//!   position --> read a page after it --> does the history contain the position? --no--> lost
//!      ^                                        | yes
//!      |                                        v
//!      +---- behind <--- ask the worker <--- send the page (up to the top of the history)
//!                             |
//!                             v
//!                           live
//! ```

pub(crate) mod stop;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::sleep;

use crate::error::{Error, ErrorKind};
use crate::events::HubEvent;
use crate::node::Core;
use crate::node::command::{Admission, Command, Departure, Origin, Request};
use crate::node::membership::{Cause, MemberKey};
use crate::node::replay::stop::Stop;
use crate::panics::catch_future;
use crate::position::Position;
use crate::settings::hooks::TopicMessage;
use crate::stats::add;
use crate::topic::Topic;

/// The number of messages that are read at once.
const PAGE: usize = 100;

/// The pause after which a task tries again to read from an engine that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The end of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replayed {
    /// The member is live.
    Live(Position),
    /// Messages are lost. The history has got to the position.
    Lost(Position),
}

/// A member that receives from a history.
pub(crate) struct Replay<'a> {
    pub(crate) core: &'a Core,
    pub(crate) commands: &'a UnboundedSender<Command>,
    pub(crate) topic: &'a Topic,
    pub(crate) member: &'a MemberKey,
    pub(crate) ticket: u64,
    /// Ends the replay when the member leaves the topic.
    pub(crate) stop: &'a Stop,
}

impl Replay<'_> {
    /// Sends the messages after a position, until the member is live.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine fails or the connection is closed. `at` has got as far as the member.
    pub(crate) async fn run(&self, at: &mut Position, most: Option<u64>) -> Result<Replayed, Error> {
        let mut most = most;
        loop {
            let page = self.core.engine.history(self.topic, at.offset(), PAGE).await?;
            if !page.contains(*at) || most.take().is_some_and(|most| page.newer > most) {
                return Ok(Replayed::Lost(page.top));
            }
            let batch = self.member.0.sender.batch();
            for entry in &page.entries {
                if !entry.follows(*at) {
                    return Ok(Replayed::Lost(page.top));
                }
                let message = TopicMessage::new(self.topic.name(), *at, entry.position, &entry.message);
                let frame = match self.core.hooks.frame(message) {
                    Ok(frame) => frame,
                    Err(panicked) => {
                        let (topic, panic) = (self.topic.name().to_owned(), panicked.to_string());
                        self.core.events.emit(HubEvent::FramePanicked { topic, panic });
                        // The loss is this message, and no fault of the history.
                        *at = entry.position;
                        return Ok(Replayed::Lost(entry.position));
                    }
                };
                if self.member.0.has_left() {
                    return Err(Error::left());
                }
                let sent = self.stop.send(batch.send(&frame)).await;
                sent.map_err(|_| Error::left())?.map_err(Error::closed)?;
                *at = entry.position;
                add(&self.core.counters.delivered, 1);
            }
            drop(batch);
            if *at != page.top {
                if page.entries.is_empty() {
                    return Ok(Replayed::Lost(page.top));
                }
                continue;
            }
            match self.ask(*at).await?.0 {
                Admission::Live(position) => return Ok(Replayed::Live(position)),
                Admission::Behind { at: reached, .. } => *at = reached,
                Admission::Lost(now) => return Ok(Replayed::Lost(now)),
            }
        }
    }

    async fn ask(&self, at: Position) -> Result<(Admission, Topic), Error> {
        let Self { core, commands, topic, member, ticket, .. } = *self;
        let answer = ask(commands, topic, member, Origin::Behind { ticket, at })?;
        answered(core, commands, topic, member, answer).await
    }
}

/// A receiver of the answer to a request, and of the topic as the worker holds it.
pub(crate) type Answer = oneshot::Receiver<Result<(Admission, Topic), Error>>;

/// Asks the worker of a topic to make a member live.
pub(crate) fn ask(
    commands: &UnboundedSender<Command>,
    topic: &Topic,
    member: &MemberKey,
    origin: Origin,
) -> Result<Answer, Error> {
    let (reply, answer) = oneshot::channel();
    let request = Request { member: member.clone(), origin, reply };
    commands.send(Command::Admit(topic.clone(), request)).map_err(|_| Error::ended())?;
    Ok(answer)
}

/// Waits for an answer, for the time of one call of the engine: the worker may be reading many histories.
///
/// The worker may just be sending the last frames to the member. So it is told that the time is over, and has
/// the last word: either there is an answer, or nothing was sent.
pub(crate) async fn answered(
    core: &Core,
    commands: &UnboundedSender<Command>,
    topic: &Topic,
    member: &MemberKey,
    mut answer: Answer,
) -> Result<(Admission, Topic), Error> {
    match core.engine.in_time("subscribe", &mut answer).await {
        Ok(answered) => answered.map_err(|_| Error::left())?,
        Err(late) => {
            // Without a worker, there is no answer, either.
            let _ = commands.send(Command::Leave(topic.clone(), member.clone(), Departure::Request));
            answer.await.unwrap_or(Err(late))
        }
    }
}

/// The next thing that a slow member is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Debt {
    /// The messages after the position.
    Messages(Position),
    /// The frame that tells of a loss between the positions.
    Loss { before: Position, now: Position },
}

impl Debt {
    /// Returns the position up to which the member has been sent everything.
    pub(crate) fn since(self) -> Position {
        match self {
            Self::Messages(at) | Self::Loss { before: at, .. } => at,
        }
    }
}

/// The task of a slow member.
pub(crate) struct CatchUp {
    pub(crate) core: Arc<Core>,
    /// Does not keep the worker alive.
    pub(crate) commands: WeakUnboundedSender<Command>,
    pub(crate) topic: Topic,
    pub(crate) member: MemberKey,
    pub(crate) ticket: u64,
}

impl CatchUp {
    /// Sends from the history, until the member is live or its connection is closed. After a panic, such as
    /// one of a payload that is dropped, the connection is closed.
    pub(crate) async fn run(self, debt: Debt, _permit: OwnedSemaphorePermit) {
        if catch_future(self.pay(debt)).await.is_err() {
            self.member.0.close(Cause::HubEnded);
            self.leave();
        }
    }

    async fn pay(&self, debt: Debt) {
        let mut at = match debt {
            Debt::Messages(at) => at,
            Debt::Loss { now, .. } if self.tell(now).await => now,
            Debt::Loss { .. } => return self.leave(),
        };
        // The worker aborts the task instead.
        let stop = Stop::default();
        loop {
            // The member keeps the worker alive. Without the worker, there is nothing to catch up with.
            let Some(commands) = self.commands.upgrade() else { return };
            let Self { core, topic, member, ticket, .. } = self;
            let replay = Replay { core, commands: &commands, topic, member, ticket: *ticket, stop: &stop };
            match replay.run(&mut at, None).await {
                Ok(Replayed::Live(_)) => return add(&core.counters.caught_up, 1),
                Ok(Replayed::Lost(now)) => {
                    add(&core.counters.lost, 1);
                    if !self.tell(now).await {
                        return self.leave();
                    }
                    at = now;
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => sleep(PAUSE).await,
                Err(_) => return self.leave(),
            }
        }
    }

    /// Tells the member that messages are lost. Returns `false` if the connection is closed.
    async fn tell(&self, now: Position) -> bool {
        if let Some(frame) = self.core.hooks.lost(self.topic.name(), now) {
            return self.member.0.sender.send(&frame).await.is_ok();
        }
        self.member.0.close(Cause::Lost);
        false
    }

    fn leave(&self) {
        if let Some(commands) = self.commands.upgrade() {
            let departure = Departure::CatchUp(self.ticket);
            // Without a worker, there is nothing to leave.
            let _ = commands.send(Command::Leave(self.topic.clone(), self.member.clone(), departure));
        }
    }
}
