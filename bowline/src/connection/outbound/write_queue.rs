//! The bytes that were accepted and are not written yet.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use bytes::{Buf, Bytes};

use crate::connection::outbound::deferred::{Deferred, DeferredList};
use crate::transport::copy_of;

/// The largest capacity of a spare buffer. Each thread has one. With a lower limit, each large message of a
/// client would be masked into fresh memory.
const SPARE_CAPACITY: usize = 2 * 1024 * 1024;

/// The smallest buffer that is handed out as it is. The copy of a smaller one costs less than a new buffer.
const TAKEN_SIZE: usize = 4096;

/// The most pieces of one vectored write.
const SLICES: usize = 16;

thread_local! {
    /// A buffer of this thread, for the connection that writes next.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// A list of payloads of this thread, for the connection that writes next.
    static SPARE_SHARED: Cell<Option<Box<Shared>>> = const { Cell::new(None) };
}

/// Encoded frames, in order. Large payloads are held by reference between them.
///
/// ```text
/// encoded   [ written | header 1, payload 1, header 2 | header 3, payload 3 ]
///                     ^ start                         ^ position of payload 2
/// shared                                            ( position, payload 2 )
/// ```
#[derive(Default)]
pub(crate) struct WriteQueue {
    /// Encoded bytes. The bytes before `start` are written.
    encoded: Vec<u8>,
    start: usize,
    /// Large payloads. In a box, as most of the time there are none.
    shared: Option<Box<Shared>>,
    /// The number of bytes written since the connection was opened.
    written: u64,
}

#[derive(Default)]
struct Shared {
    /// Payloads, each with the position in `encoded` in front of which it comes.
    payloads: VecDeque<(usize, Bytes)>,
    /// The length of all payloads together.
    len: usize,
}

impl Shared {
    /// Removes the first `count` bytes of the queue whose encoded bytes begin at `start`, as far as there are
    /// payloads. Returns the number of bytes to be removed after the last payload, or `None` if payloads
    /// still wait.
    #[inline(never)]
    fn advance(&mut self, start: &mut usize, mut count: usize, deferred: &mut DeferredList) -> Option<usize> {
        while let Some((position, bytes)) = self.payloads.front_mut() {
            let encoded = count.min(*position - *start);
            *start += encoded;
            count -= encoded;
            let referred = count.min(bytes.len());
            bytes.advance(referred);
            self.len -= referred;
            count -= referred;
            if !bytes.is_empty() || *start < *position {
                return None;
            }
            let written = self.payloads.pop_front();
            // The drop of a payload may be an application's code.
            deferred.extend(written.map(|(_, bytes)| Deferred::DropPayload(bytes)));
        }
        Some(count)
    }

    /// Returns an empty list to the thread, unless it is large.
    #[inline(never)]
    fn release(self: Box<Self>) {
        if self.payloads.capacity() <= SLICES {
            // This fails only while the thread ends.
            let _ = SPARE_SHARED.try_with(|spare| spare.set(Some(self)));
        }
    }
}

