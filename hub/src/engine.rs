//! Engines: how messages travel between the hubs of one topic, and where histories and presence are kept.
//!
//! [`Memory`](memory::Memory) is the engine for one process. Engines for brokers are crates of their own, and
//! implement the same trait.

pub(crate) mod calls;
pub(crate) mod inbox;
pub(crate) mod keys;
pub(crate) mod memory;

use std::error::Error as StdError;
use std::fmt;
use std::future::ready;
use std::time::Duration;

use bowline::Message;

use crate::engine::inbox::Inbox;
use crate::position::Position;
use crate::presence::{Lease, NodeId, Present};
use crate::topic::Topic;

/// The part of a hub that carries messages: a broker, or memory.
///
/// Applications use an existing engine, such as [`Memory`](crate::Memory). An implementation keeps these
/// rules, on which the promises of the hub rest:
///
/// - **Order.** Each history has one order. [`publish`](Self::publish) appends the message, assigns the
///   position, and delivers to all hubs that want the topic.
/// - **Wanting.** After [`want`](Self::want) has returned, every message of the topic is delivered to the
///   inbox, until [`unwant`](Self::unwant). An engine that was disconnected wants its topics again before it
///   calls [`Inbox::reconnected`]. A call of `unwant` that the hub has given up must not take effect after a
///   later `want` has returned.
/// - **Failing is allowed.** Deliveries may be lost, repeated or out of order, and histories may vanish or
///   roll back. The hub finds out by the positions, and reads the history. The exception is a lost last
///   message: the hub finds out with the next message, or at the next [`Inbox::reconnected`] or
///   [`Inbox::verify`].
///
/// # Presence
///
/// The last seven methods keep account of who is in a topic. By default they fail, and an engine without them
/// can't serve topics with [`Rule::presence`](crate::Rule::presence). An engine that has them stores
///
/// - **entries:** (topic, key, node), with the information about the key. Somebody is present in a topic
///   while at least one node has an entry with this key. The information is that of the last
///   [`enter`](Self::enter).
/// - **leases:** of a node, until a time by the clock of the broker, with the entries of the node.
///
/// The rules:
///
/// - **Changes.** A key that becomes present, that gets other information, or of which the last entry is gone
///   is a change. The change is delivered by [`Inbox::change`] to all hubs that want the topic. The changes
///   of a topic have one order, which is also that of its messages, and each is decided and published in one
///   step with the change of the entries: of two nodes that exit at once, one is the last.
/// - **No change is lost in silence.** Changes have no positions. If some may be lost, the engine calls
///   [`Inbox::reconnected`], or [`Inbox::changes_lost`] for one topic. The hub then reads who is present.
/// - **Calls that were given up.** The hub drops a call that takes too long, and its request may still be on
///   the way: on a connection that was lost, or in the queue of a broker. A dropped [`enter`](Self::enter) or
///   [`exit`](Self::exit) must not take effect after a later call for the same entry has returned. A broker
///   whose connections don't keep the order among each other needs a fence: it ends the former connection
///   before the first request of the next, or requests carry a number or a condition by which the broker
///   refuses late ones.
/// - **Nodes that vanish.** A lease that ends does nothing by itself: its entries stay until a hub calls
///   [`reap`](Self::reap). Any number of hubs do that every few seconds.
///
/// The hub bounds each call by [`HubLimits::engine_timeout`](crate::HubLimits::engine_timeout), after which
/// the future is dropped. A panic in an engine is an error of the call.
pub trait Engine: Send + Sync + 'static {
    /// Accepts the inbox for deliveries. The hub calls this method once, before all others, when it is built.
    ///
    /// # Errors
    ///
    /// Returns an error if the engine can't be used. [`HubBuilder::build`](crate::HubBuilder::build) returns
    /// it.
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError>;

    /// Publishes a message, and returns its position: that of the history if the topic has a
    /// [retention](Topic::retention), with the given tag, or else [`Position::UNTRACKED`].
    fn publish(
        &self,
        topic: &Topic,
        message: Message,
        tag: u64,
    ) -> impl Future<Output = Result<Position, EngineError>> + Send;

    /// Publishes a message as [`publish`](Self::publish) does, unless the topic remembers the key. Returns
    /// the position of the message that was first published with the key.
    ///
    /// The topic has a history. Storing the message and remembering the key are one step, and a history that
    /// is lost or rolls back takes its keys along. The topic remembers a key for [`Retention::key_age`] at
    /// least; of more than [`Retention::key_count`] keys, the oldest may be forgotten.
    ///
    /// By default, the method returns an error: an engine that can't remember keys need not implement it.
    ///
    /// [`Retention::key_age`]: crate::Retention::key_age
    /// [`Retention::key_count`]: crate::Retention::key_count
    fn publish_once(
        &self,
        topic: &Topic,
        key: &str,
        message: Message,
        tag: u64,
    ) -> impl Future<Output = Result<Position, EngineError>> + Send {
        let _ = (topic, key, message, tag);
        async { Err(EngineError::new("the engine does not remember keys")) }
    }

    /// Starts to deliver the messages of a topic. Returns once no further message can be missed.
    fn want(&self, topic: &Topic) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Stops to deliver the messages of a topic.
    fn unwant(&self, topic: &Topic) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Reads at most `limit` messages of a history, in order, starting with the one after the offset `after`.
    ///
    /// A history that does not exist begins with this call, with [`Position::begin`].
    fn history(
        &self,
        topic: &Topic,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<HistoryPage, EngineError>> + Send;

    /// Returns the position before the last `count` messages of a history, or before all of them if there are
    /// fewer.
    ///
    /// By default, the method searches with [`history`](Self::history), and takes offsets for consecutive.
    /// An engine with other offsets has a method of its own.
    fn before_last(
        &self,
        topic: &Topic,
        count: u64,
    ) -> impl Future<Output = Result<Position, EngineError>> + Send {
        before_last(self, topic, count)
    }

    /// Begins the lease of a node, which ends after a time from now. The number is new.
    fn begin(&self, node: NodeId, time: Duration) -> impl Future<Output = Result<(), EngineError>> + Send {
        let _ = (node, time);
        ready(Err(no_presence()))
    }

    /// Lets the lease of a node end after a time from now, whenever it would have ended before.
    ///
    /// A lease whose time was over is held again, unless a hub has begun to reap it. Returns
    /// [`Lease::Lapsed`], now and from now on, if the node has no lease, or if the broker may have lost or
    /// rolled back entries since the lease began: because it restarted, or because a replica took over. The
    /// hub then begins another lease, with a new number, and enters everything again.
    fn renew(&self, node: NodeId, time: Duration) -> impl Future<Output = Result<Lease, EngineError>> + Send {
        let _ = (node, time);
        ready(Err(no_presence()))
    }

    /// Adds an entry of a node, or replaces its information.
    ///
    /// Returns [`Lease::Lapsed`], and adds nothing, if the node has no lease.
    fn enter(
        &self,
        topic: &Topic,
        node: NodeId,
        present: &Present,
    ) -> impl Future<Output = Result<Lease, EngineError>> + Send {
        let _ = (topic, node, present);
        ready(Err(no_presence()))
    }

    /// Removes an entry of a node, if there is one.
    fn exit(
        &self,
        topic: &Topic,
        node: NodeId,
        key: &str,
    ) -> impl Future<Output = Result<(), EngineError>> + Send {
        let _ = (topic, node, key);
        ready(Err(no_presence()))
    }

    /// Returns all who are present in a topic, each key once.
    ///
    /// The answer contains every change that was delivered before the call. It may contain later ones.
    fn present(&self, topic: &Topic) -> impl Future<Output = Result<Vec<Present>, EngineError>> + Send {
        let _ = topic;
        ready(Err(no_presence()))
    }

    /// Returns the number of keys that are present in a topic.
    fn count(&self, topic: &Topic) -> impl Future<Output = Result<usize, EngineError>> + Send {
        let _ = topic;
        ready(Err(no_presence()))
    }

    /// Removes some entries of nodes whose leases have ended, as [`exit`](Self::exit) would, and returns
    /// their number. The hub calls again until the number is 0. An ended lease without entries is removed,
    /// too.
    ///
    /// Does nothing, and returns 0, if the lease of the caller has ended or is missing. A call that a broker
    /// handles late, after it was stopped for example, then does no harm to nodes that could not renew.
    ///
    /// From the first entry on, [`renew`](Self::renew) and [`enter`](Self::enter) must not return
    /// [`Lease::Held`] for the node that is reaped. Entries that remain when a hub dies in the middle are
    /// removed by the next call of any hub.
    fn reap(&self, caller: NodeId) -> impl Future<Output = Result<usize, EngineError>> + Send {
        let _ = caller;
        ready(Err(no_presence()))
    }
}

