//! A connection in a hub.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline::Sender;
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind};
use crate::hub::since::Since;
use crate::node::Node;
use crate::node::command::{Admission, Command, Departure, Origin};
use crate::node::membership::{MemberKey, Membership};
use crate::node::replay::{Replay, Replayed, ask};
use crate::node::roster::EntryKey;
use crate::position::Position;
use crate::stats::{add, subtract};
use crate::topic::Topic;

/// The number of times that a member tries to start with the last messages of a history, before it starts
/// with the next one. The first of the messages may leave the history at any time.
const LAST_ATTEMPTS: usize = 8;

/// A connection in a [`Hub`](crate::Hub), and its topics. [`Hub::join`](crate::Hub::join) returns one.
///
/// Dropping the member leaves all topics at once. The connection stays open.
pub struct Member {
    pub(crate) node: Arc<Node>,
    key: MemberKey,
    topics: Mutex<Vec<Topic>>,
    /// The topics in which the member is present, and the keys.
    appearances: Mutex<Vec<EntryKey>>,
}

/// The beginning of a subscription. [`Member::subscribe`] returns one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a member that has lost messages is not subscribed"]
pub enum Start {
    /// The member is subscribed. It has been sent the messages after the position that it named, up to this
    /// position, and receives all later ones.
    Live(Position),
    /// Messages after the named position are lost, and the member is not subscribed. The application sends
    /// the state of the topic, from a database for example, and subscribes from this position.
    Lost(Position),
}

impl Member {
    pub(crate) fn new(node: Arc<Node>, sender: Sender) -> Self {
        add(&node.core.counters.members, 1);
        let key = MemberKey(Arc::new(Membership::new(sender)));
        Self { node, key, topics: Mutex::default(), appearances: Mutex::default() }
    }

    /// Subscribes to a topic, and returns once the member is live.
    ///
    /// - With `None` or [`Since::Now`], the member receives all messages from now on.
    /// - With the position of the last message that a client has received, the member is first sent the
    ///   messages that it missed, as fast as the connection takes them. If the history no longer contains all
    ///   of them, or never contained the position, the method returns [`Start::Lost`].
    /// - With [`Since::Last`], the member is first sent the last messages of the history. If they leave the
    ///   history faster than the connection takes them, the method returns [`Start::Lost`].
    ///
    /// A topic without history continues from [`Position::UNTRACKED`] only, with the next message.
    ///
    /// The first live message may be sent before the method has returned. A client that is told the position
    /// of [`Start::Live`] in a frame of the application's therefore ignores it if a message has arrived
    /// already.
    ///
    /// # Examples
    ///
    /// ```
    /// use bowline::WebSocket;
    /// use bowline_hub::{Hub, Position, Start};
    ///
    /// # async fn load_from_database() -> String { String::new() }
    /// async fn handle(
    ///     hub: Hub,
    ///     socket: WebSocket,
    ///     mut since: Option<Position>,
    /// ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    ///     let member = hub.join(socket.sender())?;
    ///     while let Start::Lost(now) = member.subscribe("chat/lobby", since).await? {
    ///         socket.send(load_from_database().await).await?;
    ///         since = Some(now);
    ///     }
    ///     // ...
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if the name of the topic is empty, or if the member has
    ///   subscribed to the topic already.
    /// - Returns [`ErrorKind::Limit`] if the name is too long, or if the member has too many topics: see
    ///   [`HubLimits`](crate::HubLimits). The same holds for more messages in [`Since::Last`] than
    ///   [`HubLimits::replay`](crate::HubLimits::replay) allows.
    /// - Returns [`ErrorKind::Unavailable`] if the engine failed or did not answer in time.
    /// - Returns [`ErrorKind::Closed`] if the connection is closed, or the runtime of the hub has ended.
    ///
    /// In all cases, the member is not subscribed.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is ready has not subscribed. Some of the missed messages may have
    /// been sent.
    pub async fn subscribe(&self, topic: &str, since: impl Into<Since>) -> Result<Start, Error> {
        let topic = self.node.topic(topic)?;
        match since.into() {
            Since::Now => self.start(&topic, Origin::Now, None, &mut None).await,
            Since::Position(position) => {
                let most = self.node.core.limits.replay;
                self.start(&topic, Origin::Since(position), Some(most), &mut None).await
            }
            Since::Last(count) => self.start_with_last(&topic, count).await,
        }
    }

    /// Starts a subscription with the last messages of the history.
    async fn start_with_last(&self, topic: &Topic, count: u64) -> Result<Start, Error> {
        let core = &self.node.core;
        let most = core.limits.replay;
        if count > most {
            let text = format!(
                "Since::Last asks for {count} messages, more than {most} (raise it with HubLimits::replay)"
            );
            return Err(Error::new(ErrorKind::Limit, text));
        }
        let attempts = if topic.retention().is_some() { LAST_ATTEMPTS } else { 0 };
        for _ in 0..attempts {
            let before = core.engine.before_last(topic, count).await?;
            let mut reached = None;
            let start = self.start(topic, Origin::Since(before), None, &mut reached).await?;
            // Otherwise, the first of the messages has left the history before it was sent.
            if matches!(start, Start::Live(_)) || reached != Some(before) {
                return Ok(start);
            }
        }
        self.start(topic, Origin::Now, None, &mut None).await
    }

