//! The compression of messages (RFC 7692 7.2.1).

extern crate std;

use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use flate2::{Compress, Compression, FlushCompress};

use crate::negotiation::DeflateParameters;

/// The bytes with which every flush ends. They are removed from the end of a message (RFC 7692 7.2.1).
pub(crate) const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// An empty block without its [`TAIL`].
const EMPTY: u8 = 0x00;

/// The number of idle compressors that a thread keeps for reuse.
const SPARES: usize = 4;

std::thread_local! {
    static SPARE: RefCell<Vec<(Settings, Compress)>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    level: u8,
    window_bits: u8,
}

/// A compressor for the messages of one direction (RFC 7692 7.2.1).
///
/// The memory, 250 to 380 KB, comes from the idle compressors of the thread if there are any. Without context
/// takeover, the memory is returned after each message. With context takeover, the memory is kept from the
/// first message on. A compressor that is abandoned in the middle of a message is not reused.
///
/// ```
/// use bowline_proto::{Deflater, Inflater, MessageKind};
///
/// let (level, window_bits, takes_context_over) = (6, 15, true);
/// let mut deflater = Deflater::new(level, window_bits, takes_context_over);
/// let mut payload = Vec::new();
/// deflater.message(b"Hello, hello, hello", &mut payload);
///
/// let mut inflater = Inflater::new(1 << 20, window_bits, takes_context_over);
/// inflater.begin(MessageKind::Text);
/// let (mut message, mut consumed) = (Vec::new(), 0);
/// loop {
///     let inflated = inflater.inflate(&payload[consumed..], true, &mut message)?;
///     consumed += inflated.consumed;
///     if inflated.done {
///         break;
///     }
/// }
/// assert_eq!(message, b"Hello, hello, hello");
/// # Ok::<(), bowline_proto::Failure>(())
/// ```
///
/// - commands: [`message`](Self::message), [`fragment`](Self::fragment),
///   [`last_fragment`](Self::last_fragment), [`forget`](Self::forget)
pub struct Deflater {
    settings: Settings,
    takes_context_over: bool,
    compress: Option<Compress>,
    /// Set if the last call was a flush and returned, so no input is left in the compressor.
    is_flushed: bool,
}

impl Deflater {
    /// Creates a compressor with this level and windows of `window_bits`.
    ///
    /// Levels range from 0, which only stores, to 9, which is the slowest. With context takeover, a message
    /// may refer to earlier messages.
    ///
    /// # Panics
    ///
    /// Panics if `window_bits` is not between [`DeflateParameters::MIN_WINDOW_BITS`] and 15, or if the level
    /// is over 9.
    pub fn new(level: u8, window_bits: u8, takes_context_over: bool) -> Self {
        assert!(
            (DeflateParameters::MIN_WINDOW_BITS..=15).contains(&window_bits),
            "a window has 9 to 15 bits"
        );
        assert!(level <= 9, "a level is at most 9");
        Self {
            settings: Settings { level, window_bits },
            takes_context_over,
            compress: None,
            is_flushed: true,
        }
    }

    /// Compresses a whole message, and appends the payload of its only frame to `out`.
    pub fn message(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.last_fragment(payload, out);
    }

    /// Compresses a part of a message that is not the last, and appends the payload of its frame to `out`.
    ///
    /// Without `flush`, the compressor may hold data back and append nothing. With `flush`, no data is held
    /// back.
    pub fn fragment(&mut self, payload: &[u8], flush: bool, out: &mut Vec<u8>) {
        let flush = if flush { FlushCompress::Sync } else { FlushCompress::None };
        self.run(payload, flush, out);
    }

    /// Compresses the last part of a message, and appends the payload of its frame to `out`.
    pub fn last_fragment(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        self.run(payload, FlushCompress::Sync, out);
        // RFC 7692 7.2.1: the four bytes at the end of a flush are removed.
        if out[start..].ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        } else {
            // RFC 7692 7.2.3.6: nothing was left to flush, and the payload is an empty block.
            out.push(EMPTY);
        }
        if !self.takes_context_over {
            self.forget();
        }
    }

    /// Forgets the window and all input since the last flush, so that the next message refers to nothing
    /// before it.
    ///
    /// The caller must call this method if compressed payloads were not sent, or were replaced by others.
    pub fn forget(&mut self) {
        let Some(mut compress) = self.compress.take() else { return };
        // `reset` is not enough: at level 1, a compressor that is reset does not forget an open block, and
        // the next message would continue that block. After a flush no block is open, at any level. The state
        // of a compressor that has panicked is unknown.
        if !self.is_flushed {
            return;
        }
        compress.reset();
        // `try_with` fails only while the thread ends.
        let _ = SPARE.try_with(|spares| {
            let mut spares = spares.borrow_mut();
            if spares.len() == SPARES {
                spares.remove(0);
            }
            spares.push((self.settings, compress));
        });
    }

    fn run(&mut self, mut input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
        let settings = self.settings;
        let compress = self.compress.get_or_insert_with(|| settings.take_compress());
        self.is_flushed = false;
        loop {
            // Incompressible data grows by a few bytes.
            out.reserve(input.len() + input.len() / 64 + 64);
            let before = compress.total_in();
            let status = compress.compress_vec(input, out, flush);
            debug_assert!(status.is_ok(), "compressing without a dictionary does not fail");
            #[expect(clippy::cast_possible_truncation, reason = "at most the size of the input")]
            let consumed = (compress.total_in() - before) as usize;
            input = &input[consumed..];
            if input.is_empty() && out.len() < out.capacity() {
                self.is_flushed = !matches!(flush, FlushCompress::None);
                return;
            }
        }
    }
}

impl Drop for Deflater {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Settings {
    fn take_compress(self) -> Compress {
        let spare = SPARE.try_with(|spares| {
            let mut spares = spares.borrow_mut();
            let position = spares.iter().position(|(settings, _)| *settings == self)?;
            Some(spares.swap_remove(position).1)
        });
        spare.ok().flatten().unwrap_or_else(|| {
            let level = Compression::new(self.level.into());
            Compress::new_with_window_bits(level, false, self.window_bits)
        })
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings, takes_context_over, .. } = self;
        f.debug_struct("Deflater")
            .field("settings", settings)
            .field("takes_context_over", takes_context_over)
            .finish_non_exhaustive()
    }
}
