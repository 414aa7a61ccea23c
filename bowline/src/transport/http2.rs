//! One stream of an HTTP/2 connection as the transport of a WebSocket (RFC 8441 5).

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use crate::transport::{Addresses, AnyStream, Transport, poll_without_budget};

/// The number of bytes that the peer may send on all streams of a connection together before they are read.
///
/// The window is the largest possible, so an unread stream never blocks another. `Limits::stream_window`
/// bounds each stream.
pub(crate) const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// The number of bytes of one stream that may wait in the HTTP/2 connection to be written.
pub(crate) const SEND_BUFFER: usize = 64 * 1024;

/// The number of pieces of one stream that may wait there. Each becomes a DATA frame, which takes hundreds of
/// bytes of memory, however small the piece is.
const PIECES: usize = 16;

/// The budget for small DATA frames that wait in the HTTP/2 connection to be read. Each costs 256 less its
/// size.
///
/// Peers that cork don't come near the budget, and frames are taken out as soon as the task of their
/// WebSocket runs. The budget is no lower, because h2 never returns the costs of streams that have ended,
/// however long their connection lives.
pub(crate) const FRAME_BUDGET: usize = 16 * 1024 * 1024;

/// The proof that a transport shares its TCP connection, and the memory of that, with other streams.
pub(crate) struct Multiplexed;

impl Transport {
    /// Makes a transport of a stream of an HTTP/2 connection, which runs over TCP with these addresses.
    pub(crate) fn http2(receive: Http2Receive, send: Http2Send, addresses: Addresses) -> Self {
        Self { stream: AnyStream::Http2(receive, send), addresses }
    }
}

/// Bytes that wait in the HTTP/2 connection, which drops them after writing them.
pub(crate) struct Piece {
    bytes: Bytes,
    /// One of [`PIECES`]; the empty piece that ends the stream needs none.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

/// Bytes that wait to be read, in a buffer with little spare capacity.
#[derive(Default)]
struct Unread {
    bytes: Vec<u8>,
    /// The position of the first byte that was not read.
    start: usize,
}

impl Unread {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.start));
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            // An eighth is enough that small pieces don't copy the buffer each time. Doubling would leave
            // half of it empty.
            self.bytes.reserve_exact(bytes.len().max(self.bytes.len() / 8));
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let count = (self.bytes.len() - self.start).min(buf.remaining());
        buf.put_slice(&self.bytes[self.start..][..count]);
        self.start += count;
        if self.start == self.bytes.len() {
            *self = Self::default();
        }
    }
}

/// The readable half.
pub(crate) struct Http2Receive {
    stream: RecvStream,
    /// Bytes that were taken from `stream` and not read yet. The peer's window reopens only when they are
    /// read.
    unread: Unread,
    /// The end of `stream`, once there is one.
    end: Option<Result<(), h2::Error>>,
}

impl Http2Receive {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, unread: Unread::default(), end: None }
    }

    /// Takes out the bytes that have arrived: small frames cost much more memory in the HTTP/2 connection
    /// than here.
    pub(crate) fn gather(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(chunk)) = self.poll_chunk(cx) {
            self.unread.push(&chunk);
        }
    }

    /// Returns the payload of the next DATA frame, or `None` at the end.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        self.end = match ready!(self.stream.poll_data(cx)) {
            Some(Ok(chunk)) => return Poll::Ready(Some(chunk)),
            Some(Err(error)) => Some(Err(error)),
            None => Some(Ok(())),
        };
        Poll::Ready(None)
    }

    fn release(&mut self, count: usize) {
        // This fails only after the end of the stream, when there is no window any more.
        let _ = self.stream.flow_control().release_capacity(count);
    }
}