    /// Starts a subscription that has missed at most so many messages. Unless the member is live at once,
    /// `reached` is the position up to which the member has been sent messages.
    async fn start(
        &self,
        topic: &Topic,
        origin: Origin,
        most: Option<u64>,
        reached: &mut Option<Position>,
    ) -> Result<Start, Error> {
        let commands = self.node.worker_of(topic);
        let claim = self.claim(topic)?;
        let (admission, held) = ask(commands, topic, &self.key, origin).await?;
        let (ticket, at) = match admission {
            Admission::Live(position) => return Ok(claim.keep(position, held)),
            Admission::Lost(now) => return Ok(Start::Lost(now)),
            Admission::Behind { ticket, at } => (ticket, at),
        };
        let core = &self.node.core;
        let replay = Replay { core, commands, topic, member: &self.key, ticket };
        match replay.run(reached.insert(at), most).await? {
            Replayed::Live(position) => Ok(claim.keep(position, held)),
            Replayed::Lost(now) => Ok(Start::Lost(now)),
        }
    }

    /// Leaves a topic. After the method has returned, no message of the topic is sent.
    ///
    /// The method does nothing if the member has not subscribed to the topic.
    ///
    /// # Cancel safety
    ///
    /// Once the future has been polled, the member leaves the topic, also if the future is dropped.
    pub async fn unsubscribe(&self, topic: &str) {
        let found = {
            let mut topics = self.topics();
            let index = topics.iter().position(|subscribed| subscribed.name() == topic);
            index.map(|index| topics.swap_remove(index))
        };
        let Some(topic) = found else { return };
        self.disappear(topic.name());
        let (reply, done) = oneshot::channel();
        self.leave(topic, Some(reply));
        // Without a worker, nothing is sent, either.
        let _ = done.await;
    }

    /// Returns the number of topics to which the member has subscribed.
    pub fn topic_count(&self) -> usize {
        self.topics().len()
    }

    /// Notes the topic, so that a second call for the same topic fails.
    fn claim<'a>(&'a self, topic: &'a Topic) -> Result<Claim<'a>, Error> {
        let most = self.node.core.limits.topics_per_member;
        let mut topics = self.topics();
        if topics.contains(topic) {
            let text = format!("the member has subscribed to {:?} already", topic.name());
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        if topics.len() >= most {
            let text = format!(
                "the member has {most} topics already (raise the limit with HubLimits::topics_per_member)"
            );
            return Err(Error::new(ErrorKind::Limit, text));
        }
        topics.push(topic.clone());
        Ok(Claim { member: self, topic })
    }

    fn leave(&self, topic: Topic, reply: Option<oneshot::Sender<()>>) {
        let departure = Departure::Unsubscribe(reply);
        let commands = self.node.worker_of(&topic).clone();
        // Without a worker, there is nothing to leave.
        let _ = commands.send(Command::Leave(topic, self.key.clone(), departure));
    }

    pub(crate) fn appearances(&self) -> MutexGuard<'_, Vec<EntryKey>> {
        self.appearances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn topics(&self) -> MutexGuard<'_, Vec<Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.key.0.leave();
        let topics = std::mem::take(&mut *self.topics());
        for topic in topics {
            self.leave(topic, None);
        }
        let appearances = std::mem::take(&mut *self.appearances());
        for key in appearances {
            self.node.core.roster.lose(&self.node.core, &key);
        }
        subtract(&self.node.core.counters.members, 1);
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("topics", &self.topic_count()).finish_non_exhaustive()
    }
}

/// A subscription under way. Dropping the claim leaves the topic.
struct Claim<'a> {
    member: &'a Member,
    topic: &'a Topic,
}

impl Claim<'_> {
    /// Keeps the subscription, with the topic as the worker holds it: all members share one name.
    fn keep(self, position: Position, held: Topic) -> Start {
        let mut topics = self.member.topics();
        if let Some(topic) = topics.iter_mut().find(|topic| *topic == self.topic) {
            *topic = held;
        }
        drop(topics);
        std::mem::forget(self);
        Start::Live(position)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut topics = self.member.topics();
        let index = topics.iter().position(|subscribed| subscribed == self.topic);
        // Otherwise, `unsubscribe` has left the topic.
        let Some(index) = index else { return };
        let topic = topics.swap_remove(index);
        drop(topics);
        self.member.disappear(topic.name());
        self.member.leave(topic, None);
    }
}
