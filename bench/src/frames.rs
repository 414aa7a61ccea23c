//! Frames by hand, for the load and the floor, which use no WebSocket library.

#[cfg(feature = "http3")]
pub mod http3;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// The bit in the first byte of a frame that marks a compressed message (RFC 7692 6).
const COMPRESSED: u8 = 0x40;

/// The kind of a case's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Binary,
    /// Multi-byte UTF-8.
    Text,
    /// Binary, in 16 fragments.
    Fragments,
    /// Multi-byte UTF-8, in fragments of 64 bytes.
    TinyFragments,
    /// JSON, compressed.
    Json,
    /// One JSON document, not compressed. Serializing the document again yields the same bytes.
    Document,
}

impl Kind {
    pub fn is_text(self) -> bool {
        !matches!(self, Self::Binary | Self::Fragments)
    }

    pub fn is_compressed(self) -> bool {
        matches!(self, Self::Json)
    }
}

/// Returns the payload of the message with this number.
pub fn payload(kind: Kind, size: usize, number: usize) -> Vec<u8> {
    if kind == Kind::Json {
        return json(size, number as u32);
    }
    if kind == Kind::Document {
        return document(size, number as u32);
    }
    if kind.is_text() {
        let text: String = "äöü €uro 漢字 😀 ".chars().cycle().skip(number % 7).take(size).collect();
        let mut end = size;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = text.as_bytes()[..end].to_vec();
        bytes.resize(size, b'.');
        return bytes;
    }
    (0..size).map(|index| (index.wrapping_mul(31).wrapping_add(number * 7)) as u8).collect()
}

/// Returns distinct JSON records, as an API may return them.
fn json(size: usize, number: u32) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9);
    let mut text = String::from("[");
    while text.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (id, user, price, tag) = (state >> 8, state >> 20, state >> 24, state % 17);
        text += &format!(
            "{{\"id\":{id},\"user\":\"user{user}\",\"price\":{price}.{:02},\
             \"active\":{},\"tags\":[\"alpha\",\"t{tag}\"]}},",
            state % 100,
            state.is_multiple_of(3),
        );
    }
    text.truncate(size);
    text.into_bytes()
}

/// Returns a JSON document of exactly this size, of at least 256 bytes.
fn document(size: usize, number: u32) -> Vec<u8> {
    let mut text = format!("{{\"number\":{number},\"records\":[");
    let mut state = number.wrapping_mul(0x9E37_79B9);
    loop {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (id, user, price, tag) = (state >> 8, state >> 20, state >> 16, state % 17);
        let is_active = state.is_multiple_of(3);
        let record = format!(
            "{{\"id\":{id},\"user\":\"user{user}\",\"price\":{price},\"active\":{is_active},\
             \"tags\":[\"alpha\",\"t{tag}\"]}},"
        );
        // The rest is for the note.
        if text.len() + record.len() + 32 > size {
            break;
        }
        text += &record;
    }
    text.pop();
    text += "],\"note\":\"";
    text += &".".repeat(size - text.len() - 2);
    text += "\"}";
    text.into_bytes()
}

/// Compresses a message (RFC 7692 7.2.1).
fn compressed(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 1024);
    let mut compress = Compress::new(Compression::default(), false);
    compress.compress_vec(payload, &mut out, FlushCompress::Sync).expect("there is room");
    out.truncate(out.len() - 4);
    out
}

/// Returns the payload of a message, decompressed if needed.
pub fn decompressed(payload: &[u8], is_compressed: bool) -> Vec<u8> {
    if !is_compressed {
        return payload.to_vec();
    }
    let input = [payload, &[0x00, 0x00, 0xFF, 0xFF]].concat();
    let mut out = Vec::with_capacity(64 * 1024);
    Decompress::new(false).decompress_vec(&input, &mut out, FlushDecompress::Sync).expect("it can be read");
    out
}

/// Appends a message that a client sends.
pub fn encode_masked(kind: Kind, payload: &[u8], number: usize, out: &mut Vec<u8>) {
    let key = (0x9E37_79B9_u32.wrapping_mul(number as u32 + 1)).to_be_bytes();
    encode(kind, payload, Some(key), out);
}

/// Appends a message that a server sends.
pub fn encode_unmasked(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    encode(kind, payload, None, out);
}

fn encode(kind: Kind, payload: &[u8], key: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let opcode = if kind.is_text() { 1 } else { 2 };
    if kind.is_compressed() {
        return encode_frame(COMPRESSED | 0x80 | opcode, &compressed(payload), key, out);
    }
    let fragment = match kind {
        Kind::Binary | Kind::Text | Kind::Json | Kind::Document => {
            return encode_frame(0x80 | opcode, payload, key, out);
        }
        Kind::Fragments => payload.len().div_ceil(16),
        Kind::TinyFragments => 64,
    };
    let pieces: Vec<_> = payload.chunks(fragment).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let opcode = if index == 0 { opcode } else { 0 };
        let fin = if index + 1 == pieces.len() { 0x80 } else { 0 };
        encode_frame(fin | opcode, piece, key, out);
    }
}

