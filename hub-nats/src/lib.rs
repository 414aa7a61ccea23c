//! NATS as the broker of [`bowline_hub`]: the same topics on any number of machines.
//!
//! [`connect`] returns the engine for a [`Hub`](bowline_hub::Hub). Everything else is as with one machine:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use bowline_hub::{Hub, Rule};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::builder(bowline_hub_nats::connect("nats://a.example,b.example,c.example").await?)
//!     .rule("chat/", Rule::new().history(100, Duration::from_secs(300)))
//!     .build()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Histories
//!
//! Topics without history need NATS alone. Histories are kept by JetStream, in one stream with the name
//! `bowline`. The engine creates the stream with the first message of a topic with history:
//!
//! | setting | value |
//! |---|---|
//! | `subjects` | `bowline.store.>` |
//! | `republish` | from `bowline.store.>` to `bowline.live.>`, where nodes receive messages |
//! | `max_msgs_per_subject` | the largest count of all rules, and one |
//! | `max_age` | the largest age of all rules, and a week |
//! | `storage` | `file` |
//! | `num_replicas` | 3 in a cluster, else 1 |
//! | `duplicate_window` | two minutes, for [`Hub::publish_once`](bowline_hub::Hub::publish_once) |
//!
//! A stream that exists is used as it is, with other storage or limits for its size, for example. The engine
//! only raises `max_msgs_per_subject` and `max_age`. Rules that keep less are applied when a history is read,
//! so rules may differ between nodes while a new version is rolled out.
//!
//! # Presence
//!
//! Another stream, `bowline-presence`, keeps who is present in topics, with three replicas in a cluster.
//! Changes and messages of a topic travel by two streams. Somebody who appears and then publishes is told of
//! in this order, but changes and messages of different members may come in another order on another node.
//!
//! # Failures
//!
//! - **NATS is away.** Members stay, and `publish` and `subscribe` fail at once. Nothing is kept to be sent
//!   later. The engine connects to the next server of the cluster, of which one address is enough. Topics
//!   with history then receive what they missed. A server that falls silent is noticed after at most five
//!   seconds.
//! - **The stream is lost, or older than it was.** Members are told that messages are lost, as the tags of
//!   the messages don't match. Nodes read all histories after each reconnect, the election of a leader, and
//!   the deletion of the stream. A stream with one replica in a cluster could roll back unnoticed, and is an
//!   error.
//! - **The stream of presence is older than it was.** The nodes enter their members again. Each node looks at
//!   all messages of the stream, 500 each second, for entries of nodes that are gone, and removes these after
//!   the time of a lease.
//! - **A server of a cluster is killed.** Nothing is lost.
//! - **A server of a cluster stops for seconds, and goes on.** NATS 2.9 may then drop messages that it has
//!   acknowledged, or store a message twice; NATS 2.15 does neither. A node looks up what it has published
//!   15 s later. If a message is gone, all members of its topic are told of a loss: see the README.
//! - **A node is too slow.** NATS ends its connection. The node connects again, and reads what it missed.
//!
//! # Subjects
//!
//! The name of a topic is one token of a subject: `chat/lobby` is `bowline.live.chat/lobby`. All bytes but
//! letters, digits, `-`, `_`, `/` and `:` are escaped as in a URL. Users of NATS need the permission to
//! publish to `bowline.>` and `$JS.API.>`, and to subscribe to `bowline.live.>`, `bowline.who.>`, `_INBOX.>`
//! and `$JS.EVENT.ADVISORY.STREAM.>`.
//!
//! # URLs
//!
//! | URL | meaning |
//! |---|---|
//! | `nats://a,b:4223` | the servers of a cluster, the others of which are found |
//! | `nats://user:password@host`, `nats://token@host` | with credentials, in which `@` is `%40` |
//! | `tls://host` | with TLS 1.3, by the feature `tls` |
//!
//! The feature `tls` uses rustls with the roots of the operating system, and chooses no provider of
//! cryptography. A program that has none yet installs one at its start, such as
//! `rustls::crypto::ring::default_provider().install_default()`. A server that requires TLS gets it with both
//! schemes.
//!
//! NATS 2.9 or newer is required. Users with keys (NKEYS, JWT, `.creds` files) are not supported yet:
//! [`connect`] returns an error that says so.
//!
//! # The client
//!
//! The engine speaks the protocol of NATS itself. The crate `async-nats` would take about 6.6 KB for each
//! topic of a node, drop messages of a subscription that is full, and send what was published during a loss
//! of the connection once it is back.

mod address;
mod connection;
mod history;
mod jetstream;
mod link;
mod message;
mod presence;
mod protocol;
mod stream;
mod transport;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bowline_hub::bowline::Message;
use bowline_hub::{Engine, EngineError, HistoryPage, Inbox, Lease, NodeId, Position, Present, Topic};

