//! UTF-8 validation of text that arrives in pieces (RFC 6455 8.1).

/// A validator for text that arrives in pieces, which may end inside a code point.
///
/// Every byte is examined once, and an invalid byte is found as soon as it arrives.
///
/// ```
/// use bowline_proto::Utf8Validator;
///
/// let mut text = Utf8Validator::new();
/// text.feed(b"caf\xC3")?;
/// assert!(!text.is_complete());
/// text.feed(b"\xA9")?;
/// assert!(text.is_complete());
/// // 0xED begins a code point, but 0xA0 may not follow 0xED.
/// assert!(text.feed(b"\xED\xA0").is_err());
/// # Ok::<(), bowline_proto::InvalidUtf8>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Utf8Validator {
    /// The first bytes of an incomplete code point.
    partial: [u8; 4],
    partial_len: usize,
}

/// The error for text that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

impl core::fmt::Display for InvalidUtf8 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the text is not UTF-8")
    }
}

impl core::error::Error for InvalidUtf8 {}

impl Utf8Validator {
    /// Creates a validator at the start of a text.
    pub const fn new() -> Self {
        Self { partial: [0; 4], partial_len: 0 }
    }

    /// Validates the next piece.
    ///
    /// # Errors
    ///
    /// Returns [`InvalidUtf8`] as soon as no continuation could make the text valid. The validator is then
    /// unchanged, as if the piece had not been fed.
    #[inline]
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), InvalidUtf8> {
        // Most pieces begin and end between code points.
        if !self.is_complete() || incomplete_tail(piece) > 0 {
            return self.feed_part(piece);
        }
        if is_utf8(piece) { Ok(()) } else { Err(InvalidUtf8) }
    }

    /// Returns `true` if the text so far does not end inside a code point.
    pub const fn is_complete(&self) -> bool {
        self.partial_len == 0
    }

    /// Validates a piece that begins or ends inside a code point.
    fn feed_part(&mut self, piece: &[u8]) -> Result<(), InvalidUtf8> {
        let mut next = self.clone();
        next.advance(piece)?;
        *self = next;
        Ok(())
    }

    fn advance(&mut self, mut piece: &[u8]) -> Result<(), InvalidUtf8> {
        while self.partial_len > 0 {
            let Some((&byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.partial[self.partial_len] = byte;
            self.partial_len += 1;
            match core::str::from_utf8(&self.partial[..self.partial_len]) {
                Ok(_) => self.partial_len = 0,
                Err(error) if error.error_len().is_some() => return Err(InvalidUtf8),
                Err(_) => {}
            }
        }
        let (whole, tail) = piece.split_at(piece.len() - incomplete_tail(piece));
        if !is_utf8(whole) {
            return Err(InvalidUtf8);
        }
        if let Err(error) = core::str::from_utf8(tail) {
            if error.error_len().is_some() {
                return Err(InvalidUtf8);
            }
            self.partial[..tail.len()].copy_from_slice(tail);
            self.partial_len = tail.len();
        }
        Ok(())
    }
}

/// Returns the number of bytes, at most three, at the end of `piece` that begin an incomplete code point.
#[inline]
fn incomplete_tail(piece: &[u8]) -> usize {
    for (count, &byte) in (1..=3).zip(piece.iter().rev()) {
        let needed = match byte {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xFF => 4,
            0x00..=0x7F => 1,
        };
        return if needed > count { count } else { 0 };
    }
    0
}

#[cfg(feature = "simdutf8")]
pub(crate) fn is_utf8(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes).is_ok()
}

#[cfg(not(feature = "simdutf8"))]
pub(crate) fn is_utf8(bytes: &[u8]) -> bool {
    core::str::from_utf8(bytes).is_ok()
}
