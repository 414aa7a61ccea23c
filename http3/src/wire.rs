//! The wire format of HTTP/3 (RFC 9114), as far as WebSockets need it, without I/O.
//!
//! ```text
//! request stream         frame*                                       RFC 9114 4.1
//! unidirectional stream  type, then frame* (control) or bytes         RFC 9114 6.2
//! frame                  type, length, payload                        RFC 9114 7.1
//! SETTINGS               (identifier, value)*                         RFC 9114 7.2.4
//! ```
//!
//! Types, lengths, identifiers and values are integers of one to eight bytes (RFC 9000 16). Bytes arrive in
//! pieces of any size. A header that is not whole waits in [`FrameReader`], which holds 16 bytes; payloads
//! are handed out as they arrive and never gathered here.

use std::fmt;

use bytes::BufMut;

/// The largest integer (RFC 9000 16).
pub(crate) const MAX_VARINT: u64 = (1 << 62) - 1;

/// The largest size of an integer, in bytes.
const VARINT_SIZE: usize = 8;

/// The largest size of the header of a frame: its type and its length.
pub(crate) const HEADER_SIZE: usize = 2 * VARINT_SIZE;

/// The largest payload of a SETTINGS frame that is accepted, in bytes. There are a dozen settings.
pub(crate) const MAX_SETTINGS: u64 = 1024;

/// An error code of HTTP/3 (RFC 9114 8.1) or of QPACK (RFC 9204 6).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ErrorCode(pub(crate) u64);

impl ErrorCode {
    pub(crate) const NO_ERROR: Self = Self(0x100);
    pub(crate) const STREAM_CREATION_ERROR: Self = Self(0x103);
    pub(crate) const CLOSED_CRITICAL_STREAM: Self = Self(0x104);
    pub(crate) const FRAME_UNEXPECTED: Self = Self(0x105);
    pub(crate) const FRAME_ERROR: Self = Self(0x106);
    pub(crate) const EXCESSIVE_LOAD: Self = Self(0x107);
    pub(crate) const ID_ERROR: Self = Self(0x108);
    pub(crate) const SETTINGS_ERROR: Self = Self(0x109);
    pub(crate) const MISSING_SETTINGS: Self = Self(0x10a);
    pub(crate) const REQUEST_REJECTED: Self = Self(0x10b);
    pub(crate) const REQUEST_CANCELLED: Self = Self(0x10c);
    pub(crate) const REQUEST_INCOMPLETE: Self = Self(0x10d);
    pub(crate) const MESSAGE_ERROR: Self = Self(0x10e);
    pub(crate) const DECOMPRESSION_FAILED: Self = Self(0x200);
    pub(crate) const ENCODER_STREAM_ERROR: Self = Self(0x201);
    pub(crate) const DECODER_STREAM_ERROR: Self = Self(0x202);

    fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0x100 => "H3_NO_ERROR",
            0x101 => "H3_GENERAL_PROTOCOL_ERROR",
            0x102 => "H3_INTERNAL_ERROR",
            0x103 => "H3_STREAM_CREATION_ERROR",
            0x104 => "H3_CLOSED_CRITICAL_STREAM",
            0x105 => "H3_FRAME_UNEXPECTED",
            0x106 => "H3_FRAME_ERROR",
            0x107 => "H3_EXCESSIVE_LOAD",
            0x108 => "H3_ID_ERROR",
            0x109 => "H3_SETTINGS_ERROR",
            0x10a => "H3_MISSING_SETTINGS",
            0x10b => "H3_REQUEST_REJECTED",
            0x10c => "H3_REQUEST_CANCELLED",
            0x10d => "H3_REQUEST_INCOMPLETE",
            0x10e => "H3_MESSAGE_ERROR",
            0x10f => "H3_CONNECT_ERROR",
            0x110 => "H3_VERSION_FALLBACK",
            0x200 => "QPACK_DECOMPRESSION_FAILED",
            0x201 => "QPACK_ENCODER_STREAM_ERROR",
            0x202 => "QPACK_DECODER_STREAM_ERROR",
            _ => return None,
        })
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "the error code {:#x}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A violation by the peer that ends the connection (RFC 9114 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) code: ErrorCode,
    pub(crate) why: &'static str,
}

impl Violation {
    pub(crate) const fn new(code: ErrorCode, why: &'static str) -> Self {
        Self { code, why }
    }
}

