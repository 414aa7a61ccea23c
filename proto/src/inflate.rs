//! Decompressing messages (RFC 7692 7.2.2).

extern crate std;

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;

use flate2::{Decompress, FlushDecompress, Status};

use crate::error::{Failure, Limit, Violation};
use crate::frame::MessageKind;
use crate::utf8::Utf8Validator;

/// What is read behind the last frame of a message: what the sender has removed, and an empty block that is
/// said to be the last. Only if all of it is understood, the message did not end inside a block.
const END: [u8; 9] = [0x00, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0xFF];

/// How many decompressors a thread keeps for whoever decompresses next.
const SPARES: usize = 4;

/// The most that comes out of one step, in bytes.
const STEP: usize = 64 * 1024;

/// The most that goes into one step, in bytes. Measured: in the dearest form, headers of blocks without
/// content, they take as long as the step of a text from which 64 KiB come.
const STEP_INPUT: usize = 1024;

/// What a message may count for in compressed form besides twice the limit of its size, in bytes: 16 for each
/// of 16,384 frames. To flush takes 5.
const OVERHEAD: u64 = 256 * 1024;

/// What each stream of a message counts for, in bytes. There is another behind a last block, which may have
/// 2, and the window is loaded for it.
const STREAM_SIZE: u64 = 64;

std::thread_local! {
    static SPARE: RefCell<Vec<Decompress>> = const { RefCell::new(Vec::new()) };
    /// What one step brings, on its way into a message: how much that will be is not known before.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Decompresses the messages of one direction: compressed payload in, whatever the frames are, and messages
/// out, within a limit of size and with text that is UTF-8.
///
/// The limit is on what comes out. A message from which little comes has one, too: what goes in may be twice
/// as much and 256 KiB, and what follows a last block, which no usual compressor writes but at the end,
/// counts for 64 bytes more.
///
/// The memory of a decompressor, about 40 KiB, is taken from one that the thread has to spare, for as long as
/// a message is incomplete. In between, with context takeover, the window alone is kept.
///
/// - commands: [`begin`](Self::begin), [`inflate`](Self::inflate)
pub struct Inflater {
    message_size: u64,
    /// The size of the window, if it is taken over.
    window_size: Option<usize>,
    /// What came out last: at most a quarter more than the window.
    window: Vec<u8>,
    decompress: Option<Decompress>,
    kind: MessageKind,
    utf8: Utf8Validator,
    /// How large the message is so far.
    size: u64,
    /// What it counts for in compressed form so far.
    compressed_size: u64,
    /// How much of [`END`] was read behind the message.
    end: usize,
    /// Nothing was read yet, or nothing behind a block that was said to be the last.
    between_streams: bool,
}

/// What [`Inflater::inflate`] has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inflated {
    /// How much of the input was read.
    pub consumed: usize,
    /// Whether that was all of it, so that more has to come.
    pub needs_input: bool,
    /// Whether that was the end of the message.
    pub done: bool,
}

impl Inflater {
    /// A decompressor of messages of at most so many bytes, with windows of `window_bits`.
    ///
    /// # Panics
    ///
    /// If `window_bits` are not from 8 to 15.
    pub fn new(message_size: u64, window_bits: u8, takes_context_over: bool) -> Self {
        assert!((8..=15).contains(&window_bits), "a window has 8 to 15 bits");
        Self {
            message_size,
            window_size: takes_context_over.then_some(1 << window_bits),
            window: Vec::new(),
            decompress: None,
            kind: MessageKind::Binary,
            utf8: Utf8Validator::new(),
            size: 0,
            compressed_size: 0,
            end: 0,
            between_streams: true,
        }
    }

    /// Begins a message.
    pub fn begin(&mut self, kind: MessageKind) {
        self.decompress.get_or_insert_with(take_decompress);
        self.kind = kind;
        self.utf8 = Utf8Validator::new();
        self.size = 0;
        self.compressed_size = 0;
        self.end = 0;
        self.between_streams = true;
    }

    /// Appends some of what `input` goes on with to `out`: 64 KiB at most, of 1 KiB of the input at most.
    /// `last` says that nothing of the message follows this input.
    ///
    /// # Errors
    ///
    /// [`Violation::InvalidCompression`], [`Violation::InvalidText`] as soon as the first wrong byte comes
    /// out, [`Limit::MessageSize`] before memory is taken for what is over it, and [`Limit::CompressedSize`].
    pub fn inflate(&mut self, input: &[u8], last: bool, out: &mut Vec<u8>) -> Result<Inflated, Failure> {
        let Some(mut decompress) = self.decompress.take() else {
            return Ok(Inflated { consumed: input.len(), needs_input: true, done: false });
        };
        let result = self.step(&mut decompress, input, last, out);
        if matches!(result, Ok(Inflated { done: false, .. })) {
            self.decompress = Some(decompress);
        } else {
            give_back(decompress);
        }
        result
    }