/// Searches for the position before the last messages of a history with consecutive offsets.
async fn before_last<E: Engine + ?Sized>(
    engine: &E,
    topic: &Topic,
    count: u64,
) -> Result<Position, EngineError> {
    let top = engine.history(topic, 0, 0).await?.top;
    // The history reaches back to `found`, and not to more than `most` messages before the top.
    let (mut found, mut most) = (top, count.min(top.offset()));
    let mut try_next = most;
    while top.offset() - found.offset() < most {
        let after = top.offset() - try_next;
        let page = engine.history(topic, after, 0).await?;
        match page.anchor {
            _ if page.top.epoch() != top.epoch() => return Ok(page.top),
            Some(tag) => found = Position::new(top.epoch(), after, tag),
            None => most = try_next - 1,
        }
        try_next = (top.offset() - found.offset() + most).div_ceil(2);
    }
    Ok(found)
}

fn no_presence() -> EngineError {
    EngineError::new("the engine has no presence")
}

/// Messages of a history, as an [`Engine`] reads them.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    /// The position of the newest message of the history at the time of reading.
    pub top: Position,
    /// The tag of the message at the offset after which the page starts, or `None` if the history does not
    /// know it.
    ///
    /// A history knows the tags of the messages that it contains, of the one before its oldest message, and
    /// of its top. The tag at the offset 0 is 0.
    pub anchor: Option<u64>,
    /// The number of messages in the history after the offset after which the page starts, in this page or
    /// not. Meaningless without an anchor.
    pub newer: u64,
    /// The messages, in order.
    pub entries: Vec<HistoryEntry>,
}

