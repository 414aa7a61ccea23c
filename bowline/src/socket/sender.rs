//! A handle for sending from any task.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use bowline_proto::{CloseCode, CloseFrame, MessageKind, Role};

use crate::connection::Connection;
use crate::connection::inbound::batch::Hold;
#[cfg(any(feature = "json", feature = "protobuf"))]
use crate::connection::outbound::encoded::Encoded;
use crate::error::{Error, TrySendError};
use crate::message::Payload;
use crate::socket::ping::Ping;
use crate::socket::writer::MessageWriter;

/// A handle for sending messages on a connection.
///
/// [`WebSocket::sender`](crate::WebSocket::sender) returns one. Clones are cheap, and any number of tasks can
/// use them at the same time. Messages of concurrent senders never interleave, and the messages of one task
/// keep their order.
///
/// A `Sender` does not keep the connection open: once the [`WebSocket`](crate::WebSocket) is dropped, sending
/// fails.
///
/// Two `Sender`s are equal if they belong to the same connection. A `Sender` can therefore be the key of a
/// connection in a `HashMap` or a `HashSet`. The lint `mutable_key_type` of Clippy can't know that such a key
/// never changes: add `"bowline::Sender"` to `ignore-interior-mutability` in `clippy.toml`.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), bowline::Error> {
/// let (client, mut server) = bowline::pair();
/// let sender = client.sender();
/// tokio::spawn(async move { sender.send("from another task").await });
/// assert_eq!(server.recv().await?, Some("from another task".into()));
/// # Ok(())
/// # }
/// ```
///
/// The members of a room, without numbers for the connections:
///
/// ```
/// use std::collections::HashSet;
///
/// use bowline::{Prepared, Sender, WebSocket};
///
/// fn join(members: &mut HashSet<Sender>, socket: &WebSocket) {
///     members.insert(socket.sender());
/// }
///
/// fn leave(members: &mut HashSet<Sender>, socket: &WebSocket) {
///     members.remove(&socket.sender());
/// }
///
/// fn tell_the_others(members: &HashSet<Sender>, from: &Sender, news: &Prepared) {
///     for member in members.iter().filter(|member| *member != from) {
///         let _ = member.try_send(news);
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Sender {
    pub(crate) connection: Arc<Connection>,
}

