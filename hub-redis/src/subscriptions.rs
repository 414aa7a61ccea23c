//! The task of a server: it keeps the connections, and receives the messages of topics.
//!
//! After a loss, the task connects again, subscribes to all topics that are wanted, and tells the hub to look
//! for what it missed. The loss of one connection ends both: a server that doesn't answer commands is of no
//! use, even if it still pushes messages.
//!
//! ```text
//!   Connected --lost--> Waiting --pause--> connect, subscribe to all --> Connected
//!                          ^                          | failed
//!                          +--------------------------+
//! ```

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bowline_hub::{Delivery, EngineError, Inbox, Predecessor, PresenceChange, Topic};
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisResult, Value};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::renewal::Renewal;
use crate::server::{
    ConnectError, Connections, Link, PATIENCE, Place, Reply, Request, check_writing, out_of_reach,
};
use crate::wire::{decode, decode_change};

/// The number of requests, or of channels, in one command.
const BATCH: usize = 256;

/// The pause before another attempt to connect.
const PAUSE: Duration = Duration::from_millis(200);

/// The reason for the loss of a connection.
const LOST: &str = "the connection was lost";

/// The time between two pings.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// The task of a server.
pub(crate) struct Subscriptions {
    pub(crate) place: Place,
    pub(crate) link: Arc<Link>,
    pub(crate) standing: Standing,
    pub(crate) inbox: Inbox,
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
    pub(crate) wanted: HashSet<Topic>,
    pub(crate) renewal: Renewal,
}

/// The part that a server plays in the hub.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// All topics are on this server.
    Sole,
    /// Some of the topics are on this server.
    OneOfSeveral,
}

/// The end of a connection.
enum End {
    /// The engine was dropped.
    Dropped,
    /// The connection was lost.
    Lost(String),
}

impl Subscriptions {
    /// Receives until the engine is dropped, with first connections.
    pub(crate) async fn run(mut self, first: Connections) {
        let mut connected = first;
        loop {
            let mut reason = match self.receive(connected).await {
                End::Dropped => return,
                End::Lost(reason) => reason,
            };
            self.link.down(&reason);
            self.tell_loss(&reason);
            loop {
                match self.reconnect().await {
                    Ok(again) => {
                        self.link.up(again.commands.0.clone());
                        connected = again;
                        break;
                    }
                    Err(error) => reason = error.to_string(),
                }
                self.link.down(&reason);
                if !self.wait(&reason).await {
                    return;
                }
            }
            self.tell_return();
        }
    }

    fn tell_loss(&self, reason: &str) {
        let reason = format!("Redis at {}: {reason}", self.place.address);
        match self.standing {
            Standing::Sole => self.inbox.disconnected(reason),
            Standing::OneOfSeveral => self.inbox.part_disconnected(&*self.place.address, reason),
        }
    }

    fn tell_return(&self) {
        match self.standing {
            Standing::Sole => self.inbox.reconnected(),
            Standing::OneOfSeveral => {
                self.inbox.part_reconnected(&*self.place.address, self.wanted.iter().cloned());
            }
        }
    }

    async fn receive(&mut self, connections: Connections) -> End {
        let (mut receiving, mut pushes) = connections.receiving;
        let (mut commands, mut command_pushes) = connections.commands;
        let mut requests = Vec::new();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                push = pushes.recv() => match push {
                    Some(PushInfo { kind: PushKind::Message, data }) => self.deliver(data),
                    Some(PushInfo { kind: PushKind::Disconnection, .. }) | None => {
                        return End::Lost(LOST.to_owned());
                    }
                    Some(_) => {}
                },
                push = command_pushes.recv() => {
                    if matches!(push, None | Some(PushInfo { kind: PushKind::Disconnection, .. })) {
                        return End::Lost(LOST.to_owned());
                    }
                }
                // A server that is cut off says nothing, as a server without news does.
                _ = heartbeat.tick() => {
                    if let Err(reason) = check(&mut receiving, &mut commands).await {
                        return End::Lost(reason);
                    }
                }
                () = self.renewal.due() => self.renewal.begin(commands.clone(), &self.wanted),
                count = self.requests.recv_many(&mut requests, BATCH) => {
                    if count == 0 {
                        return End::Dropped;
                    }
                    self.answer(&mut receiving, &mut requests).await;
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
            let channels: Vec<_> = unwants.iter().map(|(topic, _)| self.place.channel(topic)).collect();
            let outcome = connection.unsubscribe(channels).await;
            for (topic, reply) in unwants {
                self.wanted.remove(&topic);
                answer(reply, &outcome);
            }
        }
        if !wants.is_empty() {
            let channels: Vec<_> = wants.iter().map(|(topic, _)| self.place.channel(topic)).collect();
            let outcome = connection.subscribe(channels).await;
            for (topic, reply) in wants {
                if outcome.is_ok() {
                    self.wanted.insert(topic);
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
        let Ok(channel) = std::str::from_utf8(&channel) else { return };
        let name = channel.strip_prefix(&self.place.channels);
        let Some(topic) = name.and_then(|name| self.wanted.get(name)) else { return };
        if let Some((key, info)) = decode_change(&message) {
            drop(self.inbox.change(PresenceChange { topic: topic.clone(), key, info }));
            return;
        }
        let Some(entry) = decode(message) else { return };
        let (position, previous) = (entry.position, Predecessor::Tag(entry.previous));
        let message = entry.message;
        drop(self.inbox.deliver(Delivery { topic: topic.clone(), position, previous, message }));
    }

    async fn reconnect(&mut self) -> Result<Connections, ConnectError> {
        let mut connections = self.place.connect().await?;
        let channels: Vec<_> = self.wanted.iter().map(|topic| self.place.channel(topic)).collect();
        for channels in channels.chunks(BATCH) {
            connections.receiving.0.subscribe(channels).await?;
        }
        Ok(connections)
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
                            reply.send(Err(out_of_reach(&self.place.address, reason)))
                        }
                        Some(Request::Unwant(topic, reply)) => {
                            self.wanted.remove(&topic);
                            reply.send(Ok(()))
                        }
                    };
                }
            }
        }
    }
}

/// Checks that both connections answer, and that the server takes commands that write.
///
/// # Errors
///
/// Returns the reason for which the connections are of no use.
async fn check(
    receiving: &mut MultiplexedConnection,
    commands: &mut MultiplexedConnection,
) -> Result<(), String> {
    let ping = redis::cmd("PING");
    let both = async { tokio::try_join!(ping.exec_async(receiving), check_writing(commands)) };
    match timeout(PATIENCE, both).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer to a ping".to_owned()),
    }
}

fn answer(reply: Reply, outcome: &RedisResult<()>) {
    let outcome = match outcome {
        Ok(()) => Ok(()),
        Err(error) => Err(EngineError::new(error.clone())),
    };
    // A receiver that is gone has stopped waiting.
    let _ = reply.send(outcome);
}
