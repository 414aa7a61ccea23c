//! The builder of hubs.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use bowline::Payload;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::engine::Engine;
use crate::engine::calls::EngineCalls;
use crate::engine::inbox::Inbox;
use crate::error::{Error, ErrorKind};
use crate::events::EventSource;
use crate::hub::Hub;
use crate::node::keeper::Keeper;
use crate::node::worker::Worker;
use crate::node::{Core, Node};
use crate::position::Position;
use crate::settings::hooks::{Hooks, PresenceNews, TopicMessage};
use crate::settings::limits::HubLimits;
use crate::settings::rule::{Rule, Rules};

/// The largest number of workers.
const MAX_WORKERS: usize = 1024;

/// A builder of a [`Hub`]. [`Hub::builder`] returns one.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use bowline_hub::{Hub, HubLimits, Memory, Rule};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), bowline_hub::Error> {
/// let hub = Hub::builder(Memory::new())
///     .rule("chat/", Rule::new().history(100, Duration::from_secs(300)))
///     .limits(HubLimits::default().message_size(4096))
///     .lost(|topic, now| format!("lost {topic} {now}").into())
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct HubBuilder<E> {
    engine: E,
    rules: Vec<(String, Rule)>,
    hooks: Hooks,
    limits: HubLimits,
    workers: Option<usize>,
}

impl<E: Engine> HubBuilder<E> {
    pub(crate) fn new(engine: E) -> Self {
        let (rules, hooks, limits) = (Vec::new(), Hooks::default(), HubLimits::default());
        Self { engine, rules, hooks, limits, workers: None }
    }

    /// Sets the rule of all topics whose names begin with a prefix. The longest prefix counts.
    pub fn rule(mut self, prefix: impl Into<String>, rule: Rule) -> Self {
        self.rules.push((prefix.into(), rule));
        self
    }

    /// Sets the function that makes the frame of a message. Default: the message as it was published.
    ///
    /// The frame should contain the [position](TopicMessage::position) if clients come back, as clients name
    /// the position of the last message that they received. The function is called once for each message on
    /// each node, and once more for each member to which the message is sent from the history.
    ///
    /// If the function panics, the message is not sent. [`Hub::events`] reports the panic, and members of a
    /// topic with history are told that the message is lost.
    pub fn frame<F>(mut self, frame: F) -> Self
    where
        F: Fn(TopicMessage<'_>) -> Payload<'static> + Send + Sync + 'static,
    {
        self.hooks.frame = Some(Box::new(frame));
        self
    }

    /// Sets the function that makes a frame for members that have lost messages while they were subscribed.
    ///
    /// The arguments are the name of the topic and the position after the loss, from which the member
    /// receives messages again. The client then loads the state of the topic from elsewhere. Default: the
    /// connection is closed with 1013. The client connects again, and
    /// [`Member::subscribe`](crate::Member::subscribe) reports the loss.
    ///
    /// If the function panics, the connection is closed with 1013.
    pub fn lost<F>(mut self, lost: F) -> Self
    where
        F: Fn(&str, Position) -> Payload<'static> + Send + Sync + 'static,
    {
        self.hooks.lost = Some(Box::new(lost));
        self
    }

    /// Sets the function that makes the frames about who is in a topic, for topics with
    /// [`Rule::presence`]. Default: members are not told.
    ///
    /// The arguments are the name of the topic and the news. A member first receives the list of all who are
    /// present, and then each change, in order with the messages of the topic. The function is called once
    /// for each change on each node with members in the topic, and may also tell the application. If it
    /// returns
    /// `None`, nothing is sent.
    ///
    /// A member whose connection is full is treated as its rule says. If news are skipped, the member
    /// receives the list again as soon as its connection takes it. After the broker was away, members are
    /// told what has changed meanwhile, or receive the list again.
    ///
    /// The list costs time for each member that comes, and clients limit the size of messages. In rooms with
    /// thousands of people, the function returns `None`, and clients are shown [`Hub::count`] instead.
    ///
    /// If the function panics, nothing is sent, and [`Hub::events`] reports the panic.
    ///
    /// # Examples
    ///
    /// ```
    /// use bowline_hub::{Hub, Memory, PresenceNews, Rule};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = Hub::builder(Memory::new())
    ///     .rule("room/", Rule::new().presence())
    ///     .presence(|_, news| {
    ///         let text = match news {
    ///             PresenceNews::Here(all) => format!("{} are here", all.len()),
    ///             PresenceNews::Joined(who) => format!("{} joins", who.key),
    ///             PresenceNews::Left(who) => format!("{} leaves", who.key),
    ///             _ => return None,
    ///         };
    ///         Some(text.into())
    ///     })
    ///     .build()?;
    ///
    /// let (mut client, server) = bowline::pair();
    /// let member = hub.join(server.sender())?;
    /// let _ = member.subscribe("room/1", None).await?;
    /// assert_eq!(client.recv().await?, Some("0 are here".into()));
    /// member.appear("room/1", "alice").await?;
    /// assert_eq!(client.recv().await?, Some("alice joins".into()));
    /// assert_eq!(hub.count("room/1").await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn presence<F>(mut self, presence: F) -> Self
    where
        F: Fn(&str, PresenceNews<'_>) -> Option<Payload<'static>> + Send + Sync + 'static,
    {
        self.hooks.presence = Some(Box::new(presence));
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: HubLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the number of tasks among which the topics are divided. Default: the number of processors; at
    /// least 1, and at most 1,024.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Builds the hub, whose workers run in the current tokio runtime. The runtime needs a time driver.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`] if a setting is invalid, or if there is no runtime. Returns
    /// [`ErrorKind::Unavailable`] if the engine can't start.
    pub fn build(self) -> Result<Hub, Error> {
        let Self { mut engine, rules, hooks, limits, workers } = self;
        let runtime = Handle::try_current().map_err(|error| {
            Error::with_source(ErrorKind::InvalidInput, "HubBuilder::build needs a tokio runtime", error)
        })?;
        let workers = workers.unwrap_or_else(|| available_parallelism().map_or(1, NonZeroUsize::get));
        if !(1..=MAX_WORKERS).contains(&workers) {
            let text = format!("HubBuilder::workers is 1 to {MAX_WORKERS}, and not {workers}");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        limits.validate()?;
        let events = EventSource::new();
        let rules = Rules::new(rules)?;
        let has_presence = rules.have_presence();
        let inbox = Inbox::new(workers, limits.inbox, rules, &events);
        engine
            .start(inbox.clone())
            .map_err(|error| Error::with_source(ErrorKind::Unavailable, "the engine can't start", error))?;
        let engine = EngineCalls::new(engine, limits.engine_timeout, runtime.clone());
        let core = Arc::new(Core::new(engine, hooks, limits, events));
        let mut senders = Vec::with_capacity(workers);
        for queue in inbox.queues() {
            let (sender, commands) = mpsc::unbounded_channel();
            let worker = Worker::new(Arc::clone(&core), Arc::clone(queue), commands, sender.downgrade());
            runtime.spawn(worker.run());
            senders.push(sender);
        }
        let keeper = has_presence.then(|| {
            let (keeper, hub) = oneshot::channel();
            runtime.spawn(Keeper::new(Arc::clone(&core), inbox.clone(), hub).run());
            keeper
        });
        Ok(Hub { node: Arc::new(Node::new(core, inbox, senders, keeper)) })
    }
}

impl<E> fmt::Debug for HubBuilder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubBuilder")
            .field("rules", &self.rules)
            .field("limits", &self.limits)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
