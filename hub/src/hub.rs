//! The handles that applications hold.

pub(crate) mod appearance;
pub(crate) mod builder;
pub(crate) mod member;
pub(crate) mod since;

use std::fmt;
use std::sync::Arc;

use bowline::{Message, Sender};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::events::HubEvents;
use crate::hub::builder::HubBuilder;
use crate::hub::member::Member;
use crate::node::Node;
use crate::position::{Position, random};
use crate::presence::Present;
use crate::stats::{HubStats, add};
use crate::topic::Topic;

/// A set of topics to which connections subscribe.
///
/// Cloning is cheap, and clones are handles of the same hub. A hub ends when its last handle and its last
/// [`Member`] are dropped.
///
/// # Examples
///
/// A chat, in which a client that comes back receives what it missed:
///
/// ```
/// use std::time::Duration;
///
/// use bowline::WebSocket;
/// use bowline_hub::{Hub, Memory, Position, Rule, Start};
///
/// async fn chat(
///     hub: Hub,
///     mut socket: WebSocket,
///     mut since: Option<Position>,
/// ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     let member = hub.join(&socket)?;
///     while let Start::Lost(now) = member.subscribe("chat/lobby", since).await? {
///         socket.send("(some messages are lost)").await?;
///         since = Some(now);
///     }
///     while let Some(message) = socket.recv().await? {
///         hub.publish("chat/lobby", message).await?;
///     }
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let hub = Hub::builder(Memory::new())
///     .rule("chat/", Rule::new().history(100, Duration::from_secs(300)))
///     .frame(|message| format!("{} {}", message.position(), message.text().unwrap_or("")).into())
///     .build()?;
/// let (mut client, server) = bowline::pair();
/// tokio::spawn(chat(hub.clone(), server, None));
/// client.send("hello").await?;
/// let frame = client.recv().await?.unwrap().into_text()?;
/// let (position, text) = frame.split_once(' ').unwrap();
/// assert_eq!(text, "hello");
///
/// // Meanwhile, the client is gone.
/// drop(client);
/// hub.publish("chat/lobby", "missed").await?;
///
/// let (mut client, server) = bowline::pair();
/// tokio::spawn(chat(hub, server, Some(position.parse()?)));
/// assert!(client.recv().await?.unwrap().as_text().unwrap().ends_with(" missed"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Hub {
    node: Arc<Node>,
}

impl Hub {
    /// Creates a builder for a hub with an engine, such as [`Memory`](crate::Memory).
    pub fn builder<E: Engine>(engine: E) -> HubBuilder<E> {
        HubBuilder::new(engine)
    }

    /// Adds a connection to the hub, without any topic: that of a [`Sender`], or of a `&WebSocket`.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Closed`] if the runtime in which the hub was built has ended.
    pub fn join(&self, connection: impl Into<Sender>) -> Result<Member, Error> {
        if self.node.inbox.is_closed() {
            return Err(Error::ended());
        }
        Ok(Member::new(Arc::clone(&self.node), connection.into()))
    }

    /// Publishes a message to all members of a topic, on all nodes, and returns its position.
    ///
    /// The messages of one task keep their order if each call is awaited before the next. In a topic without
    /// history, the position is [`Position::UNTRACKED`].
    ///
    /// A publisher that outruns its own hub waits, for up to half a second a message: see
    /// [`HubLimits::inbox`](crate::HubLimits::inbox).
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if the name of the topic is empty.
    /// - Returns [`ErrorKind::Limit`] if the message or the name is too large: see
    ///   [`HubLimits`](crate::HubLimits).
    /// - Returns [`ErrorKind::Unavailable`] if the engine failed or did not answer in time. The message may
    ///   have been published nevertheless: [`publish_once`](Self::publish_once) can be repeated.
    /// - Returns [`ErrorKind::Closed`] if the runtime in which the hub was built has ended.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is ready may have published the message, or not.
    pub async fn publish(&self, topic: &str, message: impl Into<Message>) -> Result<Position, Error> {
        let (topic, message) = self.publication(topic, message.into())?;
        // A loop that publishes lets the workers run, too.
        tokio::task::consume_budget().await;
        let position = self.node.core.engine.publish(&topic, message, random()).await?;
        self.published(&topic).await;
        Ok(position)
    }

