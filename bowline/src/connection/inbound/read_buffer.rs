//! The bytes that were received and are not parsed yet.

use std::cell::Cell;
use std::io;
use std::task::{Context, Poll, ready};

use tokio::task::coop::poll_proceed;

use crate::transport::ReadTransport;

/// The size of a buffer that is read into.
const STORAGE_SIZE: usize = 256 * 1024;

/// The size of the first read: a message of 64 KiB, with the headers of its frames. After a read of at least
/// this size, the next one may fill the whole storage.
///
/// The first read is smaller, as the payload of a large message is read straight into its own memory from
/// then on.
pub(crate) const READ_SIZE: usize = 65 * 1024;

thread_local! {
    /// A buffer of this thread, for the connection that reads next.
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Received bytes. Only a connection that has some, or is reading, holds memory.
#[derive(Default)]
pub(crate) struct ReadBuffer {
    /// The storage, of which `start..end` is in use.
    storage: Box<[u8]>,
    start: usize,
    end: usize,
    /// Set if the last read returned at least [`READ_SIZE`] bytes.
    busy: bool,
}

impl ReadBuffer {
    /// Returns whether there are no bytes.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// Returns the bytes, to be unmasked in place.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.end]
    }

    /// Removes the first `count` bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "more was consumed than there is");
    }

    /// Fills an empty buffer with bytes that were not read from the transport.
    pub(crate) fn load(&mut self, bytes: &[u8]) {
        debug_assert!(self.is_empty(), "the bytes would replace others");
        self.park();
        self.busy = false;
        if !bytes.is_empty() {
            self.storage = bytes.into();
            self.start = 0;
            self.end = bytes.len();
        }
    }

    /// Reads once, and appends to the bytes that are there. Ready with the number of bytes, which is 0 at the
    /// end of the stream.
    #[expect(clippy::inline_always, reason = "measured: 25 instructions less of a small message")]
    #[inline(always)]
    pub(crate) fn poll_fill(
        &mut self,
        transport: &mut ReadTransport,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        // The storage belongs to this buffer while an application's stream is called. A WebSocket within that
        // stream may read as well, with a storage of its own.
        let size = if self.busy { STORAGE_SIZE } else { STORAGE_SIZE.min(self.end + READ_SIZE) };
        let room = &mut self.storage[self.end..size];
        debug_assert!(!room.is_empty(), "a read of nothing would look like the end of the stream");
        let count = ready!(transport.poll_read_into(cx, room))?;
        self.busy = count >= READ_SIZE;
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Reads and discards, until the stream ends or fails.
    pub(crate) fn poll_drain(transport: &mut ReadTransport, cx: &mut Context<'_>) -> Poll<()> {
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

    /// Returns the large storage to the thread, and keeps the remaining bytes in one of their size.
    #[inline]
    pub(crate) fn park(&mut self) {
        if self.storage.len() < STORAGE_SIZE {
            return;
        }
        // Most of the time there are no bytes, which saves the call that would copy them.
        let bytes = if self.is_empty() { Box::default() } else { self.copy() };
        self.start = 0;
        self.end = bytes.len();
        let storage = std::mem::replace(&mut self.storage, bytes);
        // This fails only while the thread ends.
        let _ = SPARE.try_with(|spare| spare.set(Some(storage)));
    }

    #[cold]
    fn copy(&self) -> Box<[u8]> {
        self.bytes().into()
    }

    /// Makes room for reading after the bytes that are there, which are less than a frame header or a control
    /// frame.
    #[inline]
    fn make_room(&mut self) {
        if self.storage.is_empty() {
            self.storage = take_storage();
        } else {
            self.move_to_front();
        }
    }

    /// Moves the bytes to the front of a large storage.
    #[inline(never)]
    fn move_to_front(&mut self) {
        if self.storage.len() < STORAGE_SIZE {
            let mut storage = take_storage();
            storage[..self.end - self.start].copy_from_slice(self.bytes());
            self.storage = storage;
        } else if self.start > 0 {
            self.storage.copy_within(self.start..self.end, 0);
        }
        self.end -= self.start;
        self.start = 0;
    }
}

/// Takes the storage of this thread, or returns a new one.
#[inline]
fn take_storage() -> Box<[u8]> {
    SPARE.try_with(Cell::take).unwrap_or_default().unwrap_or_else(new_storage)
}

#[cold]
fn new_storage() -> Box<[u8]> {
    vec![0; STORAGE_SIZE].into()
}