/// The type of a frame (RFC 9114 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameType {
    Data,
    Headers,
    CancelPush,
    Settings,
    PushPromise,
    Goaway,
    MaxPushId,
    /// RFC 9114 7.2.8: a type of HTTP/2 that has no meaning in HTTP/3.
    Reserved,
    /// RFC 9114 9: a type that is skipped.
    Unknown,
}

impl FrameType {
    fn of(number: u64) -> Self {
        match number {
            0x00 => Self::Data,
            0x01 => Self::Headers,
            0x03 => Self::CancelPush,
            0x04 => Self::Settings,
            0x05 => Self::PushPromise,
            0x07 => Self::Goaway,
            0x0d => Self::MaxPushId,
            0x02 | 0x06 | 0x08 | 0x09 => Self::Reserved,
            _ => Self::Unknown,
        }
    }

    fn number(self) -> u64 {
        match self {
            Self::Data => 0x00,
            Self::Headers => 0x01,
            Self::CancelPush => 0x03,
            Self::Settings => 0x04,
            Self::PushPromise => 0x05,
            Self::Goaway => 0x07,
            Self::MaxPushId => 0x0d,
            Self::Reserved | Self::Unknown => unreachable!("no frame of these types is sent"),
        }
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameType,
    pub(crate) len: u64,
}

/// The header of a frame, encoded.
pub(crate) struct EncodedHeader {
    bytes: [u8; HEADER_SIZE],
    len: usize,
}

impl EncodedHeader {
    pub(crate) fn new(kind: FrameType, payload: usize) -> Self {
        let mut bytes = [0; HEADER_SIZE];
        let mut room = &mut bytes[..];
        write_varint(kind.number(), &mut room);
        write_varint(payload as u64, &mut room);
        let len = HEADER_SIZE - room.len();
        Self { bytes, len }
    }
}

impl std::ops::Deref for EncodedHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// An integer that has not arrived whole.
#[derive(Clone, Copy, Default)]
pub(crate) struct PartialVarint {
    bytes: [u8; VARINT_SIZE],
    len: usize,
}

impl PartialVarint {
    /// Consumes bytes of `input` until the integer is whole, and returns it then.
    pub(crate) fn read(&mut self, input: &mut &[u8]) -> Option<u64> {
        while let Some((first, rest)) = input.split_first() {
            self.bytes[self.len] = *first;
            self.len += 1;
            *input = rest;
            // RFC 9000 16: the two highest bits of the first byte are the logarithm of the size.
            let size = 1_usize << (self.bytes[0] >> 6);
            if self.len == size {
                let first = u64::from(self.bytes[0] & 0x3f);
                let value =
                    self.bytes[1..size].iter().fold(first, |value, byte| (value << 8) | u64::from(*byte));
                *self = Self::default();
                return Some(value);
            }
        }
        None
    }

    /// Returns `true` if no byte has arrived.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Appends an integer in its shortest form.
pub(crate) fn write_varint(value: u64, out: &mut impl BufMut) {
    let bytes = value.to_be_bytes();
    let (log, start) = match value {
        0..=0x3f => (0, 7),
        0x40..=0x3fff => (1, 6),
        0x4000..=0x3fff_ffff => (2, 4),
        _ => (3, 0),
    };
    out.put_u8(bytes[start] | (log << 6));
    out.put_slice(&bytes[start + 1..]);
}

/// The reader of the frames of one stream.
///
/// ```text
/// Header --type and length--> Payload { left } --left = 0--> Header
/// ```
#[derive(Clone, Copy)]
pub(crate) enum FrameReader {
    Header { kind: PartialVarint, number: Option<u64>, len: PartialVarint },
    Payload { kind: FrameType, left: u64 },
}

/// A step of a [`FrameReader`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FramePart<'a> {
    /// The header of the next frame.
    Begin(FrameHeader),
    /// A piece of the payload, not empty. `is_last` says that the frame is complete.
    Payload { kind: FrameType, bytes: &'a [u8], is_last: bool },
}

impl FrameReader {
    pub(crate) fn new() -> Self {
        Self::Header { kind: PartialVarint::default(), number: None, len: PartialVarint::default() }
    }

