//! A connection as a stream of bytes, to tunnel another protocol.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bowline_proto::{CloseCode, CloseFrame, MessageKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::inbound::batch::Hold;
use crate::error::{Error, ErrorKind};
use crate::message::Payload;
use crate::socket::poll_sender::PollSender;
use crate::socket::websocket::WebSocket;

/// The size of the largest message that one write sends, in bytes. Other libraries accept messages of this
/// size by default.
const WRITE_SIZE: usize = 32 * 1024;

/// The largest number of empty messages that one poll skips: as many as tokio's budget allows.
const EMPTY_MAX: usize = 128;

impl WebSocket {
    /// Converts the connection into a stream of bytes, carried in messages of `kind`.
    ///
    /// The stream can tunnel another protocol: see [`WebSocketIo`].
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(socket: bowline::WebSocket) -> std::io::Result<()> {
    /// use bowline::MessageKind;
    /// use tokio::net::TcpStream;
    ///
    /// // Relays bytes between the WebSocket and a TCP server, in both directions.
    /// let mut tunnel = socket.into_io(MessageKind::Binary);
    /// let mut target = TcpStream::connect("127.0.0.1:5432").await?;
    /// tokio::io::copy_bidirectional(&mut tunnel, &mut target).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_io(self, kind: MessageKind) -> WebSocketIo {
        let sender = PollSender::new(Arc::clone(&self.connection), Hold::Never);
        let (reading, ends) = (Reading::Between, Ends::Together);
        WebSocketIo { sender, socket: self, kind, reading, ends, refused: None }
    }
}

/// A connection as a stream of bytes, as returned by [`WebSocket::into_io`].
///
/// - **Reading** returns the payloads of successive messages as they arrive, without the boundaries between
///   messages. The end of the stream is a Close frame of the peer with 1000, 1001 or no code. Every other end
///   is an [`io::Error`] that contains the [`Error`]. A message of the other kind closes the connection with
///   1003 (RFC 6455 7.4.1).
/// - **Writing**: Each write sends one message, with up to 32 KiB of the buffer; an empty write sends none.
///   Text has to be valid UTF-8 in each call. While
///   [`Limits::write_buffer`](crate::Limits::write_buffer) is reached, a write waits in order of arrival,
///   together with all other senders. A write that is no longer polled is skipped.
/// - **Shutting down** closes the connection with 1000 and waits for its end. WebSockets have no half-closed
///   state: bytes that the peer sends after our Close frame are discarded. If there were any, the next read
///   returns [`ErrorKind::Closed`] instead of the end of the stream. For protocols in which one side finishes
///   first, see [`half_close`](Self::half_close).
///
/// Dropping the stream drops the [`WebSocket`].
///
/// # Cancel safety
///
/// `read`, `write`, `flush` and `shutdown` are cancel safe: a dropped `read` has consumed nothing, a dropped
/// `write` has sent nothing, and the others can be called again. Methods that read or write repeatedly, such
/// as `read_exact` and `write_all`, are not.
///
/// # Examples
///
/// ```
/// use bowline::MessageKind;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let (client, server) = bowline::pair();
/// let mut client = client.into_io(MessageKind::Binary);
/// let mut server = server.into_io(MessageKind::Binary);
/// client.write_all(b"two messages, ").await?;
/// client.write_all(b"one stream").await?;
///
/// let mut bytes = [0; 24];
/// server.read_exact(&mut bytes).await?;
/// assert_eq!(&bytes, b"two messages, one stream");
/// # Ok(())
/// # }
/// ```
pub struct WebSocketIo {
    sender: PollSender,
    socket: WebSocket,
    kind: MessageKind,
    reading: Reading,
    ends: Ends,
    /// The peer sent a message of the other kind.
    refused: Option<Error>,
}

/// The position of a reader among the messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// No message is open.
    Between,
    /// A message has begun, of which no byte was read.
    Begun,
    /// A message is open, of which some bytes were read.
    Within,
}

