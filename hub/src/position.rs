//! Places in the history of a topic.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;

/// The digits of base64url (RFC 4648 5).
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The number of characters of a position as text: 24 bytes, without padding.
const TEXT_SIZE: usize = 32;

/// A place in the history of a topic: after one message, and before the next.
///
/// Each message has a position, and clients keep that of the last message they received. When a client
/// connects again, [`Member::subscribe`](crate::Member::subscribe) continues after this position, or reports
/// that messages are lost.
///
/// As text, a position is 32 characters of base64url (RFC 4648 5), opaque to clients. It contains three
/// numbers:
///
/// - the epoch, random for each history. A history that was lost and begun anew has another epoch.
/// - the offset, which grows with each message of the history.
/// - the tag, random for each message. A broker that restarts from an old snapshot assigns the same offsets
///   again, but not the same tags.
///
/// A position continues a history only if all three numbers match what the history contains. A client that
/// invents a position is told that messages are lost.
///
/// # Examples
///
/// ```
/// use bowline_hub::Position;
///
/// let position = Position::new(7, 20, 99);
/// let text = position.to_string();
/// assert_eq!(text.len(), 32);
/// assert_eq!(text.parse(), Ok(position));
/// assert!("not a position".parse::<Position>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    epoch: u64,
    offset: u64,
    tag: u64,
}

impl Position {
    /// The position of every message in a topic without history.
    ///
    /// Subscribing to such a topic from this position starts with the next message.
    pub const UNTRACKED: Self = Self::new(0, 0, 0);

    /// Creates a position from its numbers. Only engines need this function.
    pub const fn new(epoch: u64, offset: u64, tag: u64) -> Self {
        Self { epoch, offset, tag }
    }

    /// Creates the position before the first message of a history. The epoch is random and not 0.
    pub fn begin() -> Self {
        Self::new(random().max(1), 0, 0)
    }

    /// Creates the position of the next message, with the next offset and a tag of its own.
    pub const fn next(self, tag: u64) -> Self {
        Self::new(self.epoch, self.offset + 1, tag)
    }

    /// Returns the number of the history.
    pub const fn epoch(self) -> u64 {
        self.epoch
    }

    /// Returns the place of the message in its history. Later messages have larger offsets. Whether there are
    /// numbers without a message is up to the engine.
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// Returns the random number of the message, or 0 before the first message.
    pub const fn tag(self) -> u64 {
        self.tag
    }
}

/// Returns a random number, for an epoch or a tag.
pub(crate) fn random() -> u64 {
    getrandom::u64().expect("the operating system provides random bytes")
}

impl fmt::Display for Position {
    /// Writes 32 characters of base64url.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 24];
        for (place, number) in bytes.chunks_exact_mut(8).zip([self.epoch, self.offset, self.tag]) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        let mut text = String::with_capacity(TEXT_SIZE);
        for group in bytes.chunks_exact(3) {
            let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
            for shift in [18, 12, 6, 0] {
                text.push(char::from(DIGITS[(bits >> shift) as usize & 63]));
            }
        }
        f.pad(&text)
    }
}

impl FromStr for Position {
    type Err = ParsePositionError;

    /// Parses the text of a position.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is not 32 characters of base64url.
    /// [`Member::subscribe`](crate::Member::subscribe) decides whether a history contains the position.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != TEXT_SIZE {
            return Err(ParsePositionError);
        }
        let mut bytes = [0; 24];
        for (place, group) in bytes.chunks_exact_mut(3).zip(text.as_bytes().chunks_exact(4)) {
            let mut bits = 0;
            for character in group {
                bits = bits << 6 | digit(*character).ok_or(ParsePositionError)?;
            }
            place.copy_from_slice(&bits.to_be_bytes()[1..]);
        }
        let number = |index: usize| {
            let part = &bytes[index * 8..][..8];
            u64::from_be_bytes(part.try_into().expect("the part has eight bytes"))
        };
        Ok(Self::new(number(0), number(1), number(2)))
    }
}

/// Returns the value of a digit of base64url.
fn digit(character: u8) -> Option<u32> {
    let value = match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    };
    Some(value.into())
}

/// The error for text that is no [`Position`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParsePositionError;

impl fmt::Display for ParsePositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a position of a topic is 32 characters of base64url")
    }
}

impl StdError for ParsePositionError {}
