//! The task of a server: it keeps the connections, and subscribes to topics.
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

use bowline_hub::{EngineError, Inbox, Topic};
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisResult};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::feed::Feed;
use crate::renewal::Renewal;
use crate::server::{
    ConnectError, Connections, Identity, Link, PATIENCE, Place, Reply, Request, check_writing, out_of_reach,
};

/// The number of requests, or of channels, in one command.
const BATCH: usize = 256;

/// The pause before another attempt to connect.
const PAUSE: Duration = Duration::from_millis(200);

/// The time between two pings.
const HEARTBEAT: Duration = Duration::from_secs(3);

/// The task of a server.
pub(crate) struct Subscriptions {
    pub(crate) place: Place,
    pub(crate) link: Arc<Link>,
    pub(crate) standing: Standing,
    pub(crate) inbox: Inbox,
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
    pub(crate) feed: Arc<Feed>,
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
    /// Keeps connections until the engine is dropped, and begins with the first ones.
    pub(crate) async fn run(mut self, first: Connections) {
        let mut connected = first;
        loop {
            let former = Arc::clone(&connected.identity);
            let mut reason = match self.keep(connected).await {
                End::Dropped => return,
                End::Lost(reason) => reason,
            };
            self.link.down(&reason);
            self.tell_loss(&reason);
            loop {
                match self.reconnect(&former).await {
                    Ok(again) => {
                        self.link.up(again.commands.clone());
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
                self.inbox.part_reconnected(&*self.place.address, self.feed.all());
            }
        }
    }

    async fn keep(&mut self, connections: Connections) -> End {
        let Connections { mut receiving, mut commands, mut ending, .. } = connections;
        let mut requests = Vec::new();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ending.recv() => return End::Lost("the connection was lost".to_owned()),
                // A server that is cut off says nothing, as a server without news does.
                _ = heartbeat.tick() => {
                    if let Err(reason) = check(&mut receiving, &mut commands).await {
                        return End::Lost(reason);
                    }
                }
                () = self.renewal.due() => self.renewal.begin(commands.clone(), &self.feed.all()),
                count = self.requests.recv_many(&mut requests, BATCH) => {
                    if count == 0 {
                        return End::Dropped;
                    }
                    self.answer(&mut receiving, &mut requests).await;
                }
            }
        }
    }

    /// Answers requests with two commands. The last request about a topic counts.
    async fn answer(&mut self, connection: &mut MultiplexedConnection, requests: &mut Vec<Request>) {
        let (mut wants, mut unwants) = (Vec::new(), Vec::new());
        let mut later = HashSet::new();
        for request in requests.drain(..).rev() {
            match request {
                // A caller that has stopped waiting does not want the topic.
                Request::Want(_, reply) if reply.is_closed() => {}
                Request::Want(topic, reply) if later.insert(topic.clone()) => wants.push((topic, reply)),
                Request::Unwant(topic, reply) if later.insert(topic.clone()) => unwants.push((topic, reply)),
                // The hub has changed its mind since.
                Request::Want(_, reply) => {
                    let _ = reply.send(Err(EngineError::new("the topic is no longer wanted")));
                }
                Request::Unwant(_, reply) => {
                    let _ = reply.send(Ok(()));
                }
            }
        }
        if !unwants.is_empty() {
            let channels: Vec<_> = unwants.iter().map(|(topic, _)| self.place.channel(topic)).collect();
            let outcome = connection.unsubscribe(channels).await;
            for (topic, reply) in unwants {
                self.feed.unwant(&topic);
                answer(reply, &outcome);
            }
        }
        if !wants.is_empty() {
            self.subscribe(connection, wants).await;
        }
    }

    async fn subscribe(&self, connection: &mut MultiplexedConnection, wants: Vec<(Topic, Reply)>) {
        let channels: Vec<_> = wants.iter().map(|(topic, _)| self.place.channel(topic)).collect();
        // Before the first message of the topic can come.
        for (topic, _) in &wants {
            self.feed.want(topic.clone());
        }
        let together = connection.subscribe(&channels).await;
        let is_refused = together.as_ref().is_err_and(|error| matches!(error.kind(), ErrorKind::Server(_)));
        for ((topic, reply), channel) in wants.into_iter().zip(channels) {
            // An access control list refuses all channels of a command because of one.
            let outcome = if is_refused { connection.subscribe(channel).await } else { together.clone() };
            if outcome.is_err() {
                self.feed.unwant(&topic);
            }
            answer(reply, &outcome);
        }
    }

    async fn reconnect(&mut self, former: &Identity) -> Result<Connections, ConnectError> {
        let mut connections = self.place.connect(&self.feed, Some(former)).await?;
        let channels: Vec<_> = self.feed.all().iter().map(|topic| self.place.channel(topic)).collect();
        for channels in channels.chunks(BATCH) {
            connections.receiving.subscribe(channels).await?;
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
                            self.feed.unwant(&topic);
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
