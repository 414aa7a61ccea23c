//! What carries a connection's bytes: TCP on a fast path, any other stream boxed behind a lock.

#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod alpn;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod from_hyper;
#[cfg_attr(not(feature = "http2"), path = "transport/absent/http2.rs")]
#[cfg_attr(
    not(any(feature = "client", feature = "server")),
    allow(dead_code, reason = "only their connections have such streams")
)]
pub(crate) mod http2;
#[cfg(feature = "server")]
#[cfg_attr(not(feature = "http2"), path = "transport/absent/hyper_http2.rs")]
pub(crate) mod hyper_http2;
#[cfg(all(feature = "http2", any(feature = "client", feature = "server")))]
pub(crate) mod pacer;
pub(crate) mod polling;
#[cfg(feature = "server")]
pub(crate) mod rewind;
mod tcp;
#[cfg(any(feature = "client", feature = "server"))]
#[cfg_attr(not(feature = "tls"), path = "transport/absent/tls.rs")]
pub(crate) mod tls;

use std::any::Any;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::coop::unconstrained;

use crate::sync::Mutex;
use crate::transport::http2::{Http2Receive, Http2Send, Multiplexed};
use crate::transport::polling::Polling;

/// A stream of the user's own, or one of TLS or HTTP/2.
pub(crate) trait IoStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> IoStream for T {}

/// A stream that is about to carry a WebSocket connection.
pub(crate) struct Transport {
    stream: AnyStream,
    pub(crate) addresses: Addresses,
}

/// Where the two ends of a connection are, as far as we know.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) local: Option<SocketAddr>,
    pub(crate) peer: Option<SocketAddr>,
}

impl Addresses {
    pub(crate) fn of(stream: &TcpStream) -> Self {
        Self { local: stream.local_addr().ok(), peer: stream.peer_addr().ok() }
    }

    /// Those of a stream that may be a [`TcpStream`].
    pub(crate) fn of_any<S: Any>(stream: &S) -> Self {
        let any: &dyn Any = stream;
        any.downcast_ref().map(Self::of).unwrap_or_default()
    }
}

#[allow(dead_code, reason = "without the feature `http2`, there are no streams of HTTP/2")]
enum AnyStream {
    Tcp(TcpStream),
    Http2(Http2Receive, Http2Send),
    Boxed(Box<dyn IoStream>),
}

impl Transport {
    /// Takes any stream. A [`TcpStream`] is recognised and goes the fast way, with `TCP_NODELAY` on.
    pub(crate) fn new<S: IoStream>(stream: S) -> Self {
        let addresses = Addresses::of_any(&stream);
        Self::with_addresses(stream, addresses)
    }

    /// The same for a stream whose addresses are known, or are those of the TCP stream that it runs over.
    pub(crate) fn with_addresses<S: IoStream>(stream: S, addresses: Addresses) -> Self {
        let mut stream = Some(stream);
        let any: &mut dyn Any = &mut stream;
        let stream = if let Some(stream) = any.downcast_mut::<Option<TcpStream>>().and_then(Option::take) {
            // It fails only on a socket that is broken, which the next read says better.
            let _ = stream.set_nodelay(true);
            AnyStream::Tcp(stream)
        } else {
            AnyStream::Boxed(Box::new(stream.expect("it was not taken")))
        };
        Self { stream, addresses }
    }

    pub(crate) fn split(self) -> (ReadTransport, WriteTransport) {
        match self.stream {
            AnyStream::Http2(receive, send) => (ReadTransport::Http2(receive), WriteTransport::Http2(send)),
            AnyStream::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadTransport::Tcp(read), WriteTransport::Tcp(write))
            }
            AnyStream::Boxed(stream) => {
                let stream = Arc::new(Mutex::new(stream));
                (ReadTransport::Boxed(Arc::clone(&stream)), WriteTransport::Boxed(stream))
            }
        }
    }
}

/// The readable half.
pub(crate) enum ReadTransport {
    Tcp(OwnedReadHalf),
    Http2(Http2Receive),
    Boxed(Arc<Mutex<Box<dyn IoStream>>>),
}

