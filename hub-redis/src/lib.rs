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
//!
//! # Keys
//!
//! Channels are named `bowline:` and the name of the topic. A history has keys with the same beginning: a
//! hash that ends in `:head`, and a stream that ends in `:messages`. The stream expires when no message was
//! published for the age of [`Rule::history`](bowline_hub::Rule::history), so older messages stay only while
//! new ones arrive. The hash expires a week later. The keys of
//! [`Hub::publish_once`](bowline_hub::Hub::publish_once) are in a hash that ends in `:keys`, and a list in
//! `:order`.
//!
//! Redis 6 or newer is required. Redis Cluster is not supported.

mod subscriptions;
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use bowline_hub::bowline::Message;
use bowline_hub::{Engine, EngineError, HistoryPage, Inbox, Position, Retention, Topic};
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{Client, IntoConnectionInfo, ProtocolVersion, PushInfo, Script};
use tokio::sync::{mpsc, oneshot};

use crate::subscriptions::{Request, Subscriptions};

/// The beginning of all channels and keys.
const PREFIX: &str = "bowline:";

/// The error for a topic without history.
const NO_HISTORY: &str = "the topic has no history";

/// The time for which Redis keeps the head of a history longer than its messages.
const HEAD_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The largest offset with which Lua calculates exactly.
const MAX_OFFSET: u64 = 1 << 53;

/// Connects to Redis, and returns the engine of a hub. The URL is one of the crate `redis`, such as
/// `redis://:password@host:6379/0`.
///
/// # Errors
///
/// Returns an error if the URL is invalid, or Redis is out of reach.
///
/// # Cancel safety
///
/// This function is cancel safe. A dropped future closes its connections.
pub async fn connect(url: &str) -> Result<Redis, EngineError> {
    let info = url.into_connection_info().map_err(EngineError::new)?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let client = Client::open(info.set_redis_settings(settings)).map_err(EngineError::new)?;
    let receiving = subscriptions::connect(&client).await.map_err(EngineError::new)?;
    // The hub bounds each call.
    let config =
        ConnectionManagerConfig::new().set_response_timeout(None).set_max_delay(Duration::from_secs(1));
    let commands =
        ConnectionManager::new_with_config(client.clone(), config).await.map_err(EngineError::new)?;
    Ok(Redis {
        client,
        commands,
        publish: Script::new(include_str!("publish.lua")),
        history: Script::new(include_str!("history.lua")),
        receiving: Receiving::Unstarted(Box::new(receiving)),
    })
}

/// An engine on Redis. [`connect`] returns one.
pub struct Redis {
    client: Client,
    commands: ConnectionManager,
    publish: Script,
    history: Script,
    receiving: Receiving,
}

/// The connection that receives messages.
///
/// ```text
///   Unstarted --start--> Running
///       |
///       v  a failed start
///     Ended
/// ```
enum Receiving {
    Unstarted(Box<(MultiplexedConnection, mpsc::UnboundedReceiver<PushInfo>)>),
    Running(mpsc::UnboundedSender<Request>),
    Ended,
}

impl Redis {
    async fn request(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<(), EngineError>>) -> Request,
    ) -> Result<(), EngineError> {
        let ended = || EngineError::new("the connection of the engine has ended");
        let Receiving::Running(requests) = &self.receiving else { return Err(ended()) };
        let (reply, answer) = oneshot::channel();
        requests.send(request(reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Appends a message to a history. An empty key is none.
    async fn append(
        &self,
        topic: &Topic,
        retention: Retention,
        once: &str,
        message: &Message,
        tag: u64,
    ) -> Result<Position, EngineError> {
        let mut script = self.publish.prepare_invoke();
        for part in ["head", "messages", "keys", "order"] {
            script.key(key(topic, part));
        }
        script
            .arg(format!("{PREFIX}{}", topic.name()))
            .arg(&[wire::kind(message)][..])
            .arg(&tag.to_be_bytes()[..])
            .arg(&Position::begin().epoch().to_be_bytes()[..])
            .arg(retention.count)
            .arg(milliseconds(retention.age))
            .arg(head_age(retention))
            .arg(message.as_bytes());
        if !once.is_empty() {
            script.arg(once).arg(retention.key_count()).arg(milliseconds(retention.key_age()));
        }
        let (epoch, offset, tag): (Vec<u8>, u64, Vec<u8>) =
            script.invoke_async(&mut self.commands.clone()).await.map_err(EngineError::new)?;
        Ok(Position::new(number(&epoch)?, offset, number(&tag)?))
    }
}

impl Engine for Redis {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        let Receiving::Unstarted(first) = std::mem::replace(&mut self.receiving, Receiving::Ended) else {
            return Err(EngineError::new("the engine was started before"));
        };
        let (sender, requests) = mpsc::unbounded_channel();
        let (client, prefix, wanted) = (self.client.clone(), PREFIX.to_owned(), HashMap::new());
        tokio::spawn(Subscriptions { client, prefix, inbox, requests, wanted }.run(*first));
        self.receiving = Receiving::Running(sender);
        Ok(())
    }

    async fn publish(&self, topic: &Topic, message: Message, tag: u64) -> Result<Position, EngineError> {
        let Some(retention) = topic.retention() else {
            let mut commands = self.commands.clone();
            let channel = format!("{PREFIX}{}", topic.name());
            let mut command = redis::cmd("PUBLISH");
            command.arg(channel).arg(wire::encode_untracked(&message));
            command.exec_async(&mut commands).await.map_err(EngineError::new)?;
            return Ok(Position::UNTRACKED);
        };
        self.append(topic, retention, "", &message, tag).await
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
        self.request(|reply| Request::Want(topic.clone(), reply)).await
    }

    async fn unwant(&self, topic: &Topic) -> Result<(), EngineError> {
        self.request(|reply| Request::Unwant(topic.clone(), reply)).await
    }

    async fn history(&self, topic: &Topic, after: u64, limit: usize) -> Result<HistoryPage, EngineError> {
        let retention = topic.retention().ok_or_else(|| EngineError::new(NO_HISTORY))?;
        let mut commands = self.commands.clone();
        let mut script = self.history.prepare_invoke();
        script
            .key(key(topic, "head"))
            .key(key(topic, "messages"))
            .key(key(topic, "keys"))
            .key(key(topic, "order"))
            .arg(&Position::begin().epoch().to_be_bytes()[..])
            // No history has got as far, so a larger offset has the same answer.
            .arg(after.min(MAX_OFFSET))
            .arg(limit)
            .arg(head_age(retention));
        let (epoch, offset, tag, anchor, messages): Page =
            script.invoke_async(&mut commands).await.map_err(EngineError::new)?;
        let entries = messages.into_iter().map(wire::decode).collect::<Option<Vec<_>>>();
        Ok(HistoryPage {
            top: Position::new(number(&epoch)?, offset, number(&tag)?),
            anchor: wire::number(&anchor),
            entries: entries.ok_or_else(|| EngineError::new("the history contains foreign messages"))?,
        })
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

/// The answer of `history.lua`: epoch, offset and tag of the top, the tag at the start, and messages.
type Page = (Vec<u8>, u64, Vec<u8>, Vec<u8>, Vec<Vec<u8>>);

/// Returns the key of a part of a history.
fn key(topic: &Topic, part: &str) -> String {
    format!("{PREFIX}{}:{part}", topic.name())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn head_age(retention: Retention) -> u64 {
    milliseconds(retention.age + HEAD_AGE)
}

fn number(bytes: &[u8]) -> Result<u64, EngineError> {
    wire::number(bytes).ok_or_else(|| EngineError::new("the history in Redis is not one of a hub"))
}

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
