//! Messages as Redis carries them.
//!
//! ```text
//!   kind (1 byte: t or b) | epoch | offset | tag | tag of the predecessor (8 bytes each) | payload
//! ```
//!
//! A change of presence is published like a message:
//!
//! ```text
//!   p | size of the key (4 bytes) | key | + | information
//!   p | size of the key (4 bytes) | key | -
//! ```

use bowline_hub::bowline::bytes::Bytes;
use bowline_hub::bowline::{Message, Utf8Bytes};
use bowline_hub::{HistoryEntry, Position};

/// The number of bytes before the payload.
const HEAD: usize = 1 + 4 * 8;

/// Returns the first byte of a message.
pub(crate) fn kind(message: &Message) -> u8 {
    match message {
        Message::Text(_) => b't',
        Message::Binary(_) => b'b',
    }
}

/// Encodes a message of a topic without history.
pub(crate) fn encode_untracked(message: &Message) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(HEAD + message.len());
    encoded.push(kind(message));
    encoded.resize(HEAD, 0);
    encoded.extend_from_slice(message.as_bytes());
    encoded
}

/// Decodes a message. Returns `None` for what no hub has published.
pub(crate) fn decode(encoded: Vec<u8>) -> Option<HistoryEntry> {
    let head = encoded.first_chunk::<HEAD>()?;
    let part = |index: usize| number(&head[1 + 8 * index..][..8]).unwrap_or_default();
    let (position, previous) = (Position::new(part(0), part(1), part(2)), part(3));
    let kind = head[0];
    let payload = Bytes::from(encoded).slice(HEAD..);
    let message = match kind {
        b't' => Message::Text(Utf8Bytes::try_from(payload).ok()?),
        b'b' => Message::Binary(payload),
        _ => return None,
    };
    Some(HistoryEntry { position, previous, message })
}

/// Decodes a change of presence: the key, and the information of somebody who is present. Returns `None` for
/// everything else.
pub(crate) fn decode_change(encoded: &[u8]) -> Option<(String, Option<String>)> {
    let (size, rest) = encoded.strip_prefix(b"p")?.split_first_chunk()?;
    let (key, state) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*size)).ok()?)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).ok();
    let info = match state.split_first()? {
        (b'+', info) => Some(text(info)?),
        (b'-', []) => None,
        _ => return None,
    };
    Some((text(key)?, info))
}

/// Decodes a number.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}
