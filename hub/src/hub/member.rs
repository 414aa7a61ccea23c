//! A connection in a hub.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline::Sender;
use tokio::sync::oneshot;

use crate::error::{Error, ErrorKind};
use crate::hub::since::Since;
use crate::node::Node;
use crate::node::command::{Admission, Command, Departure, Origin};
use crate::node::membership::{Cause, MemberKey, Membership};
use crate::node::replay::stop::Stop;
use crate::node::replay::{Answer, Replay, Replayed, answered, ask};
use crate::node::roster::entry::EntryKey;
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
    subscriptions: Mutex<Subscriptions>,
    /// The presence of the member, in topics to which it has subscribed.
    appearances: Mutex<Vec<Appeared>>,
}

/// The presence of a member in one topic.
pub(crate) struct Appeared {
    pub(crate) entry: EntryKey,
    /// The number of the call of `appear` that waits for the engine. Without that call, the member would not
    /// be present.
    pub(crate) awaited: Option<u64>,
}

/// The topics of a member.
#[derive(Default)]
pub(crate) struct Subscriptions {
    live: Vec<Topic>,
    /// The calls of `subscribe` that have not returned.
    underway: Vec<Underway>,
}

/// A call of `subscribe`. An older call for the same topic may still be somewhere, but is not in the list.
struct Underway {
    topic: Topic,
    stop: Arc<Stop>,
}

/// The part that a call of `subscribe` plays.
enum Beginning {
    /// The member was not subscribed, or its subscription goes on.
    Straight(Answer),
    /// The subscription before ends first, and the receiver is told.
    Replacement(oneshot::Receiver<()>),
}

impl Subscriptions {
    fn all(&self) -> impl Iterator<Item = &Topic> {
        self.live.iter().chain(self.underway.iter().map(|underway| &underway.topic))
    }

    /// Returns the topic with a name.
    pub(crate) fn find(&self, name: &str) -> Option<&Topic> {
        self.all().find(|topic| topic.name() == name)
    }

    /// Returns `true` if a call is under way, unless the topic was left meanwhile.
    fn has_call(&self, stop: &Arc<Stop>) -> bool {
        self.underway.iter().any(|underway| Arc::ptr_eq(&underway.stop, stop))
    }

    /// Removes the topic with a name.
    fn remove(&mut self, name: &str) -> Option<(Topic, Option<Arc<Stop>>)> {
        if let Some(index) = self.live.iter().position(|topic| topic.name() == name) {
            return Some((self.live.swap_remove(index), None));
        }
        let index = self.underway.iter().position(|underway| underway.topic.name() == name)?;
        let Underway { topic, stop } = self.underway.swap_remove(index);
        Some((topic, Some(stop)))
    }

