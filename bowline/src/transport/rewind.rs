//! A stream of which the first bytes have been read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is read before it is known what it is: as a rule, all of a request.
const FIRST_SIZE: usize = 1024;

/// A stream, and what was read of it ahead, which comes out first.
pub(crate) struct Rewind<S> {
    pub(crate) first: Bytes,
    pub(crate) rest: S,
}

impl<S> Rewind<S> {
    pub(crate) fn new(rest: S) -> Self {
        Self { first: Bytes::new(), rest }
    }
}

impl<S: AsyncRead + Unpin> Rewind<S> {
    /// Reads ahead, once; ready with `false` at the end of the stream. It holds no memory while there is nothing to read.
    pub(crate) fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut scratch = [0; FIRST_SIZE];
        let mut buf = ReadBuf::new(&mut scratch);
        ready!(Pin::new(&mut self.rest).poll_read(cx, &mut buf))?;
        let arrived = buf.filled();
        self.first = [&*self.first, arrived].concat().into();
        Poll::Ready(Ok(!arrived.is_empty()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewind<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.rest).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first[..count]);
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewind<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.rest.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_shutdown(cx)
    }
}
