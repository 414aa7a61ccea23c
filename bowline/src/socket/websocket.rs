//! The connection, as its owner sees it.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bowline_proto::{CloseCode, CloseFrame, MessageKind, Role};

use crate::connection::Connection;
use crate::connection::driver::DriverTask;
use crate::connection::inbound::batch::Batch;
use crate::connection::parts::ConnectionParts;
use crate::error::{Error, TrySendError};
use crate::events;
use crate::message::{Message, Payload};
use crate::random::renew_after_fork;
use crate::socket::reader::MessageReader;
use crate::socket::sender::Sender;
use crate::socket::writer::MessageWriter;
use crate::sync::spawn;

/// A WebSocket connection.
///
/// Reading ([`recv`](Self::recv), [`reader`](Self::reader)) takes `&mut self`; everything else takes `&self` and may
/// be called by several tasks at once, also through a [`Sender`].
///
/// Pings are answered, Close frames echoed and the keepalive held by the library, also while the application does not
/// read: as far as the first message that it has not asked for.
///
/// Dropping the `WebSocket` ends the connection: its [`Sender`]s fail, what was sent is still written, and the
/// transport ends without a Close frame. [`close`](Self::close) it to end it in the way of the protocol. Under
/// `serve`, the result of the handler closes it.
pub struct WebSocket {
    pub(crate) connection: Arc<Connection>,
    pub(crate) batch: Batch,
}

impl WebSocket {
    /// Receives the next message; `None` once the connection has ended normally.
    ///
    /// That is: the peer closed it with 1000, 1001 or no code, or we had closed it first. After the end, the answer
    /// stays the same.
    ///
    /// # Errors
    ///
    /// The peer closed with another code ([`Error::close_frame`]), the transport ended without a Close frame, the peer
    /// broke the protocol or went over a limit, or it is gone: see [`ErrorKind`](crate::ErrorKind).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped: what has arrived of a message stays for the next call. A timeout
    /// around `recv` does not end the connection.
    pub fn recv(&mut self) -> impl Future<Output = Result<Option<Message>, Error>> {
        NextMessage { socket: self, waits: false }
    }

    /// Sends a message: text (`&str`, `String`, ...), bytes (`&[u8]`, `Vec<u8>`, [`Bytes`](bytes::Bytes), ...), a
    /// [`Message`] or a `&`[`Prepared`](crate::Prepared).
    ///
    /// It waits, in order of arrival, until less than [`Limits::write_buffer`](crate::Limits::write_buffer) waits to
    /// be written; then it accepts the message whole and returns. What was accepted goes out as fast as the transport
    /// takes it, without any further call.
    ///
    /// While a [`MessageWriter`] is open, `send` waits for its end: awaiting `send` while holding a writer in the same
    /// task is a deadlock.
    ///
    /// A `send` that waits, and whose future is kept without being polled, holds up all senders behind it: drop it instead.
    ///
    /// Replies to messages that have arrived together may leave together: while the next one is in memory, what the `WebSocket`
    /// itself sends is held back for a millisecond, and for as long as the application computes without sending or yielding. A
    /// [`Sender`] writes at once.
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
        self.connection.send_with(self.batch.hold(), move |outbound| outbound.accept(&mut payload))
    }

    /// Sends a message if that is possible without waiting.
    ///
    /// # Errors
    ///
    /// [`TrySendError::Full`] and [`TrySendError::Closed`] hand the message back.
    pub fn try_send<'a, M: Into<Payload<'a>>>(&self, message: M) -> Result<(), TrySendError<M>> {
        self.connection.try_send(message, self.batch.hold())
    }

    /// Waits until all that was sent before was handed to the transport: for plain TCP to the kernel, for HTTP/2 to its
    /// connection's task.
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

    /// Waits for the next message and gives a reader of it, which takes it piece by piece as it arrives; `None` once
    /// the connection has ended normally.
    ///
    /// Nothing holds the whole message, not even that of one frame; the limits of its size still hold. Text is
    /// validated as it arrives.
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
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped: the message is still there for `recv` or `reader`.
    pub async fn reader(&mut self) -> Result<Option<MessageReader<'_>>, Error> {
        let start = self.connection.next_start(&mut self.batch).await?;
        Ok(start.map(|kind| MessageReader::new(&self.connection, &mut self.batch, kind)))
    }

    /// Begins a message that is written piece by piece, in fragments (RFC 6455 5.4).
    ///
    /// It waits for its turn as [`send`](Self::send) does. Until the writer is finished or dropped, other senders of
    /// data wait; pings and [`close`](Self::close) pass between the fragments.
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
    /// Why the connection is closed.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, no message was begun.
    pub async fn writer(&self, kind: MessageKind) -> Result<MessageWriter, Error> {
        MessageWriter::open(Arc::clone(&self.connection), kind).await
    }

    /// Sends a ping and waits for its own pong: the time that took is the round trip.
    ///
    /// The pong of a later ping counts as well, as a peer may answer only the newest (RFC 6455 5.5.3). Nobody has to read meanwhile;
    /// but a message that the application has not asked for keeps the pong behind it waiting until someone reads.
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

    /// A handle that sends on this connection, for other tasks.
    pub fn sender(&self) -> Sender {
        Sender::new(Arc::clone(&self.connection))
    }

    /// Closes the connection, and gives the Close frame of the peer's answer; `None` if that has no code.
    ///
    /// Our Close frame goes behind all that was sent. Messages that are here already can still be received; what
    /// comes later is thrown away. It waits until the peer has answered and the transport has ended, for at most
    /// [`Limits::close_timeout`](crate::Limits::close_timeout). Other tasks may read and close at the same time; the
    /// first Close frame, ours or the peer's, decides.
    ///
    /// The reason is for people and has at most 123 bytes; it is often empty.
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

    /// The peer's Close frame, if it came and had a code.
    pub fn close_frame(&self) -> Option<CloseFrame> {
        self.connection.inbound().peer_close().ok().flatten()
    }

    /// The subprotocol that was agreed on, if any (RFC 6455 1.9).
    pub fn subprotocol(&self) -> Option<&str> {
        self.connection.agreed.subprotocol.as_deref()
    }

    /// How messages are compressed, if that was agreed on (RFC 7692).
    #[cfg(feature = "deflate")]
    pub fn compression(&self) -> Option<bowline_proto::DeflateParameters> {
        self.connection.agreed.deflate
    }

    /// The address of the peer, where the transport is a TCP stream or TLS over one.
    ///
    /// Behind a proxy it is that of the proxy.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.connection.addresses.peer
    }

    /// Our own address, where the transport is a TCP stream or TLS over one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.connection.addresses.local
    }

    /// Whether the transport is a TCP stream that we use directly. For tests.
    #[doc(hidden)]
    pub fn is_tcp_fast_path(&self) -> bool {
        self.connection.outbound().is_tcp()
    }
}

impl WebSocket {
    /// Opens a connection whose handshake is done, and starts its task.
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

    /// From now on the holder of the result closes the connection, not the drop of this.
    #[cfg(feature = "server")]
    pub(crate) fn supervise(&mut self) -> Sender {
        self.connection.supervise();
        self.sender()
    }
}

/// See [`WebSocket::recv`].
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
        if self.connection.is_supervised() {
            self.connection.discard_input();
        } else {
            self.connection.abandon();
        }
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("peer_addr", &self.peer_addr())
            .field("subprotocol", &self.subprotocol())
            .finish_non_exhaustive()
    }
}
