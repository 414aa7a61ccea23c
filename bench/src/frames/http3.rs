//! Frames of HTTP/3 (RFC 9114 7.1), for the load and for the floor.

pub const DATA: u64 = 0;
pub const HEADERS: u64 = 1;

/// Returns a frame.
pub fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 9);
    begin(kind, payload.len(), &mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// Appends the header of a frame, with a length of four bytes.
pub fn begin(kind: u64, len: usize, out: &mut Vec<u8>) {
    out.push(kind as u8);
    out.extend_from_slice(&(len as u32 | 0x8000_0000).to_be_bytes());
}

/// The frames of a stream, piece by piece.
#[derive(Default)]
pub struct Pieces {
    /// The bytes of an incomplete header.
    partial: Vec<u8>,
    kind: u64,
    remaining: u64,
    /// The number of frames with a field section so far.
    pub headers: usize,
}

impl Pieces {
    /// Calls `each` with the type of each frame in `bytes` and the part of its payload.
    pub fn split(&mut self, mut bytes: &[u8], mut each: impl FnMut(u64, &[u8])) {
        while !bytes.is_empty() {
            if self.remaining == 0 {
                let before = self.partial.len();
                self.partial.extend_from_slice(&bytes[..bytes.len().min(16)]);
                let Some((kind, first)) = var_int(&self.partial) else { return };
                let Some((len, second)) = var_int(&self.partial[first..]) else { return };
                bytes = &bytes[first + second - before..];
                self.partial.clear();
                (self.kind, self.remaining) = (kind, len);
                self.headers += usize::from(kind == HEADERS);
                continue;
            }
            let now = self.remaining.min(bytes.len() as u64) as usize;
            each(self.kind, &bytes[..now]);
            self.remaining -= now as u64;
            bytes = &bytes[now..];
        }
    }

    pub fn is_within_frame(&self) -> bool {
        self.remaining > 0 || !self.partial.is_empty()
    }
}

/// Reads an integer of variable length, and returns it with its size (RFC 9000 16).
fn var_int(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let size = 1 << (first >> 6);
    let rest = bytes.get(1..size)?;
    Some((rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)), size))
}