impl Sender {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }

    /// Sends a message.
    ///
    /// The method waits and accepts messages as [`WebSocket::send`](crate::WebSocket::send) does, but never
    /// holds a message back: the message is written at once if the transport takes it. Several messages are
    /// cheaper with [`batch`](Self::batch).
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
        self.connection.send(Hold::Never, message.into())
    }

    /// Sends a message if that is possible without waiting.
    ///
    /// A peer that doesn't keep up is noticed late: the operating system takes bytes, too, on Linux up to
    /// 4 MiB before this method returns [`TrySendError::Full`]. [`Limits::unsent`](crate::Limits::unsent)
    /// changes that, and says by how many bytes and how much time a slow peer can be behind.
    ///
    /// # Errors
    ///
    /// - Returns [`TrySendError::Full`] with the message if [`send`](Self::send) would wait.
    /// - Returns [`TrySendError::Closed`] with the message if the connection is closed.
    pub fn try_send<'a, M: Into<Payload<'a>>>(&self, message: M) -> Result<(), TrySendError<M>> {
        self.connection.try_send(message, Hold::Never)
    }

    /// Waits until the transport has taken all messages that were sent before: see
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
        self.connection.flush().await
    }

    /// Begins a message that is written piece by piece, and returns its writer: see
    /// [`WebSocket::writer`](crate::WebSocket::writer).
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Closed`](crate::ErrorKind::Closed) if either side has closed the connection, or
    /// else the error that ended it.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A future that is dropped before it is ready has begun no message.
    pub async fn writer(&self, kind: MessageKind) -> Result<MessageWriter, Error> {
        MessageWriter::open(Arc::clone(&self.connection), kind).await
    }

    /// Sends a ping, waits for its pong, and returns the round-trip time: see
    /// [`WebSocket::ping`](crate::WebSocket::ping).
    ///
    /// # Errors
    ///
    /// Returns the error that ended the connection if it ended before the pong arrived.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. If the future is dropped, the ping may have been sent, and its pong is
    /// ignored.
    pub fn ping(&self) -> Ping<'_> {
        Ping::new(&self.connection)
    }

    /// Sends a pong that no ping has asked for: see [`WebSocket::pong`](crate::WebSocket::pong).
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the payload is over 125 bytes
    ///   long. In that case nothing was sent.
    /// - Returns [`ErrorKind::Closed`](crate::ErrorKind::Closed) if either side has closed the connection, or
    ///   else the error that ended it.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A future that is dropped before it is ready has sent nothing.
    pub async fn pong(&self, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        self.connection.pong(payload.as_ref()).await
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
        self.connection.close(code, reason).await
    }

    /// Starts to close the connection, and returns at once: see
    /// [`WebSocket::begin_close`](crate::WebSocket::begin_close).
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the code or the reason may not
    /// be sent. In that case nothing was sent.
    pub fn begin_close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.connection.begin_close(code, reason)
    }

    /// Starts the closing handshake, without waiting for its end.
    #[cfg(feature = "server")]
    pub(crate) fn start_close(&self, frame: &CloseFrame) {
        self.connection.start_close(frame);
    }

    /// Returns `true` if the connection has ended with a closing handshake.
    #[cfg(feature = "server")]
    pub(crate) fn has_closed(&self) -> bool {
        // The locks are taken one after the other.
        let is_finished = self.connection.outbound().is_finished();
        is_finished && self.connection.inbound().closing_result().is_ok()
    }

    /// Ends the transport at once, unless it has ended.
    #[cfg(feature = "server")]
    pub(crate) fn abort(&self) {
        if !self.connection.outbound().is_finished() {
            let text = "the connection was ended without a Close frame by its server";
            self.connection.close_transport(&Error::new(crate::error::ErrorKind::Closed, text));
        }
    }

    /// Returns the Close frame of the peer, if one has arrived: see
    /// [`WebSocket::close_frame`](crate::WebSocket::close_frame).
    pub fn close_frame(&self) -> Option<CloseFrame> {
        self.connection.inbound().peer_close()
    }

    /// Waits until no more messages can be sent, because either side closed the connection, the connection
    /// failed, or its [`WebSocket`](crate::WebSocket) was dropped.
    ///
    /// A peer that ends its stream without a Close frame may still receive. Once the application has received
    /// a message, to which it may be about to reply, such an end counts only when `recv` has reported the
    /// end, when writing fails, or when the keepalive finds the peer gone.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A dropped future changes nothing about the connection.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Returns `true` if no more messages can be sent.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Returns the number of bytes that were accepted and that the transport has not taken yet.
    ///
    /// The bytes are those of frames, headers included. Senders wait while they are
    /// [`Limits::write_buffer`](crate::Limits::write_buffer) or more. Bytes that the operating system holds
    /// don't count: see [`Limits::unsent`](crate::Limits::unsent).
    ///
    /// ```
    /// # async fn example(sender: bowline::Sender) -> Result<(), bowline::Error> {
    /// // A frame of video that would wait behind others is better skipped.
    /// if sender.pending() == 0 {
    ///     sender.send(&[0; 1000]).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn pending(&self) -> usize {
        self.connection.outbound().pending()
    }

    /// Returns the negotiated subprotocol, if there is one (RFC 6455 1.9).
    pub fn subprotocol(&self) -> Option<&str> {
        self.connection.negotiated.subprotocol.as_deref()
    }

    /// Returns the role of our side: see [`WebSocket::role`](crate::WebSocket::role).
    pub fn role(&self) -> Role {
        self.connection.role
    }

    /// Returns the address of the peer, if the transport is a TCP stream, or TLS or HTTP/2 over TCP.
    ///
    /// For a connection through a proxy, this is the address of the proxy.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.connection.addresses.peer
    }

    /// Returns the local address, if the transport is a TCP stream, or TLS or HTTP/2 over TCP.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.connection.addresses.local
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
        f.debug_struct("Sender").field("peer_addr", &self.peer_addr()).finish_non_exhaustive()
    }
}

#[cfg(any(feature = "json", feature = "protobuf"))]
impl Sender {
    /// Sends a message that is encoded already.
    pub(crate) fn send_encoded(
        &self,
        encoded: Result<Encoded, Error>,
    ) -> impl Future<Output = Result<(), Error>> {
        send_encoded(&self.connection, Hold::Never, encoded)
    }
}

/// Sends a message that is encoded already, on behalf of either handle.
#[cfg(any(feature = "json", feature = "protobuf"))]
pub(crate) async fn send_encoded(
    connection: &Arc<Connection>,
    hold: Hold,
    encoded: Result<Encoded, Error>,
) -> Result<(), Error> {
    connection.send(hold, encoded?).await
}
