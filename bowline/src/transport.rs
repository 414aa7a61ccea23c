//! The transport of a connection: the stream that carries its bytes.
//!
//! There are three kinds. The connection above sees none of the differences but their costs:
//!
//! ```text
//!                     TCP                       HTTP/2 stream            any other stream
//!
//!  comes from         serve, connect, adopt,    serve and connect_http2  TLS, Unix sockets, hyper,
//!                     hyper and axum                                     the user's own types
//!  halves             OwnedRead/WriteHalf       Http2Receive, Http2Send  one Box<dyn IoStream>, shared
//!  lock               none                      none                     a mutex, after the half's
//!  reads and writes   non-blocking calls        h2, with flow control    AsyncRead, AsyncWrite
//!                     (tcp.rs)                  (http2.rs)               (with_stream, below)
//! ```
//!
//! TCP has a fast path, because it is the most frequent transport and each message costs a system call there.
//! So streams are recognised by their type: [`Transport::new`] finds a `TcpStream` in a generic argument, and
//! `from_hyper` finds one in what hyper returns after an upgrade. Every other stream is boxed. Before that, a
//! client's stream is a [`ByteStream`], so that TLS, hyper and h2 are compiled once.
//!
//! Three rules hold for all of them:
//!
//! - Both directions are polled with the connection's own waker (`connection/waker.rs`), never with a
//!   caller's. A transport may remember only one waker.
//! - No poll uses the task's budget. Whoever reads or sends has paid for the message. A transport that is out
//!   of budget would look like one that is not ready, and some of tokio's streams then forget whom to wake.
//! - A boxed stream is foreign code, and the connection's locks are held while it is polled. `polling.rs`
//!   records that, so that a wake-up from within the poll does not call a foreign waker under these locks.
//!   Such a wake-up takes the slots of the connection's waker under the stream's lock. The order is
//!   therefore: the half, the boxed stream, the slots.
//!
//! HTTP/2 and TLS are optional. Without their features, the files in `absent/` take their places.

#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod alpn;
pub(crate) mod byte_stream;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod from_hyper;
#[cfg_attr(not(feature = "http2"), path = "transport/absent/http2.rs")]
#[cfg_attr(
    not(any(feature = "client", feature = "server")),
    allow(dead_code, reason = "only their connections have such streams")
)]
pub(crate) mod http2;
#[cfg(all(feature = "http2", any(feature = "client", feature = "server")))]
pub(crate) mod http2_io;
#[cfg(feature = "server")]
#[cfg_attr(not(feature = "http2"), path = "transport/absent/hyper_http2.rs")]
pub(crate) mod hyper_http2;
#[cfg(feature = "server")]
pub(crate) mod peer;
pub(crate) mod polling;
#[cfg(feature = "server")]
pub(crate) mod rewind;
mod tcp;
#[cfg_attr(not(feature = "tls"), path = "transport/absent/tls.rs")]
pub(crate) mod tls;
#[cfg(all(feature = "http2", any(feature = "client", feature = "server")))]
pub(crate) mod wake_flag;

use std::any::Any;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::coop::unconstrained;

use crate::sync::{Mutex, MutexGuard};
use crate::transport::byte_stream::ByteStream;
use crate::transport::http2::{Http2Receive, Http2Send, Multiplexed};
use crate::transport::polling::Polling;

/// A byte stream that can carry a connection.
pub(crate) trait IoStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Returns the TCP stream that this is, or on which it does TLS.
    fn tcp(&self) -> Option<&TcpStream>;

    /// Returns the TCP stream on which this does TLS, if everything that was read from it has been returned.
    fn drained_tcp(&self) -> Option<&TcpStream>;
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> IoStream for T {
    fn tcp(&self) -> Option<&TcpStream> {
        tcp_of_any(self)
    }

    fn drained_tcp(&self) -> Option<&TcpStream> {
        tls::drained_tcp_of_any(self)
    }
}

/// Returns `stream` if it is a [`TcpStream`], or the one on which it does TLS.
fn tcp_of_any(stream: &dyn Any) -> Option<&TcpStream> {
    let erased = || stream.downcast_ref().and_then(ByteStream::tcp);
    stream.downcast_ref().or_else(erased).or_else(|| tls::tcp_of_any(stream))
}

/// A stream that is about to carry a WebSocket connection.
pub(crate) struct Transport {
    stream: AnyStream,
    pub(crate) addresses: Addresses,
}

