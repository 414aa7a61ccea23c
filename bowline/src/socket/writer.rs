//! One message, written piece by piece.

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
use crate::connection::outbound::{Outbound, Queue};
use crate::error::{Error, ErrorKind};

/// The size up to which small writes are gathered into one fragment, and the largest fragment.
const FRAGMENT_SIZE: usize = 16 * 1024;

/// A message that is written piece by piece: see [`WebSocket::writer`](crate::WebSocket::writer).
///
/// What is written goes out in fragments of up to 16 KiB; `flush` sends at once what was written so far.
/// [`finish`](Self::finish) (or `shutdown`) ends the message.
///
/// If it is dropped before that, and some of the message was sent, the message can be neither finished nor withdrawn,
/// so the connection is closed with 1011; if nothing was sent, nothing happens. Writing text that is not UTF-8 fails,
/// and takes nothing of the piece in which it is.
///
/// # Cancel safety
///
/// A `write` that is dropped before it is ready has taken nothing; a `flush` or `shutdown` may be called again. A
/// `write_all` that is dropped may have written a part.
pub struct MessageWriter {
    connection: Arc<Connection>,
    kind: MessageKind,
    utf8: Utf8Validator,
    /// What was written and is not yet in a fragment.
    gathered: Vec<u8>,
    compress: bool,
    /// The compressor holds something back.
    held_back: bool,
    stage: WriterStage,
    /// Where a flush under way ends.
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

impl MessageWriter {
    pub(crate) async fn open(connection: Arc<Connection>, kind: MessageKind) -> Result<Self, Error> {
        let compress = connection
            .send_with(Hold::Never, |outbound| {
                outbound.begin_writing();
                Ok(outbound.compresses())
            })
            .await?;
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

    /// Whether it is text or binary.
    pub fn kind(&self) -> MessageKind {
        self.kind
    }

    /// Has the message compressed or not, if compression was agreed on. Default: it is, whatever its size.
    ///
    /// It counts only before something was written.
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
    /// Why the connection is closed, or [`ErrorKind::InvalidInput`] if text ends inside a code point; the message is
    /// then as if it had been dropped.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, so is the writer.
    pub async fn finish(mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_finish(cx)).await
    }

    /// Waits for room, then puts a fragment of what was gathered into the write buffer.
    fn poll_accept(&mut self, cx: &mut Context<'_>, end: FragmentEnd) -> Poll<Result<(), Error>> {
        // One long message must not starve the other tasks of its thread.
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
            let text = "the message was finished";
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
                let text = "a text message has to be UTF-8: nothing of this piece was taken";
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
        // A truncated message is never passed off as whole.
        let frame = CloseFrame::new(CloseCode::INTERNAL_ERROR, "a message was not finished")
            .expect("the code is allowed and the reason short");
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
