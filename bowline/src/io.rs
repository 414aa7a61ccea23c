//! A stream of bytes over messages.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::str;
use std::task::{Context, Poll, ready};

use bowline_proto::{CloseCode, CloseFrame, MessageKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{Error, ErrorKind};
use crate::message::Payload;
use crate::outlet::Outlet;
use crate::reader::into_io;
use crate::receive::Receive;
use crate::websocket::WebSocket;

impl WebSocket {
    /// The connection as a stream of bytes, for protocols that know nothing of messages: what is read is the payload of the
    /// messages that arrive, one behind the other; each write is a message of this kind.
    ///
    /// ```no_run
    /// # async fn example(socket: bowline::WebSocket) -> std::io::Result<()> {
    /// use bowline::MessageKind;
    ///
    /// // A tunnel to a TCP server.
    /// let mut socket = socket.into_io(MessageKind::Binary);
    /// let mut stream = tokio::net::TcpStream::connect("127.0.0.1:5432").await?;
    /// tokio::io::copy_bidirectional(&mut socket, &mut stream).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn into_io(self, kind: MessageKind) -> MessageIo {
        let outlet = Outlet::new(self.sender().into_connection());
        MessageIo { socket: self, outlet, kind, in_message: false, refused: false }
    }
}

/// A connection as a stream of bytes: see [`WebSocket::into_io`].
///
/// Reading ends where the connection ends normally: closed by the peer with 1000, 1001 or no code, or by us. All other ends are
/// errors, with an [`Error`] inside the [`io::Error`]. A message of the other kind is one, too, and closes the connection with 1003.
///
/// A write is taken whole or not at all. Writing nothing sends nothing. Text has to be UTF-8 in each write. Shutting down closes
/// the connection with 1000 and waits for its end; behind that nothing can be read, since WebSocket has no half-closed
/// connections.
///
/// If a read or a write is dropped before it is ready, nothing was taken.
pub struct MessageIo {
    socket: WebSocket,
    outlet: Outlet,
    kind: MessageKind,
    /// A message has begun, and its end was not read yet.
    in_message: bool,
    /// A message of the other kind came.
    refused: bool,
}

impl MessageIo {
    /// The connection. What is left of a message that has begun is passed over.
    pub fn into_inner(self) -> WebSocket {
        self.socket
    }

    fn other_kind(&self) -> io::Error {
        let text = format!("a message came that is not {:?}, as all of this stream are", self.kind);
        into_io(Error::new(ErrorKind::Protocol, text))
    }
}

impl AsyncRead for MessageIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let connection = this.socket.connection();
        loop {
            if this.refused {
                return Poll::Ready(Err(this.other_kind()));
            }
            if !this.in_message {
                match ready!(connection.poll_next(cx, Receive::take_start)).map_err(into_io)? {
                    None => return Poll::Ready(Ok(())),
                    Some(kind) if kind != this.kind => {
                        let frame =
                            CloseFrame::new(CloseCode::UNSUPPORTED_DATA, "").expect("1003 may be sent");
                        connection.begin_close(&frame);
                        this.refused = true;
                    }
                    Some(_) => this.in_message = true,
                }
                continue;
            }
            let before = buf.remaining();
            ready!(connection.poll_next(cx, |receive| receive.take_bytes(buf))).map_err(into_io)?;
            if buf.remaining() < before {
                return Poll::Ready(Ok(()));
            }
            this.in_message = false;
        }
    }
}

impl AsyncWrite for MessageIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // RFC 6455 5.6: a text message is UTF-8.
        if this.kind == MessageKind::Text && str::from_utf8(buf).is_err() {
            let text = "each write of a stream of text has to be UTF-8: nothing of this one was taken";
            return Poll::Ready(Err(into_io(Error::new(ErrorKind::InvalidInput, text))));
        }
        let payload = Payload::borrowed(this.kind, buf);
        let sent = ready!(this.outlet.poll_send(cx, |transmit| transmit.accept(payload)));
        Poll::Ready(sent.map(|()| buf.len()).map_err(into_io))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().outlet.poll_flush(cx).map_err(into_io)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().outlet.poll_close(cx).map_err(into_io)
    }
}

impl fmt::Debug for MessageIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageIo").field("kind", &self.kind).finish_non_exhaustive()
    }
}
