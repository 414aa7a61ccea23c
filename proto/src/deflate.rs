//! Compressing messages (RFC 7692 7.2.1).

extern crate std;

use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use flate2::{Compress, Compression, FlushCompress};

use crate::negotiation::DeflateParameters;

/// What every flush ends with, and no message (RFC 7692 7.2.1).
pub(crate) const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// An empty block without [`TAIL`].
const EMPTY: u8 = 0x00;

/// How many compressors a thread keeps for whoever compresses next.
const SPARES: usize = 4;

std::thread_local! {
    static SPARE: RefCell<Vec<(Settings, Compress)>> = const { RefCell::new(Vec::new()) };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    level: u8,
    window_bits: u8,
}

/// Compresses the messages of one direction.
///
/// The memory of a compressor, 250 to 380 KB, is that of one which the thread has to spare. Without context
/// takeover it is given back after each message; with it, it is kept from the first message on. A compressor
/// that was left in the middle of a message is not lent again.
///
/// - commands: [`message`](Self::message), [`fragment`](Self::fragment),
///   [`last_fragment`](Self::last_fragment), [`forget`](Self::forget)
pub struct Deflater {
    settings: Settings,
    takes_context_over: bool,
    compress: Option<Compress>,
    /// All that went into the compressor has come out: the last call was a flush, and has returned.
    is_flushed: bool,
}

impl Deflater {
    /// A compressor with windows of `window_bits` and this level: 0, which only stores, to 9, which is the
    /// slowest.
    ///
    /// # Panics
    ///
    /// If `window_bits` are not from [`DeflateParameters::MIN_WINDOW_BITS`] to 15, or the level is over 9.
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

    /// Appends the payload of a message in one frame to `out`.
    pub fn message(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.last_fragment(payload, out);
    }

    /// Appends the payload of a frame that others of its message follow, to `out`; nothing if there is
    /// nothing to send yet, which is never so with `flush`.
    pub fn fragment(&mut self, payload: &[u8], flush: bool, out: &mut Vec<u8>) {
        let flush = if flush { FlushCompress::Sync } else { FlushCompress::None };
        self.run(payload, flush, out);
    }

    /// Appends the payload of the last frame of a message to `out`.
    pub fn last_fragment(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        self.run(payload, FlushCompress::Sync, out);
        // RFC 7692 7.2.1: the four bytes at the end of a flush are removed.
        if out[start..].ends_with(&TAIL) {
            out.truncate(out.len() - TAIL.len());
        } else {
            // RFC 7692 7.2.3.6: there was nothing left to flush.
            out.push(EMPTY);
        }
        if !self.takes_context_over {
            self.forget();
        }
    }

    /// Gives the window up, and what was compressed since the last flush with it: the next message refers to
    /// nothing before it. To be called if what came out was not sent, or if something else was.
    pub fn forget(&mut self) {
        let Some(mut compress) = self.compress.take() else { return };
        // `reset` is not enough: at level 1 it does not forget that a block is open, and whoever comes next
        // would go on with that. After a flush no block is open, at any level; and nothing is known of a
        // compressor that has panicked.
        if !self.is_flushed {
            return;
        }
        compress.reset();
        // It fails only while the thread ends.
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
            // What can't be compressed takes a few bytes more than it had.
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
