//! A connection to a server: dialing, and the greeting.
//!
//! ```text
//!   TCP --> INFO from the server --> TLS, if wanted --> CONNECT, PING --> PONG: the client is accepted
//!                                                                    \--> -ERR: the server says why not
//! ```

use std::io;
use std::time::Duration;

use bowline_hub::EngineError;
use bowline_hub::bowline::bytes::{Buf, BytesMut};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::address::{Addresses, NO_KEYS, Security};
use crate::protocol::{ServerOp, parse};
use crate::transport::{Transport, secure, server_name};

/// The time within which a server must accept a client.
const PATIENCE: Duration = Duration::from_secs(2);

/// The number of servers that are remembered.
const MAX_SERVERS: usize = 64;

/// The beginning of the subjects of answers.
pub(crate) const INBOX: &str = "_INBOX.";

/// The room that is made for the next read, in bytes.
pub(crate) const READ: usize = 16 * 1024;

/// A connection whose server has accepted the client.
pub(crate) struct Connection {
    pub(crate) stream: Transport,
    /// The bytes that are read and not yet parsed.
    pub(crate) input: BytesMut,
    pub(crate) server: ServerInfo,
}

/// The part of the server's greeting that matters.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerInfo {
    /// The size of the largest message with its headers, in bytes.
    pub(crate) max_payload: usize,
    /// `true` if the server belongs to a cluster.
    pub(crate) is_clustered: bool,
    /// The other servers of the cluster.
    pub(crate) others: Vec<String>,
}

impl ServerInfo {
    fn parse(json: &[u8]) -> Result<(Self, Value), EngineError> {
        let info: Value = serde_json::from_slice(json).map_err(EngineError::new)?;
        let others = info["connect_urls"].as_array().into_iter().flatten();
        let others = others.filter_map(|url| url.as_str().map(str::to_owned)).take(MAX_SERVERS).collect();
        let max_payload = info["max_payload"].as_u64().unwrap_or(1024 * 1024);
        let max_payload = usize::try_from(max_payload).unwrap_or(usize::MAX);
        let server = Self { max_payload, is_clustered: info["cluster"].is_string(), others };
        Ok((server, info))
    }

    /// Parses another greeting of the same server, which names the servers that it knows now.
    pub(crate) fn again(json: &[u8]) -> Option<Self> {
        Some(Self::parse(json).ok()?.0)
    }

    /// Adds the other servers to those that are known.
    pub(crate) fn add_to(&self, servers: &mut Vec<String>) {
        for other in &self.others {
            if servers.len() < MAX_SERVERS && !servers.contains(other) {
                servers.push(other.clone());
            }
        }
    }
}

/// Connects to the first server that accepts the client, beginning with `first`.
///
/// # Errors
///
/// Returns the error of each server.
pub(crate) async fn connect(addresses: &Addresses, first: usize) -> Result<Connection, EngineError> {
    let mut reasons = Vec::new();
    let count = addresses.servers.len();
    for server in (0..count).map(|number| &addresses.servers[(first + number) % count]) {
        match timeout(PATIENCE, Connection::open(server, addresses)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => reasons.push(format!("{server}: {error}")),
            Err(_) => reasons.push(format!("{server}: no answer within {PATIENCE:?}")),
        }
    }
    Err(EngineError::new(format!("NATS is out of reach: {}", reasons.join("; "))))
}

impl Connection {
    async fn open(address: &str, addresses: &Addresses) -> Result<Self, EngineError> {
        let mut tcp = TcpStream::connect(address).await.map_err(EngineError::new)?;
        tcp.set_nodelay(true).map_err(EngineError::new)?;
        let mut input = BytesMut::new();
        let info = next(&mut tcp, &mut input, |op| match op {
            ServerOp::Info(json) => Some(ServerInfo::parse(json)),
            ServerOp::Error(reason) => Some(Err(EngineError::new(reason))),
            _ => None,
        });
        let (server, info) = info.await?;
        check(&info)?;
        let offers = |name: &str| info[name].as_bool() == Some(true);
        let stream: Transport = if offers("tls_required") || addresses.security == Security::Required {
            if !offers("tls_required") && !offers("tls_available") {
                return Err(EngineError::new("the server does not offer TLS"));
            }
            secure(tcp, server_name(address, &addresses.servers[0])).await?
        } else {
            Box::new(tcp)
        };
        let mut connection = Self { stream, input, server };
        let greeting = greeting(addresses);
        connection
            .stream
            .write_all(format!("CONNECT {greeting}\r\nPING\r\n").as_bytes())
            .await
            .map_err(EngineError::new)?;
        connection.pong().await.map_err(|error| explain(error, &info))?;
        Ok(connection)
    }

