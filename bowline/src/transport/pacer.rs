//! A stream that is read in portions.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;

/// The number of bytes that are read before other tasks run; the last read may exceed it. A frame of HTTP/2
/// can be as small as nine bytes, and a SETTINGS frame can concern all streams of its connection.
const PORTION: usize = 16 * 1024;

/// A stream that lets other tasks run after each [`PORTION`].
///
/// An HTTP/2 connection reads for as long as there are bytes to read. tokio's budget ends that only after 128
/// reads, which can bring 100,000 frames.
pub(crate) struct Paced<S> {
    stream: S,
    /// The bytes left of the current portion.
    left: usize,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, left: PORTION }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            self.left = PORTION;
            // One poll of `yield_now` defers this task until other tasks have run and the I/O driver has been
            // polled.
            let _ = pin!(yield_now()).poll(cx);
            return Poll::Pending;
        }
        let before = buf.remaining();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.left = match read {
            Poll::Ready(_) => self.left.saturating_sub(before - buf.remaining()),
            Poll::Pending => PORTION,
        };
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
