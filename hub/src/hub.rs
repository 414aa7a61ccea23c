//! The handles that applications hold.

pub(crate) mod builder;
pub(crate) mod member;

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
use crate::stats::{HubStats, add};

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
///     let member = hub.join(socket.sender())?;
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

    /// Adds a connection to the hub, without any topic.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Closed`] if the runtime in which the hub was built has ended.
    pub fn join(&self, sender: Sender) -> Result<Member, Error> {
        if self.node.inbox.is_closed() {
            return Err(Error::ended());
        }
        Ok(Member::new(Arc::clone(&self.node), sender))
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
    ///   have been published nevertheless.
    /// - Returns [`ErrorKind::Closed`] if the runtime in which the hub was built has ended.
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is ready may have published the message, or not.
    pub async fn publish(&self, topic: &str, message: impl Into<Message>) -> Result<Position, Error> {
        let (topic, message) = (self.node.topic(topic)?, message.into());
        let core = &self.node.core;
        let most = core.limits.message_size;
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
        // A loop that publishes lets the workers run, too.
        tokio::task::consume_budget().await;
        let position = core.engine.publish(&topic, message, random()).await?;
        add(&core.counters.published, 1);
        core.engine.wait_for_room(&self.node.inbox, &topic).await;
        Ok(position)
    }

    /// Returns a receiver of the events of the hub, from now on.
    pub fn events(&self) -> HubEvents {
        self.node.core.events.subscribe()
    }

    /// Returns the numbers of the hub.
    pub fn stats(&self) -> HubStats {
        self.node.core.counters.stats()
    }

    /// Returns `true` while the engine reaches its broker, for the health check of a load balancer.
    pub fn is_healthy(&self) -> bool {
        self.node.inbox.is_connected() && !self.node.inbox.is_closed()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