fn encode_frame(first: u8, payload: &[u8], key: Option<[u8; 4]>, out: &mut Vec<u8>) {
    encode_header(first, payload.len(), key, out);
    match key {
        None => out.extend_from_slice(payload),
        Some(key) => out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key)),
    }
}

pub fn encode_header(first: u8, len: usize, key: Option<[u8; 4]>, out: &mut Vec<u8>) {
    out.push(first);
    let masked = if key.is_some() { 0x80 } else { 0 };
    match len {
        0..126 => out.push(masked | len as u8),
        126..65_536 => {
            out.push(masked | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend(key.into_iter().flatten());
}

/// A frame's header: its first byte, the length of the payload, the masking key, and its own length.
pub struct Header {
    pub first: u8,
    pub len: u64,
    pub key: [u8; 4],
    pub size: usize,
}

/// Returns the header at the start of `bytes`, if complete.
#[inline]
pub fn header(bytes: &[u8]) -> Option<Header> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (len, mut size) = match second & 0x7F {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 10),
        len => (u64::from(len), 2),
    };
    let mut key = [0; 4];
    if second & 0x80 != 0 {
        key = *bytes.get(size..)?.first_chunk()?;
        size += 4;
    }
    Some(Header { first, len, key, size })
}

/// Appends `bytes`, masked or unmasked with `key`. The key is already rotated to the start of `bytes`.
#[inline]
pub fn copy_masked(bytes: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(bytes);
    mask(&mut out[start..], key);
}

/// Masks or unmasks `bytes`.
#[inline]
pub fn mask(bytes: &mut [u8], key: [u8; 4]) {
    let word = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let chunk: &mut [u8; 8] = chunk.try_into().expect("chunks of 8");
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// Counts the messages in a stream of frames.
#[derive(Default)]
pub struct Counter {
    /// The bytes of an incomplete header.
    partial: Vec<u8>,
    /// The number of missing bytes of the current frame's payload.
    remaining: u64,
    /// Set if the current frame ends its message.
    fin: bool,
    /// The payloads of all messages so far, unmasked, if they are kept.
    payloads: Option<Vec<u8>>,
    /// The end of each message in `payloads`, and whether the message is compressed.
    ends: Vec<(usize, bool)>,
    is_compressed: bool,
    key: [u8; 4],
}

impl Counter {
    /// Creates a counter that also keeps the payloads.
    pub fn keeping() -> Self {
        Self { payloads: Some(Vec::new()), ..Self::default() }
    }

    pub fn payloads(&self) -> &[u8] {
        self.payloads.as_deref().unwrap_or_default()
    }

    /// Returns whether the last message was compressed.
    pub fn is_compressed(&self) -> bool {
        self.is_compressed
    }

    /// Returns the payloads of all messages so far, decompressed.
    pub fn messages(&self) -> Vec<u8> {
        let mut start = 0;
        let mut messages = Vec::new();
        for (end, is_compressed) in &self.ends {
            messages.extend(decompressed(&self.payloads()[start..*end], *is_compressed));
            start = *end;
        }
        messages
    }

    /// Returns how many messages end in `bytes`.
    #[inline]
    pub fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut count = 0;
        while !bytes.is_empty() {
            if self.remaining == 0 {
                let header = if self.partial.is_empty() {
                    let Some(found) = header(bytes) else {
                        self.partial.extend_from_slice(bytes);
                        return count;
                    };
                    bytes = &bytes[found.size..];
                    found
                } else {
                    self.partial.push(bytes[0]);
                    bytes = &bytes[1..];
                    let Some(found) = header(&self.partial) else { continue };
                    self.partial.clear();
                    found
                };
                self.fin = header.first & 0x80 != 0;
                self.remaining = header.len;
                self.key = header.key;
                if header.first & 0x0F != 0 {
                    self.is_compressed = header.first & COMPRESSED != 0;
                }
                assert!(header.first & 0x0F < 3, "a control frame came: {:#x}", header.first);
            }
            let now = self.remaining.min(bytes.len() as u64) as usize;
            if let Some(payloads) = &mut self.payloads {
                copy_masked(&bytes[..now], self.key, payloads);
                self.key.rotate_left(now % 4);
            }
            self.remaining -= now as u64;
            bytes = &bytes[now..];
            let ends = self.remaining == 0 && self.fin;
            if ends && self.payloads.is_some() {
                self.ends.push((self.payloads().len(), self.is_compressed));
            }
            count += usize::from(ends);
        }
        count
    }
}
