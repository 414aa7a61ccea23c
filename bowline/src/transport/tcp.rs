//! The fast path of TCP: readiness and non-blocking calls, without a lock.

use std::io::{self, IoSlice};
use std::mem;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::transport::poll_without_budget;

#[inline]
pub(crate) fn poll_read(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    buf: &mut impl BufMut,
) -> Poll<io::Result<usize>> {
    let size = buf.chunk_mut().len();
    loop {
        if let Some(count) = read_at_once(stream, size, || stream.try_read_buf(buf))? {
            return Poll::Ready(Ok(count));
        }
        ready!(poll_without_budget(cx, |cx| stream.poll_read_ready(cx)))?;
    }
}

#[inline]
pub(crate) fn poll_write(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    loop {
        let written = match slices {
            [slice] => stream.try_write(slice),
            slices => stream.try_write_vectored(slices),
        };
        match written {
            Ok(count) => return Poll::Ready(Ok(count)),
            Err(error) => ready!(poll_writable(stream, cx, error))?,
        }
    }
}

/// Waits until the stream accepts bytes again, if `error` says that it accepts none for now.
#[cold]
fn poll_writable(stream: &TcpStream, cx: &mut Context<'_>, error: io::Error) -> Poll<io::Result<()>> {
    if error.kind() == io::ErrorKind::WouldBlock {
        return poll_without_budget(cx, |cx| stream.poll_write_ready(cx));
    }
    Poll::Ready(Err(error))
}

/// Bounds the bytes that the kernel holds and has not sent.
///
/// The bound is exact where there is `TCP_NOTSENT_LOWAT`: while as many bytes are unsent, the socket accepts
/// no more. Elsewhere, it is the size of the send buffer, which also holds the bytes that are sent and not
/// acknowledged.
pub(crate) fn limit_unsent(stream: &TcpStream, unsent: usize) {
    let socket = SockRef::from(stream);
    #[cfg(any(target_os = "android", target_os = "linux"))]
    let limited = socket.set_tcp_notsent_lowat(u32::try_from(unsent).unwrap_or(u32::MAX));
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let limited = socket.set_send_buffer_size(unsent);
    // This fails only on a broken socket. The next read reports that better.
    let _ = limited;
}

/// `true` where the operating system reports changes of readiness rather than readiness.
///
/// There, a read that returned fewer bytes than asked for has emptied the socket, and the next bytes are
/// reported as a change. So no second read is needed to find the socket empty. tokio's own `poll_read` relies
/// on the same rule (tokio#5866).
const EDGE_TRIGGERED: bool = cfg!(all(
    not(mio_unsupported_force_poll_poll),
    any(
        target_os = "android",
        target_os = "dragonfly",
        target_os = "freebsd",
        target_os = "illumos",
        target_os = "ios",
        target_os = "linux",
        target_os = "macos",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "redox",
        target_os = "tvos",
        target_os = "visionos",
        target_os = "watchos",
    )
));

/// Reads up to `size` bytes without waiting. Returns `None` if the socket is not ready.
///
/// This is tokio's `poll_read` without two of its costs. The caller has paid for the task's budget, and only
/// a socket that is not ready needs a waker. Measured: this saves 60 instructions per small message.
#[inline]
fn read_at_once(
    stream: &TcpStream,
    size: usize,
    read: impl FnOnce() -> io::Result<usize>,
) -> io::Result<Option<usize>> {
    let mut moved = None;
    let tried = stream.try_io(Interest::READABLE, || {
        let count = read()?;
        moved = Some(count);
        if EDGE_TRIGGERED && (1..size).contains(&count) {
            // This error makes tokio mark the socket as not ready.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    match tried {
        Err(error) if moved.is_some() => {
            // The error is the one made above, and owns nothing. Dropping it would cost a check after each
            // short read.
            mem::forget(error);
            Ok(moved)
        }
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(moved),
    }
}
