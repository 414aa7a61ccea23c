//! A handle for sending, of which there may be many.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bowline_proto::{CloseCode, CloseFrame, MessageKind};

use crate::connection::Connection;
use crate::connection::inbound::batch::Hold;
use crate::error::{Error, TrySendError};
use crate::message::Payload;
use crate::socket::writer::MessageWriter;

/// A handle on a connection that sends: cheap to clone, to be used by any number of tasks at once.
///
/// Messages of concurrent senders never interleave, and each task's go out in its order. A `Sender` does not keep the
/// connection open: once the [`WebSocket`](crate::WebSocket) is dropped, sending fails.
///
/// ```
/// # async fn example(socket: bowline::WebSocket) -> Result<(), bowline::Error> {
/// let sender = socket.sender();
/// tokio::spawn(async move { sender.send("from another task").await });
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sender {
    pub(crate) connection: Arc<Connection>,
}

impl Sender {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }

    /// Sends a message: see [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// # Errors
    ///
    /// Why the connection is closed; nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// A `send` that is dropped before it is ready sent nothing.
    pub fn send<'a>(&self, message: impl Into<Payload<'a>>) -> impl Future<Output = Result<(), Error>> {
        let mut payload = message.into();
        self.connection.send_with(Hold::Never, move |outbound| outbound.accept(&mut payload))
    }

    /// Sends a message if that is possible without waiting.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] and [`TrySendError::Closed`] hand the message back.
    pub fn try_send<'a, M: Into<Payload<'a>>>(&self, message: M) -> Result<(), TrySendError<M>> {
        self.connection.try_send(message, Hold::Never)
    }

    /// Waits until all that was sent before was handed to the transport; for plain TCP, to the kernel.
    ///
    /// It is not needed for the messages to go out: they do as soon as the transport takes them.
    ///
    /// # Errors
    ///
    /// Why the connection ended before.
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing.
    pub async fn flush(&self) -> Result<(), Error> {
        self.connection.flush().await
    }

    /// Begins a message that is written piece by piece: see [`WebSocket::writer`](crate::WebSocket::writer).
    ///
    /// # Errors
    ///
    /// Why the connection is closed.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, no message was begun.
    pub async fn writer(&self, kind: MessageKind) -> Result<MessageWriter, Error> {
        MessageWriter::open(Arc::clone(&self.connection), kind).await
    }

    /// Measures a round trip: see [`WebSocket::ping`](crate::WebSocket::ping).
    ///
    /// # Errors
    ///
    /// Why the connection ended before the pong came.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped, the ping may have been sent; its pong is ignored.
    pub async fn ping(&self) -> Result<Duration, Error> {
        self.connection.ping().await
    }

    /// Closes the connection: see [`WebSocket::close`](crate::WebSocket::close).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a code or reason that may not be sent; then
    /// nothing was. Otherwise why the peer's Close frame did not come.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the closing goes on though the future is dropped. It may be called again, to wait for the end.
    pub async fn close(&self, code: CloseCode, reason: &str) -> Result<Option<CloseFrame>, Error> {
        self.connection.close(code, reason).await
    }

    /// Begins to close the connection, without waiting for its end.
    #[cfg(feature = "server")]
    pub(crate) fn start_close(&self, frame: &CloseFrame) {
        self.connection.start_close(frame);
    }

    /// Ends the transport at once, unless it has ended.
    #[cfg(feature = "server")]
    pub(crate) fn abort(&self) {
        if !self.connection.outbound().is_finished() {
            let text = "the connection was ended without a Close frame by its server";
            self.connection.close_transport(&Error::new(crate::error::ErrorKind::Closed, text));
        }
    }

    /// The peer's Close frame, if it came and had a code.
    pub fn close_frame(&self) -> Option<CloseFrame> {
        self.connection.inbound().peer_close().ok().flatten()
    }

    /// Waits until nothing can be sent any more: the connection was closed by either side, failed, or was dropped.
    ///
    /// A peer that ends its stream without a Close frame may still receive. Once the application has received a message, to which
    /// it may be about to reply, such an end counts when `recv` has reported it, when writing fails, or when the keepalive finds it.
    ///
    /// # Cancel safety
    ///
    /// Dropping it changes nothing.
    pub async fn closed(&self) {
        self.connection.watch_end(|outbound| outbound.closed().map(|_| ())).await;
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        self.connection.outbound().closed().is_some()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("peer_addr", &self.connection.addresses.peer).finish_non_exhaustive()
    }
}