impl AsyncRead for Http2Receive {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.remaining();
        let end = loop {
            this.unread.take(buf);
            if !this.unread.is_empty() {
                break Poll::Ready(None);
            }
            match this.poll_chunk(cx) {
                Poll::Ready(Some(chunk)) => {
                    let count = chunk.len().min(buf.remaining());
                    buf.put_slice(&chunk[..count]);
                    this.unread.push(&chunk[count..]);
                }
                other => break other,
            }
        };
        let count = before - buf.remaining();
        if count > 0 {
            this.release(count);
            return Poll::Ready(Ok(()));
        }
        ready!(end);
        match &this.end {
            Some(Err(error)) => Poll::Ready(Err(describe(error))),
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// The writable half.
///
/// Dropping it before both directions have ended resets the stream with `CANCEL`, and bytes that have not
/// left are lost. If a server's direction has ended, the reset is `NO_ERROR` instead (RFC 9113 8.1).
pub(crate) struct Http2Send {
    stream: SendStream<Piece>,
    /// A permit for each of the [`PIECES`] that may still be queued.
    permits: PollSemaphore,
    ended: bool,
    /// The guard by which the HTTP/2 connection counts the stream.
    _guard: Box<dyn Any + Send>,
}

impl Http2Send {
    /// Takes the writable half of a stream. `guard` is dropped with the result.
    pub(crate) fn new(stream: SendStream<Piece>, guard: Box<dyn Any + Send>) -> Self {
        let permits = PollSemaphore::new(Arc::new(Semaphore::new(PIECES)));
        Self { stream, permits, ended: false, _guard: guard }
    }

    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the stand-in without the feature returns nothing"
    )]
    pub(crate) fn multiplexed(&self) -> Option<Multiplexed> {
        Some(Multiplexed)
    }

    /// Writes as many of `wanted` bytes as the peer's windows allow, in one DATA frame if they fit. `take` is
    /// called with that number once the stream accepts bytes, and may return fewer.
    ///
    /// A peer may open its window one byte at a time, and no further, so even one byte has to be
    /// written. Waiting for one of the [`PIECES`] bounds the number of such frames: further bytes gather in
    /// the write buffer.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        wanted: usize,
        take: impl FnOnce(usize) -> Bytes,
    ) -> Poll<io::Result<usize>> {
        // `None` would mean that the semaphore is closed, which it never is.
        let permit = ready!(poll_without_budget(cx, |cx| self.permits.poll_acquire(cx)));
        self.stream.reserve_capacity(wanted);
        let capacity = loop {
            match self.stream.capacity() {
                0 => {}
                capacity => break capacity,
            }
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(describe(&error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        };
        let bytes = take(capacity.min(wanted));
        let count = bytes.len();
        let sent = self.stream.send_data(Piece { bytes, _permit: permit }, false);
        Poll::Ready(sent.map(|()| count).map_err(|error| describe(&error)))
    }

    /// Ends this direction in order.
    ///
    /// RFC 8441 5: `END_STREAM` stands for the orderly end of a TCP connection.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        self.stream
            .send_data(Piece { bytes: Bytes::new(), _permit: None }, true)
            .map_err(|error| describe(&error))
    }

    /// Resets the stream, and discards the bytes that have not left.
    ///
    /// RFC 8441 5: `RST_STREAM` with `CANCEL` stands for the reset of a TCP connection.
    pub(crate) fn reset(mut self) {
        self.stream.send_reset(Reason::CANCEL);
    }
}

/// Describes how a stream ended: who reset it or its connection, and why.
fn describe(error: &h2::Error) -> io::Error {
    let by = if error.is_remote() { "the peer" } else { "this side" };
    let what = if error.is_go_away() { "HTTP/2 connection" } else { "HTTP/2 stream" };
    match (error.get_io(), error.reason()) {
        (Some(io), _) => io::Error::new(io.kind(), format!("the HTTP/2 connection broke: {io}")),
        (None, Some(reason)) => {
            let text = format!("{by} reset the {what} with {reason:?} ({reason})");
            io::Error::new(io::ErrorKind::ConnectionReset, text)
        }
        (None, None) => io::Error::other(error.to_string()),
    }
}
