//! The bytes that were accepted and not yet written.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::connection::outbound::later::{Later, spare_list};

/// The most capacity a spare buffer keeps. There is one a thread: with less, each large message of a client would be masked
/// into fresh memory.
const SPARE_CAPACITY: usize = 2 * 1024 * 1024;

/// How many pieces one vectored write takes.
const SLICES: usize = 16;

thread_local! {
    /// A buffer of this thread, for whichever connection writes next.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// The same for payloads.
    static SPARE_SHARED: Cell<Option<Box<Shared>>> = const { Cell::new(None) };
}

/// Encoded frames, in order. Large payloads are held by reference between them.
#[derive(Default)]
pub(crate) struct WriteQueue {
    /// Encoded bytes; those before `start` are written.
    encoded: Vec<u8>,
    start: usize,
    /// Large payloads. In a box, as most of the time there are none.
    shared: Option<Box<Shared>>,
    /// How many bytes were ever written.
    written: u64,
}

#[derive(Default)]
struct Shared {
    /// Each has the position in `encoded` that it comes in front of.
    payloads: VecDeque<(usize, Bytes)>,
    /// How many bytes they are.
    len: usize,
}

impl WriteQueue {
    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.encoded.len() - self.start + self.shared.as_ref().map_or(0, |shared| shared.len)
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
            self.compact();
        }
        &mut self.encoded
    }

    /// So that a queue that never quite empties doesn't grow. Each byte is moved once at most, amortised.
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

    /// Takes a buffer whole, from `start` on. The queue has to be empty.
    #[cfg(any(feature = "json", feature = "protobuf"))]
    pub(crate) fn replace(&mut self, encoded: Vec<u8>, start: usize) {
        debug_assert!(self.is_empty(), "what waits would be lost");
        self.release();
        (self.encoded, self.start) = (encoded, start);
    }

    /// Gives the first pieces, at least one byte if there are any, to a vectored write.
    pub(crate) fn with_slices<R>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> R) -> R {
        let (single, mut several);
        let slices: &[IoSlice<'_>] = match self.shared.as_deref().map(|shared| &shared.payloads) {
            None => {
                single = [IoSlice::new(&self.encoded[self.start..])];
                &single
            }
            // A broadcast, most likely: nothing to gather.
            Some(payloads) if self.encoded.is_empty() && payloads.len() == 1 => {
                single = [IoSlice::new(&payloads[0].1)];
                &single
            }
            Some(payloads) => {
                several = [IoSlice::new(&[]); SLICES];
                let count = self.gather(payloads, &mut several);
                &several[..count]
            }
        };
        write(slices)
    }

    /// Puts the first pieces into `slices`, and tells how many there are.
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

    /// The first `count` bytes have been written. Payloads of which nothing is left go to `later`.
    pub(crate) fn advance(&mut self, mut count: usize, later: &mut Vec<Later>) {
        self.written += count as u64;
        if let Some(shared) = &mut self.shared {
            while let Some((position, bytes)) = shared.payloads.front_mut() {
                let encoded = count.min(*position - self.start);
                self.start += encoded;
                count -= encoded;
                let referred = count.min(bytes.len());
                bytes.advance(referred);
                shared.len -= referred;
                count -= referred;
                if !bytes.is_empty() || self.start < *position {
                    return;
                }
                push_payload(shared.payloads.pop_front(), later);
            }
        }
        self.start += count;
        if self.start == self.encoded.len() {
            self.release();
        }
    }

    /// Throws away all that waits.
    pub(crate) fn clear(&mut self, later: &mut Vec<Later>) {
        if let Some(shared) = self.shared.take() {
            shared.payloads.into_iter().for_each(|(_, bytes)| later.push(Later::DropPayload(bytes)));
        }
        self.release();
    }

    /// Gives the empty buffers back to the thread.
    fn release(&mut self) {
        self.start = 0;
        self.encoded.clear();
        let buffer = std::mem::take(&mut self.encoded);
        give_spare(buffer);
        if let Some(shared) = self.shared.take_if(|shared| shared.payloads.capacity() <= SLICES) {
            // It fails only while the thread ends.
            let _ = SPARE_SHARED.try_with(|spare| spare.set(Some(shared)));
        }
        self.shared = None;
    }
}

/// The drop of a payload may be an application's code.
fn push_payload(payload: Option<(usize, Bytes)>, later: &mut Vec<Later>) {
    if later.capacity() == 0 {
        *later = spare_list();
    }
    later.extend(payload.map(|(_, bytes)| Later::DropPayload(bytes)));
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
