//! The task of a connection.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bowline_hub::bowline::bytes::{Buf, BytesMut};
use bowline_hub::{EngineError, Inbox, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt, split};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::address::Addresses;
use crate::connection::{Connection, READ, connect};
use crate::link::request::{Answer, Asked, Reply, Request};
use crate::link::shared::Shared;

/// The number of requests that are handled at once.
const BATCH: usize = 256;

/// The pause before another attempt to connect.
const PAUSE: Duration = Duration::from_millis(200);

/// The time for subscribing to all topics again.
const RESTORE: Duration = Duration::from_secs(30);

/// The time between two looks at the life of the connection.
const TICK: Duration = Duration::from_secs(1);

/// The shortest time between two looks at all topics. NATS may lose what a stream publishes again, and a lost
/// change of presence, or a lost last message of a history, shows only then.
const LOOK: Duration = Duration::from_secs(300);

/// The number of the subscription to answers.
pub(crate) const ANSWERS: u64 = 1;

/// The number of the subscription to the news of the first of two streams.
pub(crate) const ADVISORIES: u64 = 2;

/// The task of the connection.
pub(crate) struct LinkTask {
    pub(crate) addresses: Addresses,
    /// The server to which the task connects next.
    pub(crate) next_server: usize,
    pub(crate) inbox: Inbox,
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
    pub(crate) shared: Arc<Shared>,
    /// The topics, with the numbers of their subscriptions.
    pub(crate) wanted: HashMap<Topic, u64>,
    pub(crate) last_sid: u64,
    /// The number that the last delivery over this connection has in the stream.
    pub(crate) last_sequence: u64,
    /// The requests that wait for an answer.
    pub(crate) answers: HashMap<u64, Asked<Reply<Answer>>>,
    /// The requests that wait for many answers, by the numbers of their subscriptions.
    pub(crate) consumers: HashMap<u64, Asked<mpsc::UnboundedSender<Answer>>>,
    /// The reason why no answers arrive, if the user may not subscribe to them.
    pub(crate) deaf: Option<String>,
    /// The requests that wait for a `PONG`: one entry for each `PING`.
    pub(crate) confirmations: VecDeque<Vec<Reply<()>>>,
    /// The subscriptions that were given up while the task subscribed to all topics.
    pub(crate) abandoned: Vec<u64>,
    /// The bytes that are to be written.
    pub(crate) output: BytesMut,
    pub(crate) life: Life,
    /// The time of the next look at all topics.
    next_look: Instant,
}

/// The signs of life from the server. Each read leads back to `Heard`, and each tick to the next state.
///
/// ```text
///   Heard --> Silent --(PING)--> Pinged --> Overdue --> the connection is lost
/// ```
///
/// A process that was stopped wakes up with a tick, and with an answer that it has not read. `Overdue` leaves
/// the time for that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Heard,
    Silent,
    Pinged,
    Overdue,
}

/// Returns a time after a pause. Nodes that were started together look at different times.
fn look_after(pause: Duration) -> Instant {
    let jitter = getrandom::u32().map_or(0, |random| u64::from(random) % pause.as_secs().max(1));
    Instant::now() + pause + Duration::from_secs(jitter)
}

/// The end of a connection.
enum End {
    /// The engine was dropped.
    Dropped,
    /// The connection was lost.
    Lost(String),
}

