//! Frames, made and read by hand.

use bowline::Role;
use bowline_proto::{FrameHeader, Opcode, mask};

/// A frame as it was found on the wire, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    /// The first reserved bit (RFC 7692 6).
    pub compressed: bool,
    pub opcode: Opcode,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(opcode: Opcode, payload: impl AsRef<[u8]>) -> Self {
        Self { fin: true, compressed: false, opcode, payload: payload.as_ref().to_vec() }
    }

    pub fn text(payload: impl AsRef<[u8]>) -> Self {
        Self::new(Opcode::Text, payload)
    }

    pub fn binary(payload: impl AsRef<[u8]>) -> Self {
        Self::new(Opcode::Binary, payload)
    }

    pub fn continuation(payload: impl AsRef<[u8]>) -> Self {
        Self::new(Opcode::Continuation, payload)
    }

    pub fn ping(payload: impl AsRef<[u8]>) -> Self {
        Self::new(Opcode::Ping, payload)
    }

    pub fn pong(payload: impl AsRef<[u8]>) -> Self {
        Self::new(Opcode::Pong, payload)
    }

    pub fn close(code: u16, reason: &str) -> Self {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        Self::new(Opcode::Close, payload)
    }

    pub fn close_without_code() -> Self {
        Self::new(Opcode::Close, [])
    }

    /// Returns the same frame as a fragment that others follow.
    pub fn unfinished(mut self) -> Self {
        self.fin = false;
        self
    }

    /// Returns the same frame, said to be compressed.
    pub fn compressed(mut self) -> Self {
        self.compressed = true;
        self
    }

    /// Returns the code in a Close frame, and 1005 if it has none.
    pub fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, Opcode::Close, "not a Close frame: {self:?}");
        self.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
    }

    /// Returns the bytes as `role` sends them.
    pub fn encode(&self, role: Role) -> Vec<u8> {
        let masking_key = (role == Role::Client).then_some([0x12, 0x34, 0x56, 0x78]);
        let mut bytes = Vec::new();
        let header = FrameHeader {
            fin: self.fin,
            reserved: if self.compressed { 0b100 } else { 0 },
            opcode: self.opcode,
            masking_key,
            payload_len: self.payload.len() as u64,
        };
        header.encode(&mut bytes);
        let start = bytes.len();
        bytes.extend_from_slice(&self.payload);
        mask(&mut bytes[start..], masking_key.unwrap_or_default(), 0);
        bytes
    }
}

/// Returns the bytes of many frames, one after another.
pub fn encode_all(role: Role, frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(|frame| frame.encode(role)).collect()
}

/// Removes the whole frames from the front of the bytes of `role`. A partial frame stays.
pub fn take_frames(role: Role, bytes: &mut Vec<u8>) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        let Some((header, size)) = FrameHeader::decode(bytes).expect("we send valid headers") else {
            return frames;
        };
        let end = size + usize::try_from(header.payload_len).expect("our frames fit in memory");
        if bytes.len() < end {
            return frames;
        }
        assert_eq!(header.masking_key.is_some(), role == Role::Client, "clients mask, servers do not");
        let mut payload = bytes[size..end].to_vec();
        mask(&mut payload, header.masking_key.unwrap_or_default(), 0);
        assert_eq!(header.reserved & 0b011, 0, "nothing defines the other reserved bits");
        let compressed = header.reserved != 0;
        frames.push(Frame { fin: header.fin, compressed, opcode: header.opcode, payload });
        bytes.drain(..end);
    }
}

/// Returns all frames in the bytes of `role`, which must end with a whole one.
pub fn all_frames(role: Role, mut bytes: Vec<u8>) -> Vec<Frame> {
    let frames = take_frames(role, &mut bytes);
    assert!(bytes.is_empty(), "the bytes end inside a frame: {} are left", bytes.len());
    frames
}
