//! Field sections without a dynamic table (RFC 9204).
//!
//! Our settings leave the capacity of the dynamic table at 0 (RFC 9204 5), so no peer may refer to an entry
//! of it, and we refer to none of a peer's. What remains is the static table, literals, and the Huffman code:
//!
//! ```text
//! field section = Required Insert Count (0) | Base (0) | field lines
//! field line    = indexed, static                1 1 index
//!               | literal value, static name     0 1 N 1 index    value
//!               | literal name and value         0 0 1 N H length name    value
//! string        = H length bytes
//! ```
//!
//! This file has no I/O and no state. A decoded section is never larger than the caller allows, however small
//! its encoding: memory is taken for one field at a time, and the size is checked before.

// The paths are for the fuzz target, which includes this file.
#[path = "qpack/huffman.rs"]
mod huffman;
#[path = "qpack/static_table.rs"]
mod static_table;

use std::fmt;
use std::ops::Range;

use static_table::{ENTRIES, Found, find};

/// The number that is added to the sizes of a name and a value (RFC 9114 4.2.2).
const OVERHEAD: usize = 32;

/// The largest integer (RFC 9204 4.1.1).
const MAX_INTEGER: u64 = (1 << 62) - 1;

/// The reason why a field section can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectionError {
    /// The encoding is malformed, or refers to a dynamic table (RFC 9204 2.2).
    Malformed(&'static str),
    /// The decoded section is larger than the limit.
    TooLarge,
}

impl fmt::Display for SectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the field section is malformed: {why}"),
            Self::TooLarge => f.write_str("the field section is too large"),
        }
    }
}

/// A field line whose value may be secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrecy {
    /// Intermediaries may compress the value.
    Ordinary,
    /// RFC 9204 7.1.3: the value is never compressed on the way.
    Secret,
}

/// A field section that is being encoded.
pub(crate) struct SectionEncoder {
    bytes: Vec<u8>,
}

impl SectionEncoder {
    pub(crate) fn new() -> Self {
        // RFC 9204 4.5.1: without a dynamic table, the Required Insert Count and the Base are 0.
        Self { bytes: vec![0, 0] }
    }

    /// Appends a field line. `name` is in lower case.
    pub(crate) fn push(&mut self, name: &str, value: &[u8], secrecy: Secrecy) {
        let never_indexed = u8::from(secrecy == Secrecy::Secret);
        match find(name, value) {
            // RFC 9204 4.5.2: an indexed field line.
            Some(Found::Whole(index)) if secrecy == Secrecy::Ordinary => self.integer(0b1100_0000, 6, index),
            // RFC 9204 4.5.4: a literal field line with a name reference.
            Some(Found::Whole(index) | Found::Name(index)) => {
                self.integer(0b0101_0000 | (never_indexed << 5), 4, index);
                self.string(0, 7, value);
            }
            // RFC 9204 4.5.6: a literal field line with a literal name.
            None => {
                self.string(0b0010_0000 | (never_indexed << 4), 3, name.as_bytes());
                self.string(0, 7, value);
            }
        }
    }

    /// Returns the encoded section.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends an integer with a prefix of `bits` bits (RFC 9204 4.1.1, RFC 7541 5.1).
    fn integer(&mut self, flags: u8, bits: u8, value: usize) {
        let mask = 0xff >> (8 - bits);
        if let Some(value) = u8::try_from(value).ok().filter(|value| *value < mask) {
            self.bytes.push(flags | value);
            return;
        }
        self.bytes.push(flags | mask);
        let mut rest = value - usize::from(mask);
        while rest >= 0x80 {
            let [low, ..] = rest.to_le_bytes();
            self.bytes.push(low | 0x80);
            rest >>= 7;
        }
        let [last, ..] = rest.to_le_bytes();
        self.bytes.push(last);
    }

    /// Appends a string, with the Huffman code if that is shorter (RFC 9204 4.1.2).
    fn string(&mut self, flags: u8, bits: u8, bytes: &[u8]) {
        let len = huffman::encoded_len(bytes);
        if len < bytes.len() {
            self.integer(flags | (1 << bits), bits, len);
            huffman::encode(bytes, &mut self.bytes);
        } else {
            self.integer(flags, bits, bytes.len());
            self.bytes.extend_from_slice(bytes);
        }
    }
}

