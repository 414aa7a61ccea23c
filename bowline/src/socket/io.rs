//! A connection as a stream of bytes.

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

/// How much one write takes. Other libraries refuse larger messages by default than this.
const WRITE_SIZE: usize = 32 * 1024;

impl WebSocket {
    /// The connection as a stream of bytes, which its messages of `kind` carry: to tunnel another protocol.
    ///
    /// ```
    /// # async fn example(socket: bowline::WebSocket) -> std::io::Result<()> {
    /// use bowline::MessageKind;
    /// use tokio::net::TcpStream;
    ///
    /// // What comes over the WebSocket goes to a TCP server, and the other way round.
    /// let mut tunnel = socket.into_io(MessageKind::Binary);
    /// let mut target = TcpStream::connect("127.0.0.1:5432").await?;
    /// tokio::io::copy_bidirectional(&mut tunnel, &mut target).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_io(self, kind: MessageKind) -> WebSocketIo {
        let sender = PollSender::new(Arc::clone(&self.connection), Hold::Never);
        WebSocketIo { sender, socket: self, kind, is_in_message: false, refused: None }
    }
}

/// A connection as a stream of bytes: see [`WebSocket::into_io`].
///
/// - **Reading** gives the payloads one after the other, as they arrive; where one message ends and the next begins is
///   not to be seen. The end of the stream is the peer's Close frame with 1000, 1001 or no code. All else is an
///   [`io::Error`] with the [`Error`] inside. A message of the other kind closes the connection with 1003.
/// - **Writing**: each call is one message, of at most the first 32 KiB of what it is given; of nothing it makes none.
///   Text has to be UTF-8 in each call. It waits while [`Limits::write_buffer`](crate::Limits::write_buffer) or more is
///   to be written, in the order of arrival with all others who send. A write that was given up is passed by the others.
/// - **Shutting down** closes the connection with 1000 and waits for its end. There is no half of it: what the peer sends
///   behind our Close frame is thrown away. A protocol in which one side finishes first has to say so in its own
///   bytes.
///
/// Dropping it drops the [`WebSocket`].
pub struct WebSocketIo {
    sender: PollSender,
    socket: WebSocket,
    kind: MessageKind,
    is_in_message: bool,
    /// The peer sent a message of the other kind.
    refused: Option<Error>,
}

impl WebSocketIo {
    /// Waits until a message is being read; `false` at the end.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        if let Some(error) = &self.refused {
            return Poll::Ready(Err(error.clone()));
        }
        if !self.is_in_message {
            let WebSocket { connection, batch, .. } = &mut self.socket;
            let Some(kind) = ready!(connection.poll_start(cx, batch))? else {
                return Poll::Ready(Ok(false));
            };
            if kind != self.kind {
                return Poll::Ready(Err(self.refuse()));
            }
            self.is_in_message = true;
        }
        Poll::Ready(Ok(true))
    }

    fn refuse(&mut self) -> Error {
        let text = format!("the peer sent a message that is not {:?}: the connection is closed", self.kind);
        let error = Error::new(ErrorKind::InvalidData, text);
        self.refused = Some(error.clone());
        // RFC 6455 7.4.1: 1003 is for a type of data that can't be accepted.
        let frame = CloseFrame::new(CloseCode::UNSUPPORTED_DATA, "").expect("1003 may be sent");
        self.socket.connection.start_close(&frame);
        error
    }

    /// What one write sends of `bytes`.
    fn payload<'a>(&self, bytes: &'a [u8]) -> Result<Payload<'a>, Error> {
        let piece = &bytes[..bytes.len().min(WRITE_SIZE)];
        if self.kind == MessageKind::Binary {
            return Ok(piece.into());
        }
        // RFC 6455 5.6: a text message is UTF-8. What is cut off for its size is cut between code points.
        match std::str::from_utf8(piece) {
            Ok(text) => Ok(text.into()),
            Err(error) if error.error_len().is_none() && piece.len() < bytes.len() => {
                let text = std::str::from_utf8(&piece[..error.valid_up_to()]);
                Ok(text.expect("it was found to be valid so far").into())
            }
            Err(error) => {
                let text = "what is written as text has to be UTF-8 in each call: nothing was sent";
                Err(Error::with_source(ErrorKind::InvalidInput, text, error))
            }
        }
    }
}

impl AsyncRead for WebSocketIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let before = buf.filled().len();
        while buf.remaining() > 0 && buf.filled().len() == before {
            if !ready!(stream.poll_message(cx))? {
                break;
            }
            let WebSocket { connection, batch, .. } = &mut stream.socket;
            ready!(connection.poll_read(cx, batch, buf))?;
            // Nothing is the end of the message, not that of the stream.
            stream.is_in_message = buf.filled().len() > before;
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
        self.get_mut().sender.poll_close(cx).map_err(io::Error::from)
    }
}

impl fmt::Debug for WebSocketIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("WebSocketIo");
        debug.field("kind", &self.kind).field("socket", &self.socket).finish_non_exhaustive()
    }
}