impl LinkTask {
    pub(crate) fn new(
        addresses: Addresses,
        inbox: Inbox,
        requests: mpsc::UnboundedReceiver<Request>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            addresses,
            next_server: 1,
            inbox,
            requests,
            shared,
            wanted: HashMap::new(),
            last_sid: ADVISORIES + 1,
            last_sequence: 0,
            answers: HashMap::new(),
            consumers: HashMap::new(),
            deaf: None,
            confirmations: VecDeque::new(),
            abandoned: Vec::new(),
            output: BytesMut::new(),
            life: Life::Heard,
            next_look: look_after(LOOK),
        }
    }

    pub(crate) async fn run(mut self, first: Connection) {
        self.output.extend_from_slice(&self.subscriptions());
        let mut connection = first;
        loop {
            match self.serve(connection).await {
                End::Dropped => return,
                End::Lost(reason) => self.lose(reason),
            }
            let Some(again) = self.reconnect().await else { return };
            connection = again;
            self.inbox.reconnected();
        }
    }

    /// Serves a connection until it ends.
    async fn serve(&mut self, connection: Connection) -> End {
        let Connection { stream, mut input, .. } = connection;
        let (mut reader, mut writer) = split(stream);
        let mut requests = Vec::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(reason) = self.handle_input(&mut input) {
                return End::Lost(reason);
            }
            input.reserve(READ);
            tokio::select! {
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) => return End::Lost("the server has ended the connection".to_owned()),
                    Ok(_) => self.life = Life::Heard,
                    Err(error) => return End::Lost(error.to_string()),
                },
                written = writer.write_buf(&mut self.output), if self.output.has_remaining() => {
                    if let Err(error) = written {
                        return End::Lost(error.to_string());
                    }
                }
                count = self.requests.recv_many(&mut requests, BATCH) => {
                    if count == 0 {
                        return End::Dropped;
                    }
                    self.handle_requests(&mut requests);
                }
                _ = ticks.tick() => {
                    if let Err(reason) = self.tick() {
                        return End::Lost(reason);
                    }
                }
            }
        }
    }

    /// Looks after the connection, and forgets requests that nobody waits for.
    fn tick(&mut self) -> Result<(), String> {
        self.answers.retain(|_, asked| !asked.reply.is_closed());
        if self.next_look <= Instant::now() {
            self.next_look = look_after(LOOK);
            self.inbox.verify();
        }
        let consumers = self.consumers.iter().filter(|(_, asked)| asked.reply.is_closed());
        for sid in consumers.map(|(sid, _)| *sid).collect::<Vec<_>>() {
            self.consumers.remove(&sid);
            self.unsubscribe(sid);
        }
        self.life = match self.life {
            Life::Heard => Life::Silent,
            Life::Silent => {
                self.ping(Vec::new());
                Life::Pinged
            }
            Life::Pinged => Life::Overdue,
            Life::Overdue => return Err("the server did not answer a ping".to_owned()),
        };
        Ok(())
    }

    /// Looks at all topics next after a pause.
    pub(crate) fn look_next(&mut self, pause: Duration) {
        self.next_look = look_after(pause);
    }

    /// Fails everything that waits for an answer.
    fn lose(&mut self, reason: String) {
        let error = || EngineError::new(format!("the connection to NATS was lost: {reason}"));
        // A receiver that is gone has stopped waiting.
        for reply in mem::take(&mut self.confirmations).into_iter().flatten() {
            let _ = reply.send(Err(error()));
        }
        for (_, asked) in mem::take(&mut self.answers) {
            let _ = asked.reply.send(Err(error()));
        }
        // Their receivers see the end.
        self.consumers.clear();
        self.deaf = None;
        self.output = BytesMut::new();
        self.inbox.disconnected(reason);
    }

    /// Connects until a server accepts the client and all subscriptions. Returns `None` if the engine was
    /// dropped.
    async fn reconnect(&mut self) -> Option<Connection> {
        let mut reason = "the connection was lost".to_owned();
        loop {
            let subscriptions = self.subscriptions();
            self.abandoned.clear();
            let addresses = self.addresses.clone();
            let first = self.next_server;
            self.next_server = first.wrapping_add(1);
            let attempt = async {
                let mut connection = connect(&addresses, first).await?;
                let restored = timeout(RESTORE, connection.restore(&subscriptions)).await;
                restored.map_err(EngineError::new)??;
                Ok::<_, EngineError>(connection)
            };
            match self.refuse_until(attempt, &reason).await? {
                Ok(connection) => {
                    for sid in mem::take(&mut self.abandoned) {
                        self.unsubscribe(sid);
                    }
                    self.learn(&connection.server);
                    self.notice_change();
                    self.last_sequence = 0;
                    self.life = Life::Heard;
                    return Some(connection);
                }
                Err(error) => reason = error.to_string(),
            }
            self.refuse_until(sleep(PAUSE), &reason).await?;
        }
    }

    /// Waits, and refuses requests meanwhile. Returns `None` if the engine was dropped.
    async fn refuse_until<T>(&mut self, future: impl Future<Output = T>, reason: &str) -> Option<T> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return Some(output),
                request = self.requests.recv() => {
                    self.refuse(request?, &format!("NATS is out of reach: {reason}"));
                }
            }
        }
    }
}
