//! The handle of the owner of a connection.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bowline_proto::{CloseCode, CloseFrame, MessageKind, Role};

use crate::connection::Connection;
use crate::connection::driver::DriverTask;
use crate::connection::inbound::batch::Batch;
#[cfg(any(feature = "json", feature = "protobuf"))]
use crate::connection::outbound::encoded::Encoded;
use crate::connection::outbound::random::renew_after_fork;
use crate::connection::parts::ConnectionParts;
use crate::error::{Error, TrySendError};
use crate::events;
use crate::message::{Message, Payload};
use crate::socket::ping::Ping;
use crate::socket::reader::MessageReader;
use crate::socket::sender::Sender;
#[cfg(any(feature = "json", feature = "protobuf"))]
use crate::socket::sender::send_encoded;
use crate::socket::writer::MessageWriter;
use crate::sync::spawn;

/// A WebSocket connection.
///
/// [`connect`](crate::connect) and [`Connector`](crate::Connector) open connections as a client;
/// [`serve`](crate::serve), [`accept`](crate::accept) and their builders open them as a server. The type is
/// the same for both roles, and for all transports: TCP, TLS, HTTP/2, and any stream of the application.
///
/// Only [`recv`](Self::recv) and [`reader`](Self::reader) take `&mut self`. All other methods take `&self`,
/// so any number of tasks can call them at the same time, also through clones of a [`Sender`].
///
/// # Control frames
///
/// The library answers pings, echoes Close frames and sends keepalive pings, even while the application does
/// not read. An unread data message stops this, because frames after the message are not read before the
/// message: memory is bounded.
///
/// # Dropping
///
/// Dropping the `WebSocket` ends the connection without a Close frame, which the peer reports as a lost
/// connection. Messages that were sent before are still written, for at most
/// [`Limits::close_timeout`](crate::Limits::close_timeout), and all [`Sender`]s fail. Call
/// [`close`](Self::close) for a normal end. Under [`serve`](crate::serve), the result of the handler closes
/// the connection.
///
/// # Examples
///
/// ```
/// use bowline::{CloseCode, WebSocket};
///
/// async fn echo(mut socket: WebSocket) -> Result<(), bowline::Error> {
///     while let Some(message) = socket.recv().await? {
///         socket.send(message).await?;
///     }
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), bowline::Error> {
/// let (mut client, server) = bowline::pair();
/// tokio::spawn(echo(server));
/// client.send("hello").await?;
/// assert_eq!(client.recv().await?, Some("hello".into()));
/// client.close(CloseCode::NORMAL, "").await?;
/// # Ok(())
/// # }
/// ```
pub struct WebSocket {
    pub(crate) connection: Arc<Connection>,
    pub(crate) batch: Batch,
}

impl WebSocket {
    /// Receives the next message, or `None` after the connection has ended normally.
    ///
    /// A connection ends normally if the peer closes it with 1000, 1001 or no code, or if this side closed it
    /// first. After the end, all calls return the same result again.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Closed`](crate::ErrorKind::Closed) if the peer closed the connection with
    ///   another code; [`Error::close_frame`] has the code and the reason.
    /// - Returns [`ErrorKind::Disconnected`](crate::ErrorKind::Disconnected) if the transport ended without a
    ///   Close frame.
    /// - Returns [`ErrorKind::Protocol`](crate::ErrorKind::Protocol) if the peer broke the protocol.
    /// - Returns [`ErrorKind::Limit`](crate::ErrorKind::Limit) if the peer exceeded one of our
    ///   [`Limits`](crate::Limits).
    /// - Returns [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if the peer did not answer a keepalive
    ///   ping, or took no bytes, in time.
    /// - Returns [`ErrorKind::Io`](crate::ErrorKind::Io) if the transport failed in another way.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A dropped future loses nothing: the part of a message that has arrived
    /// stays for the next call, and the connection stays open.
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Message>, Error>> {
        NextMessage { socket: self, waits: false }
    }

    /// Sends a message.
    ///
    /// Text (`&str`, `String`, ...), bytes (`&[u8]`, `Vec<u8>`, [`Bytes`](bytes::Bytes), ...), a [`Message`]
    /// and a `&`[`Prepared`](crate::Prepared) convert into a message; [`Payload`] has the full list.
    ///
    /// The method waits, in order of arrival, until fewer bytes than
    /// [`Limits::write_buffer`](crate::Limits::write_buffer) wait to be written. Then it accepts the message
    /// whole and returns. Accepted bytes are written as fast as the transport takes them, without a
    /// [`flush`](Self::flush) or any other call.
    ///
    /// Replies to messages that arrived together may leave together: while the next of those messages is in
    /// memory, the messages that the `WebSocket` itself sends are held back. They are written at the latest
    /// when the task yields, or with the first messages that are sent after a millisecond. A [`Sender`]
    /// writes at once.
    ///
    /// # Deadlocks
    ///
    /// While a [`MessageWriter`] is open, `send` waits for its end. A task that awaits `send` while it holds
    /// a writer of the same connection waits forever.
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
        self.connection.send(self.batch.hold(), message.into())
    }

    /// Sends a message if that is possible without waiting.
    ///
    /// # Errors
    ///
    /// - Returns [`TrySendError::Full`] with the message if [`send`](Self::send) would wait.
    /// - Returns [`TrySendError::Closed`] with the message if the connection is closed.
    pub fn try_send<'a, M: Into<Payload<'a>>>(&self, message: M) -> Result<(), TrySendError<M>> {
        self.connection.try_send(message, self.batch.hold())
    }

    /// Waits until the transport has taken all messages that were sent before.
    ///
    /// The transport is the kernel for plain TCP, and the task of the HTTP/2 connection for HTTP/2. Messages
    /// leave without this method too, as soon as the transport takes them.
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

    /// Waits for the next message and returns a reader of its payload, or `None` after the connection has
    /// ended normally.
    ///
    /// The reader returns the payload as it arrives, even within a frame, so the message is never held in
    /// memory as a whole. [`Limits::message_size`](crate::Limits::message_size) applies nevertheless. Text
    /// is validated as it arrives.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(mut socket: bowline::WebSocket) -> Result<(), Box<dyn std::error::Error>> {
    /// use tokio::io::AsyncReadExt;
    ///
    /// while let Some(mut reader) = socket.reader().await? {
    ///     let mut first = [0; 16];
    ///     let count = reader.read(&mut first).await?;
    ///     println!("a {:?} message that begins with {:?}", reader.kind(), &first[..count]);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A dropped future loses nothing: the next `recv` or `reader` returns the
    /// same message.
    pub async fn reader(&mut self) -> Result<Option<MessageReader<'_>>, Error> {
        let start = self.connection.next_start(&mut self.batch).await?;
        Ok(start.map(|kind| MessageReader::new(&self.connection, &mut self.batch, kind)))
    }

    /// Begins a message that is written piece by piece, and returns its writer.
    ///
    /// The message is sent in fragments (RFC 6455 5.4). The method waits for its turn as [`send`](Self::send)
    /// does. Other senders of data wait until the writer is finished or dropped; pings and
    /// [`close`](Self::close) pass between the fragments.
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(socket: bowline::WebSocket) -> Result<(), Box<dyn std::error::Error>> {
    /// use bowline::MessageKind;
    /// use tokio::io::AsyncWriteExt;
    ///
    /// let mut writer = socket.writer(MessageKind::Text).await?;
    /// writer.write_all(b"piece by ").await?;
    /// writer.write_all(b"piece").await?;
    /// writer.finish().await?;
    /// # Ok(())
    /// # }
    /// ```
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

    /// Sends a ping, waits for its pong, and returns the round-trip time.
    ///
    /// The pong of a later ping counts as well, because a peer may answer only the newest ping (RFC 6455
    /// 5.5.3). The application does not have to read meanwhile. However, a pong after an unread data message
    /// is not seen until the application has received that message.
    ///
    /// [`Ping::payload`] sets the payload.
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

    /// Sends a pong that no ping has asked for, with a payload of at most 125 bytes (RFC 6455 5.5).
    ///
    /// Such a pong is a heartbeat in one direction (RFC 6455 5.5.3): the peer does not answer. Some servers
    /// require it from their clients. The library answers the pings of the peer by itself, and by default
    /// sends pings of its own (see [`Connector::keepalive`](crate::Connector::keepalive)).
    ///
    /// Pongs pass between the fragments of a message, and wait only for room in the write buffer.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bowline::Error> {
    /// let (client, _server) = bowline::pair();
    /// client.pong("still here").await?;
    /// # Ok(())
    /// # }
    /// ```
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

    /// Returns a handle for sending on this connection from other tasks.
    pub fn sender(&self) -> Sender {
        Sender::new(Arc::clone(&self.connection))
    }

    /// Closes the connection, and returns the Close frame of the peer.
    ///
    /// The method performs the closing handshake (RFC 6455 7.1.2). Our Close frame is sent after all messages
    /// accepted earlier. Messages that have arrived by then can still be received; later ones are
    /// discarded. The method returns once the peer has answered and the transport has ended, after at most
    /// [`Limits::close_timeout`](crate::Limits::close_timeout).
    ///
    /// Several tasks may call this method, also while another task is in [`recv`](Self::recv). The first
    /// Close frame, ours or the peer's, decides.
    ///
    /// The reason is a human-readable text of at most 123 bytes, and may be empty. With
    /// [`CloseCode::NO_STATUS`] and an empty reason, the Close frame is sent without a code (RFC 6455 5.5.1).
    ///
    /// # Examples
    ///
    /// ```
    /// use bowline::CloseCode;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bowline::Error> {
    /// let (client, mut server) = bowline::pair();
    /// tokio::spawn(async move { while let Ok(Some(_)) = server.recv().await {} });
    /// let answer = client.close(CloseCode::NORMAL, "done").await?;
    /// assert_eq!(answer.code(), CloseCode::NORMAL);
    /// # Ok(())
    /// # }
    /// ```
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

    /// Starts to close the connection, and returns at once.
    ///
    /// The method does what [`close`](Self::close) does, without waiting for the peer's answer. The closing
    /// handshake then goes on by itself, and ends after at most
    /// [`Limits::close_timeout`](crate::Limits::close_timeout); [`recv`](Self::recv) returns the messages
    /// that arrived before, and then `None`.
    ///
    /// # Examples
    ///
    /// ```
    /// use bowline::{CloseCode, Sender};
    ///
    /// /// Asks all clients to come back later.
    /// fn close_all(clients: &[Sender]) -> Result<(), bowline::Error> {
    ///     clients.iter().try_for_each(|client| client.begin_close(CloseCode::SERVICE_RESTART, "update"))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the code or the reason may not
    /// be sent. In that case nothing was sent.
    pub fn begin_close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.connection.begin_close(code, reason)
    }

    /// Returns the Close frame of the peer, if one has arrived.
    ///
    /// The code of a frame without a code is [`CloseCode::NO_STATUS`] (RFC 6455 7.1.5). `None` after the end
    /// means that the connection ended without a Close frame of the peer.
    ///
    /// # Examples
    ///
    /// A frame that was received may also be sent. This proxy closes one side as the other side was closed.
    ///
    /// ```
    /// use bowline::{CloseCode, Sender, WebSocket};
    ///
    /// async fn proxy(mut client: WebSocket, mut server: WebSocket) {
    ///     let (to_client, to_server) = (client.sender(), server.sender());
    ///     tokio::join!(relay(&mut client, to_server), relay(&mut server, to_client));
    /// }
    ///
    /// async fn relay(from: &mut WebSocket, to: Sender) {
    ///     while let Ok(Some(message)) = from.recv().await {
    ///         if to.send(message).await.is_err() {
    ///             break;
    ///         }
    ///     }
    ///     let _ = match from.close_frame() {
    ///         Some(frame) => to.close(frame.code(), frame.reason()).await,
    ///         None => to.close(CloseCode::GOING_AWAY, "the other side was lost").await,
    ///     };
    /// }
    /// ```
    pub fn close_frame(&self) -> Option<CloseFrame> {
        self.connection.inbound().peer_close()
    }

    /// Waits until no more messages can be sent: see [`Sender::closed`].
    ///
    /// Messages that arrived before may still be received.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A dropped future changes nothing about the connection.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Returns `true` if no more messages can be sent. Messages that arrived before may still be received.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Returns the number of bytes that were accepted and that the transport has not taken yet: see
    /// [`Sender::pending`].
    pub fn pending(&self) -> usize {
        self.connection.outbound().pending()
    }

    /// Returns the role of our side: client or server.
    ///
    /// Code that runs on both sides uses the role to decide which side begins, or which of the parameters of
    /// `compression` are its own.
    pub fn role(&self) -> Role {
        self.connection.role
    }

    /// Returns the negotiated subprotocol, if there is one (RFC 6455 1.9).
    pub fn subprotocol(&self) -> Option<&str> {
        self.connection.negotiated.subprotocol.as_deref()
    }

    /// Returns the negotiated parameters of compression, or `None` if messages are not compressed (RFC 7692).
    #[cfg(feature = "deflate")]
    pub fn compression(&self) -> Option<bowline_proto::DeflateParameters> {
        self.connection.negotiated.deflate
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

    /// Returns `true` if the transport is a TCP stream that is used directly. For tests only.
    #[doc(hidden)]
    pub fn is_tcp_fast_path(&self) -> bool {
        self.connection.outbound().is_tcp()
    }
}

