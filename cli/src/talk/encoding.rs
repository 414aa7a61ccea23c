//! The encodings of messages as bytes, on stdin, on stdout and in `--message`.

use std::fmt::Write as _;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bowline::bytes::Bytes;
use bowline::{Message, Utf8Bytes};

use crate::talk::item::Item;
use crate::talk::json_line;

/// An encoding of messages as bytes.
///
/// | encoding | sends | writes text as | writes binary messages as |
/// |---|---|---|---|
/// | `Text` | text | text | hex |
/// | `Raw` | binary | text | the bytes alone, without a newline |
/// | `Hex` | binary | text | hex |
/// | `Base64` | binary | text | base64 |
/// | `Json` | as the line says | a line of JSON | a line of JSON |
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encoding {
    Text,
    Raw,
    Hex,
    Base64,
    Json,
}

impl Encoding {
    /// Decodes what is to be sent, or nothing if the bytes are to be skipped. The error says what is wrong
    /// with the bytes.
    pub(super) fn decode(self, bytes: Vec<u8>) -> Result<Option<Item>, String> {
        let message = match self {
            Self::Json => return json_line::decode(&bytes),
            Self::Text => {
                let text = Utf8Bytes::try_from(bytes)
                    .map_err(|_| "the text is not UTF-8: see --binary, --hex and --base64")?;
                Message::Text(text)
            }
            Self::Raw => Message::Binary(bytes.into()),
            Self::Hex => Message::Binary(decode_hex(&bytes)?),
            Self::Base64 => {
                let bytes: Vec<u8> = bytes.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
                let decoded = BASE64_STANDARD.decode(bytes).map_err(|error| error.to_string())?;
                Message::Binary(decoded.into())
            }
        };
        Ok(Some(Item::Message(message)))
    }

    /// Encodes a binary message as text, or not at all.
    pub(super) fn encode(self, binary: &Bytes) -> Option<String> {
        match self {
            Self::Raw | Self::Json => None,
            Self::Base64 => Some(BASE64_STANDARD.encode(binary)),
            Self::Text | Self::Hex => Some(encode_hex(binary)),
        }
    }
}

/// Decodes hex. White space is ignored.
pub(super) fn decode_hex(text: &[u8]) -> Result<Bytes, String> {
    let digits: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if !digits.len().is_multiple_of(2) {
        return Err("the number of hex digits is odd".into());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits
        .chunks_exact(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect::<Option<Bytes>>()
        .ok_or_else(|| "the text contains something else than hex digits".into())
}

/// Encodes bytes as hex.
pub(super) fn encode_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{decode_hex, encode_hex};

    #[test]
    fn hex_survives_a_round_trip_with_white_space() {
        assert_eq!(decode_hex(b"00 fF\n7e").unwrap(), [0, 255, 126][..]);
        assert_eq!(encode_hex(&[0, 255, 126]), "00ff7e");
        assert!(decode_hex(b"0").unwrap_err().contains("odd"));
        assert!(decode_hex(b"0g").is_err());
    }
}