/// Decodes a field section, and calls `each` with the name and the value of each field line.
///
/// `max_size` is the largest size of the section, with 32 for each field line (RFC 9114 4.2.2).
pub(crate) fn decode_section<E: From<SectionError>>(
    section: &[u8],
    max_size: usize,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut input = Input { rest: section };
    // RFC 9204 4.5.1.1: without a table, the Required Insert Count is 0.
    if input.integer(8)? != 0 {
        return Err(DYNAMIC.into());
    }
    // RFC 9204 4.5.1.2: a negative Base is invalid. Any other has no meaning here.
    let is_negative = input.first()? & 0x80 != 0;
    input.integer(7)?;
    if is_negative {
        return Err(SectionError::Malformed("the Base is negative").into());
    }
    let (mut size, mut line) = (0, Vec::new());
    while !input.rest.is_empty() {
        let room = max_size.checked_sub(size + OVERHEAD).ok_or(SectionError::TooLarge)?;
        line.clear();
        let name = input.field_line(&mut line, room)?;
        size += OVERHEAD + line.len();
        each(&line[name.clone()], &line[name.end..])?;
    }
    Ok(())
}

const DYNAMIC: SectionError = SectionError::Malformed("it refers to a dynamic table, whose capacity is 0");
const TRUNCATED: SectionError = SectionError::Malformed("it is truncated");

/// The rest of a field section.
struct Input<'a> {
    rest: &'a [u8],
}

impl Input<'_> {
    fn first(&self) -> Result<u8, SectionError> {
        self.rest.first().copied().ok_or(TRUNCATED)
    }

    /// Reads an integer with a prefix of `bits` bits.
    fn integer(&mut self, bits: u8) -> Result<u64, SectionError> {
        let mask = 0xff >> (8 - bits);
        let first = self.first()? & mask;
        self.rest = &self.rest[1..];
        let mut value = u64::from(first);
        if first < mask {
            return Ok(value);
        }
        for shift in (0..63).step_by(7) {
            let byte = self.first()?;
            self.rest = &self.rest[1..];
            value += u64::from(byte & 0x7f) << shift;
            if value > MAX_INTEGER {
                break;
            } else if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(SectionError::Malformed("an integer is too large"))
    }

    /// Reads a field line into `line`, and returns the range of its name there. The value follows.
    fn field_line(&mut self, line: &mut Vec<u8>, room: usize) -> Result<Range<usize>, SectionError> {
        let first = self.first()?;
        if first & 0b1000_0000 != 0 {
            // RFC 9204 4.5.2: an indexed field line.
            let (name, value) = self.entry(first & 0b0100_0000 != 0, 6)?;
            append(line, name.as_bytes(), room)?;
            append(line, value.as_bytes(), room)?;
            return Ok(0..name.len());
        }
        if first & 0b0100_0000 != 0 {
            // RFC 9204 4.5.4: a literal field line with a name reference.
            let (name, _) = self.entry(first & 0b0001_0000 != 0, 4)?;
            append(line, name.as_bytes(), room)?;
        } else if first & 0b0010_0000 != 0 {
            // RFC 9204 4.5.6: a literal field line with a literal name.
            self.string(3, line, room)?;
        } else {
            // RFC 9204 4.5.3, 4.5.5: field lines with post-base references.
            return Err(DYNAMIC);
        }
        let name = 0..line.len();
        self.string(7, line, room)?;
        Ok(name)
    }

    fn entry(&mut self, is_static: bool, bits: u8) -> Result<static_table::Entry, SectionError> {
        if !is_static {
            return Err(DYNAMIC);
        }
        let index = usize::try_from(self.integer(bits)?).ok();
        // RFC 9204 3.1: an index outside of the static table is an error.
        let entry = index.and_then(|index| ENTRIES.get(index));
        entry.copied().ok_or(SectionError::Malformed("the static table has no such index"))
    }

    /// Appends a string to `line`, which may have at most `room` bytes.
    fn string(&mut self, bits: u8, line: &mut Vec<u8>, room: usize) -> Result<(), SectionError> {
        let is_huffman = self.first()? & (1 << bits) != 0;
        let len = usize::try_from(self.integer(bits)?).unwrap_or(usize::MAX);
        let (string, rest) = self.rest.split_at_checked(len).ok_or(TRUNCATED)?;
        self.rest = rest;
        if !is_huffman {
            return append(line, string, room);
        }
        // A symbol has at least 5 bits, so memory is bounded before it is known how much is needed.
        if len.saturating_mul(8) / 30 > room {
            return Err(SectionError::TooLarge);
        }
        if !huffman::decode(string, line) {
            return Err(SectionError::Malformed("a string is not a Huffman code"));
        }
        if line.len() > room { Err(SectionError::TooLarge) } else { Ok(()) }
    }
}

