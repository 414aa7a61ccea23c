//! Frames as the cases write them, among them those that no library would send.

use bowline_proto::mask;

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The masking key of every frame, that of RFC 6455 5.7. A fixed key makes the bytes of a report repeatable.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The length in a header that is followed by 16 bits.
const LENGTH_16_BITS: u8 = 126;

/// The length in a header that is followed by 64 bits.
const LENGTH_64_BITS: u8 = 127;

/// A frame of a client. [`Frame::new`] builds a frame that is masked, well formed and a whole message.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    fin: bool,
    /// RSV1, RSV2 and RSV3, as 4, 2 and 1.
    reserved: u8,
    opcode: u8,
    masking: Masking,
    length: Length,
    payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Masking {
    Key([u8; 4]),
    Absent,
}

/// The form of the payload's length.
#[derive(Clone, Copy, Debug)]
enum Length {
    /// The shortest form.
    Minimal,
    /// 16 bits, whatever the length.
    Bits16,
    /// 64 bits, whatever the length.
    Bits64,
    /// The shortest form of another length than the payload has.
    Announced(u64),
}

impl Frame {
    pub(crate) fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        let (masking, length) = (Masking::Key(KEY), Length::Minimal);
        Self { fin: true, reserved: 0, opcode, masking, length, payload: payload.into() }
    }

    /// The frame with the fin bit clear: more fragments follow.
    pub(crate) fn more(mut self) -> Self {
        self.fin = false;
        self
    }

    /// The frame with these reserved bits: 4 is RSV1, 2 is RSV2, 1 is RSV3.
    pub(crate) fn reserved(mut self, bits: u8) -> Self {
        self.reserved = bits;
        self
    }

    pub(crate) fn unmasked(mut self) -> Self {
        self.masking = Masking::Absent;
        self
    }

    pub(crate) fn masked_with(mut self, key: [u8; 4]) -> Self {
        self.masking = Masking::Key(key);
        self
    }

    pub(crate) fn length_in_16_bits(mut self) -> Self {
        self.length = Length::Bits16;
        self
    }

    pub(crate) fn length_in_64_bits(mut self) -> Self {
        self.length = Length::Bits64;
        self
    }

    /// The frame with a header that announces a payload of another length.
    pub(crate) fn announcing(mut self, length: u64) -> Self {
        self.length = Length::Announced(length);
        self
    }

    /// Appends the frame's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode);
        let mask_bit = match self.masking {
            Masking::Key(_) => 0x80,
            Masking::Absent => 0,
        };
        let length = match self.length {
            Length::Announced(length) => length,
            _ => self.payload.len() as u64,
        };
        match self.length {
            Length::Bits16 => encode_16_bits(mask_bit, length, out),
            Length::Bits64 => encode_64_bits(mask_bit, length, out),
            Length::Minimal | Length::Announced(_) => match length {
                0..126 => out.push(mask_bit | length.to_le_bytes()[0]),
                126..65_536 => encode_16_bits(mask_bit, length, out),
                65_536.. => encode_64_bits(mask_bit, length, out),
            },
        }
        if let Masking::Key(key) = self.masking {
            out.extend_from_slice(&key);
        }
        let start = out.len();
        out.extend_from_slice(&self.payload);
        if let Masking::Key(key) = self.masking {
            mask(&mut out[start..], key, 0);
        }
    }
}

fn encode_16_bits(mask_bit: u8, length: u64, out: &mut Vec<u8>) {
    out.push(mask_bit + LENGTH_16_BITS);
    // The cases have no longer payload with this form.
    out.extend_from_slice(&length.to_be_bytes()[6..]);
}

fn encode_64_bits(mask_bit: u8, length: u64, out: &mut Vec<u8>) {
    out.push(mask_bit + LENGTH_64_BITS);
    out.extend_from_slice(&length.to_be_bytes());
}

/// The bytes of frames in a row.
pub(crate) fn encoded(frames: impl IntoIterator<Item = Frame>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        frame.encode(&mut bytes);
    }
    bytes
}

pub(crate) fn text(payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(TEXT, payload)
}

pub(crate) fn binary(payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(BINARY, payload)
}

pub(crate) fn continuation(payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(CONTINUATION, payload)
}

pub(crate) fn ping(payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(PING, payload)
}

pub(crate) fn pong(payload: impl Into<Vec<u8>>) -> Frame {
    Frame::new(PONG, payload)
}

/// A Close frame with a code and a reason, which need not be UTF-8.
pub(crate) fn close(code: u16, reason: impl AsRef<[u8]>) -> Frame {
    Frame::new(CLOSE, [&code.to_be_bytes()[..], reason.as_ref()].concat())
}

/// A Close frame without a code.
pub(crate) fn bare_close() -> Frame {
    Frame::new(CLOSE, [])
}