impl WebSocket {
    /// Opens a connection whose handshake is done, and spawns its task.
    pub(crate) fn open(parts: ConnectionParts<'_>) -> Self {
        let role = parts.role;
        if role == Role::Client {
            renew_after_fork();
        }
        let (keepalive, close_timeout) = (parts.config.keepalive, parts.config.limits.close_timeout);
        let connection = Arc::new(Connection::new(parts));
        events::connection_opened(role, connection.addresses.peer);
        spawn(DriverTask::new(Arc::clone(&connection), keepalive, close_timeout));
        Self { connection, batch: Batch::default() }
    }

    /// Sends a message that is encoded already.
    #[cfg(any(feature = "json", feature = "protobuf"))]
    pub(crate) fn send_encoded(
        &self,
        encoded: Result<Encoded, Error>,
    ) -> impl Future<Output = Result<(), Error>> {
        send_encoded(&self.connection, self.batch.hold(), encoded)
    }

    /// Hands the end of the connection to the holder of the returned sender: dropping the `WebSocket` no
    /// longer ends it.
    #[cfg(feature = "server")]
    pub(crate) fn supervise(&mut self) -> Sender {
        self.connection.supervise();
        self.sender()
    }

    /// Keeps `value` until this `WebSocket` was dropped and the transport is closed.
    #[cfg(feature = "server")]
    pub(crate) fn attach(&self, value: impl Send + 'static) {
        self.connection.outbound().attach(Box::new(value));
    }
}

/// The future of [`WebSocket::recv`].
struct NextMessage<'a> {
    socket: &'a mut WebSocket,
    waits: bool,
}

impl Future for NextMessage<'_> {
    type Output = Result<Option<Message>, Error>;

    #[expect(clippy::inline_always, reason = "measured: 30 instructions less of a small message")]
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { socket: WebSocket { connection, batch, .. }, waits } = self.get_mut();
        let poll = connection.poll_message::<true>(cx, batch);
        *waits = poll.is_pending();
        poll
    }
}

impl Drop for NextMessage<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.waits {
            self.socket.connection.stop_waiting();
        }
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        // Before the stream is polled, which may panic.
        self.connection.outbound().detach();
        if self.connection.is_supervised() {
            self.connection.discard_input();
        } else {
            self.connection.abandon();
        }
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
        // The subprotocol may be a token of the client's.
        f.debug_struct("WebSocket").field("peer_addr", &self.peer_addr()).finish_non_exhaustive()
    }
}