    /// Reads the next part of at most `max` bytes, and consumes the bytes of `input` that belong to it.
    /// Returns `None` if more bytes are needed.
    pub(crate) fn read<'a>(&mut self, input: &mut &'a [u8], max: usize) -> Option<FramePart<'a>> {
        match self {
            Self::Header { kind, number, len } => {
                if number.is_none() {
                    *number = Some(kind.read(input)?);
                }
                let len = len.read(input)?;
                let kind = FrameType::of(number.expect("the type was read before the length"));
                *self = if len == 0 { Self::new() } else { Self::Payload { kind, left: len } };
                Some(FramePart::Begin(FrameHeader { kind, len }))
            }
            Self::Payload { kind, left } => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len()).min(max);
                if count == 0 {
                    return None;
                }
                let (bytes, rest) = input.split_at(count);
                *input = rest;
                *left -= count as u64;
                let (kind, is_last) = (*kind, *left == 0);
                if is_last {
                    *self = Self::new();
                }
                Some(FramePart::Payload { kind, bytes, is_last })
            }
        }
    }

    /// Returns `true` between two frames, where a stream may end (RFC 9114 7.1).
    pub(crate) fn is_between_frames(&self) -> bool {
        matches!(self, Self::Header { kind, number: None, .. } if kind.is_empty())
    }
}

/// The type of a unidirectional stream (RFC 9114 6.2, RFC 9204 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamType {
    Control,
    Push,
    QpackEncoder,
    QpackDecoder,
    /// RFC 9114 6.2: a type whose streams are not read.
    Unknown,
}

impl StreamType {
    pub(crate) fn of(number: u64) -> Self {
        match number {
            0x00 => Self::Control,
            0x01 => Self::Push,
            0x02 => Self::QpackEncoder,
            0x03 => Self::QpackDecoder,
            _ => Self::Unknown,
        }
    }
}

/// The settings of one side (RFC 9114 7.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `SETTINGS_MAX_FIELD_SECTION_SIZE` (RFC 9114 7.2.4.1), without which there is no limit.
    pub(crate) max_field_section_size: u64,
    /// `SETTINGS_ENABLE_CONNECT_PROTOCOL` (RFC 9220 3).
    pub(crate) enable_connect_protocol: bool,
}

const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;

impl Default for Settings {
    fn default() -> Self {
        Self { max_field_section_size: MAX_VARINT, enable_connect_protocol: false }
    }
}

impl Settings {
    /// Returns the first bytes of a control stream: its type, and the SETTINGS frame.
    pub(crate) fn open_control_stream(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        write_varint(MAX_FIELD_SECTION_SIZE, &mut payload);
        write_varint(self.max_field_section_size, &mut payload);
        if self.enable_connect_protocol {
            write_varint(ENABLE_CONNECT_PROTOCOL, &mut payload);
            write_varint(1, &mut payload);
        }
        // The capacity of the table of QPACK, and the number of blocked streams, stay at 0 (RFC 9204 5).
        let mut bytes = vec![0x00];
        bytes.extend_from_slice(&EncodedHeader::new(FrameType::Settings, payload.len()));
        bytes.append(&mut payload);
        bytes
    }

    /// Parses the payload of a SETTINGS frame.
    pub(crate) fn parse(mut payload: &[u8]) -> Result<Self, Violation> {
        let (mut settings, mut seen) = (Self::default(), Vec::new());
        while !payload.is_empty() {
            let mut next = || PartialVarint::default().read(&mut payload);
            let (Some(identifier), Some(value)) = (next(), next()) else {
                return Err(Violation::new(ErrorCode::FRAME_ERROR, "a setting is truncated"));
            };
            // RFC 9114 7.2.4: an identifier occurs once.
            if seen.contains(&identifier) {
                return Err(Violation::new(ErrorCode::SETTINGS_ERROR, "a setting occurs twice"));
            }
            seen.push(identifier);
            match (identifier, value) {
                (MAX_FIELD_SECTION_SIZE, size) => settings.max_field_section_size = size,
                // RFC 9220 3, RFC 8441 3: the value is 0 or 1.
                (ENABLE_CONNECT_PROTOCOL, 0 | 1) => settings.enable_connect_protocol = value == 1,
                (ENABLE_CONNECT_PROTOCOL, _) => {
                    let why = "SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1";
                    return Err(Violation::new(ErrorCode::SETTINGS_ERROR, why));
                }
                // RFC 9114 7.2.4.1: settings of HTTP/2 that HTTP/3 has not.
                (0x02..=0x05, _) => {
                    return Err(Violation::new(ErrorCode::SETTINGS_ERROR, "a setting is one of HTTP/2"));
                }
                // RFC 9114 7.2.4: an unknown setting is ignored, and so is one of the dynamic table.
                _ => {}
            }
        }
        Ok(settings)
    }
}

