//! Text in shared memory.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// UTF-8 text in shared, immutable memory: [`Bytes`] that are known to be valid UTF-8.
///
/// Cloning is cheap. The type dereferences to `str` without validating again, and converts into [`Bytes`]
/// without copying.
///
/// Comparison and hashing agree with `str`, so a map with keys of this type can be searched by `&str`.
///
/// # Examples
///
/// ```
/// use std::collections::HashMap;
///
/// use bowline::Utf8Bytes;
/// use bytes::Bytes;
///
/// let text = Utf8Bytes::try_from(Bytes::from_static(b"caf\xC3\xA9"))?;
/// assert_eq!(text, "café");
/// assert_eq!(text.chars().count(), 4);
///
/// let visits = HashMap::from([(text, 1)]);
/// assert_eq!(visits.get("café"), Some(&1));
/// # Ok::<(), std::str::Utf8Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Utf8Bytes(Bytes);

impl Utf8Bytes {
    /// Creates text from a static string, without copying.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        Self::text_of(&self.0)
    }

    /// Returns the text of bytes that are those of a `Utf8Bytes`, or of a `Payload` of text.
    pub(crate) fn text_of(bytes: &[u8]) -> &str {
        #[expect(unsafe_code, reason = "text is validated once, when it arrives")]
        // SAFETY: every constructor of the two accepts valid UTF-8 only, and the bytes are immutable.
        unsafe {
            std::str::from_utf8_unchecked(bytes)
        }
    }

    /// Creates text from bytes that the caller has validated.
    pub(crate) fn from_validated(bytes: Bytes) -> Self {
        debug_assert!(std::str::from_utf8(&bytes).is_ok(), "text that was not validated");
        Self(bytes)
    }
}

impl Deref for Utf8Bytes {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Utf8Bytes {
    fn as_ref(&self) -> &str {
        self
    }
}

impl AsRef<[u8]> for Utf8Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<str> for Utf8Bytes {
    fn borrow(&self) -> &str {
        self
    }
}

impl Hash for Utf8Bytes {
    /// Hashes like `str`, as the contract of `Borrow<str>` requires. (Bytes would hash differently, but their
    /// order is the order of `str`.)
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for Utf8Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Debug for Utf8Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl From<String> for Utf8Bytes {
    /// Takes over the memory of the string, without copying.
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Utf8Bytes {
    /// Copies the text.
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Utf8Bytes> for String {
    /// Takes over the memory of the text if nothing else refers to the memory, and copies the text otherwise.
    fn from(text: Utf8Bytes) -> Self {
        Self::from_utf8(text.0.into()).expect("the text was validated when it was created")
    }
}

impl TryFrom<&[u8]> for Utf8Bytes {
    type Error = std::str::Utf8Error;

    /// Validates the bytes, and copies them.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are not valid UTF-8 (RFC 3629).
    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        std::str::from_utf8(bytes).map(Self::from)
    }
}

impl TryFrom<Vec<u8>> for Utf8Bytes {
    type Error = std::str::Utf8Error;

    /// Validates the bytes, and takes over their memory.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are not valid UTF-8 (RFC 3629).
    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        Self::try_from(Bytes::from(bytes))
    }
}

impl TryFrom<Bytes> for Utf8Bytes {
    type Error = std::str::Utf8Error;

    /// Validates the bytes, without copying them.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are not valid UTF-8 (RFC 3629).
    fn try_from(bytes: Bytes) -> Result<Self, Self::Error> {
        std::str::from_utf8(&bytes)?;
        Ok(Self(bytes))
    }
}

impl From<Utf8Bytes> for Bytes {
    /// Returns the text as bytes, without copying.
    fn from(text: Utf8Bytes) -> Self {
        text.0
    }
}

macro_rules! compare_with {
    ($($type:ty, $other:ident => $text:expr;)*) => {
        $(
            impl PartialEq<$type> for Utf8Bytes {
                fn eq(&self, $other: &$type) -> bool {
                    self.as_str() == $text
                }
            }

            impl PartialEq<Utf8Bytes> for $type {
                fn eq(&self, other: &Utf8Bytes) -> bool {
                    other == self
                }
            }
        )*
    };
}

compare_with! {
    str, other => other;
    &str, other => *other;
    String, other => other.as_str();
}
