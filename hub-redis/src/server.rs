//! One Redis: its address, the connection for commands, and the task that keeps both connections.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline_hub::{EngineError, Topic};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError, RedisResult,
    ServerErrorKind, Value,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::feed::{Ending, Feed};

/// The time within which a connection must be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The time within which subscriptions and pings must be answered.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// The key that says which of several servers this one is.
const PLACE_KEY: &str = "bowline:place";

/// The address of a server, and its place among all servers of the hub.
#[derive(Clone)]
pub(crate) struct Place {
    client: Client,
    /// Host and port, or the path of a socket.
    pub(crate) address: String,
    /// The beginning of all channels. Channels belong to all databases of a server.
    pub(crate) channels: String,
    /// Such as `2/8`.
    order: String,
}

impl Place {
    pub(crate) fn new(url: &str, index: usize, count: usize) -> Result<Self, EngineError> {
        check_tls(url)?;
        let info = url.into_connection_info().map_err(EngineError::new)?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let channels = match settings.db() {
            0 => "bowline:".to_owned(),
            database => format!("bowline@{database}:"),
        };
        let address = info.addr().to_string();
        let client = Client::open(info.set_redis_settings(settings)).map_err(EngineError::new)?;
        Ok(Self { client, address, channels, order: format!("{}/{count}", index + 1) })
    }

    /// Returns the channel of a topic.
    pub(crate) fn channel(&self, topic: &Topic) -> String {
        format!("{}{}", self.channels, topic.name())
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (&self.address, &self.channels) == (&other.address, &other.channels)
    }

    /// Makes both connections to the server, and ends the former connection for commands. The network may
    /// still hold commands whose calls were given up, and they must not undo later ones.
    ///
    /// # Errors
    ///
    /// Returns an error if the server is out of reach, or if other nodes know it at another place.
    pub(crate) async fn connect(
        &self,
        feed: &Arc<Feed>,
        former: Option<&Identity>,
    ) -> Result<Connections, ConnectError> {
        let (ender, ending) = mpsc::unbounded_channel();
        let receiving = self.connection(Some(PATIENCE), feed, &ender);
        let (receiving, mut commands) = tokio::try_join!(receiving, self.connection(None, feed, &ender))?;
        let checks = async {
            self.check_order(&mut commands).await?;
            check_writing(&mut commands).await?;
            let identity = Identity::of(&mut commands).await?;
            identity.end(former, &mut commands).await?;
            Ok(identity)
        };
        let identity = timeout(PATIENCE, checks).await.unwrap_or(Err(ConnectError::Silent))?;
        Ok(Connections { receiving, commands, identity: Arc::new(identity), ending })
    }

    /// Compares the place of the server with that which other nodes know. The first node notes it.
    async fn check_order(&self, commands: &mut MultiplexedConnection) -> Result<(), ConnectError> {
        let mut get = redis::cmd("MGET");
        // A cluster refuses commands about several keys, as all scripts are.
        get.arg(PLACE_KEY).arg("bowline:");
        let (mut found, _): (Option<String>, Value) = get.query_async(commands).await?;
        if found.is_none() {
            let mut set = redis::cmd("SET");
            match set.arg(PLACE_KEY).arg(&self.order).arg("NX").exec_async(commands).await {
                // Another node will note it.
                Err(error) if lacks_resources(&error) => return Ok(()),
                outcome => outcome?,
            }
            (found, _) = get.query_async::<(Option<String>, Value)>(commands).await?;
        }
        match found {
            Some(found) if found != self.order => {
                Err(ConnectError::Misplaced { expected: self.order.clone(), found })
            }
            _ => Ok(()),
        }
    }

    async fn connection(
        &self,
        timeout: Option<Duration>,
        feed: &Arc<Feed>,
        ender: &mpsc::UnboundedSender<()>,
    ) -> RedisResult<MultiplexedConnection> {
        let (feed, ender) = (Arc::clone(feed), ender.clone());
        let accept = move |push| {
            feed.accept(push, &ender);
            Ok::<(), ()>(())
        };
        let config = AsyncConnectionConfig::new()
            .set_push_sender(accept)
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(timeout);
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }
}

/// Checks that the server answers, and is no replica: a primary that has become a replica of another server
/// refuses commands that write.
pub(crate) async fn check_writing(commands: &mut MultiplexedConnection) -> RedisResult<()> {
    let mut write = redis::cmd("PERSIST");
    // Changes nothing.
    match write.arg(PLACE_KEY).exec_async(commands).await {
        Err(error) if lacks_resources(&error) || is_refusal(error.kind()) => Ok(()),
        outcome => outcome,
    }
}

fn is_refusal(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::Server(refusal) if refusal != ServerErrorKind::ReadOnly)
}

/// Returns `true` for the errors of a server that is full (OOM), that can't save (MISCONF), or whose replicas
/// are away (NOREPLICAS). It still publishes messages without history. The crate `redis` has no names for
/// these errors.
fn lacks_resources(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Extension
}

/// The two connections to a server.
pub(crate) struct Connections {
    /// Receives the messages of topics.
    pub(crate) receiving: MultiplexedConnection,
    pub(crate) commands: MultiplexedConnection,
    /// The identity of the connection for commands.
    pub(crate) identity: Arc<Identity>,
    /// The end of either.
    pub(crate) ending: Ending,
}

/// The name that a server has for a connection.
pub(crate) struct Identity {
    /// The run of the server. Another run counts its connections anew.
    run: String,
    number: i64,
}

