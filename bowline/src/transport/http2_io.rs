//! The bytes below an HTTP/2 connection, read and written in large pieces.
//!
//! h2 reads a few KiB at a time, and writes and flushes each DATA frame by itself. With many WebSockets in a
//! connection, or with many messages under way, most of the time would go into system calls. So the stream is
//! wrapped:
//!
//! ```text
//! h2 --write, flush--> gathered --(once h2 has nothing more to do, or beyond 20 KiB)--> stream
//! h2 <------read------ read ahead <--(32 KiB at a time)-------------------------------- stream
//! ```
//!
//! The task of the connection writes what was gathered each time after it has polled h2: see [`Gathered`].
//! While the stream accepts nothing, up to [`GATHERED_MAX`] bytes wait here, and then h2 waits.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::LocalKey;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::yield_now;

use crate::sync::{Mutex, MutexGuard};
use crate::transport::wake_flag::WakeFlag;

/// The number of bytes that h2 reads before other tasks run; the last read may exceed it. A frame can be as
/// small as nine bytes, and a SETTINGS frame can concern all streams of its connection.
///
/// h2 reads for as long as there are bytes to read. tokio's budget ends that only after 128 reads, which can
/// bring 100,000 frames.
const PORTION: usize = 32 * 1024;

/// The number of bytes that are read at once.
const READ_AHEAD: usize = 32 * 1024;

/// The largest number of bytes that are gathered: a DATA frame of the usual size, and small ones beside it.
/// Up to here, a copy costs less than another system call.
const GATHERED_MAX: usize = 20 * 1024;

