//! Requests to the task of a connection, and their answers.

use bowline_hub::{EngineError, Topic};
use tokio::sync::{mpsc, oneshot};

use crate::protocol::Incoming;
use crate::wire;

/// Receives the outcome of a request.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, EngineError>>;

/// A request to the task of the connection.
pub(crate) enum Request {
    /// Subscribes to a topic.
    Want(Topic, Reply<()>),
    /// Ceases to subscribe to a topic.
    Unwant(Topic, Reply<()>),
    /// Sends an operation, and waits until the server has handled it.
    Send(Vec<u8>, Reply<()>),
    /// Sends an operation, and waits for the answer with a number.
    Ask(u64, Vec<u8>, Asked<Reply<Answer>>),
    /// Subscribes to a subject, and sends an operation that is answered there many times.
    Consume(String, Vec<u8>, Asked<mpsc::UnboundedSender<Answer>>),
}

/// Receives what is answered to a request.
pub(crate) struct Asked<R> {
    /// The subject of the request, by which the server refuses what a user may not publish.
    pub(crate) subject: String,
    pub(crate) reply: R,
}

/// A message that answers a request.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status in the headers, such as 503 if nobody answers.
    pub(crate) status: Option<u16>,
    /// The header of a message of a hub.
    pub(crate) header: Option<String>,
    pub(crate) subject: String,
    /// The subject for a further answer, in which a stream tells where the message is.
    pub(crate) reply: String,
    pub(crate) payload: Vec<u8>,
}

impl Answer {
    pub(crate) fn of(incoming: Incoming<'_>) -> Self {
        Self {
            status: incoming.headers.status(),
            header: incoming.headers.value(wire::HEADER).map(str::to_owned),
            subject: incoming.subject.to_owned(),
            reply: incoming.reply.to_owned(),
            payload: incoming.payload.to_vec(),
        }
    }
}