/// The writable half.
pub(crate) enum WriteTransport {
    Tcp(OwnedWriteHalf),
    Http2(Http2Send),
    Boxed(Arc<Mutex<Box<dyn IoStream>>>),
}

impl ReadTransport {
    /// Pending if it is known without reading that there is nothing to read.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(stream) => {
                let stream: &TcpStream = stream.as_ref();
                stream.poll_read_ready(cx).map(drop)
            }
            Self::Http2(_) | Self::Boxed(_) => Poll::Ready(()),
        }
    }

    /// Takes what has arrived, where it would cost more than its bytes if it were left.
    pub(crate) fn gather(&mut self, cx: &mut Context<'_>) {
        if let Self::Http2(stream) = self {
            stream.gather(cx);
        }
    }
}

/// The task's budget does not count for reading: whoever reads on and on sees to it, as a stream may be ready always. And where
/// the budget is spent, tokio's streams say that they have nothing, without remembering whom to wake when they have.
impl AsyncRead for ReadTransport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => ready!(tcp::poll_read(stream.as_ref(), cx, buf))?,
            Self::Http2(stream) => ready!(Pin::new(stream).poll_read(cx, buf))?,
            Self::Boxed(stream) => ready!(poll_without_budget(cx, |cx| {
                with_stream(stream, cx, |stream, cx| stream.poll_read(cx, buf))
            }))?,
        }
        Poll::Ready(Ok(()))
    }
}

/// The task's budget does not count for writing either: whoever sends has paid for it, and a transport that only says that the
/// budget is spent would look like one that takes no more.
impl WriteTransport {
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => tcp::poll_write(stream.as_ref(), cx, slices),
            Self::Http2(stream) => poll_without_budget(cx, |cx| stream.poll_write(cx, slices)),
            Self::Boxed(stream) => poll_without_budget(cx, |cx| {
                with_stream(stream, cx, |stream, cx| {
                    if stream.is_write_vectored() {
                        stream.poll_write_vectored(cx, slices)
                    } else {
                        stream.poll_write(cx, slices.first().map_or(&[], |slice| slice))
                    }
                })
            }),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // TCP has no buffer of its own in this process, and the HTTP/2 connection writes by itself what it was given.
            Self::Tcp(_) | Self::Http2(_) => Poll::Ready(Ok(())),
            Self::Boxed(stream) => {
                poll_without_budget(cx, |cx| with_stream(stream, cx, AsyncWrite::poll_flush))
            }
        }
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Http2(stream) => Poll::Ready(stream.end()),
            Self::Boxed(stream) => {
                poll_without_budget(cx, |cx| with_stream(stream, cx, AsyncWrite::poll_shutdown))
            }
        }
    }

    /// Drops it, together with the readable half.
    pub(crate) fn forget(self) {
        if let Self::Tcp(stream) = self {
            // Not shut down on its own, as the socket is closed.
            stream.forget();
        }
    }

    /// The same at once: what was written and is still on its way may be lost.
    pub(crate) fn abort(self) {
        match self {
            Self::Http2(stream) => stream.reset(),
            other => other.forget(),
        }
    }

    /// Says if others share what it runs over.
    pub(crate) fn multiplexed(&self) -> Option<Multiplexed> {
        match self {
            Self::Http2(stream) => stream.multiplexed(),
            Self::Tcp(_) | Self::Boxed(_) => None,
        }
    }

    /// Whether the fast path was taken.
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }
}

#[inline(never)]
fn with_stream<R>(
    stream: &Mutex<Box<dyn IoStream>>,
    cx: &mut Context<'_>,
    call: impl FnOnce(Pin<&mut Box<dyn IoStream>>, &mut Context<'_>) -> R,
) -> R {
    // A user's stream that panicked leaves the lock poisoned; it is as usable as it was.
    let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
    let _polling = Polling::begin(cx);
    call(Pin::new(&mut *stream), cx)
}

/// Polls without using the task's budget. Not inlined, nor `with_stream`: they would make the short way of TCP longer.
#[inline(never)]
pub(crate) fn poll_without_budget<T>(
    cx: &mut Context<'_>,
    poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    pin!(unconstrained(poll_fn(poll))).poll(cx)
}
