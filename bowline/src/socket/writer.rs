//! One message as a stream of bytes to write.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bowline_proto::{CloseCode, CloseFrame, MessageKind, Utf8Validator};
use tokio::io::AsyncWrite;
use tokio::task::coop::poll_proceed;

use crate::connection::Connection;
use crate::connection::inbound::batch::Hold;
use crate::connection::outbound::fragment::FragmentEnd;
use crate::connection::outbound::wait_queue::{Manner, Place};
use crate::connection::outbound::{Outbound, Outgoing, Queue};
use crate::error::{Error, ErrorKind};

/// The size of the largest fragment, in bytes. Small writes are gathered up to this size.
const FRAGMENT_SIZE: usize = 16 * 1024;

/// A writer of one message, as returned by [`WebSocket::writer`](crate::WebSocket::writer).
///
/// The writer implements [`AsyncWrite`] and sends the message in fragments of up to 16 KiB. `flush` sends the
/// bytes that were written so far; [`finish`](Self::finish) and `shutdown` end the message.
///
/// Writing text that is not valid UTF-8 fails, and sends nothing of the slice that was passed.
///
/// # Dropping
///
/// If the writer is dropped before the end of the message, and a part of the message was sent, the message
/// can be neither finished nor withdrawn. The connection is then closed with 1011 (RFC 6455 7.4.1). If
/// nothing was sent, the connection stays open.
///
/// # Cancel safety
///
/// `write`, `flush` and `shutdown` are cancel safe: a dropped `write` has accepted nothing, and the others
/// can be called again. `write_all` is not: a dropped future may have written a part of its bytes.
///
/// # Examples
///
/// ```
/// use bowline::MessageKind;
/// use tokio::io::AsyncWriteExt;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (client, mut server) = bowline::pair();
/// let mut writer = client.writer(MessageKind::Text).await?;
/// for line in ["first line", "second line"] {
///     writer.write_all(line.as_bytes()).await?;
///     writer.write_all(b"\n").await?;
/// }
/// writer.finish().await?;
/// assert_eq!(server.recv().await?, Some("first line\nsecond line\n".into()));
/// # Ok(())
/// # }
/// ```
pub struct MessageWriter {
    connection: Arc<Connection>,
    kind: MessageKind,
    utf8: Utf8Validator,
    /// The bytes that were written and are not yet in a fragment.
    gathered: Vec<u8>,
    compress: bool,
    /// The compressor may hold back a part of the message.
    held_back: bool,
    stage: WriterStage,
    /// The position in the outbound stream that a flush under way waits for.
    flush_end: Option<u64>,
    place: Place,
}

/// The part of the message that the peer gets to see.
///
/// ```text
/// Unsent ──a fragment is accepted──▶ Begun ──the last one is accepted──▶ Finished
///    └──────────────────the whole message is accepted────────────────────────▲
/// ```
///
/// Without compression, the first fragment begins the message. A compressor may hold all of it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriterStage {
    Unsent,
    Begun,
    Finished,
}

/// The exclusive right to send data, for which a writer waits as for its turn to send a message.
struct Opening;

impl Outgoing for Opening {
    /// `true` if the message is compressed.
    type Accepted = bool;

    fn accept(&mut self, outbound: &mut Outbound) -> Result<bool, Error> {
        outbound.begin_writing();
        Ok(outbound.compresses())
    }
}

impl MessageWriter {
    pub(crate) async fn open(connection: Arc<Connection>, kind: MessageKind) -> Result<Self, Error> {
        let compress = connection.send(Hold::Never, Opening).await?;
        Ok(Self {
            connection,
            kind,
            utf8: Utf8Validator::new(),
            gathered: Vec::new(),
            compress,
            held_back: false,
            stage: WriterStage::Unsent,
            flush_end: None,
            place: Place::default(),
        })
    }

    /// Returns the kind of the message: text or binary.
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// Sets whether the message is compressed. Default: `true`, whatever the size of the message.
    ///
    /// The setting has no effect on connections that did not negotiate compression, and none after the first
    /// write.
    #[cfg(feature = "deflate")]
    pub fn compress(mut self, compress: bool) -> Self {
        if self.gathered.is_empty() && !self.held_back && self.stage == WriterStage::Unsent {
            self.compress = compress && self.connection.outbound().compresses();
        }
        self
    }

