//! The bytes that were accepted and not yet written.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// The most capacity a spare buffer keeps. There is one a thread: with less, each large message of a client would be masked
/// into fresh memory.
const SPARE_CAPACITY: usize = 2 * 1024 * 1024;

/// How many pieces one vectored write takes.
const SLICES: usize = 16;

thread_local! {
    /// A buffer of this thread, for whichever connection writes next.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// The same for a list of payloads.
    static SPARE_LIST: Cell<VecDeque<(usize, Bytes)>> = const { Cell::new(VecDeque::new()) };
}

/// Encoded frames, in order. Large payloads are held by reference between them.
#[derive(Default)]
pub(crate) struct WriteQueue {
    /// Encoded bytes; those before `start` are written.
    encoded: Vec<u8>,
    start: usize,
    /// Payloads, each with the position in `encoded` that it comes in front of.
    shared: VecDeque<(usize, Bytes)>,
    /// The total size of `shared`.
    shared_len: usize,
    /// How many bytes were ever written.
    written: u64,
}

impl WriteQueue {
    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.encoded.len() - self.start + self.shared_len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes were ever written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// How many bytes will have been written once all that waits now is.
    pub(crate) fn end(&self) -> u64 {
        self.written + self.len() as u64
    }

    /// Where frames are appended.
    #[inline]
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        if self.encoded.capacity() == 0 {
            self.encoded = take_spare();
        } else if self.start > self.encoded.len() / 2 {
            // So that a queue that never quite empties doesn't grow. Each byte is moved once at most, amortised.
            self.encoded.drain(..self.start);
            for (position, _) in &mut self.shared {
                *position -= self.start;
            }
            self.start = 0;
        }
        &mut self.encoded
    }

    /// Appends bytes by reference.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if self.shared.capacity() == 0 {
            self.shared = SPARE_LIST.try_with(Cell::take).unwrap_or_default();
        }
        self.shared_len += bytes.len();
        self.shared.push_back((self.encoded.len(), bytes));
    }

    /// Takes a buffer whole, from `start` on. The queue has to be empty.
    #[cfg(any(feature = "json", feature = "protobuf"))]
    pub(crate) fn replace(&mut self, encoded: Vec<u8>, start: usize) {
        debug_assert!(self.is_empty(), "what waits would be lost");
        self.release();
        (self.encoded, self.start) = (encoded, start);
    }

    /// Gives the first pieces, at least one byte if there are any, to a vectored write.
    pub(crate) fn with_slices<R>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        if self.shared.is_empty() {
            return write(&[IoSlice::new(&self.encoded[self.start..])]);
        }
        if self.encoded.is_empty() && self.shared.len() == 1 {
            // A broadcast, most likely: nothing to gather.
            return write(&[IoSlice::new(&self.shared[0].1)]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let mut position = self.start;
        let mut add = |piece| {
            let fits = count < SLICES;
            if fits && !<[u8]>::is_empty(piece) {
                slices[count] = IoSlice::new(piece);
                count += 1;
            }
            fits
        };
        let all_fit = self.shared.iter().all(|(at, bytes)| {
            let before = &self.encoded[position..*at];
            position = *at;
            add(before) && add(bytes)
        });
        if all_fit {
            add(&self.encoded[position..]);
        }
        write(&slices[..count])
    }

    /// The first `count` bytes have been written.
    pub(crate) fn advance(&mut self, mut count: usize) {
        self.written += count as u64;
        while let Some((position, bytes)) = self.shared.front_mut() {
            let encoded = count.min(*position - self.start);
            self.start += encoded;
            count -= encoded;
            let shared = count.min(bytes.len());
            bytes.advance(shared);
            self.shared_len -= shared;
            count -= shared;
            if !bytes.is_empty() || self.start < *position {
                return;
            }
            self.shared.pop_front();
        }
        self.start += count;
        if self.start == self.encoded.len() {
            self.release();
        }
    }

    /// Drops all that waits.
    pub(crate) fn clear(&mut self) {
        self.shared = VecDeque::new();
        self.shared_len = 0;
        self.release();
    }

    /// Gives the empty buffers back to the thread.
    fn release(&mut self) {
        self.start = 0;
        self.encoded.clear();
        let buffer = std::mem::take(&mut self.encoded);
        give_spare(buffer);
        if self.shared.capacity() > 0 {
            let list = std::mem::take(&mut self.shared);
            if list.capacity() <= SLICES {
                // It fails only while the thread ends.
                let _ = SPARE_LIST.try_with(|spare| spare.set(list));
            }
        }
    }
}

/// Takes the buffer of this thread, or an empty one.
#[inline]
pub(crate) fn take_spare() -> Vec<u8> {
    SPARE.try_with(Cell::take).unwrap_or_default()
}

/// Gives a buffer to this thread, which is empty again.
#[inline]
pub(crate) fn give_spare(buffer: Vec<u8>) {
    debug_assert!(buffer.is_empty(), "the next connection would send it");
    // One that never took a buffer has none to give back.
    if (1..=SPARE_CAPACITY).contains(&buffer.capacity()) {
        // It fails only while the thread ends.
        let _ = SPARE.try_with(|spare| spare.set(buffer));
    }
}