fn append(line: &mut Vec<u8>, bytes: &[u8], room: usize) -> Result<(), SectionError> {
    if line.len() + bytes.len() > room {
        return Err(SectionError::TooLarge);
    }
    line.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Secrecy, SectionEncoder, SectionError, decode_section};

    type Lines = Vec<(Vec<u8>, Vec<u8>)>;

    fn decode(section: &[u8], max_size: usize) -> Result<Lines, SectionError> {
        let mut lines = Vec::new();
        decode_section(section, max_size, |name, value| {
            lines.push((name.to_vec(), value.to_vec()));
            Ok::<_, SectionError>(())
        })?;
        Ok(lines)
    }

    /// A section as `ls-qpack` encodes it, the library of many other stacks.
    const OF_LS_QPACK: u128 = 0x0000_cfd7_508c_2f91_d35d_055c_87a6_e3cd;

    #[test]
    fn sections_of_another_encoder_are_decoded() {
        let mut section = OF_LS_QPACK.to_be_bytes().to_vec();
        section.extend_from_slice(&0x34cf_5189_6093_8d3f_e587_3d30_072f_00b9_u128.to_be_bytes());
        section.extend_from_slice(&0x5d87_49c8_7a3f_87f0_58d0_7275_2a7f_2f08_u128.to_be_bytes());
        section.extend_from_slice(&0x4148_b782_c683_93a9_52b7_72d8_831e_af02_u128.to_be_bytes());
        section.extend_from_slice(&[0x31, 0x33]);
        let expected = [
            (":method", "CONNECT"),
            (":scheme", "https"),
            (":authority", "example.com:8443"),
            (":path", "/chat?room=1"),
            (":protocol", "websocket"),
            ("sec-websocket-version", "13"),
        ];
        let lines = decode(&section, 16_384).unwrap();
        let expected: Lines = expected.map(|(name, value)| (name.into(), value.into())).into();
        assert_eq!(lines, expected);
        let mut encoder = SectionEncoder::new();
        for (name, value) in &lines {
            encoder.push(std::str::from_utf8(name).unwrap(), value, Secrecy::Ordinary);
        }
        assert_eq!(encoder.finish(), section);
    }

    #[test]
    fn every_line_survives_and_secrets_are_marked() {
        let mut encoder = SectionEncoder::new();
        let all: Vec<u8> = (0..=255).collect();
        let lines =
            [("x-a", &b""[..]), (":status", b"200"), ("cookie", b"a=1"), ("x-long", &all), ("server", &all)];
        for (name, value) in lines {
            encoder.push(name, value, Secrecy::Ordinary);
            encoder.push(name, value, Secrecy::Secret);
        }
        let decoded = decode(&encoder.finish(), 16_384).unwrap();
        for (pair, (name, value)) in decoded.chunks(2).zip(lines) {
            assert!(pair.iter().all(|(n, v)| (n.as_slice(), v.as_slice()) == (name.as_bytes(), value)));
        }
        // RFC 9204 4.5.4, 4.5.6: the bit N.
        let secret = |name| {
            let mut encoder = SectionEncoder::new();
            encoder.push(name, b"secret", Secrecy::Secret);
            encoder.finish()[2]
        };
        assert_eq!((secret("authorization") & 0x20, secret("x-token") & 0x10), (0x20, 0x10));
    }

    #[test]
    fn rfc_9114_4_2_2_the_size_of_a_section_is_bounded() {
        // 99 entries of the static table are more than 2,000 bytes.
        let section = [&[0x00, 0x00][..], &[0xff, 0x23].repeat(99)].concat();
        let size: usize =
            decode(&section, 16_384).unwrap().iter().map(|(name, value)| 32 + name.len() + value.len()).sum();
        assert!(decode(&section, size).is_ok());
        assert_eq!(decode(&section, size - 1), Err(SectionError::TooLarge));
    }

    #[test]
    fn no_bytes_cause_a_panic_or_exceed_the_limit() {
        let (mut seed, mut decoded) = (0x9e37_79b9_7f4a_7c15_u64, 0);
        for round in 0..200_000_usize {
            let mut section = vec![0x00, 0x00];
            for _ in 0..round % 24 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let [byte, ..] = seed.to_le_bytes();
                section.push(byte);
            }
            if let Ok(lines) = decode(&section, 200) {
                let size: usize = lines.iter().map(|(name, value)| 32 + name.len() + value.len()).sum();
                assert!(size <= 200, "{section:x?}");
                decoded += 1;
            }
        }
        assert!(decoded > 1000);
    }
}