    /// Publishes a message as [`publish`](Self::publish) does, unless the topic remembers a message with the
    /// same key. Returns the position of the first message with the key.
    ///
    /// A call that failed with [`ErrorKind::Unavailable`] leaves open whether the message was published. With
    /// a key, the call can be repeated, on any node: the message is stored and delivered once. Different
    /// messages need different keys. A key is the number of an order, for example, or a random number that a
    /// client chooses for its message.
    ///
    /// A topic remembers its keys for two minutes, or for the age of its [history](crate::Rule::history) if
    /// that is less. It remembers as many keys as the history keeps messages, and at least 1,000. A broker
    /// that loses the history loses the keys, too: members are then told that messages are lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bowline_hub::{Hub, Memory, Rule};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bowline_hub::Error> {
    /// let hub = Hub::builder(Memory::new())
    ///     .rule("orders/", Rule::new().history(100, Duration::from_secs(300)))
    ///     .build()?;
    /// let first = hub.publish_once("orders/eu", "order 17", "paid").await?;
    /// // The answer was lost, perhaps.
    /// let again = hub.publish_once("orders/eu", "order 17", "paid").await?;
    /// assert_eq!(first, again);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish). Moreover:
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if the key is empty, or if the topic has no history.
    /// - Returns [`ErrorKind::Limit`] if the key is too long: see [`HubLimits`](crate::HubLimits::key_size).
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is ready may have published the message, or not. The call can be
    /// repeated with the same key.
    pub async fn publish_once(
        &self,
        topic: &str,
        key: &str,
        message: impl Into<Message>,
    ) -> Result<Position, Error> {
        let (topic, message) = self.publication(topic, message.into())?;
        self.check_key(&topic, key)?;
        tokio::task::consume_budget().await;
        let position = self.node.core.engine.publish_once(&topic, key, message, random()).await?;
        self.published(&topic).await;
        Ok(position)
    }

    /// Checks a message that is to be published, and finds the rule of its topic.
    fn publication(&self, topic: &str, message: Message) -> Result<(Topic, Message), Error> {
        let topic = self.node.topic(topic)?;
        let most = self.node.core.limits.message_size;
        if message.len() > most {
            let text = format!(
                "the message has {} bytes, more than {most} (raise it with HubLimits::message_size)",
                message.len()
            );
            return Err(Error::new(ErrorKind::Limit, text));
        }
        if self.node.inbox.is_closed() {
            return Err(Error::ended());
        }
        Ok((topic, message))
    }

    fn check_key(&self, topic: &Topic, key: &str) -> Result<(), Error> {
        let most = self.node.core.limits.key_size;
        if topic.retention().is_none() {
            let text = format!(
                "Hub::publish_once needs a topic with history (Rule::history), and {:?} has none",
                topic.name()
            );
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        if key.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "the key of a message must not be empty"));
        }
        if key.len() > most {
            let text = format!(
                "the key has {} bytes, more than {most} (raise it with HubLimits::key_size)",
                key.len()
            );
            return Err(Error::new(ErrorKind::Limit, text));
        }
        Ok(())
    }

    /// Counts a message, and holds up a publisher that outruns the hub.
    async fn published(&self, topic: &Topic) {
        let core = &self.node.core;
        add(&core.counters.published, 1);
        core.engine.wait_for_room(&self.node.inbox, topic).await;
    }

    /// Reads who is present in a topic with [`Rule::presence`](crate::Rule::presence), on all nodes. Each key
    /// occurs once, in no particular order.
    ///
    /// The answer is that of the broker: no other node is asked. It contains those whose connection was lost
    /// less than [`HubLimits::presence_linger`](crate::HubLimits::presence_linger) ago, and those on a node
    /// that is gone, for [`HubLimits::presence_lease`](crate::HubLimits::presence_lease).
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if the name of the topic is empty, or if its rule has no
    ///   presence.
    /// - Returns [`ErrorKind::Limit`] if the name is too long.
    /// - Returns [`ErrorKind::Unavailable`] if the engine failed or did not answer in time.
    /// - Returns [`ErrorKind::Closed`] if the runtime in which the hub was built has ended.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. It only reads.
    pub async fn present(&self, topic: &str) -> Result<Vec<Present>, Error> {
        let topic = self.topic_with_presence(topic)?;
        self.node.core.engine.present(&topic).await
    }

    /// Reads the number of those who are [present](Self::present) in a topic, without reading who they are.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`present`](Self::present).
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. It only reads.
    pub async fn count(&self, topic: &str) -> Result<usize, Error> {
        let topic = self.topic_with_presence(topic)?;
        self.node.core.engine.count(&topic).await
    }

    fn topic_with_presence(&self, name: &str) -> Result<Topic, Error> {
        let topic = self.node.topic(name)?;
        topic.require_presence()?;
        if self.node.inbox.is_closed() {
            return Err(Error::ended());
        }
        Ok(topic)
    }

    /// Returns a receiver of the events of the hub, from now on.
    pub fn events(&self) -> HubEvents {
        self.node.core.events.subscribe()
    }

    /// Returns the numbers of the hub.
    pub fn stats(&self) -> HubStats {
        self.node.core.counters.stats()
    }

    /// Returns `true` while the engine reaches all parts of its broker, for the health check of a load
    /// balancer.
    ///
    /// If topics have presence, the hub is unhealthy, too, once it could not renew its lease for
    /// [`HubLimits::presence_lease`](crate::HubLimits::presence_lease): the other nodes then take its members
    /// for gone.
    pub fn is_healthy(&self) -> bool {
        let inbox = &self.node.inbox;
        inbox.is_connected() && !inbox.is_closed() && !self.node.core.roster.is_cut_off()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
