//! A guard that gathers messages and writes them at once.

use std::fmt;
use std::sync::Arc;

use crate::connection::Connection;
use crate::connection::inbound::batch::Hold;
use crate::error::{Error, TrySendError};
use crate::message::{Payload, Prepared};
use crate::socket::sender::Sender;
use crate::socket::websocket::WebSocket;

/// A guard that accepts messages without writing, and writes them all at once when it is dropped.
///
/// [`Sender::batch`] and [`WebSocket::batch`] return one. Most of the cost of a small message is the system
/// call that writes it. A burst to one connection shares this call: 16 messages of a batch cost little more
/// than one message.
///
/// # When the messages are written
///
/// - When the guard is dropped, also by a panic or by the end of its task.
/// - At the latest when the task next yields, even if the guard is kept across an await or leaked.
/// - When [`Limits::write_buffer`](crate::Limits::write_buffer) bytes wait to be written, or four times as
///   many while the transport takes everything. A batch of any length takes bounded memory.
/// - With anything that is written in between: a message of another sender, a pong, or a Close frame.
/// - One by one, while the [`WebSocket`] works through messages that arrived together on another thread.
///
/// A batch holds no lock, and no place among the senders. Messages of other senders may come between those of
/// a batch, and are not delayed by the batch.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), bowline::Error> {
/// let (client, mut server) = bowline::pair();
/// let sender = client.sender();
///
/// let batch = sender.batch();
/// for part in ["one", "two", "three"] {
///     batch.send(part).await?;
/// }
/// drop(batch); // One write.
///
/// assert_eq!(server.recv().await?, Some("one".into()));
/// # Ok(())
/// # }
/// ```
///
/// A burst to many connections opens a batch for each of them:
///
/// ```
/// use bowline::{Prepared, Sender, TrySendError};
///
/// /// Sends all messages to each client, and forgets the clients that can't keep up.
/// fn broadcast(clients: &mut Vec<Sender>, messages: &[Prepared]) {
///     clients.retain(|client| {
///         client.batch().try_send_all(messages).is_ok()
///     });
/// }
/// ```
#[must_use = "the messages of a batch are written when it is dropped"]
pub struct SendBatch<'a> {
    pub(crate) connection: &'a Arc<Connection>,
}

impl SendBatch<'_> {
    /// Sends a message, which is written with the others of the batch.
    ///
    /// The method waits and accepts messages as [`WebSocket::send`](crate::WebSocket::send) does. Messages
    /// that were sent earlier are written before the method waits for room.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Closed`](crate::ErrorKind::Closed) if either side has closed the connection, or
    /// else the error that ended it. In both cases nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A future that is dropped before it is ready has sent nothing.
    pub fn send<'m>(&self, message: impl Into<Payload<'m>>) -> impl Future<Output = Result<(), Error>> {
        self.connection.send(Hold::InSendBatch, message.into())
    }

    /// Sends a message if that is possible without waiting. The message is written with the others of the
    /// batch.
    ///
    /// # Errors
    ///
    /// - Returns [`TrySendError::Full`] with the message if [`send`](Self::send) would wait.
    /// - Returns [`TrySendError::Closed`] with the message if the connection is closed.
    pub fn try_send<'m, M: Into<Payload<'m>>>(&self, message: M) -> Result<(), TrySendError<M>> {
        self.connection.try_send(message, Hold::InSendBatch)
    }

    /// Sends as many of `messages` as is possible without waiting, in order. They are written with the others
    /// of the batch.
    ///
    /// This takes less time than as many calls of [`try_send`](Self::try_send), for a burst to many
    /// connections. No message of another sender comes in between.
    ///
    /// # Examples
    ///
    /// ```
    /// use bowline::{Prepared, Sender, TrySendError};
    ///
    /// /// Sends all messages, and returns the number of those that the client is too slow to receive.
    /// fn burst(client: &Sender, messages: &[Prepared]) -> usize {
    ///     match client.batch().try_send_all(messages) {
    ///         Ok(()) => 0,
    ///         Err(TrySendError::Full(rest) | TrySendError::Closed(rest)) => rest.len(),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`TrySendError::Full`] with the messages that were not sent, if [`send`](Self::send) would
    ///   wait for the first of them.
    /// - Returns [`TrySendError::Closed`] with the messages that were not sent, if the connection is closed.
    pub fn try_send_all<'m>(&self, messages: &'m [Prepared]) -> Result<(), TrySendError<&'m [Prepared]>> {
        self.connection.try_send_all(messages)
    }
}

impl Drop for SendBatch<'_> {
    fn drop(&mut self) {
        self.connection.end_send_batch();
    }
}

impl fmt::Debug for SendBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBatch")
            .field("peer_addr", &self.connection.addresses.peer)
            .finish_non_exhaustive()
    }
}

impl Sender {
    /// Begins a burst of messages, which are written at once when the returned guard is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(sender: bowline::Sender) -> Result<(), bowline::Error> {
    /// let batch = sender.batch();
    /// for number in 0..16u8 {
    ///     batch.send(&[number]).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self) -> SendBatch<'_> {
        SendBatch { connection: &self.connection }
    }
}

impl WebSocket {
    /// Begins a burst of messages, which are written at once when the returned guard is dropped.
    ///
    /// Replies to messages that arrived together need no batch: see [`send`](Self::send).
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(socket: bowline::WebSocket) -> Result<(), bowline::Error> {
    /// let batch = socket.batch();
    /// for number in 0..16u8 {
    ///     batch.send(&[number]).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn batch(&self) -> SendBatch<'_> {
        SendBatch { connection: &self.connection }
    }
}