/// A message of a history.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// The position of the message.
    pub position: Position,
    /// The tag of the message before, or 0 for the first.
    pub previous: u64,
    /// The message.
    pub message: Message,
}

/// A message that an [`Engine`] delivers to a hub.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The topic.
    pub topic: Topic,
    /// The position of the message, or [`Position::UNTRACKED`] in a topic without history.
    pub position: Position,
    /// The message before. Of no importance in a topic without history.
    pub previous: Predecessor,
    /// The message.
    pub message: Message,
}

/// The message before a [`Delivery`] in its history, as the broker tells which one that is.
///
/// Messages with history form a chain, in which each one names the one before. A hub sends a message to its
/// members only if this is the next link after the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// Its tag, or 0 before the first message. Tags show that a history has been lost or rolled back.
    Tag(u64),
    /// Its offset, for a broker that doesn't know tags. The engine notices by other means when a history may
    /// have been lost or rolled back, and calls [`Inbox::reconnected`] or [`Inbox::verify`] before it
    /// delivers a message of the changed history.
    Offset(u64),
}

impl Delivery {
    /// Returns `true` if the message is the next one after a position.
    pub(crate) fn follows(&self, before: Position) -> bool {
        let is_next = match self.previous {
            Predecessor::Tag(tag) => tag == before.tag(),
            Predecessor::Offset(offset) => offset == before.offset(),
        };
        is_next && is_later(self.position, before)
    }
}

impl HistoryEntry {
    /// Returns `true` if the message is the next one after a position.
    pub(crate) fn follows(&self, before: Position) -> bool {
        self.previous == before.tag() && is_later(self.position, before)
    }
}

/// Returns `true` if a position is a later one of the same history, by the numbers alone.
fn is_later(position: Position, before: Position) -> bool {
    position.epoch() == before.epoch() && position.offset() > before.offset()
}

impl HistoryPage {
    /// Returns `true` if the history contains a position, after whose offset the page was read.
    pub(crate) fn contains(&self, position: Position) -> bool {
        self.top.epoch() == position.epoch() && self.anchor == Some(position.tag())
    }
}

/// The error of an [`Engine`].
#[derive(Debug)]
pub struct EngineError(Box<dyn StdError + Send + Sync>);

impl EngineError {
    /// Creates an error from its cause, or from a text.
    pub fn new(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for EngineError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}
