//! The key and the accept value of the opening handshake (RFC 6455 4). The caller provides the HTTP.

use core::fmt;

use crate::digest::{base64, is_base64_of_16_bytes, sha1};

/// The GUID that is hashed together with the key (RFC 6455 1.3).
const GUID: &[u8; 36] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `Sec-WebSocket-Version` that this crate implements (RFC 6455 4.1).
pub const VERSION: &str = "13";

/// The value of `Sec-WebSocket-Key`: 16 bytes in base64 (RFC 6455 4.1).
///
/// A client creates its key with [`from_nonce`](Self::from_nonce), and a server reads the client's key with
/// [`parse`](Self::parse). Both compute the [`accept`](Self::accept) value from the key.
///
/// ```
/// use bowline_proto::handshake::Key;
///
/// let key = Key::parse(b"dGhlIHNhbXBsZSBub25jZQ==").expect("16 bytes in base64");
/// assert_eq!(key, Key::from_nonce(*b"the sample nonce"));
/// assert_eq!(key.accept().as_str(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 24]);

impl Key {
    /// Creates a client's key.
    ///
    /// The nonce must be selected at random for each connection (RFC 6455 4.1).
    pub fn from_nonce(nonce: [u8; 16]) -> Self {
        let mut key = [0; 24];
        base64(&nonce, &mut key);
        Self(key)
    }

    /// Parses the value of a request's header, ignoring whitespace around it.
    ///
    /// Returns `None` if the value is not the base64 of 16 bytes.
    pub fn parse(value: &[u8]) -> Option<Self> {
        // RFC 6455 4.2.1: a base64-encoded value that, when decoded, is 16 bytes in length.
        let key = value.trim_ascii().try_into().ok()?;
        is_base64_of_16_bytes(&key).then_some(Self(key))
    }

    /// Returns the value of the header.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).expect("base64 is ASCII")
    }

    /// Computes the value with which a server answers this key.
    pub fn accept(&self) -> Accept {
        // RFC 6455 4.2.2: the base64 of the SHA-1 of the key and the GUID.
        let mut input = [0; 60];
        input[..24].copy_from_slice(&self.0);
        input[24..].copy_from_slice(GUID);
        let mut accept = [0; 28];
        base64(&sha1(&input), &mut accept);
        Accept(accept)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.as_str()).finish()
    }
}

/// The value of `Sec-WebSocket-Accept` (RFC 6455 4.2.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Accept([u8; 28]);

impl Accept {
    /// Returns the value of the header.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).expect("base64 is ASCII")
    }

    /// Returns `true` if a response's header has this value, ignoring whitespace around it.
    pub fn matches(&self, value: &[u8]) -> bool {
        // RFC 6455 4.1: leading and trailing whitespace is ignored.
        value.trim_ascii() == self.0
    }
}

impl fmt::Debug for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Accept").field(&self.as_str()).finish()
    }
}
