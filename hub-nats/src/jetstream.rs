//! Requests to JetStream: publishing to a stream, and its API of JSON.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bowline_hub::EngineError;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::link::{Answer, Link};

/// The replicas of a stream in a cluster.
const REPLICAS: u64 = 3;

/// The pause before a stream is created.
const PAUSE: Duration = Duration::from_millis(250);

/// The error codes of the server.
const STREAM_NOT_FOUND: u64 = 10059;
const NAME_IN_USE: u64 = 10058;
pub(crate) const NO_MESSAGE: u64 = 10037;
const WRONG_LAST_SEQUENCE: u64 = 10071;
const ID_IN_PROCESS: u64 = 10158;
const WRONG_STREAM: u64 = 10060;

/// The number of looks at a stream that is being created, and the pause between two of them.
const LOOKS: usize = 50;
const LOOK: Duration = Duration::from_millis(20);

/// The refusal of a request by the server.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no stream.
    NoStream,
    /// Another message with the same condition, or the same key, was faster.
    Overtaken,
    /// The server names a code and a reason.
    Code(u64, String),
    /// The server could not be asked.
    Failed(EngineError),
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

impl From<Refusal> for EngineError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoStream => {
                EngineError::new("NATS has no stream named bowline, or JetStream is disabled")
            }
            Refusal::Overtaken => EngineError::new("NATS stores another message with the same key"),
            Refusal::Code(code, reason) => EngineError::new(format!("NATS refuses: {reason} ({code})")),
            Refusal::Failed(error) => error,
        }
    }
}

/// An acknowledgement of a message.
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    /// `true` if a message with the same key was there.
    pub(crate) is_known: bool,
}

/// Publishes a message to the stream.
pub(crate) async fn publish(
    link: &Link,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &[u8],
) -> Result<Stored, Refusal> {
    let answer = parse(&link.ask(subject, headers, payload).await?)?;
    let sequence = answer["seq"].as_u64();
    let sequence =
        sequence.ok_or_else(|| EngineError::new("NATS acknowledges a message without its number"))?;
    Ok(Stored { sequence, is_known: answer["duplicate"].as_bool() == Some(true) })
}

/// Publishes a message in the place of the last one on its subject, if that has a number: 0 if there is none.
/// Returns the number of the new message.
///
/// NATS before 2.11 checks a number other than 0 before the servers of a cluster agree on the order of
/// messages, so that it may accept two messages in the place of one. Duplicates are found afterwards, by each
/// server and in this order. So messages in the same place have the same `Nats-Msg-Id`, and only the first
/// one is stored. Numbers are those of the whole stream, so the number suffices. A subject without messages
/// may have been there before, and its first message has no such header.
pub(crate) async fn replace(
    link: &Link,
    subject: &str,
    replaced: u64,
    headers: &[(&str, &str)],
    payload: &[u8],
) -> Result<u64, Refusal> {
    let replaced = replaced.to_string();
    let mut headers = headers.to_vec();
    headers.push(("Nats-Expected-Last-Subject-Sequence", &replaced));
    if replaced != "0" {
        headers.push(("Nats-Msg-Id", &replaced));
    }
    let stored = publish(link, subject, &headers, payload).await?;
    if stored.is_known { Err(Refusal::Overtaken) } else { Ok(stored.sequence) }
}

/// Calls the API of JetStream.
pub(crate) async fn call(link: &Link, name: &str, request: &Value) -> Result<Value, Refusal> {
    parse(&link.ask(&format!("$JS.API.{name}"), &[], request.to_string().as_bytes()).await?)
}

/// Parses an answer of JetStream.
fn parse(answer: &Answer) -> Result<Value, Refusal> {
    if answer.status == Some(503) {
        return Err(Refusal::NoStream);
    }
    let mut value: Value = serde_json::from_slice(&answer.payload).map_err(EngineError::new)?;
    let error = &value["error"];
    if error.is_null() {
        return Ok(value.take());
    }
    let code = error["err_code"].as_u64().unwrap_or_default();
    Err(match code {
        STREAM_NOT_FOUND => Refusal::NoStream,
        WRONG_LAST_SEQUENCE | ID_IN_PROCESS => Refusal::Overtaken,
        _ => Refusal::Code(code, error["description"].as_str().unwrap_or("no reason").to_owned()),
    })
}

/// Creates a stream that does not exist. If another node is faster, the stream is that of the other node.
/// Returns its configuration.
pub(crate) async fn create(link: &Link, config: &Value) -> Result<Value, Refusal> {
    // If a stream with this name has just been deleted, the server may still be removing its files.
    sleep(PAUSE).await;
    let name = config["name"].as_str().unwrap_or_default();
    let info = match call(link, &format!("STREAM.CREATE.{name}"), config).await {
        Err(Refusal::Code(NAME_IN_USE, _)) => call(link, &format!("STREAM.INFO.{name}"), &json!({})).await?,
        outcome => outcome?,
    };
    Ok(info["config"].clone())
}

/// Waits until a stream that exists accepts messages with a subject.
///
/// NATS 2.9.10 crashes if it is asked for a message of a stream that another node is just creating. Once the
/// stream looks at what is published, it is complete. This message is for another stream, so it is refused.
pub(crate) async fn wait_for_stream(link: &Link, subject: &str) -> Result<(), Refusal> {
    for _ in 0..LOOKS {
        match publish(link, subject, &[("Nats-Expected-Stream", "-")], b"").await {
            Err(Refusal::Code(WRONG_STREAM, _)) => return Ok(()),
            Err(Refusal::NoStream) => sleep(LOOK).await,
            outcome => return outcome.map(drop),
        }
    }
    Err(Refusal::NoStream)
}

/// Removes the messages of a subject up to a number.
pub(crate) async fn purge(link: &Link, stream: &str, subject: &str, sequence: u64) -> Result<(), Refusal> {
    let request = json!({ "filter": subject, "seq": sequence + 1 });
    call(link, &format!("STREAM.PURGE.{stream}"), &request).await?;
    Ok(())
}

/// Returns the number of replicas that a new stream has.
pub(crate) fn replicas(link: &Link) -> u64 {
    if link.is_clustered() { REPLICAS } else { 1 }
}

/// Checks that a stream in a cluster has replicas.
///
/// # Errors
///
/// Returns an error if it has none, as it could then roll back unnoticed.
pub(crate) fn check_replicas(info: &Value) -> Result<(), EngineError> {
    let is_clustered = info["cluster"]["name"].as_str().is_some_and(|name| !name.is_empty());
    if is_clustered && info["config"]["num_replicas"].as_u64() == Some(1) {
        let name = info["config"]["name"].as_str().unwrap_or_default();
        let text = format!("the stream named {name} has one replica in a cluster, and needs {REPLICAS}");
        return Err(EngineError::new(text));
    }
    Ok(())
}

/// Returns a time as JetStream expects it.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Waits for all futures, and returns their outcomes in order.
pub(crate) async fn all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    poll_fn(|cx| {
        let mut is_pending = false;
        for (future, outcome) in &mut futures {
            // A future that is ready must not be polled again.
            if outcome.is_none() {
                match future.as_mut().poll(cx) {
                    Poll::Ready(output) => *outcome = Some(output),
                    Poll::Pending => is_pending = true,
                }
            }
        }
        if is_pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    futures.into_iter().filter_map(|(_, outcome)| outcome).collect()
}
