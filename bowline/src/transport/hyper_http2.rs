//! A stream of an HTTP/2 connection that is served by hyper (RFC 8441 5).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Extensions;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::Transport;

/// Returns the `:protocol` of an extended CONNECT (RFC 8441 4), as hyper or h2 has parsed it.
pub(crate) fn protocol_of(extensions: &Extensions) -> Option<&str> {
    let by_hyper = extensions.get::<hyper::ext::Protocol>().map(hyper::ext::Protocol::as_str);
    by_hyper.or_else(|| extensions.get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str))
}

/// Makes a transport of a stream of HTTP/2 that hyper has upgraded.
pub(crate) fn tunnel(upgraded: Upgraded) -> Transport {
    Transport::new(HyperHttp2Stream::new(upgraded))
}

/// A stream of HTTP/2 that hyper has upgraded.
///
/// hyper reports a reset by the peer like an orderly end. The two differ in hyper's writing task, which ends
/// with the reset. So after the end, the stream lets that task run once, and then asks by a flush if the task
/// is still there.
struct HyperHttp2Stream {
    stream: TokioIo<Upgraded>,
    /// The end was read, and hyper's writing task has had its turn since.
    has_ended: bool,
}

impl HyperHttp2Stream {
    fn new(upgraded: Upgraded) -> Self {
        Self { stream: TokioIo::new(upgraded), has_ended: false }
    }
}

/// Names the kind of an error that ends a stream, which hyper leaves open.
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
        // A flush fails if the stream was reset. Where bytes are still to be written, their write will show a
        // reset.
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