    /// Removes a call, unless `unsubscribe` has done so.
    fn remove_call(&mut self, stop: &Arc<Stop>) -> Option<Topic> {
        let index = self.underway.iter().position(|underway| Arc::ptr_eq(&underway.stop, stop))?;
        Some(self.underway.swap_remove(index).topic)
    }
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
        Self { node, key, subscriptions: Mutex::default(), appearances: Mutex::default() }
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
    /// A member that is subscribed to the topic begins again, at the same place as if it were new: for a
    /// client that was told of a loss, for example, and loads the state of the topic anew. The earlier
    /// subscription sends nothing more from then on. With [`Since::Now`], it simply goes on. The member stays
    /// [present](Self::appear) in the topic, also if the method returns [`Start::Lost`] or an error. Messages
    /// that are on their way to the client when it names its position arrive twice, and the client knows them
    /// by their positions.
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
    ///     let member = hub.join(&socket)?;
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
    /// - Returns [`ErrorKind::InvalidInput`] if the name of the topic is empty, or if another call for this
    ///   topic is under way. The other call goes on.
    /// - Returns [`ErrorKind::Limit`] if the name is too long, or if the member has too many topics: see
    ///   [`HubLimits`](crate::HubLimits). The same holds for more messages in [`Since::Last`] than
    ///   [`HubLimits::replay`](crate::HubLimits::replay) allows.
    /// - Returns [`ErrorKind::Unavailable`] if the engine failed or did not answer in time. If some of the
    ///   missed messages were sent, the connection is closed with 1013: the client comes back with another
    ///   position.
    /// - Returns [`ErrorKind::Closed`] if the connection is closed, the member has left the topic meanwhile,
    ///   or the runtime of the hub has ended.
    ///
    /// In all other cases, the member is not subscribed.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is ready has not subscribed, and has ended an earlier subscription.
    /// Some of the missed messages may have been sent.
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
        let (claim, beginning) = self.claim(topic, origin)?;
        let core = &self.node.core;
        let answer = match beginning {
            Beginning::Straight(answer) => answer,
            Beginning::Replacement(ended) => {
                // Without a worker, nothing is sent, either.
                let _ = ended.await;
                claim.ask(topic, origin)?
            }
        };
        let commands = self.node.worker_of(topic);
        let (admission, held) = answered(core, commands, topic, &self.key, answer).await?;
        let (ticket, at) = match admission {
            Admission::Live(position) => return claim.keep(position, held),
            Admission::Lost(now) => return Ok(Start::Lost(now)),
            Admission::Behind { ticket, at } => (ticket, at),
        };
        let replay = Replay { core, commands, topic, member: &self.key, ticket, stop: &claim.stop };
        match replay.run(reached.insert(at), most).await {
            Ok(Replayed::Live(position)) => claim.keep(position, held),
            Ok(Replayed::Lost(now)) => Ok(Start::Lost(now)),
            Err(error) => {
                if error.kind() == ErrorKind::Unavailable && *reached != Some(at) {
                    // Another attempt from the same position would send these messages again.
                    self.key.0.close(Cause::Unreadable);
                }
                Err(error)
            }
        }
    }

    /// Leaves a topic, and makes the member absent there. After the method has returned, no message of the
    /// topic is sent.
    ///
    /// The method does nothing if the member has neither subscribed to the topic nor appeared there.
    ///
    /// # Cancel safety
    ///
    /// Once the future has been polled, the member leaves the topic, also if the future is dropped.
    pub async fn unsubscribe(&self, topic: &str) {
        let (reply, done) = oneshot::channel();
        let removed = {
            let mut subscriptions = self.subscriptions();
            subscriptions.remove(topic).map(|(topic, stop)| {
                // Under the lock, like all commands about subscriptions, so that their order is that of the
                // list.
                self.leave(topic, Some(reply));
                stop
            })
        };
        self.disappear(topic);
        let Some(stop) = removed else { return };
        if let Some(stop) = stop {
            stop.stop().await;
        }
        // Without a worker, nothing is sent, either.
        let _ = done.await;
    }

    /// Returns the number of topics to which the member has subscribed.
    pub fn topic_count(&self) -> usize {
        self.subscriptions().all().count()
    }

    /// Notes the topic, so that a second call for the same topic fails, and asks its worker: for a new
    /// subscription, or first for the end of the earlier one.
    fn claim(&self, topic: &Topic, origin: Origin) -> Result<(Claim<'_>, Beginning), Error> {
        let most = self.node.core.limits.topics_per_member;
        let mut subscriptions = self.subscriptions();
        if subscriptions.underway.iter().any(|underway| underway.topic == *topic) {
            let text = format!("another call of Member::subscribe for {:?} is under way", topic.name());
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let earlier = subscriptions.live.iter().position(|subscribed| subscribed == topic);
        if earlier.is_none() && subscriptions.all().count() >= most {
            let text = format!(
                "the member has {most} topics already (raise the limit with HubLimits::topics_per_member)"
            );
            return Err(Error::new(ErrorKind::Limit, text));
        }
        // Under the lock, so that the worker learns of calls in the order of the list. It is woken by tokio,
        // and runs elsewhere.
        let beginning = if earlier.is_some() && origin != Origin::Now {
            let (reply, ended) = oneshot::channel();
            self.leave(topic.clone(), Some(reply));
            Beginning::Replacement(ended)
        } else {
            Beginning::Straight(ask(self.node.worker_of(topic), topic, &self.key, origin)?)
        };
        if let Some(earlier) = earlier {
            subscriptions.live.swap_remove(earlier);
        }
        let stop = Arc::<Stop>::default();
        subscriptions.underway.push(Underway { topic: topic.clone(), stop: Arc::clone(&stop) });
        Ok((Claim { member: self, stop }, beginning))
    }

    fn leave(&self, topic: Topic, reply: Option<oneshot::Sender<()>>) {
        let departure = Departure::Unsubscribe(reply);
        let commands = self.node.worker_of(&topic).clone();
        // Without a worker, there is nothing to leave.
        let _ = commands.send(Command::Leave(topic, self.key.clone(), departure));
    }

    pub(crate) fn appearances(&self) -> MutexGuard<'_, Vec<Appeared>> {
        self.appearances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subscriptions(&self) -> MutexGuard<'_, Subscriptions> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.key.0.leave();
        // Calls borrow the member, so only those are under way whose futures were forgotten.
        let subscriptions = std::mem::take(&mut *self.subscriptions());
        for topic in subscriptions.all() {
            self.leave(topic.clone(), None);
        }
        let appearances = std::mem::take(&mut *self.appearances());
        for appeared in appearances {
            self.node.core.roster.lose(&self.node.core, &appeared.entry);
        }
        subtract(&self.node.core.counters.members, 1);
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("topics", &self.topic_count()).finish_non_exhaustive()
    }
}

/// A subscription under way. Dropping the claim leaves the topic, in which the member stays present.
struct Claim<'a> {
    member: &'a Member,
    stop: Arc<Stop>,
}

impl Claim<'_> {
    /// Asks the worker of the topic, once an earlier subscription has ended.
    fn ask(&self, topic: &Topic, origin: Origin) -> Result<Answer, Error> {
        let Member { node, key, .. } = self.member;
        // Under the lock, as in `Member::claim`.
        let subscriptions = self.member.subscriptions();
        if !subscriptions.has_call(&self.stop) {
            return Err(Error::left());
        }
        ask(node.worker_of(topic), topic, key, origin)
    }

    /// Keeps the subscription, with the topic as the worker holds it: all members share one name.
    fn keep(self, position: Position, held: Topic) -> Result<Start, Error> {
        let mut subscriptions = self.member.subscriptions();
        // Otherwise, `unsubscribe` has left the topic.
        subscriptions.remove_call(&self.stop).ok_or_else(Error::left)?;
        subscriptions.live.push(held);
        Ok(Start::Live(position))
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut subscriptions = self.member.subscriptions();
        // Otherwise, the subscription is kept, or `unsubscribe` has left the topic.
        if let Some(topic) = subscriptions.remove_call(&self.stop) {
            self.member.leave(topic, None);
        }
    }
}
