//! A handle for sending from any task.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bowline_proto::{CloseCode, CloseFrame, Role};

use super::connection::Connection;
use super::operations;
use crate::error::{Error, TrySendError};
use crate::message::Payload;

/// A handle for sending messages on a connection.
///
/// [`WebSocket::sender`](crate::WebSocket::sender) returns one. Clones are cheap, and any number of tasks can
/// use them at the same time. Messages of concurrent senders never interleave, and the messages of one task
/// keep their order.
///
/// A `Sender` does not keep the connection open: once the [`WebSocket`](crate::WebSocket) is dropped, sending
/// fails.
///
/// Two `Sender`s are equal if they belong to the same connection.
///
/// # Examples
///
/// ```
/// use bowline::{Sender, WebSocket};
///
/// async fn greet(sender: Sender) -> Result<(), bowline::Error> {
///     sender.send("from another task").await
/// }
///
/// fn start(socket: &WebSocket) -> impl Future<Output = Result<(), bowline::Error>> + use<> {
///     greet(socket.sender())
/// }
/// ```
#[derive(Clone)]
pub struct Sender {
    pub(super) connection: Arc<Connection>,
    subprotocol: Option<Arc<String>>,
}

impl Sender {
    pub(super) fn new(connection: Arc<Connection>, subprotocol: Option<Arc<String>>) -> Self {
        Self { connection, subprotocol }
    }

    /// Sends a message: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Closed`](crate::ErrorKind::Closed) if either side has closed the connection, or
    /// else the error that ended it. In both cases nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A future that is dropped before it is ready has sent nothing.
    pub fn send<'a>(&self, message: impl Into<Payload<'a>>) -> impl Future<Output = Result<(), Error>> {
        operations::send(&self.connection, message.into())
    }

    /// Sends a message if that is possible without waiting.
    ///
    /// # Errors
    ///
    /// - Returns [`TrySendError::Full`] with the message if [`send`](Self::send) would wait.
    /// - Returns [`TrySendError::Closed`] with the message if the connection is closed.
    pub fn try_send<'a, M: Into<Payload<'a>>>(&self, message: M) -> Result<(), TrySendError<M>> {
        operations::try_send(&self.connection, message)
    }

    /// Waits until the browser has written all messages that were sent before: see
    /// [`WebSocket::flush`](crate::WebSocket::flush).
    ///
    /// # Errors
    ///
    /// Returns the error that ended the connection if it ended before all messages were written.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A dropped future changes nothing about what is written.
    pub async fn flush(&self) -> Result<(), Error> {
        operations::flush(&self.connection).await
    }

    /// Closes the connection, and returns the Close frame of the peer: see
    /// [`WebSocket::close`](crate::WebSocket::close).
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the code or the reason may
    ///   not be sent. In that case nothing was sent.
    /// - Returns [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if the peer did not answer in time.
    /// - Returns the error that ended the connection if it ended without a Close frame of the peer.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Once the future has been polled, the closing handshake goes on without it,
    /// and another call waits for the end.
    pub async fn close(&self, code: CloseCode, reason: &str) -> Result<CloseFrame, Error> {
        operations::close(&self.connection, code, reason).await
    }

    /// Starts to close the connection, and returns at once: see
    /// [`WebSocket::begin_close`](crate::WebSocket::begin_close).
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the code or the reason may not
    /// be sent. In that case nothing was sent.
    pub fn begin_close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        operations::begin_close(&self.connection, code, reason)
    }

    /// Returns the Close frame of the peer, if the browser has reported one: see
    /// [`WebSocket::close_frame`](crate::WebSocket::close_frame).
    pub fn close_frame(&self) -> Option<CloseFrame> {
        self.connection.close_frame()
    }

    /// Waits until no more messages can be sent, because either side closed the connection, the connection
    /// failed, or its [`WebSocket`](crate::WebSocket) was dropped.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A dropped future changes nothing about the connection.
    pub async fn closed(&self) {
        operations::closed(&self.connection).await;
    }

    /// Returns `true` if no more messages can be sent.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Returns the number of bytes that were accepted and that the browser has not written yet:
    /// `bufferedAmount`.
    ///
    /// Senders wait while it is [`Limits::write_buffer`](crate::Limits::write_buffer) or more. The number
    /// counts payloads without the headers of frames, and is 0 after the end.
    pub fn pending(&self) -> usize {
        operations::pending(&self.connection)
    }

    /// Returns the negotiated subprotocol, if there is one (RFC 6455 1.9).
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref().map(String::as_str)
    }

    /// Returns the role of our side, which is [`Role::Client`] in a browser.
    pub fn role(&self) -> Role {
        Role::Client
    }
}

impl PartialEq for Sender {
    /// Returns `true` if both belong to the same connection.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connection, &other.connection)
    }
}

impl Eq for Sender {}

impl Hash for Sender {
    /// Hashes the identity of the connection, which no other connection has while this `Sender` exists.
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.connection).hash(state);
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}