    fn step(
        &mut self,
        decompress: &mut Decompress,
        input: &[u8],
        last: bool,
        out: &mut Vec<u8>,
    ) -> Result<Inflated, Failure> {
        if input.is_empty() && self.between_streams && self.end == 0 {
            let nothing = Inflated { consumed: 0, needs_input: true, done: false };
            return if last { self.finish() } else { Ok(nothing) };
        }
        let in_end = input.is_empty() && last;
        let source = if in_end { &END[self.end..] } else { &input[..input.len().min(STEP_INPUT)] };
        if std::mem::take(&mut self.between_streams) {
            // RFC 7692 7.2.3.5: what follows a last block is another stream of the same window.
            load(decompress, &self.window);
            self.compressed_size += STREAM_SIZE;
        }
        let before = decompress.total_in();
        let (status, all_out) = with_scratch(|bytes| {
            let status = decompress.decompress_vec(source, bytes, FlushDecompress::None);
            self.accept(bytes, out)?;
            // As long as there was no room left, more may come out.
            Ok::<_, Failure>((status, bytes.len() < bytes.capacity()))
        })?;
        let status = status.map_err(|_| Violation::InvalidCompression)?;
        self.between_streams = status == Status::StreamEnd;
        let consumed = decompress.total_in() - before;
        self.compressed_size += consumed;
        // RFC 6455 10.4: that from which nothing comes is work, too.
        let limit = self.message_size.saturating_mul(2).saturating_add(OVERHEAD);
        if self.compressed_size > limit {
            return Err(Limit::CompressedSize(limit).into());
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most the size of the input")]
        let consumed = consumed as usize;
        if in_end {
            self.end += consumed;
            if self.end == END.len() && self.between_streams {
                return self.finish();
            }
            if all_out && !self.between_streams {
                return Err(Violation::InvalidCompression.into());
            }
            return Ok(Inflated { consumed: 0, needs_input: false, done: false });
        }
        let needs_input = all_out && !last && consumed == input.len();
        Ok(Inflated { consumed, needs_input, done: false })
    }

    /// Looks at what has come out, and appends it to `out`.
    fn accept(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        let left = self.message_size - self.size;
        // RFC 6455 10.4: what counts is the size after decompression.
        if bytes.len() as u64 > left {
            return Err(Limit::MessageSize(self.message_size).into());
        }
        self.size += bytes.len() as u64;
        if self.kind == MessageKind::Text {
            // RFC 6455 8.1, RFC 7692 6.2: text is UTF-8 once it is decompressed.
            self.utf8.feed(bytes).map_err(|_| Violation::InvalidText)?;
        }
        if let Some(size) = self.window_size {
            let newest = &bytes[bytes.len().saturating_sub(size)..];
            if self.window.len() + newest.len() > size + size / 4 {
                self.window.drain(..(self.window.len() + newest.len() - size).min(self.window.len()));
            }
            let len = self.window.len() + newest.len();
            if self.window.capacity() < len {
                self.window.reserve_exact((2 * len).min(size + size / 4) - self.window.len());
            }
            self.window.extend_from_slice(newest);
        }
        make_room(out, bytes.len(), usize::try_from(left).unwrap_or(usize::MAX));
        out.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&self) -> Result<Inflated, Failure> {
        if self.kind == MessageKind::Text && !self.utf8.is_complete() {
            return Err(Violation::InvalidText.into());
        }
        Ok(Inflated { consumed: 0, needs_input: false, done: true })
    }
}

/// Makes room for so many bytes, of at most `left` that may come. The capacity about doubles, but not beyond
/// the limit.
fn make_room(out: &mut Vec<u8>, room: usize, left: usize) {
    if out.capacity() - out.len() < room {
        out.reserve_exact(out.len().min(left).max(room));
    }
}

/// Makes it begin a stream that may refer to `window`.
fn load(decompress: &mut Decompress, window: &[u8]) {
    decompress.reset(false);
    if !window.is_empty() {
        let window = &window[window.len().saturating_sub(1 << 15)..];
        let set = decompress.set_dictionary(window);
        debug_assert!(set.is_ok(), "a raw stream accepts any dictionary at its start");
    }
}

/// Lends `work` an empty buffer with room for what one step brings.
fn with_scratch<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
    scratch.clear();
    scratch.reserve_exact(STEP);
    let result = work(&mut scratch);
    // It fails only while the thread ends.
    let _ = SCRATCH.try_with(|spare| spare.set(scratch));
    result
}

fn take_decompress() -> Decompress {
    let spare = SPARE.try_with(|spares| spares.borrow_mut().pop());
    spare.ok().flatten().unwrap_or_else(|| Decompress::new(false))
}

fn give_back(decompress: Decompress) {
    // It fails only while the thread ends.
    let _ = SPARE.try_with(|spares| {
        let mut spares = spares.borrow_mut();
        if spares.len() < SPARES {
            spares.push(decompress);
        }
    });
}

impl Drop for Inflater {
    fn drop(&mut self) {
        if let Some(decompress) = self.decompress.take() {
            give_back(decompress);
        }
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater")
            .field("message_size", &self.message_size)
            .field("window_size", &self.window_size)
            .finish_non_exhaustive()
    }
}
