//! Redis as the broker of [`bowline_hub`]: the same topics on any number of machines.
//!
//! [`connect`] returns the engine for a [`Hub`](bowline_hub::Hub). Everything else is as with one machine:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use bowline_hub::{Hub, Rule};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::builder(bowline_hub_redis::connect("redis://127.0.0.1").await?)
//!     .rule("chat/", Rule::new().history(100, Duration::from_secs(300)))
//!     .build()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Failures
//!
//! - **Redis is away.** Members stay, and `publish` and `subscribe` fail. Once Redis is back, topics with
//!   history receive what they missed. A server that falls silent is noticed after at most five seconds.
//! - **Redis is back without its data, or with an older snapshot.** Members are told that messages are lost,
//!   as the tags of the messages don't match.
//! - **Presence.** The nodes enter their members again after each restart of Redis, in whatever state its
//!   data is. Entries of older data are gone when the leases of that data end.
//! - **A replica takes over.** Writes that had not reached the replica are lost, and members are told. The
//!   URL must name an address that follows the primary: a proxy, a service of the platform, or a DNS name.
//!   A node that finds itself at a replica looks again. The engine does not ask Redis Sentinel.
//!
//! # URLs
//!
//! | URL | server |
//! |---|---|
//! | `redis://host:6379` | without a password |
//! | `redis://:password@host` | with the password of the default user |
//! | `redis://user:password@host` | with a user of an access control list |
//! | `redis://host/3` | database 3; the hubs of two databases are strangers |
//! | `redis+unix:///run/redis.sock?db=3` | on the same machine |
//! | `rediss://host:6379` | with TLS 1.3, by the feature `tls` |
//!
//! The feature `tls` uses rustls with the roots of the operating system, and chooses no provider of
//! cryptography. The program installs one before it connects:
//! `rustls::crypto::ring::default_provider().install_default()`.
//!
//! A user of an access control list needs these permissions, with `bowline@3:` instead of `bowline:` for the
//! channels of database 3:
//!
//! ```text
//! ACL SETUSER hub on >password ~bowline:* &bowline:* +@pubsub +@connection +@scripting
//!     +mget +set +del +pexpire +persist +hget +hset +hdel +hmget +hincrby +xadd +xrange +rpush +lpop
//!     +hgetall +hlen +sadd +srem +spop +scard +zadd +zrem +zscore +zrangebyscore +time +info
//! ```
//!
//! # Several servers
//!
//! [`connect_sharded`] divides the topics among servers that know nothing of each other. Each node calculates
//! the server of a topic from its name, by a jump consistent hash, and has two connections to each server.
//! The failure of a server concerns its topics only, and [`HubEvent::PartDisconnected`] names its address.
//! [`Hub::is_healthy`] returns `true` while all servers are within reach.
//!
//! All nodes need the same servers in the same order. Each server remembers its place, and refuses nodes that
//! expect another. To change the servers, stop all nodes, and delete the key `bowline:place` on each server.
//! A server more at the end of the list takes over an equal share of the topics. Their histories begin anew.
//!
//! Redis Cluster is not supported, as it sends each message to all of its servers.
//!
//! [`HubEvent::PartDisconnected`]: bowline_hub::HubEvent::PartDisconnected
//! [`Hub::is_healthy`]: bowline_hub::Hub::is_healthy
//!
//! # Keys
//!
//! Channels are named `bowline:` and the name of the topic. A history has keys with the same beginning: a
//! hash that ends in `:head`, and a stream that ends in `:messages`. The stream expires when no message was
//! published for the age of [`Rule::history`](bowline_hub::Rule::history), so older messages stay only while
//! new ones arrive. The hash expires later: see [`Redis::keep_positions`]. The keys of
//! [`Hub::publish_once`](bowline_hub::Hub::publish_once) are in a hash that ends in `:keys`, and a list in
//! `:order`.
//!
//! All of these keys expire, so a Redis that is full must not evict them: `maxmemory-policy` is `noeviction`,
//! the default. With another policy, members are told of messages that were evicted, and
//! [`Hub::publish_once`](bowline_hub::Hub::publish_once) may store a message again. A policy such as
//! `allkeys-lru` also evicts keys that don't expire: people may be missing in a topic, and nobody is told.
//!
//! The people in a topic are in a hash that ends in `:present`. The leases of all nodes are in
//! `bowline:leases` and `bowline:runs`, and the entries of a node are in a set that begins with
//! `bowline:node:`. These keys last until the last entry is gone.
//!
//! Redis 6 or newer is required.

mod division;
mod feed;
mod keys;
mod presence;
mod renewal;
mod server;
mod subscriptions;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bowline_hub::bowline::Message;
use bowline_hub::{
    Engine, EngineError, HistoryPage, Inbox, Lease, NodeId, Position, Present, Retention, Topic,
};
use redis::Script;
use tokio::sync::mpsc;

use crate::division::server_of;
use crate::feed::Feed;
use crate::keys::milliseconds;
use crate::presence::Presence;
use crate::renewal::{Keep, Renewal};
use crate::server::{Connections, Place, Request, Server};
use crate::subscriptions::{Standing, Subscriptions};

