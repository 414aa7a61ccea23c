//! One message, read piece by piece.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bowline_proto::MessageKind;
use tokio::io::{AsyncRead, ReadBuf};

use crate::connection::Connection;
use crate::connection::inbound::batch::Batch;

/// A message that is read as it arrives: see [`WebSocket::reader`](crate::WebSocket::reader).
///
/// The end of the stream is the end of the message; if the connection ends before, reading fails with an [`Error`](crate::Error)
/// inside the [`io::Error`]. Text is UTF-8 as far as it was read, though a read may end inside a code point.
///
/// If it is dropped before its end, the rest of the message is passed over.
///
/// # Cancel safety
///
/// A `read` that is dropped before it is ready has taken nothing. What goes on until it has enough, such as `read_exact`,
/// loses what it has taken.
pub struct MessageReader<'a> {
    connection: &'a Arc<Connection>,
    batch: &'a mut Batch,
    kind: MessageKind,
}

impl<'a> MessageReader<'a> {
    pub(crate) fn new(connection: &'a Arc<Connection>, batch: &'a mut Batch, kind: MessageKind) -> Self {
        Self { connection, batch, kind }
    }

    /// Whether it is text or binary.
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
        self.connection.waker.wake_task();
    }
}

impl fmt::Debug for MessageReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageReader").field("kind", &self.kind).finish_non_exhaustive()
    }
}