use crate::address::Addresses;
use crate::connection::Connection;
use crate::link::Link;
use crate::presence::Presence;
use crate::stream::Stream;

/// Connects to NATS, and returns the engine of a hub. Several servers of a cluster are separated by commas,
/// and the engine begins with any of them: see [URLs](crate#urls).
///
/// # Errors
///
/// Returns an error if the URL is invalid, or no server is in reach. A program that may start before its
/// NATS calls the function again. Once connected, the engine connects again by itself.
///
/// # Cancel safety
///
/// This function is cancel safe. A dropped future closes its connection.
pub async fn connect(url: &str) -> Result<Nats, EngineError> {
    let mut addresses = Addresses::parse(url)?;
    addresses.shuffle()?;
    let connection = connection::connect(&addresses, 0).await?;
    connection.server.add_to(&mut addresses.servers);
    let link = LinkState::Unstarted(Box::new((connection, addresses)));
    Ok(Nats { link, stream: Stream::default(), presence: Arc::default() })
}

/// An engine on NATS. [`connect`] returns one.
pub struct Nats {
    link: LinkState,
    stream: Stream,
    presence: Arc<Presence>,
}

/// The connection.
///
/// ```text
///   Unstarted --start--> Running
///       |
///       v  a failed start
///     Ended
/// ```
enum LinkState {
    Unstarted(Box<(Connection, Addresses)>),
    Running(Arc<Link>),
    Ended,
}

impl Nats {
    fn link(&self) -> Result<&Link, EngineError> {
        match &self.link {
            LinkState::Running(link) => Ok(link),
            LinkState::Unstarted(_) | LinkState::Ended => {
                Err(EngineError::new("the engine was not started by a hub"))
            }
        }
    }
}

impl Engine for Nats {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        match std::mem::replace(&mut self.link, LinkState::Ended) {
            LinkState::Unstarted(first) => {
                let link = Arc::new(Link::start(first.0, first.1, inbox)?);
                self.stream.start(&link);
                self.presence.start(&link);
                self.link = LinkState::Running(link);
                Ok(())
            }
            running => {
                self.link = running;
                Err(EngineError::new("the engine was started before"))
            }
        }
    }

    async fn publish(&self, topic: &Topic, message: Message, tag: u64) -> Result<Position, EngineError> {
        let link = self.link()?;
        if topic.retention().is_some() {
            return self.stream.append(link, topic, &message, tag, None).await;
        }
        let subject = wire::subject(wire::LIVE, topic.name());
        let header = wire::header(&message, tag);
        link.publish(&subject, &[(wire::HEADER, &header)], message.as_bytes()).await?;
        Ok(Position::UNTRACKED)
    }

    async fn publish_once(
        &self,
        topic: &Topic,
        key: &str,
        message: Message,
        tag: u64,
    ) -> Result<Position, EngineError> {
        self.stream.append(self.link()?, topic, &message, tag, Some(key)).await
    }

    async fn want(&self, topic: &Topic) -> Result<(), EngineError> {
        self.link()?.want(topic).await
    }

    async fn unwant(&self, topic: &Topic) -> Result<(), EngineError> {
        self.link()?.unwant(topic).await
    }

    async fn history(&self, topic: &Topic, after: u64, limit: usize) -> Result<HistoryPage, EngineError> {
        history::page(&self.stream, self.link()?, topic, after, limit).await
    }

    async fn before_last(&self, topic: &Topic, count: u64) -> Result<Position, EngineError> {
        history::before_last(&self.stream, self.link()?, topic, count).await
    }

    async fn begin(&self, node: NodeId, time: Duration) -> Result<(), EngineError> {
        self.presence.begin(self.link()?, node, time).await
    }

    async fn renew(&self, node: NodeId, time: Duration) -> Result<Lease, EngineError> {
        self.presence.renew(self.link()?, node, time).await
    }

    async fn enter(&self, topic: &Topic, node: NodeId, present: &Present) -> Result<Lease, EngineError> {
        self.presence.enter(self.link()?, topic, node, present).await
    }

    async fn exit(&self, topic: &Topic, node: NodeId, key: &str) -> Result<(), EngineError> {
        self.presence.exit(self.link()?, topic, node, key).await
    }

    async fn present(&self, topic: &Topic) -> Result<Vec<Present>, EngineError> {
        self.presence.present(self.link()?, topic).await
    }

    async fn count(&self, topic: &Topic) -> Result<usize, EngineError> {
        Ok(self.present(topic).await?.len())
    }

    async fn reap(&self, caller: NodeId) -> Result<usize, EngineError> {
        self.presence.reap(self.link()?, caller).await
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").finish_non_exhaustive()
    }
}

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
