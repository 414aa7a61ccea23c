//! The handle of the owner of a connection.

use std::fmt;
use std::sync::Arc;

use bowline_proto::{CloseCode, CloseFrame, Role};

use super::connection::Connection;
use super::operations;
use super::sender::Sender;
use super::socket;
use crate::error::{Error, TrySendError};
use crate::message::{Message, Payload};

/// A WebSocket connection.
///
/// [`connect`](crate::connect) and [`Connector`](crate::Connector) open connections.
///
/// Only [`recv`](Self::recv) takes `&mut self`. All other methods take `&self`, so any number of tasks can
/// call them at the same time, also through clones of a [`Sender`].
///
/// The handle is `Send + Sync`, and its futures are `Send`, so it fits into code that is written for native
/// clients. In a program with several workers, only the one that has opened the connection can use it. In the
/// others, all operations return [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
///
/// # Dropping
///
/// Dropping the `WebSocket` closes the connection without a code. Messages that were sent before are still
/// written by the browser, and all [`Sender`]s fail. Call [`close`](Self::close) to wait for the end.
///
/// # Examples
///
/// ```no_run
/// use bowline::{CloseCode, WebSocket};
///
/// async fn echo(mut socket: WebSocket) -> Result<(), bowline::Error> {
///     while let Some(message) = socket.recv().await? {
///         socket.send(message).await?;
///     }
///     Ok(())
/// }
/// ```
pub struct WebSocket {
    pub(super) connection: Arc<Connection>,
    pub(super) subprotocol: Option<Arc<String>>,
    /// The `Stream` has returned its last item.
    #[cfg(feature = "futures")]
    pub(super) stream_ended: bool,
}

impl WebSocket {
    /// Receives the next message, or `None` after the connection has ended normally.
    ///
    /// A connection ends normally if the peer closes it with 1000, 1001 or no code, or if this side closed it
    /// first. After the end, all calls return the same result again.
    ///
    /// Messages arrive also while nobody receives, up to [`Limits::unread`](crate::Limits::unread).
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Closed`](crate::ErrorKind::Closed) if the peer closed the connection with
    ///   another code; [`Error::close_frame`] has the code and the reason.
    /// - Returns [`ErrorKind::Disconnected`](crate::ErrorKind::Disconnected) if the connection ended without
    ///   a Close frame. Browsers don't tell a lost connection from a peer that broke the protocol.
    /// - Returns [`ErrorKind::Limit`](crate::ErrorKind::Limit) if the peer exceeded one of our
    ///   [`Limits`](crate::Limits).
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A dropped future loses nothing, and the connection stays open.
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Message>, Error>> {
        operations::recv(&self.connection)
    }

    /// Sends a message.
    ///
    /// Text (`&str`, `String`, ...), bytes (`&[u8]`, `Vec<u8>`, [`Bytes`](bytes::Bytes), ...), a [`Message`]
    /// and a `&`[`Prepared`](crate::Prepared) convert into a message; [`Payload`] has the full list.
    ///
    /// The method waits, in order of arrival, until the browser has fewer bytes to write than
    /// [`Limits::write_buffer`](crate::Limits::write_buffer). Then it hands the message to the browser and
    /// returns. The browser writes it without a [`flush`](Self::flush) or any other call.
    ///
    /// A future of `send` that waits for its turn and is kept without being polled holds up all senders after
    /// it. Drop the future instead.
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

    /// Waits until the browser has written all messages that were sent before.
    ///
    /// Messages are written without this method, too. It looks at the browser's buffer after 1, 2, 4 ... 32
    /// ms, unless the browser tells that messages were written (with the feature `websocket-stream`).
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

    /// Returns a handle for sending on this connection from other tasks.
    pub fn sender(&self) -> Sender {
        Sender::new(Arc::clone(&self.connection), self.subprotocol.clone())
    }

    /// Closes the connection, and returns the Close frame of the peer.
    ///
    /// The method performs the closing handshake (RFC 6455 7.1.2). Our Close frame is sent after all messages
    /// accepted earlier. Messages that have arrived by then can still be received; later ones are discarded.
    /// The method returns once the browser reports the end, after at most
    /// [`Limits::close_timeout`](crate::Limits::close_timeout).
    ///
    /// Several tasks may call this method, also while another task is in [`recv`](Self::recv). The first
    /// Close frame, ours or the peer's, decides.
    ///
    /// The code is 1000 or one of 3000 to 4999: browsers send no other. The reason is a human-readable text
    /// of at most 123 bytes, and may be empty. With [`CloseCode::NO_STATUS`] and an empty reason, the Close
    /// frame is sent without a code (RFC 6455 5.5.1).
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

    /// Starts to close the connection, and returns at once.
    ///
    /// The method does what [`close`](Self::close) does, without waiting for the peer's answer.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the code or the reason may not
    /// be sent. In that case nothing was sent.
    pub fn begin_close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        operations::begin_close(&self.connection, code, reason)
    }

    /// Returns the Close frame of the peer, if the browser has reported one.
    ///
    /// The code of a frame without a code is [`CloseCode::NO_STATUS`] (RFC 6455 7.1.5). `None` after the end
    /// means that the connection ended without a Close frame of the peer.
    pub fn close_frame(&self) -> Option<CloseFrame> {
        self.connection.close_frame()
    }

    /// Waits until no more messages can be sent: see [`Sender::closed`].
    ///
    /// Messages that arrived before may still be received.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A dropped future changes nothing about the connection.
    pub async fn closed(&self) {
        operations::closed(&self.connection).await;
    }

    /// Returns `true` if no more messages can be sent. Messages that arrived before may still be received.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Returns the number of bytes that were accepted and that the browser has not written yet: see
    /// [`Sender::pending`].
    pub fn pending(&self) -> usize {
        operations::pending(&self.connection)
    }

    /// Returns the role of our side, which is [`Role::Client`] in a browser.
    pub fn role(&self) -> Role {
        Role::Client
    }

    /// Returns the negotiated subprotocol, if there is one (RFC 6455 1.9).
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref().map(String::as_str)
    }
}

impl WebSocket {
    /// Creates the handle of a connection, which may not be open yet.
    #[cfg(feature = "client")]
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            subprotocol: None,
            #[cfg(feature = "futures")]
            stream_ended: false,
        }
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        socket::abandon(&self.connection);
    }
}

impl From<&WebSocket> for Sender {
    /// Returns a handle as [`WebSocket::sender`] does.
    fn from(socket: &WebSocket) -> Self {
        socket.sender()
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").finish_non_exhaustive()
    }
}