/// The addresses of the two ends of a connection, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) local: Option<SocketAddr>,
    pub(crate) peer: Option<SocketAddr>,
}

impl Addresses {
    pub(crate) fn of(stream: &TcpStream) -> Self {
        Self { local: stream.local_addr().ok(), peer: stream.peer_addr().ok() }
    }

    /// Returns these addresses, and those of `other` in place of the ones that are not known.
    #[cfg(feature = "server")]
    pub(crate) fn or(self, other: Self) -> Self {
        Self { local: self.local.or(other.local), peer: self.peer.or(other.peer) }
    }

    /// Returns the addresses of an accepted stream, whose peer the listener knows. Asking the operating
    /// system for the peer again would be a system call for each connection.
    #[cfg(feature = "server")]
    pub(crate) fn of_accepted<S: Any>(stream: &S, peer: Option<SocketAddr>) -> Self {
        Self { local: tcp_of_any(stream).and_then(|tcp| tcp.local_addr().ok()), peer }
    }

    /// Returns the addresses of `stream` if it is a [`TcpStream`] or TLS over one, and none otherwise.
    pub(crate) fn of_any<S: Any>(stream: &S) -> Self {
        tcp_of_any(stream).map(Self::of).unwrap_or_default()
    }
}

/// Switches `TCP_NODELAY` on, if there is a TCP stream.
pub(crate) fn send_at_once(stream: Option<&TcpStream>) {
    if let Some(stream) = stream {
        // This fails only on a broken socket. The next read reports that better.
        let _ = stream.set_nodelay(true);
    }
}

/// Bounds the bytes that the kernel holds unsent, if there is a bound and a TCP stream.
pub(crate) fn limit_unsent(stream: Option<&TcpStream>, unsent: Option<usize>) {
    if let (Some(stream), Some(unsent)) = (stream, unsent) {
        tcp::limit_unsent(stream, unsent);
    }
}

#[allow(dead_code, reason = "without the feature `http2`, there are no streams of HTTP/2")]
enum AnyStream {
    Bytes(ByteStream),
    Http2(Http2Receive, Http2Send),
}

impl Transport {
    /// Makes a transport of any stream. A [`TcpStream`] takes the fast path. `TCP_NODELAY` is switched on,
    /// also under TLS.
    pub(crate) fn new<S: IoStream>(stream: S) -> Self {
        let addresses = Addresses::of_any(&stream);
        Self::with_addresses(stream, addresses)
    }

    /// Makes a transport of any stream, as [`new`](Self::new) does, with addresses that the caller knows.
    pub(crate) fn with_addresses<S: IoStream>(stream: S, addresses: Addresses) -> Self {
        let transport = Self { stream: AnyStream::Bytes(ByteStream::new(stream)), addresses };
        send_at_once(transport.tcp());
        transport
    }

    /// Returns the TCP stream that carries this connection alone, if there is one.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match &self.stream {
            AnyStream::Bytes(stream) => stream.tcp(),
            AnyStream::Http2(..) => None,
        }
    }

    /// Returns `true` if the stream is neither TCP, nor TLS over TCP by tokio-rustls, nor one of HTTP/2. It
    /// may then do anything when it is polled, such as defer a waker.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self.stream, AnyStream::Bytes(_)) && self.tcp().is_none()
    }

    pub(crate) fn split(self) -> (ReadTransport, WriteTransport) {
        match self.stream {
            AnyStream::Http2(receive, send) => (ReadTransport::Http2(receive), WriteTransport::Http2(send)),
            AnyStream::Bytes(ByteStream::Tcp(stream)) => {
                let (read, write) = stream.into_split();
                (ReadTransport::Tcp(read), WriteTransport::Tcp(write))
            }
            AnyStream::Bytes(ByteStream::Boxed(stream)) => {
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
    /// Reads once into `buf`. Ready with the number of bytes, which is 0 at the end of the stream.
    ///
    /// This is the short form of [`AsyncRead`] for memory that is initialised.
    #[inline]
    pub(crate) fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        mut buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if let Self::Tcp(stream) = self {
            return tcp::poll_read(stream.as_ref(), cx, &mut buf);
        }
        let mut buf = ReadBuf::new(buf);
        ready!(Pin::new(self).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Returns `Pending` if there is nothing to read and the stream knows that without reading.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(stream) => {
                let stream: &TcpStream = stream.as_ref();
                stream.poll_read_ready(cx).map(drop)
            }
            Self::Http2(_) => Poll::Ready(()),
            Self::Boxed(stream) => match lock(stream).as_ref().drained_tcp() {
                Some(tcp) => tcp.poll_read_ready(cx).map(drop),
                None => Poll::Ready(()),
            },
        }
    }

    /// Takes out the bytes that have arrived if they cost more memory than their size where they are.
    pub(crate) fn gather(&mut self, cx: &mut Context<'_>) {
        if let Self::Http2(stream) = self {
            stream.gather(cx);
        }
    }
}

/// Reading does not use the task's budget. The caller bounds its own work, as a stream may always be ready.
impl AsyncRead for ReadTransport {
    #[inline(never)]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => ready!(tcp::poll_read(stream.as_ref(), cx, buf)).map(drop)?,
            Self::Http2(stream) => ready!(Pin::new(stream).poll_read(cx, buf))?,
            Self::Boxed(stream) => ready!(poll_without_budget(cx, |cx| {
                with_stream(stream, cx, |stream, cx| stream.poll_read(cx, buf))
            }))?,
        }
        Poll::Ready(Ok(()))
    }
}