/// The ends of the two directions.
///
/// The side whose direction ended first closes the connection, since that side knows that it has read
/// everything. If the other side did so, the close timeout could cut off what a slow peer has not read.
///
/// ```text
///        .--shutdown: an empty message is sent--> WriteEnded --an empty message arrives: close--.
/// Apart <                                                                                        >--> Ended
///        '--an empty message arrives--> ReadEnded --shutdown: an empty message is sent----------'
///
/// Together: a shutdown closes the connection
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// The directions end together, by a Close frame.
    Together,
    /// Each direction ends with an empty message. Both are open.
    Apart,
    /// Our direction has ended.
    WriteEnded,
    /// The peer's direction has ended.
    ReadEnded,
    /// Both directions have ended.
    Ended,
}

impl WebSocketIo {
    /// Lets each direction end on its own, with an empty message. Default: they end together, with a Close
    /// frame.
    ///
    /// Shutting the stream down then sends an empty message and returns, and reading goes on. An empty
    /// message of the peer is the end of what is read, and writing goes on. So an application that shuts its
    /// direction down still receives the answer, as over TCP.
    ///
    /// The side that was first to shut down closes the connection with 1000 once it has read to the end. The
    /// other side's shutdown waits for that: when it returns `Ok`, the peer has read everything. A slow peer
    /// takes as long as it needs, as long as it answers keepalive pings.
    ///
    /// Both sides must agree on this, since RFC 6455 has no such signal: without this setting, empty messages
    /// mean nothing. The setting has to be made before anything is read or written.
    ///
    /// # Examples
    ///
    /// ```
    /// use bowline::MessageKind;
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let (client, server) = bowline::pair();
    /// let mut client = client.into_io(MessageKind::Binary).half_close();
    /// let mut server = server.into_io(MessageKind::Binary).half_close();
    ///
    /// client.write_all(b"the question").await?;
    /// client.shutdown().await?;
    ///
    /// let mut question = Vec::new();
    /// server.read_to_end(&mut question).await?;
    /// server.write_all(b"the answer").await?;
    ///
    /// let mut answer = [0; 10];
    /// client.read_exact(&mut answer).await?;
    /// assert_eq!(&answer, b"the answer");
    /// # Ok(())
    /// # }
    /// ```
    pub fn half_close(mut self) -> Self {
        if self.ends == Ends::Together {
            self.ends = Ends::Apart;
        }
        self
    }

