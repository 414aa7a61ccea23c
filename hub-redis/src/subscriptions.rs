//! The connection that receives the messages of topics.
//!
//! A task owns the connection. After a loss, the task connects again, subscribes to all topics that are
//! wanted, and tells the hub to look for what it missed.
//!
//! ```text
//!   Connected --lost--> Waiting --pause--> connect, subscribe to all --> Connected
//!                          ^                          | failed
//!                          +--------------------------+
//! ```

use std::collections::HashMap;
use std::time::Duration;

use bowline_hub::{Delivery, EngineError, Inbox, Topic};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, RedisResult, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::wire::decode;

/// The number of requests, or of channels, in one command.
const BATCH: usize = 256;

/// The pause before another attempt to connect.
const PAUSE: Duration = Duration::from_millis(200);

/// The time between two pings.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// The time within which a ping must be answered.
const PATIENCE: Duration = Duration::from_secs(2);

/// The wish to receive a topic, or no longer.
pub(crate) enum Request {
    Want(Topic, oneshot::Sender<Result<(), EngineError>>),
    Unwant(Topic, oneshot::Sender<Result<(), EngineError>>),
}

/// The task of the connection.
pub(crate) struct Subscriptions {
    pub(crate) client: Client,
    pub(crate) prefix: String,
    pub(crate) inbox: Inbox,
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
    pub(crate) wanted: HashMap<String, Topic>,
}

/// The end of a connection.
enum End {
    /// The engine was dropped.
    Dropped,
    /// The connection was lost.
    Lost(String),
}

type Pushes = mpsc::UnboundedReceiver<PushInfo>;

impl Subscriptions {
    /// Receives until the engine is dropped, with a first connection.
    pub(crate) async fn run(mut self, first: (MultiplexedConnection, Pushes)) {
        let mut connected = first;
        loop {
            match self.receive(connected).await {
                End::Dropped => return,
                End::Lost(reason) => self.inbox.disconnected(reason),
            }
            loop {
                match self.reconnect().await {
                    Ok(again) => {
                        connected = again;
                        break;
                    }
                    Err(error) if !self.wait(&error.to_string()).await => return,
                    Err(_) => {}
                }
            }
            self.inbox.reconnected();
        }
    }

    async fn receive(&mut self, (mut connection, mut pushes): (MultiplexedConnection, Pushes)) -> End {
        let mut requests = Vec::new();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                push = pushes.recv() => match push {
                    Some(PushInfo { kind: PushKind::Message, data }) => self.deliver(data),
                    Some(PushInfo { kind: PushKind::Disconnection, .. }) | None => {
                        return End::Lost("the connection to Redis was lost".to_owned());
                    }
                    Some(_) => {}
                },
                // A server that is cut off says nothing, as a server without news does.
                _ = heartbeat.tick() => {
                    let ping = redis::cmd("PING");
                    if !matches!(timeout(PATIENCE, ping.exec_async(&mut connection)).await, Ok(Ok(()))) {
                        return End::Lost("Redis did not answer a ping".to_owned());
                    }
                }
                count = self.requests.recv_many(&mut requests, BATCH) => {
                    if count == 0 {
                        return End::Dropped;
                    }
                    self.answer(&mut connection, &mut requests).await;
                }
            }
        }
    }

    /// Answers requests with two commands. A hub never wants a topic while it ceases to want the same topic,
    /// so the order among the requests doesn't matter.
    async fn answer(&mut self, connection: &mut MultiplexedConnection, requests: &mut Vec<Request>) {
        let (mut wants, mut unwants) = (Vec::new(), Vec::new());
        for request in requests.drain(..) {
            match request {
                Request::Want(topic, reply) => wants.push((topic, reply)),
                Request::Unwant(topic, reply) => unwants.push((topic, reply)),
            }
        }
        if !unwants.is_empty() {
            let channels: Vec<_> = unwants.iter().map(|(topic, _)| self.channel(topic)).collect();
            let outcome = connection.unsubscribe(channels).await;
            for (topic, reply) in unwants {
                self.wanted.remove(topic.name());
                answer(reply, &outcome);
            }
        }
        if !wants.is_empty() {
            let channels: Vec<_> = wants.iter().map(|(topic, _)| self.channel(topic)).collect();
            let outcome = connection.subscribe(channels).await;
            for (topic, reply) in wants {
                if outcome.is_ok() {
                    self.wanted.insert(topic.name().to_owned(), topic);
                }
                answer(reply, &outcome);
            }
        }
    }

    fn deliver(&self, data: Vec<Value>) {
        let mut data = data.into_iter();
        let (Some(Value::BulkString(channel)), Some(Value::BulkString(message))) = (data.next(), data.next())
        else {
            return;
        };
        let Ok(channel) = String::from_utf8(channel) else { return };
        let Some(topic) = channel.strip_prefix(&self.prefix).and_then(|name| self.wanted.get(name)) else {
            return;
        };
        let Some(entry) = decode(message) else { return };
        let (position, previous, message) = (entry.position, entry.previous, entry.message);
        drop(self.inbox.deliver(Delivery { topic: topic.clone(), position, previous, message }));
    }

    async fn reconnect(&mut self) -> RedisResult<(MultiplexedConnection, Pushes)> {
        let (mut connection, pushes) = connect(&self.client).await?;
        let channels: Vec<_> = self.wanted.values().map(|topic| self.channel(topic)).collect();
        for channels in channels.chunks(BATCH) {
            connection.subscribe(channels).await?;
        }
        Ok((connection, pushes))
    }

    /// Waits before the next attempt, and refuses requests meanwhile. Returns `false` if the engine was
    /// dropped.
    async fn wait(&mut self, reason: &str) -> bool {
        let pause = sleep(PAUSE);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return true,
                request = self.requests.recv() => {
                    // A receiver that is gone has stopped waiting.
                    let _ = match request {
                        None => return false,
                        Some(Request::Want(_, reply)) => {
                            reply.send(Err(EngineError::new(format!("Redis is out of reach: {reason}"))))
                        }
                        Some(Request::Unwant(topic, reply)) => {
                            self.wanted.remove(topic.name());
                            reply.send(Ok(()))
                        }
                    };
                }
            }
        }
    }

    fn channel(&self, topic: &Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }
}

fn answer(reply: oneshot::Sender<Result<(), EngineError>>, outcome: &RedisResult<()>) {
    let outcome = match outcome {
        Ok(()) => Ok(()),
        Err(error) => Err(EngineError::new(error.clone())),
    };
    // A receiver that is gone has stopped waiting.
    let _ = reply.send(outcome);
}

/// Connects, with a receiver of everything that Redis pushes.
pub(crate) async fn connect(client: &Client) -> RedisResult<(MultiplexedConnection, Pushes)> {
    let (sender, pushes) = mpsc::unbounded_channel();
    let config = AsyncConnectionConfig::new().set_push_sender(sender);
    let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    Ok((connection, pushes))
}
