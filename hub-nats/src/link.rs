//! The connection of a node to NATS: deliveries, requests and their answers.
//!
//! A task owns the connection. After a loss, the task fails everything that waits for an answer, connects to
//! the next server, subscribes to all topics that are wanted, and tells the hub to look for what it missed.
//! Requests that arrive meanwhile are refused at once: nothing waits to be sent later.
//!
//! ```text
//!   Connected --lost--> connect to a server, subscribe to all --> Connected
//!                          ^                    | failed
//!                          +------- pause <-----+
//! ```
//!
//! The server handles the operations of a client in order. A `PONG` therefore confirms everything before its
//! `PING`, and one `PING` confirms all requests that came together.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bowline_hub::bowline::bytes::{Buf, BytesMut};
use bowline_hub::{Delivery, EngineError, Inbox, Position, Predecessor, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::address::Addresses;
use crate::connection::{Connection, READ, ServerInfo, connect};
use crate::protocol::{self, Incoming, ServerOp, parse};
use crate::wire;

/// The number of requests that are handled at once.
const BATCH: usize = 256;

/// The number of bytes that may wait for the server, beyond which requests are refused.
const MAX_OUTPUT: usize = 8 * 1024 * 1024;

/// The pause before another attempt to connect.
const PAUSE: Duration = Duration::from_millis(200);

/// The time for subscribing to all topics again.
const RESTORE: Duration = Duration::from_secs(30);

/// The time between two looks at the life of the connection.
const TICK: Duration = Duration::from_secs(1);

/// The headers of an operation, as pairs of names and values.
pub(crate) type HeaderList<'a> = &'a [(&'a str, &'a str)];

/// Receives the outcome of a request.
type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// A request to the task of the connection.
pub(crate) enum Request {
    /// Subscribes to a topic.
    Want(Topic, Reply<()>),
    /// Ceases to subscribe to a topic.
    Unwant(Topic, Reply<()>),
    /// Sends an operation, and waits until the server has handled it.
    Send(Vec<u8>, Reply<()>),
}

/// A handle of the task. The task ends when the handle is dropped.
pub(crate) struct Link {
    requests: mpsc::UnboundedSender<Request>,
    shared: Arc<Shared>,
}

/// The values that the handle and the task share.
struct Shared {
    /// The size of the largest message that the server accepts, in bytes.
    max_payload: AtomicUsize,
}

impl Link {
    /// Starts the task, with a first connection.
    pub(crate) fn start(connection: Connection, addresses: Addresses, inbox: Inbox) -> Self {
        let shared = Arc::new(Shared { max_payload: AtomicUsize::new(connection.server.max_payload) });
        let (sender, requests) = mpsc::unbounded_channel();
        let task = LinkTask {
            addresses,
            next_server: 1,
            inbox,
            requests,
            shared: Arc::clone(&shared),
            wanted: HashMap::new(),
            last_sid: 0,
            confirmations: VecDeque::new(),
            abandoned: Vec::new(),
            output: BytesMut::new(),
            life: Life::Heard,
        };
        tokio::spawn(task.run(connection));
        Self { requests: sender, shared }
    }

    pub(crate) async fn want(&self, topic: &Topic) -> Result<(), EngineError> {
        self.request(|reply| Request::Want(topic.clone(), reply)).await
    }

    pub(crate) async fn unwant(&self, topic: &Topic) -> Result<(), EngineError> {
        self.request(|reply| Request::Unwant(topic.clone(), reply)).await
    }

    /// Publishes a message, and returns once the server has it.
    pub(crate) async fn publish(
        &self,
        subject: &str,
        headers: HeaderList<'_>,
        payload: &[u8],
    ) -> Result<(), EngineError> {
        let operation = self.encode(subject, "", headers, payload)?;
        self.request(|reply| Request::Send(operation, reply)).await
    }

    fn encode(
        &self,
        subject: &str,
        reply: &str,
        headers: HeaderList<'_>,
        payload: &[u8],
    ) -> Result<Vec<u8>, EngineError> {
        let head = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>() + 12;
        let (size, most) = (head + payload.len(), self.shared.max_payload.load(Ordering::Relaxed));
        if size > most {
            // The server would end the connection.
            let text = format!(
                "the message has {size} bytes with its headers, more than {most} (max_payload of the server)"
            );
            return Err(EngineError::new(text));
        }
        let mut operation = Vec::with_capacity(size + subject.len() + reply.len() + 32);
        protocol::publish(&mut operation, subject, reply, headers, payload);
        Ok(operation)
    }

    async fn request<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, EngineError> {
        let ended = || EngineError::new("the connection of the engine has ended");
        let (reply, outcome) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| ended())?;
        outcome.await.map_err(|_| ended())?
    }
}

