//! The bytes that were received and not yet looked at.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::coop::poll_proceed;

/// The size of a buffer that is read into.
const STORAGE_SIZE: usize = 256 * 1024;

/// How much is read at first: a message of 64 KiB, with the headers of its frames. A read that brings as much is followed by
/// one of as much as there is storage for.
///
/// Less at first, as the payload of a large message is read straight into its own memory from then on.
pub(crate) const READ_SIZE: usize = 65 * 1024;

thread_local! {
    /// A buffer of this thread, for whichever connection reads next.
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Received bytes. Only a connection that has some, or is reading, holds memory.
#[derive(Default)]
pub(crate) struct ReadBuffer {
    /// `start..end` of it is in use.
    storage: Box<[u8]>,
    start: usize,
    end: usize,
    /// The last read brought much.
    busy: bool,
}

impl ReadBuffer {
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.end]
    }

    /// The first `count` bytes have been dealt with.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "more was consumed than there is");
    }

    /// Fills an empty buffer with bytes that came another way.
    pub(crate) fn load(&mut self, bytes: &[u8]) {
        debug_assert!(self.is_empty(), "bytes would come in front of others");
        self.park();
        self.busy = false;
        if !bytes.is_empty() {
            self.storage = bytes.into();
            self.start = 0;
            self.end = bytes.len();
        }
    }

    /// Reads once, behind the bytes that are there; ready with the number of bytes, 0 at the end of the stream.
    pub(crate) fn poll_fill(
        &mut self,
        transport: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        // The storage is ours while a stream of the user's is called, so that a WebSocket within it may read as well.
        let size = if self.busy { STORAGE_SIZE } else { STORAGE_SIZE.min(self.end + READ_SIZE) };
        let mut buf = ReadBuf::new(&mut self.storage[self.end..size]);
        debug_assert!(buf.remaining() > 0, "nothing could be read, which would look like the end");
        ready!(Pin::new(transport).poll_read(cx, &mut buf))?;
        let count = buf.filled().len();
        self.busy = count >= READ_SIZE;
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Reads and throws away, until the stream ends or fails.
    pub(crate) fn poll_drain(transport: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = Self::default();
        let drained = loop {
            let Poll::Ready(progress) = poll_proceed(cx) else { break Poll::Pending };
            match scratch.poll_fill(transport, cx) {
                Poll::Ready(Ok(count)) if count > 0 => scratch.consume(count),
                ended => break ended.map(drop),
            }
            progress.made_progress();
        };
        scratch.park();
        drained
    }

    /// Gives the large storage back to the thread, and keeps what bytes there are in one of their size.
    pub(crate) fn park(&mut self) {
        if self.storage.len() < STORAGE_SIZE {
            return;
        }
        // Most of the time there are none, which spares the call that would copy them.
        let bytes: Box<[u8]> = if self.is_empty() { Box::default() } else { self.bytes().into() };
        self.start = 0;
        self.end = bytes.len();
        let storage = std::mem::replace(&mut self.storage, bytes);
        // It fails only while the thread ends.
        let _ = SPARE.try_with(|spare| spare.set(Some(storage)));
    }

    /// Makes space for reading behind the bytes that are there: less than a frame header or a control frame.
    fn make_room(&mut self) {
        if self.storage.len() < STORAGE_SIZE {
            let spare = SPARE.try_with(Cell::take).unwrap_or_default();
            let mut storage = spare.unwrap_or_else(|| vec![0; STORAGE_SIZE].into());
            if !self.is_empty() {
                storage[..self.end - self.start].copy_from_slice(self.bytes());
            }
            self.storage = storage;
        } else if self.start > 0 {
            self.storage.copy_within(self.start..self.end, 0);
        }
        self.end -= self.start;
        self.start = 0;
    }
}