    /// Ends the message.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if the message is text and ends inside a code point.
    /// - Returns [`ErrorKind::Closed`] if either side has closed the connection, or else the error that ended
    ///   it.
    ///
    /// After an error, the message is treated as if the writer had been dropped.
    ///
    /// # Cancel safety
    ///
    /// This method is not cancel safe. Dropping the future before it is ready drops the writer: see
    /// [Dropping](#dropping).
    pub async fn finish(mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_finish(cx)).await
    }

    /// Waits for space, and then sends the gathered bytes as a fragment.
    fn poll_accept(&mut self, cx: &mut Context<'_>, end: FragmentEnd) -> Poll<Result<(), Error>> {
        // One long message must not starve the other tasks of the thread.
        let progress = ready!(poll_proceed(cx));
        let mut outbound = self.connection.outbound();
        if let Some(error) = outbound.closed() {
            return Poll::Ready(Err(error.clone()));
        }
        if !outbound.has_space() {
            outbound.wait(Queue::Watchers, &mut self.place, Manner::Future, cx.waker());
            return Poll::Pending;
        }
        progress.made_progress();
        outbound.leave(Queue::Watchers, &mut self.place);
        let accepted = outbound.accept_fragment(self.kind, &self.gathered, end, self.compress)?;
        if accepted {
            self.stage = WriterStage::Begun;
        }
        self.held_back = self.compress && end == FragmentEnd::More;
        self.gathered.clear();
        if end == FragmentEnd::Last {
            self.stage = WriterStage::Finished;
            outbound.end_writing();
        }
        self.connection.write(outbound, Hold::Never);
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.stage == WriterStage::Finished {
            return Poll::Ready(Ok(()));
        }
        if !self.utf8.is_complete() {
            let text = "the text message ends inside a code point";
            return Poll::Ready(Err(Error::new(ErrorKind::InvalidInput, text)));
        }
        ready!(self.poll_accept(cx, FragmentEnd::Last))?;
        self.gathered = Vec::new();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MessageWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let writer = self.get_mut();
        if writer.stage == WriterStage::Finished {
            let text = "the message is finished: no more can be written";
            return Poll::Ready(Err(Error::new(ErrorKind::InvalidInput, text).into()));
        }
        if writer.gathered.len() >= FRAGMENT_SIZE {
            ready!(writer.poll_accept(cx, FragmentEnd::More))?;
        } else if let Some(error) = writer.connection.outbound().closed() {
            return Poll::Ready(Err(error.clone().into()));
        }
        let piece = &buf[..buf.len().min(FRAGMENT_SIZE - writer.gathered.len())];
        if writer.kind == MessageKind::Text {
            // RFC 6455 5.6: a text message is UTF-8.
            writer.utf8.feed(piece).map_err(|_| {
                let text = "a text message has to be valid UTF-8: nothing of this write was accepted";
                Error::new(ErrorKind::InvalidInput, text)
            })?;
        }
        writer.gathered.extend_from_slice(piece);
        writer.flush_end = None;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let writer = self.get_mut();
        if !writer.gathered.is_empty() || writer.held_back {
            ready!(writer.poll_accept(cx, FragmentEnd::Flush))?;
        }
        let mut outbound = writer.connection.outbound();
        let end = *writer.flush_end.get_or_insert(outbound.end());
        let Some(result) = outbound.flushed(end) else {
            outbound.wait(Queue::Watchers, &mut writer.place, Manner::Future, cx.waker());
            return Poll::Pending;
        };
        outbound.leave(Queue::Watchers, &mut writer.place);
        writer.flush_end = None;
        Poll::Ready(result.map_err(io::Error::from))
    }

    /// Ends the message, as [`finish`](MessageWriter::finish) does.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_finish(cx).map_err(io::Error::from)
    }
}

impl Drop for MessageWriter {
    fn drop(&mut self) {
        let mut outbound = self.connection.outbound();
        outbound.leave(Queue::Watchers, &mut self.place);
        match self.stage {
            WriterStage::Finished => return,
            WriterStage::Unsent => return outbound.abandon_writing(),
            WriterStage::Begun => drop(outbound),
        }
        // The peer must not take a truncated message for a whole one.
        let frame = CloseFrame::new(CloseCode::INTERNAL_ERROR, "a message was not finished")
            .expect("the code is allowed and the reason is short");
        let text = "the connection is closed: a MessageWriter was dropped before its message was finished";
        self.connection.start_close_with(
            &frame,
            Error::new(ErrorKind::Closed, text),
            Outbound::abandon_writing,
        );
    }
}

impl fmt::Debug for MessageWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageWriter").field("kind", &self.kind).finish_non_exhaustive()
    }
}
