//! One message as a stream of bytes to read.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bowline_proto::MessageKind;
use tokio::io::{AsyncRead, ReadBuf};

use crate::connection::Connection;
use crate::connection::inbound::batch::Batch;

/// A reader of one message, as returned by [`WebSocket::reader`](crate::WebSocket::reader).
///
/// The reader implements [`AsyncRead`] and returns the payload as it arrives. The end of the stream is the
/// end of the message. Text is validated before it is returned, but a read may end inside a code point.
///
/// Dropping the reader before the end discards the rest of the message.
///
/// # Errors
///
/// Reading fails if the connection ends before the message does. The [`io::Error`] then contains the
/// [`Error`](crate::Error) that ended the connection. After a normal end in the middle of the message, the
/// kind of the error is [`ErrorKind::Closed`](crate::ErrorKind::Closed).
///
/// # Cancel safety
///
/// `read` is cancel safe: a dropped future has consumed nothing. Methods that read repeatedly, such as
/// `read_exact`, are not: a dropped future loses the bytes that it has read.
///
/// # Examples
///
/// ```
/// use tokio::io::AsyncReadExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (client, mut server) = bowline::pair();
/// client.send("a message that may be larger than memory").await?;
///
/// let mut reader = server.reader().await?.expect("the connection is open");
/// let (mut buffer, mut size) = ([0; 16], 0);
/// loop {
///     match reader.read(&mut buffer).await? {
///         0 => break,
///         count => size += count,
///     }
/// }
/// assert_eq!(size, 40);
/// # Ok(())
/// # }
/// ```
pub struct MessageReader<'a> {
    connection: &'a Arc<Connection>,
    batch: &'a mut Batch,
    kind: MessageKind,
}

impl<'a> MessageReader<'a> {
    pub(crate) fn new(connection: &'a Arc<Connection>, batch: &'a mut Batch, kind: MessageKind) -> Self {
        Self { connection, batch, kind }
    }

    /// Returns the kind of the message: text or binary.
    pub fn kind(&self) -> MessageKind {
        self.kind
    }
}

impl AsyncRead for MessageReader<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { connection, batch, .. } = self.get_mut();
        connection.poll_read(cx, batch, buf).map_err(io::Error::from)
    }
}

impl Drop for MessageReader<'_> {
    fn drop(&mut self) {
        self.connection.inbound().abandon_message();
        drop(self.connection.waker.remove_reader());
        self.connection.waker.wake_driver();
    }
}

impl fmt::Debug for MessageReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageReader").field("kind", &self.kind).finish_non_exhaustive()
    }
}
