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
//! The subscription to a topic receives what the stream of the histories publishes again, in the order of
//! that stream. A number that is not larger than the last one shows that the stream is not what it was.
//!
//! The server handles the operations of a client in order. A `PONG` therefore confirms everything before its
//! `PING`, and one `PING` confirms all requests that came together.
//!
//! ```text
//! task      the task: connecting, waiting, the life of the connection
//! inbound   operations of the server: messages, answers, confirmations
//! outbound  requests, as operations to the server
//! request   requests and answers
//! shared    the values that handle and task share
//! ```

mod inbound;
mod outbound;
mod request;
mod shared;
mod task;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bowline_hub::{EngineError, Inbox, Topic};
use tokio::sync::{mpsc, oneshot};

use crate::address::Addresses;
use crate::connection::Connection;
use crate::link::request::{Asked, Reply, Request};
use crate::link::shared::Shared;
use crate::link::task::LinkTask;
use crate::protocol;
use crate::wire;

pub(crate) use crate::link::request::Answer;

/// The headers of an operation, as pairs of names and values.
pub(crate) type HeaderList<'a> = &'a [(&'a str, &'a str)];

/// The size of the longest subject, in bytes. A server accepts lines of 4 KiB, for subject, reply and sizes.
const MAX_SUBJECT: usize = 3 * 1024;

/// A handle of the task. The task ends when the handle is dropped.
pub(crate) struct Link {
    requests: mpsc::UnboundedSender<Request>,
    shared: Arc<Shared>,
    numbers: AtomicU64,
}

impl Link {
    /// Starts the task, with a first connection.
    pub(crate) fn start(
        connection: Connection,
        addresses: Addresses,
        inbox: Inbox,
    ) -> Result<Self, EngineError> {
        let shared = Arc::new(Shared::new(&connection.server)?);
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(LinkTask::new(addresses, inbox, requests, Arc::clone(&shared)).run(connection));
        Ok(Self { requests: sender, shared, numbers: AtomicU64::new(0) })
    }

    pub(crate) async fn want(&self, topic: &Topic) -> Result<(), EngineError> {
        check(&wire::subject(wire::LIVE, topic.name()))?;
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

    /// Publishes a request, and returns the answer.
    pub(crate) async fn ask(
        &self,
        subject: &str,
        headers: HeaderList<'_>,
        payload: &[u8],
    ) -> Result<Answer, EngineError> {
        let number = self.number();
        let operation =
            self.encode(subject, &format!("{}{number}", self.shared.answers), headers, payload)?;
        self.request(|reply| Request::Ask(number, operation, Asked { subject: subject.to_owned(), reply }))
            .await
    }

    /// Publishes a request that has many answers. Their subjects may be any, so they have a subscription of
    /// their own. The receiver ends if the connection is lost.
    pub(crate) fn consume(
        &self,
        subject: &str,
        payload: &[u8],
    ) -> Result<mpsc::UnboundedReceiver<Answer>, EngineError> {
        let reply = format!("{}many.{}", self.shared.answers, self.number());
        let operation = self.encode(subject, &reply, &[], payload)?;
        let (sender, answers) = mpsc::unbounded_channel();
        // A task that has ended drops the sender.
        let asked = Asked { subject: subject.to_owned(), reply: sender };
        let _ = self.requests.send(Request::Consume(reply, operation, asked));
        Ok(answers)
    }

    /// Returns a number that is another one whenever the stream of the histories may be another one.
    pub(crate) fn changes(&self) -> u64 {
        // The stream itself orders what happens to it.
        self.shared.changes.load(Ordering::Relaxed)
    }

    /// Returns `true` if the server belongs to a cluster.
    pub(crate) fn is_clustered(&self) -> bool {
        self.shared.is_clustered.load(Ordering::Relaxed)
    }

    /// Returns `true` if the servers of a cluster may disagree on what the streams contain: for a while after
    /// the connection was lost, or a leader was elected.
    pub(crate) fn is_restless(&self) -> bool {
        self.shared.is_restless()
    }

    /// Returns the number of the next request.
    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn encode(
        &self,
        subject: &str,
        reply: &str,
        headers: HeaderList<'_>,
        payload: &[u8],
    ) -> Result<Vec<u8>, EngineError> {
        check(subject)?;
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

/// Checks the length of a subject, as the server would end the connection.
fn check(subject: &str) -> Result<(), EngineError> {
    if subject.len() <= MAX_SUBJECT {
        return Ok(());
    }
    let text = format!(
        "a topic and a key take {} bytes in NATS, more than {MAX_SUBJECT}: shorten their names",
        subject.len()
    );
    Err(EngineError::new(text))
}