thread_local! {
    /// Buffers of this thread, for the connection that reads or writes next: an idle connection has none.
    static SPARE_READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static SPARE_WRITE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The stream as h2 sees it.
pub(crate) struct Http2Io<S>(Arc<Mutex<Shared<S>>>);

/// The bytes that h2 has written and the stream has not.
///
/// To be [written](Self::write) after each poll of h2, by the task that polls.
pub(crate) struct Gathered<S>(Arc<Mutex<Shared<S>>>);

struct Shared<S> {
    stream: S,
    /// The waker of the stream, for both directions, as a stream may remember only one.
    woken: WakeFlag,
    /// Set if the stream had nothing to read. It is asked again once it has called its waker.
    asleep: bool,
    /// The bytes left of the current portion.
    left: usize,
    /// Bytes that were read and that h2 has not taken.
    read: Pending,
    /// Bytes that h2 has written.
    gathered: Pending,
    /// Set if the stream has accepted bytes and was not flushed since.
    unflushed: bool,
    /// The error of a write after h2 had written the bytes. h2 receives it at its next call.
    error: Option<io::Error>,
}

/// Bytes in a buffer without those that are done with.
#[derive(Default)]
struct Pending {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Pending {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

impl<S> Http2Io<S> {
    pub(crate) fn new(stream: S) -> (Self, Gathered<S>) {
        let (read, gathered) = (Pending::default(), Pending::default());
        let shared = Shared {
            stream,
            woken: WakeFlag::new(),
            asleep: false,
            left: PORTION,
            read,
            gathered,
            unflushed: false,
            error: None,
        };
        let shared = Arc::new(Mutex::new(shared));
        (Self(Arc::clone(&shared)), Gathered(shared))
    }
}

/// Nothing else has the lock: h2 and its task take turns.
fn lock<S>(shared: &Mutex<Shared<S>>) -> MutexGuard<'_, Shared<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// Writes the bytes, as far as the stream accepts them. If bytes are left, `cx` is woken when the stream
    /// accepts more.
    pub(crate) fn write(&self, cx: &mut Context<'_>) {
        let mut shared = lock(&self.0);
        if let Poll::Ready(Err(error)) = shared.poll_write_gathered(cx) {
            shared.error = Some(error);
            drop(shared);
            // h2 has to be polled again in order to hear of it.
            cx.waker().wake_by_ref();
        }
    }

    /// Polls something that polls h2, and writes what it has gathered.
    pub(crate) fn poll<F: Future>(&self, future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let polled = future.poll(cx);
        self.write(cx);
        polled
    }
}

impl<S: AsyncRead + Unpin> Shared<S> {
    /// Reads ahead, if h2 wants fewer bytes than that.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            if self.asleep && !self.woken.take(cx) {
                return Poll::Pending;
            }
            let read = if buf.remaining() >= READ_AHEAD {
                Pin::new(&mut self.stream).poll_read(&mut self.woken.context(cx), buf)
            } else {
                self.poll_read_ahead(cx)
            };
            self.asleep = read.is_pending();
            ready!(read)?;
            if self.read.is_empty() {
                // The bytes are in `buf`, or the stream has ended.
                return Poll::Ready(Ok(()));
            }
        }
        let bytes = self.read.bytes();
        let count = bytes.len().min(buf.remaining());
        buf.put_slice(&bytes[..count]);
        self.read.start += count;
        if self.read.is_empty() {
            put_spare(&SPARE_READ, std::mem::take(&mut self.read.buffer));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = take_spare(&SPARE_READ);
        buffer.resize(READ_AHEAD, 0);
        let mut ahead = ReadBuf::new(&mut buffer);
        let read = Pin::new(&mut self.stream).poll_read(&mut self.woken.context(cx), &mut ahead);
        let end = ahead.filled().len();
        self.read = Pending { buffer, start: 0, end };
        if end == 0 {
            put_spare(&SPARE_READ, std::mem::take(&mut self.read.buffer));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> Shared<S> {
    /// Gathers the bytes, or writes them if they are too many.
    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Err(error));
        }
        let size = bufs.iter().map(|buf| buf.len()).sum();
        if self.gathered.bytes().len() + size > GATHERED_MAX {
            ready!(self.poll_write_gathered(cx))?;
            if size > GATHERED_MAX {
                self.unflushed = true;
                return Pin::new(&mut self.stream).poll_write_vectored(&mut self.woken.context(cx), bufs);
            }
        }
        let Pending { buffer, start, end } = &mut self.gathered;
        if buffer.capacity() == 0 {
            *buffer = take_spare(&SPARE_WRITE);
            buffer.reserve_exact(GATHERED_MAX);
        }
        buffer.drain(..std::mem::take(start));
        for buf in bufs {
            buffer.extend_from_slice(buf);
        }
        *end = buffer.len();
        Poll::Ready(Ok(size))
    }

    /// Writes everything that was gathered, and flushes the stream.
    fn poll_write_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let cx = &mut self.woken.context(cx);
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, self.gathered.bytes()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.start += count;
            self.unflushed = true;
        }
        if self.gathered.buffer.capacity() > 0 {
            let mut buffer = std::mem::take(&mut self.gathered).buffer;
            buffer.clear();
            put_spare(&SPARE_WRITE, buffer);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(&mut self.woken.context(cx)))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// Takes the buffer of this thread, or returns a new one.
fn take_spare(spare: &'static LocalKey<Cell<Vec<u8>>>) -> Vec<u8> {
    spare.try_with(Cell::take).unwrap_or_default()
}

/// Returns a buffer to this thread.
fn put_spare(spare: &'static LocalKey<Cell<Vec<u8>>>, buffer: Vec<u8>) {
    // This fails only while the thread ends.
    let _ = spare.try_with(|spare| spare.set(buffer));
}

impl<S: AsyncRead + Unpin> AsyncRead for Http2Io<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.0);
        if shared.left == 0 {
            shared.left = PORTION;
            drop(shared);
            // One poll of `yield_now` defers this task until other tasks have run and the I/O driver has been
            // polled.
            let _ = pin!(yield_now()).poll(cx);
            return Poll::Pending;
        }
        let before = buf.remaining();
        let read = shared.poll_read(cx, buf);
        shared.left = match read {
            Poll::Ready(_) => shared.left.saturating_sub(before - buf.remaining()),
            Poll::Pending => PORTION,
        };
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Http2Io<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Leaves the bytes to [`Gathered::write`]: h2 flushes after each DATA frame.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(lock(&self.0).error.take().map_or(Ok(()), Err))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &mut *lock(&self.0);
        ready!(shared.poll_write_gathered(cx))?;
        Pin::new(&mut shared.stream).poll_shutdown(&mut shared.woken.context(cx))
    }
}