/// The task of the connection.
struct LinkTask {
    addresses: Addresses,
    /// The server to which the task connects next.
    next_server: usize,
    inbox: Inbox,
    requests: mpsc::UnboundedReceiver<Request>,
    shared: Arc<Shared>,
    /// The topics, with the numbers of their subscriptions.
    wanted: HashMap<Topic, u64>,
    last_sid: u64,
    /// The requests that wait for a `PONG`: one entry for each `PING`.
    confirmations: VecDeque<Vec<Reply<()>>>,
    /// The subscriptions that were given up while the task subscribed to all topics.
    abandoned: Vec<u64>,
    /// The bytes that are to be written.
    output: BytesMut,
    life: Life,
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
enum Life {
    Heard,
    Silent,
    Pinged,
    Overdue,
}

/// The end of a connection.
enum End {
    /// The engine was dropped.
    Dropped,
    /// The connection was lost.
    Lost(String),
}

impl LinkTask {
    async fn run(mut self, first: Connection) {
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
        let Connection { mut stream, mut input, .. } = connection;
        let (mut reader, mut writer) = stream.split();
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

    /// Handles all operations that have arrived.
    fn handle_input(&mut self, input: &mut BytesMut) -> Result<(), String> {
        let mut used = 0;
        while let Some((op, size)) = parse(&input[used..]).map_err(|error| error.to_string())? {
            used += size;
            match op {
                ServerOp::Message(incoming) => self.receive(incoming),
                ServerOp::Ping => self.output.extend_from_slice(b"PONG\r\n"),
                ServerOp::Pong => self.confirm(),
                ServerOp::Info(json) => {
                    if let Some(info) = ServerInfo::again(json) {
                        self.learn(&info);
                    }
                }
                // A permission is missing: the connection stays.
                ServerOp::Error(reason)
                    if reason.to_ascii_lowercase().starts_with("permissions violation") =>
                {
                    self.refuse_unconfirmed(reason);
                }
                ServerOp::Error(reason) => {
                    return Err(format!("the server has ended the connection: {reason}"));
                }
                ServerOp::Other => {}
            }
        }
        input.advance(used);
        Ok(())
    }

    fn receive(&mut self, incoming: Incoming<'_>) {
        if let Some(token) = incoming.subject.strip_prefix(wire::LIVE) {
            self.deliver(token, incoming);
        }
    }

    fn deliver(&self, token: &str, incoming: Incoming<'_>) {
        let Some(name) = wire::topic(token) else { return };
        let Some((topic, _)) = self.wanted.get_key_value(name.as_str()) else { return };
        let Some(header) = incoming.headers.value(wire::HEADER) else { return };
        let Some((message, _)) = wire::decode(header, incoming.payload) else { return };
        let (topic, position) = (topic.clone(), Position::UNTRACKED);
        drop(self.inbox.deliver(Delivery { topic, position, previous: Predecessor::Tag(0), message }));
    }

    /// Handles a `PONG`.
    fn confirm(&mut self) {
        for reply in self.confirmations.pop_front().into_iter().flatten() {
            // A receiver that is gone has stopped waiting.
            let _ = reply.send(Ok(()));
        }
    }

    /// Refuses the requests before the next `PONG`, one of which was not permitted.
    fn refuse_unconfirmed(&mut self, reason: &str) {
        for reply in self.confirmations.front_mut().map(mem::take).into_iter().flatten() {
            let _ = reply.send(Err(EngineError::new(format!("the NATS server: {reason}"))));
        }
    }

    fn handle_requests(&mut self, requests: &mut Vec<Request>) {
        let mut unconfirmed = Vec::new();
        for request in requests.drain(..) {
            if self.output.len() > MAX_OUTPUT {
                self.refuse(request, "the NATS server takes no more data");
                continue;
            }
            match request {
                // Whoever asked has stopped waiting.
                Request::Want(_, reply) | Request::Send(_, reply) if reply.is_closed() => {}
                Request::Want(topic, reply) => {
                    self.last_sid += 1;
                    self.subscribe(self.last_sid, &wire::subject(wire::LIVE, topic.name()));
                    self.wanted.insert(topic, self.last_sid);
                    unconfirmed.push(reply);
                }
                Request::Unwant(topic, reply) => {
                    if let Some(sid) = self.wanted.remove(&topic) {
                        self.unsubscribe(sid);
                    }
                    unconfirmed.push(reply);
                }
                Request::Send(operation, reply) => {
                    self.output.extend_from_slice(&operation);
                    unconfirmed.push(reply);
                }
            }
        }
        if !unconfirmed.is_empty() {
            self.ping(unconfirmed);
        }
    }

    fn subscribe(&mut self, sid: u64, subject: &str) {
        self.output.extend_from_slice(format!("SUB {subject} {sid}\r\n").as_bytes());
    }

    fn unsubscribe(&mut self, sid: u64) {
        self.output.extend_from_slice(format!("UNSUB {sid}\r\n").as_bytes());
    }

    fn ping(&mut self, unconfirmed: Vec<Reply<()>>) {
        self.output.extend_from_slice(b"PING\r\n");
        self.confirmations.push_back(unconfirmed);
    }

    fn refuse(&mut self, request: Request, reason: &str) {
        let error = EngineError::new(reason);
        // A receiver that is gone has stopped waiting.
        match request {
            Request::Want(_, reply) | Request::Send(_, reply) => drop(reply.send(Err(error))),
            Request::Unwant(topic, reply) => {
                self.abandoned.extend(self.wanted.remove(&topic));
                drop(reply.send(Ok(())));
            }
        }
    }

    /// Looks after the connection.
    fn tick(&mut self) -> Result<(), String> {
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

    fn learn(&mut self, info: &ServerInfo) {
        info.add_to(&mut self.addresses.servers);
        self.shared.max_payload.store(info.max_payload, Ordering::Relaxed);
    }

    /// Fails everything that waits for an answer.
    fn lose(&mut self, reason: String) {
        let error = || EngineError::new(format!("the connection to NATS was lost: {reason}"));
        // A receiver that is gone has stopped waiting.
        for reply in mem::take(&mut self.confirmations).into_iter().flatten() {
            let _ = reply.send(Err(error()));
        }
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
                    self.life = Life::Heard;
                    return Some(connection);
                }
                Err(error) => reason = error.to_string(),
            }
            self.refuse_until(sleep(PAUSE), &reason).await?;
        }
    }

    /// Returns the operations that subscribe to everything.
    fn subscriptions(&self) -> Vec<u8> {
        let mut subscriptions = Vec::new();
        for (topic, sid) in &self.wanted {
            let subject = wire::subject(wire::LIVE, topic.name());
            subscriptions.extend_from_slice(format!("SUB {subject} {sid}\r\n").as_bytes());
        }
        subscriptions
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