/// The error for a topic without history.
const NO_HISTORY: &str = "the topic has no history";

/// The largest offset with which Lua calculates exactly.
const MAX_OFFSET: u64 = 1 << 53;

/// Connects to Redis, and returns the engine of a hub. The URL is one of the crate `redis`, such as
/// `redis://user:password@host:6379/0`: see [URLs](crate#urls).
///
/// # Errors
///
/// Returns an error if the URL is invalid, or Redis is out of reach. A program that may start before its
/// Redis calls the function again. Once connected, the engine connects again by itself.
///
/// # Cancel safety
///
/// This function is cancel safe. A dropped future closes its connections.
pub async fn connect(url: &str) -> Result<Redis, EngineError> {
    connect_sharded([url]).await
}

/// Connects to several servers, among which the topics are divided: see
/// [several servers](crate#several-servers).
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = bowline_hub_redis::connect_sharded(["redis://one", "redis://two", "redis://three"]).await?;
/// let hub = bowline_hub::Hub::builder(engine).build()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Returns an error if there is no URL, if a URL is invalid or occurs twice, if a server is out of reach, or
/// if other nodes use the servers in another order.
///
/// # Cancel safety
///
/// This function is cancel safe. A dropped future closes its connections.
pub async fn connect_sharded<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> Result<Redis, EngineError> {
    let urls: Vec<_> = urls.into_iter().collect();
    if urls.is_empty() {
        return Err(EngineError::new("connect_sharded needs the URL of a server"));
    }
    let place = |(index, url): (usize, &U)| Place::new(url.as_ref(), index, urls.len());
    let places = urls.iter().enumerate().map(place).collect::<Result<Vec<_>, _>>()?;
    for (index, place) in places.iter().enumerate() {
        if places[..index].iter().any(|other| other.is_same(place)) {
            return Err(EngineError::new(format!("the server {} is named twice", place.address)));
        }
    }
    let (mut servers, mut unstarted) = (Vec::new(), Vec::new());
    for place in places {
        let failed = |error| EngineError::new(format!("Redis at {}: {error}", place.address));
        let feed = Arc::new(Feed::new(place.channels.clone()));
        let connections = place.connect(&feed, None).await.map_err(failed)?;
        let (server, requests) = Server::new(place, connections.commands.clone());
        servers.push(server);
        unstarted.push(Unstarted { connections, feed, requests });
    }
    Ok(Redis {
        servers: servers.into(),
        keep: Keep::DEFAULT,
        publish: Script::new(include_str!("publish.lua")),
        history: Script::new(include_str!("history.lua")),
        presence: Presence::new(),
        unstarted,
    })
}

/// An engine on Redis. [`connect`] and [`connect_sharded`] return one.
pub struct Redis {
    servers: Box<[Server]>,
    keep: Keep,
    publish: Script,
    history: Script,
    presence: Presence,
    /// For each server, until the hub is built.
    unstarted: Vec<Unstarted>,
}

/// A server before the hub is built.
struct Unstarted {
    connections: Connections,
    feed: Arc<Feed>,
    requests: mpsc::UnboundedReceiver<Request>,
}

impl Redis {
    /// Sets the time for which Redis keeps the position of a topic with history, after the last message or
    /// the last member. Default: a week; positive, and at most 366 days.
    ///
    /// A client that comes back within this time, and within the age of the history on top, is not told of
    /// a loss if it has missed nothing. As long as a node has members in the topic, the time doesn't begin.
    /// Each topic takes about 150 bytes of Redis meanwhile. [`HubBuilder::build`] reports an invalid time.
    ///
    /// [`HubBuilder::build`]: bowline_hub::HubBuilder::build
    pub fn keep_positions(mut self, time: Duration) -> Self {
        self.keep = Keep(time);
        self
    }

    /// Returns the server of a topic.
    fn server(&self, topic: &Topic) -> &Server {
        &self.servers[server_of(topic.name(), self.servers.len())]
    }

    /// Appends a message to a history. An empty key is none.
    async fn append(
        &self,
        topic: &Topic,
        retention: Retention,
        key: &str,
        message: &Message,
        tag: u64,
    ) -> Result<Position, EngineError> {
        let server = self.server(topic);
        let mut script = self.publish.prepare_invoke();
        script
            .key(&keys::all(topic)[..])
            .arg(server.channel(topic))
            .arg(&[wire::kind(message)][..])
            .arg(&tag.to_be_bytes()[..])
            .arg(&Position::begin().epoch().to_be_bytes()[..])
            .arg(retention.count)
            .arg(milliseconds(retention.age))
            .arg(self.keep.head_age(retention))
            .arg(message.as_bytes());
        if !key.is_empty() {
            script.arg(key).arg(retention.key_count()).arg(milliseconds(retention.key_age()));
        }
        let answer = script.invoke_async(&mut server.commands()?).await;
        let (epoch, offset, tag): (Vec<u8>, u64, Vec<u8>) = answer.map_err(|error| server.failed(&error))?;
        Ok(Position::new(number(&epoch)?, offset, number(&tag)?))
    }
}

