//! A stream of an HTTP/2 connection that is served by hyper (RFC 8441 5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Extensions;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::Transport;

/// What hyper, or h2, has found in the place of `:protocol`.
pub(crate) fn protocol_of(extensions: &Extensions) -> Option<&str> {
    let by_hyper = extensions.get::<hyper::ext::Protocol>().map(hyper::ext::Protocol::as_str);
    by_hyper.or_else(|| extensions.get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str))
}

/// Takes a stream that hyper has upgraded.
pub(crate) fn tunnel(upgraded: Upgraded) -> Transport {
    Transport::new(HyperHttp2Stream::new(upgraded))
}

/// What hyper makes of a stream of HTTP/2, where a reset by the peer reads like an orderly end. What tells the two apart is
/// hyper's task that writes: it ends with the reset.
struct HyperHttp2Stream {
    stream: TokioIo<Upgraded>,
    /// The end was read, and the task that writes had its turn since.
    has_ended: bool,
}

impl HyperHttp2Stream {
    fn new(upgraded: Upgraded) -> Self {
        Self { stream: TokioIo::new(upgraded), has_ended: false }
    }
}

/// hyper has no kind for what ends a stream.
fn describe(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Other {
        return io::Error::new(io::ErrorKind::ConnectionReset, error);
    }
    error
}

impl AsyncRead for HyperHttp2Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf)).map_err(describe)?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !std::mem::replace(&mut self.has_ended, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // It fails if the stream was reset. If something is still to be written, that will show it.
        match self.poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for HyperHttp2Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf).map_err(describe)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(describe)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx).map_err(describe)
    }
}