/// Returns a GOAWAY frame (RFC 9114 7.2.6).
pub(crate) fn goaway(id: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    write_varint(id, &mut payload);
    let mut frame = EncodedHeader::new(FrameType::Goaway, payload.len()).to_vec();
    frame.append(&mut payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_9000_a_1_the_examples_of_integers_are_read_whatever_the_pieces() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            let mut partial = PartialVarint::default();
            for (index, byte) in bytes.iter().enumerate() {
                let read = partial.read(&mut &[*byte][..]);
                assert_eq!(read, (index + 1 == bytes.len()).then_some(value));
            }
            let mut out = Vec::new();
            write_varint(value, &mut out);
            assert_eq!(out, bytes);
        }
        // A longer form than needed is valid.
        assert_eq!(PartialVarint::default().read(&mut &[0x40, 0x25][..]), Some(37));
    }

    #[test]
    fn frames_are_read_whatever_the_pieces() {
        let mut stream = EncodedHeader::new(FrameType::Data, 3).to_vec();
        stream.extend_from_slice(b"abc");
        stream.extend_from_slice(&EncodedHeader::new(FrameType::Data, 0));
        stream.extend_from_slice(&EncodedHeader::new(FrameType::Headers, 70_000));
        for size in 1..stream.len() {
            let (mut reader, mut payload, mut begun) = (FrameReader::new(), Vec::new(), Vec::new());
            for mut piece in stream.chunks(size) {
                while let Some(part) = reader.read(&mut piece, 2) {
                    match part {
                        FramePart::Begin(header) => begun.push((header.kind, header.len)),
                        FramePart::Payload { bytes, .. } => payload.extend_from_slice(bytes),
                    }
                }
                assert!(piece.is_empty());
            }
            let expected = [(FrameType::Data, 3), (FrameType::Data, 0), (FrameType::Headers, 70_000)];
            assert_eq!((begun.as_slice(), payload.as_slice()), (&expected[..], &b"abc"[..]));
            assert!(!reader.is_between_frames());
        }
    }

    #[test]
    fn a_stream_may_end_between_frames_only() {
        let mut reader = FrameReader::new();
        assert!(reader.is_between_frames());
        for (byte, between) in [(0x00, false), (0x02, false), (b'a', false), (b'b', true), (0x40, false)] {
            let mut input = &[byte][..];
            while reader.read(&mut input, 16).is_some() {}
            assert_eq!(reader.is_between_frames(), between, "{byte}");
        }
    }

    #[test]
    fn settings_survive_and_rfc_9114_7_2_4_bad_ones_are_refused() {
        let settings = Settings { max_field_section_size: 16_384, enable_connect_protocol: true };
        let bytes = settings.open_control_stream();
        assert_eq!(bytes, [0x00, 0x04, 0x07, 0x06, 0x80, 0x00, 0x40, 0x00, 0x08, 0x01]);
        assert_eq!(Settings::parse(&bytes[3..]), Ok(settings));
        for (payload, code) in [
            (&[0x06][..], ErrorCode::FRAME_ERROR),
            (&[0x06, 0x40], ErrorCode::FRAME_ERROR),
            (&[0x06, 0x01, 0x06, 0x01], ErrorCode::SETTINGS_ERROR),
            (&[0x21, 0x01, 0x21, 0x01], ErrorCode::SETTINGS_ERROR),
            (&[0x08, 0x02], ErrorCode::SETTINGS_ERROR),
            (&[0x02, 0x00], ErrorCode::SETTINGS_ERROR),
            (&[0x05, 0x00], ErrorCode::SETTINGS_ERROR),
        ] {
            assert_eq!(Settings::parse(payload).unwrap_err().code, code, "{payload:x?}");
        }
        assert_eq!(Settings::parse(&[0x01, 0x40, 0x64, 0x21, 0x05]), Ok(Settings::default()));
    }
}