impl Engine for Redis {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        if self.keep.0.is_zero() || self.keep.0 > Keep::MAX {
            let text = format!(
                "the time in Redis::keep_positions is positive and at most 366 days, and not {:?}",
                self.keep.0
            );
            return Err(EngineError::new(text));
        }
        if self.unstarted.is_empty() {
            return Err(EngineError::new("the engine was started before"));
        }
        let standing = if self.servers.len() == 1 { Standing::Sole } else { Standing::OneOfSeveral };
        for (server, unstarted) in self.servers.iter().zip(self.unstarted.drain(..)) {
            let Unstarted { connections, feed, requests } = unstarted;
            feed.start(inbox.clone());
            let (place, link) = (server.place.clone(), server.link.clone());
            let (inbox, renewal) = (inbox.clone(), Renewal::new(self.keep));
            let task = Subscriptions { place, link, standing, inbox, requests, feed, renewal };
            tokio::spawn(task.run(connections));
        }
        Ok(())
    }

    async fn publish(&self, topic: &Topic, message: Message, tag: u64) -> Result<Position, EngineError> {
        if let Some(retention) = topic.retention() {
            return self.append(topic, retention, "", &message, tag).await;
        }
        let server = self.server(topic);
        let mut command = redis::cmd("PUBLISH");
        command.arg(server.channel(topic)).arg(wire::encode_untracked(&message));
        let published = command.exec_async(&mut server.commands()?).await;
        published.map_err(|error| server.failed(&error))?;
        Ok(Position::UNTRACKED)
    }

    async fn publish_once(
        &self,
        topic: &Topic,
        key: &str,
        message: Message,
        tag: u64,
    ) -> Result<Position, EngineError> {
        let retention = topic.retention().ok_or_else(|| EngineError::new(NO_HISTORY))?;
        self.append(topic, retention, key, &message, tag).await
    }

    async fn want(&self, topic: &Topic) -> Result<(), EngineError> {
        self.server(topic).request(|reply| Request::Want(topic.clone(), reply)).await
    }

    async fn unwant(&self, topic: &Topic) -> Result<(), EngineError> {
        self.server(topic).request(|reply| Request::Unwant(topic.clone(), reply)).await
    }

    async fn history(&self, topic: &Topic, after: u64, limit: usize) -> Result<HistoryPage, EngineError> {
        let retention = topic.retention().ok_or_else(|| EngineError::new(NO_HISTORY))?;
        let server = self.server(topic);
        let mut script = self.history.prepare_invoke();
        script
            .key(&keys::all(topic)[..])
            .arg(&Position::begin().epoch().to_be_bytes()[..])
            // No history has got as far, so a larger offset has the same answer.
            .arg(after.min(MAX_OFFSET))
            .arg(limit)
            .arg(self.keep.head_age(retention));
        let answer = script.invoke_async(&mut server.commands()?).await;
        let (epoch, offset, tag, anchor, messages): Page = answer.map_err(|error| server.failed(&error))?;
        let entries = messages.into_iter().map(wire::decode).collect::<Option<Vec<_>>>();
        Ok(HistoryPage {
            top: Position::new(number(&epoch)?, offset, number(&tag)?),
            anchor: wire::number(&anchor),
            newer: offset.saturating_sub(after),
            entries: entries.ok_or_else(|| EngineError::new("the history contains foreign messages"))?,
        })
    }

    async fn begin(&self, node: NodeId, time: Duration) -> Result<(), EngineError> {
        self.presence.begin(&self.servers, node, time).await
    }

    async fn renew(&self, node: NodeId, time: Duration) -> Result<Lease, EngineError> {
        self.presence.renew(&self.servers, node, time).await
    }

    async fn enter(&self, topic: &Topic, node: NodeId, present: &Present) -> Result<Lease, EngineError> {
        self.presence.enter(self.server(topic), topic, node, present).await
    }

    async fn exit(&self, topic: &Topic, node: NodeId, key: &str) -> Result<(), EngineError> {
        self.presence.exit(self.server(topic), topic, node, key).await
    }

    async fn present(&self, topic: &Topic) -> Result<Vec<Present>, EngineError> {
        presence::read(self.server(topic), topic).await
    }

    async fn count(&self, topic: &Topic) -> Result<usize, EngineError> {
        presence::count(self.server(topic), topic).await
    }

    async fn reap(&self, caller: NodeId) -> Result<usize, EngineError> {
        self.presence.reap(&self.servers, caller).await
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(|server| &server.place.address).collect();
        f.debug_struct("Redis").field("servers", &servers).finish_non_exhaustive()
    }
}

/// The answer of `history.lua`: epoch, offset and tag of the top, the tag at the start, and messages.
type Page = (Vec<u8>, u64, Vec<u8>, Vec<u8>, Vec<Vec<u8>>);

fn number(bytes: &[u8]) -> Result<u64, EngineError> {
    wire::number(bytes).ok_or_else(|| EngineError::new("the history in Redis is not one of a hub"))
}

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
