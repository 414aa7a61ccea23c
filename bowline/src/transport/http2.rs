//! One stream of an HTTP/2 connection, as the transport of a WebSocket (RFC 8441 5).

use std::any::Any;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

use crate::transport::{Addresses, AnyStream, Transport};

/// How much of all streams of a connection together their peer may send before we read it: no stream that is not read keeps
/// another from being. Each is bounded by `Limits::stream_window`.
pub(crate) const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// How many bytes of a stream may wait in the HTTP/2 connection to be written.
pub(crate) const SEND_BUFFER: usize = 64 * 1024;

/// How many pieces of a stream may wait there. Each becomes a DATA frame, which takes hundreds of bytes, however small it is.
const PIECES: usize = 16;

/// What small DATA frames may cost in all, until they are taken from the HTTP/2 connection: 256 for each, less their size.
/// Peers that cork don't come near it, and ours are taken as soon as their connection's task runs. It is not lower, as frames of
/// streams that have ended are never given back, however long their connection lives.
pub(crate) const FRAME_BUDGET: usize = 16 * 1024 * 1024;

/// What carries others beside: an HTTP/2 connection.
pub(crate) struct Multiplexed;

impl Transport {
    /// A stream of an HTTP/2 connection, which runs over TCP with these addresses.
    pub(crate) fn http2(receive: Http2Receive, send: Http2Send, addresses: Addresses) -> Self {
        Self { stream: AnyStream::Http2(receive, send), addresses }
    }
}

/// Bytes that the HTTP/2 connection has been handed, and drops when it has written them.
pub(crate) struct Piece {
    bytes: Bytes,
    /// One of [`PIECES`]; the empty one at the end takes none.
    _place: Option<OwnedSemaphorePermit>,
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

/// Bytes that wait to be read, with little capacity to spare.
#[derive(Default)]
struct Unread {
    bytes: Vec<u8>,
    /// Those before it were read.
    start: usize,
}

impl Unread {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.start));
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            // So that many small pieces are not copied each time, nor is half of it empty.
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
    /// What was taken from `stream` and not read yet. The peer's window does not open for it before it is.
    unread: Unread,
    /// How `stream` has ended.
    end: Option<Result<(), h2::Error>>,
}

impl Http2Receive {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self { stream, unread: Unread::default(), end: None }
    }

    /// Takes what has arrived, as many small frames in the HTTP/2 connection would cost much more than their bytes.
    pub(crate) fn gather(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(chunk)) = self.poll_chunk(cx) {
            self.unread.push(&chunk);
        }
    }

    /// The next DATA frame; `None` at the end.
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
        // It fails only if the stream has ended, when there is no window any more.
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

/// The writable half. Dropping it before both directions have ended resets the stream with CANCEL, and whatever was not sent
/// yet is lost; behind the end of a server's direction with `NO_ERROR`, as RFC 9113 8.1 says.
pub(crate) struct Http2Send {
    stream: SendStream<Piece>,
    /// The places of those [`PIECES`] that don't wait.
    places: PollSemaphore,
    ended: bool,
    /// What its connection counts it by.
    _place: Box<dyn Any + Send>,
}

impl Http2Send {
    /// `place` is dropped with it.
    pub(crate) fn new(stream: SendStream<Piece>, place: Box<dyn Any + Send>) -> Self {
        let places = PollSemaphore::new(Arc::new(Semaphore::new(PIECES)));
        Self { stream, places, ended: false, _place: place }
    }

    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "there is none without the feature `http2`"
    )]
    pub(crate) fn multiplexed(&self) -> Option<Multiplexed> {
        Some(Multiplexed)
    }

    /// Writes as much as the peer's windows let through, in one DATA frame if that is not too large.
    ///
    /// A window may open a byte at a time, and messages may be as small. So what waits behind [`PIECES`] waits here, where it
    /// gathers: to wait for a larger window instead would be to wait for ever, where that is all that the peer gives.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wanted = slices.iter().map(|slice| slice.len()).sum();
        // Its places are not closed.
        let place = ready!(self.places.poll_acquire(cx));
        self.stream.reserve_capacity(wanted);
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(describe(&error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = self.stream.capacity().min(wanted);
        let mut data = Vec::with_capacity(count);
        for slice in slices {
            data.extend_from_slice(&slice[..slice.len().min(count - data.len())]);
        }
        let sent = self.stream.send_data(Piece { bytes: data.into(), _place: place }, false);
        Poll::Ready(sent.map(|()| count).map_err(|error| describe(&error)))
    }

    /// RFC 8441 5: the orderly end of the stream is what the end of a TCP connection is.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        self.stream
            .send_data(Piece { bytes: Bytes::new(), _place: None }, true)
            .map_err(|error| describe(&error))
    }

    /// RFC 8441 5: a reset is what that of a TCP connection is. What was not sent yet is thrown away.
    pub(crate) fn reset(mut self) {
        self.stream.send_reset(Reason::CANCEL);
    }
}

/// Says how a stream was ended by the peer, or its connection.
fn describe(error: &h2::Error) -> io::Error {
    let by = if error.is_remote() { "the peer" } else { "our side" };
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
