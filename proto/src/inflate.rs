//! The decompression of messages (RFC 7692 7.2.2).

extern crate std;

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;

use flate2::{Decompress, FlushDecompress, Status};

use crate::error::{Failure, Limit, Violation};
use crate::frame::MessageKind;
use crate::utf8::Utf8Validator;

/// The bytes that are read after the last frame of a message: the tail that the sender removed, and an empty
/// block that is marked as the last. A message that ends inside a block is invalid with these bytes appended.
const END: [u8; 9] = [0x00, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0xFF];

/// The number of idle decompressors that a thread keeps for reuse.
const SPARES: usize = 4;

/// The largest output of one step, in bytes.
const STEP: usize = 64 * 1024;

/// The largest input of one step, in bytes.
///
/// Measured: the most expensive input, headers of blocks without content, then takes as long as a step that
/// outputs 64 KiB of text.
const STEP_INPUT: usize = 1024;

/// The allowance for the compressed form of a message, in bytes, in addition to twice the limit of its size.
///
/// The allowance is 16 bytes for each of 16,384 frames. A flush takes 5 bytes.
const OVERHEAD: u64 = 256 * 1024;

/// The number of bytes that each deflate stream of a message counts for, in addition to its size.
///
/// A block marked as the last ends a stream and may be as small as 2 bytes, but beginning another stream
/// costs the loading of the window.
const STREAM_SIZE: u64 = 64;

std::thread_local! {
    static SPARE: RefCell<Vec<Decompress>> = const { RefCell::new(Vec::new()) };
    /// The output of one step, on its way into a message. The size is not known in advance.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A decompressor for the messages of one direction (RFC 7692 7.2.2).
///
/// The input is the compressed payload of a message, however it is divided into frames. The output is within
/// the limit of the message size, and text is validated as UTF-8.
///
/// The limit applies to the decompressed size. The compressed form has a limit too, for messages with little
/// output: twice the limit of the message size and 256 KiB. Each deflate stream of a message counts for 64
/// bytes more than its size. A stream ends with a block that is marked as the last; usual compressors
/// write such a block only at the end of a message.
///
/// The memory, about 40 KiB, comes from the idle decompressors of the thread if there are any, and is held
/// only while a message is incomplete. Between messages, only the window is kept, and only with context
/// takeover.
///
/// [`Deflater`](crate::Deflater) has an example of both directions.
///
/// - commands: [`begin`](Self::begin), [`inflate`](Self::inflate)
pub struct Inflater {
    message_size: u64,
    /// The size of the window in bytes, if the context is taken over.
    window_size: Option<usize>,
    /// The most recent output, at most a quarter more than the window.
    window: Vec<u8>,
    decompress: Option<Decompress>,
    kind: MessageKind,
    utf8: Utf8Validator,
    /// The size of the message so far, in bytes.
    size: u64,
    /// The number of bytes that the compressed form of the message counts for so far.
    compressed_size: u64,
    /// The number of bytes of [`END`] that were read after the message.
    end: usize,
    /// Set before the first byte of the message, and after a block that is marked as the last.
    between_streams: bool,
}

/// The progress of a call to [`Inflater::inflate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inflated {
    /// The number of bytes of the input that were read.
    pub consumed: usize,
    /// Set if all of the input was read and the message has not ended, so more input is needed.
    pub needs_input: bool,
    /// Set if the message has ended.
    pub done: bool,
}

impl Inflater {
    /// Creates a decompressor for messages of at most `message_size` bytes, with windows of `window_bits`.
    ///
    /// # Panics
    ///
    /// Panics if `window_bits` is not between 8 and 15.
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

    /// Decompresses the front of `input` and appends the output to `out`.
    ///
    /// One call reads at most 1 KiB and appends at most 64 KiB. `last` means that no part of the message
    /// follows `input`. The caller repeats the call with the remaining input until the message is
    /// [`done`](Inflated::done) or [`needs_input`](Inflated::needs_input).
    ///
    /// # Errors
    ///
    /// - Returns [`Violation::InvalidCompression`] if the message can't be decompressed.
    /// - Returns [`Violation::InvalidText`] if text is not UTF-8, as soon as the first invalid byte comes
    ///   out.
    /// - Returns [`Limit::MessageSize`] if the message is too large, before memory is allocated for the
    ///   excess.
    /// - Returns [`Limit::CompressedSize`] if the compressed form of the message counts for too much.
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
            // RFC 7692 7.2.3.5: another stream with the same window may follow a last block.
            load(decompress, &self.window);
            self.compressed_size += STREAM_SIZE;
        }
        let before = decompress.total_in();
        let (status, all_out) = with_scratch(|bytes| {
            let status = decompress.decompress_vec(source, bytes, FlushDecompress::None);
            self.accept(bytes, out)?;
            // More output may follow if no room was left.
            Ok::<_, Failure>((status, bytes.len() < bytes.capacity()))
        })?;
        let status = status.map_err(|_| Violation::InvalidCompression)?;
        self.between_streams = status == Status::StreamEnd;
        let consumed = decompress.total_in() - before;
        self.compressed_size += consumed;
        // RFC 6455 10.4: input without output is work too.
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

    /// Checks the output of a step and appends the output to `out`.
    fn accept(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        let left = self.message_size - self.size;
        // RFC 6455 10.4: the limit applies to the size after decompression.
        if bytes.len() as u64 > left {
            return Err(Limit::MessageSize(self.message_size).into());
        }
        self.size += bytes.len() as u64;
        if self.kind == MessageKind::Text {
            // RFC 6455 8.1, RFC 7692 6.2: text is UTF-8 after decompression.
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

/// Makes room for `room` more bytes, of at most `left` that the limit allows. The capacity roughly doubles,
/// but not beyond the limit.
fn make_room(out: &mut Vec<u8>, room: usize, left: usize) {
    if out.capacity() - out.len() < room {
        out.reserve_exact(out.len().min(left).max(room));
    }
}

/// Resets `decompress` to the start of a stream that may refer to `window`.
fn load(decompress: &mut Decompress, window: &[u8]) {
    decompress.reset(false);
    if !window.is_empty() {
        let window = &window[window.len().saturating_sub(1 << 15)..];
        let set = decompress.set_dictionary(window);
        debug_assert!(set.is_ok(), "a raw stream accepts any dictionary at its start");
    }
}

/// Calls `work` with an empty buffer that has room for the output of one step.
fn with_scratch<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
    scratch.clear();
    scratch.reserve_exact(STEP);
    let result = work(&mut scratch);
    // `try_with` fails only while the thread ends.
    let _ = SCRATCH.try_with(|spare| spare.set(scratch));
    result
}

fn take_decompress() -> Decompress {
    let spare = SPARE.try_with(|spares| spares.borrow_mut().pop());
    spare.ok().flatten().unwrap_or_else(|| Decompress::new(false))
}

fn give_back(decompress: Decompress) {
    // `try_with` fails only while the thread ends.
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