    /// Sends operations that subscribe, and waits until the server has handled them. Messages that arrive
    /// until then are dropped: the hub reads them from the history.
    ///
    /// Subscriptions that the user may not have are left out, except that to answers.
    pub(crate) async fn restore(&mut self, subscriptions: &[u8]) -> Result<(), EngineError> {
        self.stream.write_all(subscriptions).await.map_err(EngineError::new)?;
        self.stream.write_all(b"PING\r\n").await.map_err(EngineError::new)?;
        let is_left_out = |reason: &str| is_forbidden(reason) && !reason.contains(INBOX);
        let end = next(&mut self.stream, &mut self.input, |op| match op {
            ServerOp::Pong => Some(Ok(())),
            ServerOp::Error(reason) if !is_left_out(reason) => Some(Err(EngineError::new(reason))),
            _ => None,
        });
        end.await
    }

    /// Waits until the server has handled everything before a `PING`.
    async fn pong(&mut self) -> Result<(), EngineError> {
        let pong = next(&mut self.stream, &mut self.input, |op| match op {
            ServerOp::Pong => Some(Ok(())),
            ServerOp::Error(reason) => Some(Err(EngineError::new(reason))),
            _ => None,
        });
        pong.await
    }
}

/// Returns `true` if an error of the server says that the user may not do something. The connection stays.
pub(crate) fn is_forbidden(reason: &str) -> bool {
    reason.to_ascii_lowercase().starts_with("permissions violation")
}

/// Reads until an operation of a kind, or an error.
async fn next<T>(
    stream: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    mut wanted: impl FnMut(ServerOp<'_>) -> Option<Result<T, EngineError>>,
) -> Result<T, EngineError> {
    loop {
        let mut found = None;
        let mut used = 0;
        while let Some((op, size)) = parse(&input[used..]).map_err(EngineError::new)? {
            used += size;
            found = wanted(op);
            if found.is_some() {
                break;
            }
        }
        input.advance(used);
        if let Some(found) = found {
            return found;
        }
        input.reserve(READ);
        if stream.read_buf(input).await.map_err(EngineError::new)? == 0 {
            return Err(EngineError::new(io::Error::from(io::ErrorKind::UnexpectedEof)));
        }
    }
}

/// Checks that the server offers what an engine needs.
fn check(info: &Value) -> Result<(), EngineError> {
    if info["headers"].as_bool() != Some(true) {
        return Err(EngineError::new("the server is older than NATS 2.9, or has disabled headers"));
    }
    Ok(())
}

/// Adds to the refusal of a client that the server may expect a key.
fn explain(error: EngineError, info: &Value) -> EngineError {
    let text = error.to_string();
    // The text that a client with a key signs.
    let expects_key = info["nonce"].is_string() && text.to_ascii_lowercase().starts_with("authorization");
    if expects_key { EngineError::new(format!("{text}: {NO_KEYS}")) } else { error }
}

/// Returns the JSON of `CONNECT`.
fn greeting(addresses: &Addresses) -> Value {
    let mut greeting = json!({
        "verbose": false,
        "pedantic": false,
        "tls_required": false,
        "headers": true,
        "no_responders": true,
        "echo": true,
        "protocol": 1,
        "lang": "rust",
        "name": "bowline",
        "version": env!("CARGO_PKG_VERSION"),
    });
    if let Some(fields) = greeting.as_object_mut() {
        addresses.credentials.add_to(fields);
    }
    greeting
}