    /// Waits until a message is being read. Returns `false` at the end of the stream.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        if let Some(error) = &self.refused {
            return Poll::Ready(Err(error.clone()));
        }
        if matches!(self.ends, Ends::ReadEnded | Ends::Ended) {
            return Poll::Ready(Ok(false));
        }
        if self.reading == Reading::Between {
            let WebSocket { connection, batch, .. } = &mut self.socket;
            let Some(kind) = ready!(connection.poll_start(cx, batch))? else {
                return Poll::Ready(if connection.inbound().has_missed_data() {
                    let text = "bytes of the peer were discarded, as this side had closed the connection \
                                before they arrived: see WebSocketIo::half_close";
                    Err(Error::new(ErrorKind::Closed, text))
                } else {
                    Ok(false)
                });
            };
            if kind != self.kind {
                return Poll::Ready(Err(self.refuse()));
            }
            self.reading = Reading::Begun;
        }
        Poll::Ready(Ok(true))
    }

    /// Notes the end of a message. An empty one ends the peer's direction if the directions end apart.
    fn end_message(&mut self) {
        let was_empty = self.reading == Reading::Begun;
        self.reading = Reading::Between;
        if was_empty && self.ends == Ends::Apart {
            self.ends = Ends::ReadEnded;
        } else if was_empty && self.ends == Ends::WriteEnded {
            self.ends = Ends::Ended;
            let frame = CloseFrame::new(CloseCode::NORMAL, "").expect("1000 may be sent");
            self.socket.connection.start_close(&frame);
        }
    }

    /// Ends our direction with an empty message, as soon as there is room for it.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A connection that is closed needs no such message.
        if let Ok(mut outbound) = ready!(self.sender.poll_room(cx)) {
            let mut empty = match self.kind {
                MessageKind::Text => Payload::from(""),
                MessageKind::Binary => Payload::from(&[]),
            };
            let _ = outbound.accept(&mut empty);
            self.socket.connection.write(outbound, Hold::Never);
        }
        self.ends = if self.ends == Ends::ReadEnded { Ends::Ended } else { Ends::WriteEnded };
        Poll::Ready(())
    }

    /// Waits until the connection has ended, after both directions have.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let WebSocket { connection, batch, .. } = &mut self.socket;
        if !connection.is_closed() {
            // Nobody else reads any more: the end of the peer's stream is an end only for a reader.
            if let Ok(Some(_)) = ready!(connection.poll_start(cx, batch)) {
                // A peer that sends more than its end won't close either.
                connection.start_close(&CloseFrame::new(CloseCode::NORMAL, "").expect("1000 may be sent"));
            }
        }
        self.sender.poll_ended(cx)
    }

    /// Closes the connection because of a message of the other kind.
    fn refuse(&mut self) -> Error {
        let text = format!("the peer sent a message that is not {:?}: the connection is closed", self.kind);
        let error = Error::new(ErrorKind::InvalidData, text);
        self.refused = Some(error.clone());
        // RFC 6455 7.4.1: 1003 reports a type of data that can't be accepted.
        let frame = CloseFrame::new(CloseCode::UNSUPPORTED_DATA, "").expect("1003 may be sent");
        self.socket.connection.start_close(&frame);
        error
    }

    /// Returns the payload of the message that one write of `bytes` sends.
    fn payload<'a>(&self, bytes: &'a [u8]) -> Result<Payload<'a>, Error> {
        let piece = &bytes[..bytes.len().min(WRITE_SIZE)];
        if self.kind == MessageKind::Binary {
            return Ok(piece.into());
        }
        // RFC 6455 5.6: a text message is UTF-8. A piece that is cut at the size limit is cut between code
        // points.
        match std::str::from_utf8(piece) {
            Ok(text) => Ok(text.into()),
            Err(error) if error.error_len().is_none() && piece.len() < bytes.len() => {
                let text = std::str::from_utf8(&piece[..error.valid_up_to()]);
                Ok(text.expect("the text is valid up to here").into())
            }
            Err(error) => {
                let text =
                    "bytes that are written as text have to be valid UTF-8 in each call: nothing was sent";
                Err(Error::with_source(ErrorKind::InvalidInput, text, error))
            }
        }
    }
}

impl AsyncRead for WebSocketIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let before = buf.filled().len();
        let mut empty = 0;
        while buf.remaining() > 0 && buf.filled().len() == before {
            if empty == EMPTY_MAX {
                // Outside of tokio, no budget bounds a poll.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            empty += 1;
            if !ready!(stream.poll_message(cx))? {
                break;
            }
            let WebSocket { connection, batch, .. } = &mut stream.socket;
            ready!(connection.poll_read(cx, batch, buf))?;
            if buf.filled().len() > before {
                stream.reading = Reading::Within;
            } else {
                // No bytes mean the end of the message.
                stream.end_message();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WebSocketIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let stream = self.get_mut();
        if matches!(stream.ends, Ends::WriteEnded | Ends::Ended) {
            return Poll::Ready(Err(Error::new(ErrorKind::Closed, "the stream was shut down").into()));
        }
        let mut payload = stream.payload(buf)?;
        let len = payload.parts().1.len();
        let mut outbound = ready!(stream.sender.poll_room(cx))?;
        outbound.accept(&mut payload)?;
        stream.socket.connection.write(outbound, stream.socket.batch.hold());
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().sender.poll_flush(cx).map_err(io::Error::from)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if matches!(stream.ends, Ends::Apart | Ends::ReadEnded) {
            ready!(stream.poll_end(cx));
        }
        let sender = &mut stream.sender;
        match stream.ends {
            Ends::Together => sender.poll_close(cx),
            Ends::WriteEnded if !stream.socket.connection.is_closed() => sender.poll_flush(cx),
            _ => stream.poll_ended(cx),
        }
        .map_err(io::Error::from)
    }
}

impl fmt::Debug for WebSocketIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("WebSocketIo");
        debug.field("kind", &self.kind).field("socket", &self.socket).finish_non_exhaustive()
    }
}