impl WriteQueue {
    /// Returns the number of bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.encoded.len() - self.start + self.shared.as_ref().map_or(0, |shared| shared.len)
    }

    /// Returns whether no bytes wait.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of bytes written since the connection was opened.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Returns the number of bytes that will have been written once everything that waits now is written.
    pub(crate) fn end(&self) -> u64 {
        self.written + self.len() as u64
    }

    /// Returns the buffer to which frames are appended.
    #[inline]
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        if self.encoded.capacity() == 0 {
            self.encoded = take_spare();
        } else if self.start > self.encoded.len() / 2 {
            self.compact();
        }
        &mut self.encoded
    }

    /// Removes the written bytes, so that a queue that never quite empties does not grow. Amortised, each
    /// byte is moved once at most.
    #[cold]
    fn compact(&mut self) {
        self.encoded.drain(..self.start);
        for (position, _) in self.shared.iter_mut().flat_map(|shared| &mut shared.payloads) {
            *position -= self.start;
        }
        self.start = 0;
    }

    /// Appends bytes by reference.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        let take = || SPARE_SHARED.try_with(Cell::take).unwrap_or_default().unwrap_or_default();
        let shared = self.shared.get_or_insert_with(take);
        shared.len += bytes.len();
        shared.payloads.push_back((self.encoded.len(), bytes));
    }

    /// Makes `encoded` the queue, from `start` on, without a copy. The queue has to be empty.
    #[cfg(any(feature = "json", feature = "protobuf"))]
    pub(crate) fn replace(&mut self, encoded: Vec<u8>, start: usize) {
        debug_assert!(self.is_empty(), "the bytes that wait would be lost");
        self.release();
        (self.encoded, self.start) = (encoded, start);
    }

    /// Passes the first pieces of the queue to a vectored write: at least one byte, if there are any.
    #[inline]
    pub(crate) fn with_slices<R>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        match &self.shared {
            None => write(&[IoSlice::new(&self.encoded[self.start..])]),
            Some(shared) => self.with_gathered(&shared.payloads, write),
        }
    }

    #[inline(never)]
    fn with_gathered<R>(
        &self,
        payloads: &VecDeque<(usize, Bytes)>,
        write: impl FnOnce(&[IoSlice<'_>]) -> R,
    ) -> R {
        // Most likely a broadcast: there is nothing to gather.
        if self.encoded.is_empty() && payloads.len() == 1 {
            return write(&[IoSlice::new(&payloads[0].1)]);
        }
        let mut several = [IoSlice::new(&[]); SLICES];
        let count = self.gather(payloads, &mut several);
        write(&several[..count])
    }

    /// Puts the first pieces into `slices`, and returns their number.
    fn gather<'a>(&'a self, payloads: &'a VecDeque<(usize, Bytes)>, slices: &mut [IoSlice<'a>]) -> usize {
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
        let all_fit = payloads.iter().all(|(at, bytes)| {
            let before = &self.encoded[position..*at];
            position = *at;
            add(before) && add(bytes)
        });
        if all_fit {
            add(&self.encoded[position..]);
        }
        count
    }

    /// Removes the first `count` bytes, which have been written. Payloads that are written entirely go to
    /// `deferred`.
    #[inline]
    pub(crate) fn advance(&mut self, mut count: usize, deferred: &mut DeferredList) {
        self.written += count as u64;
        if let Some(shared) = &mut self.shared {
            match shared.advance(&mut self.start, count, deferred) {
                Some(rest) => count = rest,
                None => return,
            }
        }
        self.start += count;
        if self.start == self.encoded.len() {
            self.release();
        }
    }

    /// Removes up to `count` bytes, and returns them: a large buffer as it is, and all else as a copy.
    pub(crate) fn take(&mut self, count: usize, deferred: &mut DeferredList) -> Bytes {
        let capacity = self.encoded.capacity();
        let is_buffer = self.shared.is_none() && self.start == 0 && count == self.encoded.len();
        if is_buffer && count >= TAKEN_SIZE.max(capacity / 2) {
            // The next replies find a buffer of this size again, which need not grow.
            let mut buffer = mem::replace(&mut self.encoded, Vec::with_capacity(capacity));
            self.written += count as u64;
            self.release();
            buffer.shrink_to_fit();
            return buffer.into();
        }
        let copy = self.with_slices(|slices| copy_of(slices, count));
        self.advance(copy.len(), deferred);
        copy
    }

    /// Discards all bytes that wait.
    pub(crate) fn clear(&mut self, deferred: &mut DeferredList) {
        if let Some(shared) = self.shared.take() {
            shared.payloads.into_iter().for_each(|(_, bytes)| deferred.push(Deferred::DropPayload(bytes)));
        }
        self.release();
    }

    /// Returns the empty buffers to the thread.
    #[inline]
    fn release(&mut self) {
        self.start = 0;
        self.encoded.clear();
        put_spare(mem::take(&mut self.encoded));
        if let Some(shared) = self.shared.take() {
            shared.release();
        }
    }
}

/// Takes the buffer of this thread, or returns a new one without capacity.
#[inline]
pub(crate) fn take_spare() -> Vec<u8> {
    SPARE.try_with(Cell::take).unwrap_or_default()
}

/// Returns an empty buffer to this thread.
#[inline]
pub(crate) fn put_spare(buffer: Vec<u8>) {
    debug_assert!(buffer.is_empty(), "the next connection would send the bytes");
    // A queue that never took a buffer has none to return.
    if (1..=SPARE_CAPACITY).contains(&buffer.capacity()) {
        // This fails only while the thread ends.
        let _ = SPARE.try_with(|spare| spare.set(buffer));
    }
}