impl Identity {
    async fn of(commands: &mut MultiplexedConnection) -> RedisResult<Self> {
        let mut both = redis::pipe();
        both.cmd("CLIENT").arg("ID").cmd("INFO").arg("server");
        let (number, info): (i64, String) = both.query_async(commands).await?;
        let run = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        Ok(Self { run: run.unwrap_or_default().to_owned(), number })
    }

    /// Ends the former connection, over one with this identity.
    async fn end(&self, former: Option<&Self>, commands: &mut MultiplexedConnection) -> RedisResult<()> {
        let number = former.filter(|former| former.run == self.run).map(|former| former.number);
        let mut kill = redis::cmd("CLIENT");
        // No connection has the largest number. A missing permission shows at the start of the program.
        kill.arg("KILL").arg("ID").arg(number.unwrap_or(i64::MAX)).exec_async(commands).await
    }
}

/// The reason for which there are no connections.
#[derive(Debug)]
pub(crate) enum ConnectError {
    Redis(RedisError),
    /// The server is part of a Redis Cluster.
    Cluster,
    /// The server does not answer.
    Silent,
    /// Other nodes have other servers, or the same in another order. Their messages would go astray.
    Misplaced {
        expected: String,
        found: String,
    },
}

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        use ServerErrorKind::{ClusterDown, CrossSlot, Moved};
        match error.kind() {
            ErrorKind::Server(CrossSlot | Moved | ClusterDown) => Self::Cluster,
            _ => Self::Redis(error),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(error) => error.fmt(f),
            Self::Cluster => f.write_str(
                "Redis Cluster is not supported (use connect_sharded, with servers that form no cluster)",
            ),
            Self::Silent => write!(f, "no answer within {PATIENCE:?}"),
            Self::Misplaced { expected, found } => write!(
                f,
                "the server is number {expected} here and {found} for other nodes: all nodes need the same \
                 servers in the same order (to change them, stop all nodes and delete the key {PLACE_KEY})"
            ),
        }
    }
}

/// The answer to a request.
pub(crate) type Reply = oneshot::Sender<Result<(), EngineError>>;

/// The wish to receive a topic, or no longer.
pub(crate) enum Request {
    Want(Topic, Reply),
    Unwant(Topic, Reply),
}

/// A handle on the task of a server.
pub(crate) struct Server {
    pub(crate) place: Place,
    pub(crate) link: Arc<Link>,
    requests: mpsc::UnboundedSender<Request>,
}

impl Server {
    /// Creates a handle, and the receiver of its requests.
    pub(crate) fn new(
        place: Place,
        commands: MultiplexedConnection,
    ) -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (requests, receiver) = mpsc::unbounded_channel();
        let link = Arc::new(Link(Mutex::new(State::Up(commands))));
        (Self { place, link, requests }, receiver)
    }

    /// Returns the connection for commands.
    ///
    /// # Errors
    ///
    /// Returns an error if the server is out of reach. Nothing waits for it.
    pub(crate) fn commands(&self) -> Result<MultiplexedConnection, EngineError> {
        match &*self.link.state() {
            State::Up(connection) => Ok(connection.clone()),
            State::Down(reason) => Err(out_of_reach(&self.place.address, reason)),
        }
    }

    /// Returns the channel of a topic.
    pub(crate) fn channel(&self, topic: &Topic) -> String {
        self.place.channel(topic)
    }

    /// Returns an error of the server, with its address.
    pub(crate) fn failed(&self, error: &RedisError) -> EngineError {
        EngineError::new(format!("Redis at {}: {error}", self.place.address))
    }

    /// Sends a request to the task, and waits for the answer.
    pub(crate) async fn request(&self, request: impl FnOnce(Reply) -> Request) -> Result<(), EngineError> {
        let ended = || EngineError::new("the engine was not started, or its runtime has ended");
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

/// The connection for commands, shared by the task of a server and all calls.
///
/// ```text
///   Up --lost--> Down --connected again, topics subscribed--> Up
/// ```
pub(crate) struct Link(Mutex<State>);

enum State {
    Up(MultiplexedConnection),
    /// With the reason.
    Down(String),
}

impl Link {
    pub(crate) fn up(&self, commands: MultiplexedConnection) {
        self.change(State::Up(commands));
    }

    pub(crate) fn down(&self, reason: &str) {
        self.change(State::Down(reason.to_owned()));
    }

    fn change(&self, state: State) {
        // The connection before is dropped after the lock.
        let _before = std::mem::replace(&mut *self.state(), state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without this look, rustls panics.
#[cfg(feature = "tls")]
fn check_tls(url: &str) -> Result<(), EngineError> {
    if asks_for_tls(url) && rustls::crypto::CryptoProvider::get_default().is_none() {
        return Err(EngineError::new(
            "rediss:// needs a provider of cryptography: install one, for example by \
             rustls::crypto::ring::default_provider().install_default()",
        ));
    }
    Ok(())
}

/// The error of the crate `redis` does not name the feature of this crate.
#[cfg(not(feature = "tls"))]
fn check_tls(url: &str) -> Result<(), EngineError> {
    if asks_for_tls(url) {
        return Err(EngineError::new("rediss:// needs the feature `tls` of bowline-hub-redis"));
    }
    Ok(())
}

fn asks_for_tls(url: &str) -> bool {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    ["rediss", "valkeys"].iter().any(|secure| scheme.eq_ignore_ascii_case(secure))
}

/// Returns the error for calls while a server is away.
pub(crate) fn out_of_reach(address: &str, reason: &str) -> EngineError {
    EngineError::new(format!("Redis at {address} is out of reach: {reason}"))
}
