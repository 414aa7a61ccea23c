//! Shared by the tests: frames assembled by hand, and a receiver that records its events.
#![allow(dead_code, reason = "no test file uses all of it")]

use bowline_proto::{CloseCode, CloseFrame, Event, Failure, MessageKind, ReceiveHalf, ReceiveLimits, Role};

pub(crate) const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

pub(crate) const NO_LIMITS: ReceiveLimits =
    ReceiveLimits { message_size: u64::MAX, frames_per_message: u32::MAX };

// The parts of a frame's first byte: the fin bit and the opcode.
pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8A;

/// Masks byte by byte, as RFC 6455 5.3 defines.
pub(crate) fn masked(payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect()
}

/// Returns a frame in the form that a server sends.
pub(crate) fn unmasked_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, 0, payload.len());
    frame.extend_from_slice(payload);
    frame
}

/// Returns a frame in the form that a client sends.
pub(crate) fn masked_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, 0x80, payload.len());
    frame.extend_from_slice(&KEY);
    frame.extend(masked(payload, KEY));
    frame
}

/// Returns a frame in the form that the peer of `role` sends.
pub(crate) fn frame_for(role: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    match role {
        Role::Client => unmasked_frame(first, payload),
        Role::Server => masked_frame(first, payload),
    }
}

fn header(first: u8, mask_bit: u8, len: usize) -> Vec<u8> {
    let mut header = vec![first];
    if len < 126 {
        header.push(mask_bit | u8::try_from(len).unwrap());
    } else if let Ok(len) = u16::try_from(len) {
        header.push(mask_bit | 0x7E);
        header.extend_from_slice(&len.to_be_bytes());
    } else {
        header.push(mask_bit | 0x7F);
        header.extend_from_slice(&(len as u64).to_be_bytes());
    }
    header
}

/// Returns the payload of a Close frame.
pub(crate) fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

/// Returns the Close frame without a code.
pub(crate) fn empty_close() -> CloseFrame {
    CloseFrame::new(CloseCode::NO_STATUS, "").unwrap()
}

/// An event with the bytes of its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Data { kind: MessageKind, payload: Vec<u8>, first: bool, last: bool },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(CloseFrame),
}

pub(crate) fn data(kind: MessageKind, payload: &[u8], first: bool, last: bool) -> Seen {
    Seen::Data { kind, payload: payload.to_vec(), first, last }
}

/// A receiving half with its caller's buffer.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) half: ReceiveHalf,
    pub(crate) pending: Vec<u8>,
    pub(crate) seen: Vec<Seen>,
    /// The number of calls to the half.
    pub(crate) calls: usize,
}

impl Receiver {
    pub(crate) fn new(role: Role) -> Self {
        Self::with_limits(role, NO_LIMITS)
    }

    pub(crate) fn with_limits(role: Role, limits: ReceiveLimits) -> Self {
        Self { half: ReceiveHalf::new(role, limits), pending: Vec::new(), seen: Vec::new(), calls: 0 }
    }

    /// Handles `bytes` and records all events up to the first failure.
    pub(crate) fn arrive(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.pending.extend_from_slice(bytes);
        loop {
            self.calls += 1;
            let (taken, event) = self.half.handle_bytes(&mut self.pending)?;
            let at = |range: std::ops::Range<usize>| self.pending[range].to_vec();
            let seen = match event {
                None => None,
                Some(Event::Data(data)) => Some(Seen::Data {
                    kind: data.kind,
                    payload: at(data.payload),
                    first: data.first,
                    last: data.last,
                }),
                Some(Event::Ping(payload)) => Some(Seen::Ping(at(payload))),
                Some(Event::Pong(payload)) => Some(Seen::Pong(at(payload))),
                Some(Event::Close(frame)) => Some(Seen::Close(frame)),
            };
            self.pending.drain(..taken);
            match seen {
                Some(seen) => self.seen.push(seen),
                None => return Ok(()),
            }
        }
    }

    /// Returns the events that were recorded since the last call.
    pub(crate) fn take_seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }
}

/// Joins adjacent pieces of one message, so that the result does not depend on how the message was split.
pub(crate) fn joined(seen: Vec<Seen>) -> Vec<Seen> {
    let mut joined: Vec<Seen> = Vec::new();
    for next in seen {
        match (joined.last_mut(), &next) {
            (
                Some(Seen::Data { kind, payload, last: last @ false, .. }),
                Seen::Data { kind: next_kind, payload: more, first: false, last: next_last },
            ) if kind == next_kind => {
                payload.extend_from_slice(more);
                *last = *next_last;
            }
            _ => joined.push(next),
        }
    }
    joined
}