/// Writing does not use the task's budget either: the sender has paid for its message.
impl WriteTransport {
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => tcp::poll_write(stream.as_ref(), cx, slices),
            other => other.poll_write_slowly(cx, slices),
        }
    }

    /// Does the same for the other transports, apart from the code of the fast path.
    #[inline(never)]
    fn poll_write_slowly(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => tcp::poll_write(stream.as_ref(), cx, slices),
            Self::Http2(stream) => {
                let len = slices.iter().map(|slice| slice.len()).sum();
                stream.poll_write(cx, len, |count| copy_of(slices, count))
            }
            Self::Boxed(stream) => poll_without_budget(cx, |cx| {
                with_stream(stream, cx, |stream, cx| match slices {
                    [_, _, ..] if stream.is_write_vectored() => stream.poll_write_vectored(cx, slices),
                    slices => stream.poll_write(cx, slices.first().map_or(&[], |slice| slice)),
                })
            }),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // TCP has no buffer in this process. The HTTP/2 connection's own task writes its buffer.
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

    /// Drops the writable half. The caller drops the readable half too, which closes the stream.
    pub(crate) fn forget(self) {
        if let Self::Tcp(stream) = self {
            // The drop of the readable half closes the socket. A shutdown before that would cost a system
            // call.
            stream.forget();
        }
    }

    /// Drops the writable half at once. Bytes that were written and have not left yet may be lost.
    pub(crate) fn abort(self) {
        match self {
            Self::Http2(stream) => stream.reset(),
            other => other.forget(),
        }
    }

    /// Returns a value if the stream shares its TCP connection with other streams.
    pub(crate) fn multiplexed(&self) -> Option<Multiplexed> {
        match self {
            Self::Http2(stream) => stream.multiplexed(),
            Self::Tcp(_) | Self::Boxed(_) => None,
        }
    }

    /// Returns `true` if the stream takes the fast path.
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }
}

/// Copies the first `count` bytes of `slices`, or all of them if there are fewer.
pub(crate) fn copy_of(slices: &[IoSlice<'_>], count: usize) -> Bytes {
    let mut copy = Vec::with_capacity(count);
    for slice in slices {
        copy.extend_from_slice(&slice[..slice.len().min(count - copy.len())]);
    }
    copy.into()
}

/// Locks a boxed stream. A user's stream that panicked has poisoned the lock, and is as usable as before.
fn lock(stream: &Mutex<Box<dyn IoStream>>) -> MutexGuard<'_, Box<dyn IoStream>> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

#[inline(never)]
fn with_stream<R>(
    stream: &Mutex<Box<dyn IoStream>>,
    cx: &mut Context<'_>,
    call: impl FnOnce(Pin<&mut Box<dyn IoStream>>, &mut Context<'_>) -> R,
) -> R {
    let mut stream = lock(stream);
    let _polling = Polling::begin(cx);
    call(Pin::new(&mut *stream), cx)
}

/// Polls without using the task's budget.
///
/// This function and `with_stream` are not inlined, as they would lengthen the fast path of TCP.
#[inline(never)]
pub(crate) fn poll_without_budget<T>(
    cx: &mut Context<'_>,
    poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    pin!(unconstrained(poll_fn(poll))).poll(cx)
}
