//! Frames, and receivers that record their events.

use bowline_proto::{
    CloseFrame, Event, Failure, FrameHeader, MessageKind, Opcode, ReceiveHalf, ReceiveLimits, Role, mask,
};

pub const NO_LIMITS: ReceiveLimits = ReceiveLimits { message_size: u64::MAX, frames_per_message: u32::MAX };

/// Returns the pieces into which `splits` cuts `bytes`. The bytes of `splits` are sizes, from 1 on; the last
/// one repeats.
pub fn pieces<'a>(bytes: &'a [u8], splits: &[u8]) -> Vec<&'a [u8]> {
    let last = splits.last().copied().unwrap_or(u8::MAX);
    let mut sizes = splits.iter().copied().chain(std::iter::repeat(last));
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let size = usize::from(sizes.next().unwrap_or(last)) + 1;
        let piece;
        (piece, rest) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
    }
    pieces
}

/// Encodes a frame of `role`.
pub fn encode_frame(role: Role, fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let masking_key = (role == Role::Client).then_some([0x12, 0x34, 0x56, 0x78]);
    let mut bytes = Vec::new();
    FrameHeader { fin, reserved: 0, opcode, masking_key, payload_len: payload.len() as u64 }
        .encode(&mut bytes);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    mask(&mut bytes[start..], masking_key.unwrap_or_default(), 0);
    bytes
}

/// An event with the bytes of its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Data { kind: MessageKind, payload: Vec<u8>, first: bool, last: bool },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(CloseFrame),
}

/// A receiving half with its caller's buffer. Each step checks the promises of the half.
pub struct Receiver {
    pub half: ReceiveHalf,
    pub pending: Vec<u8>,
    pub seen: Vec<Seen>,
}

impl Receiver {
    pub fn new(role: Role, limits: ReceiveLimits) -> Self {
        let half = ReceiveHalf::new(role, limits);
        Self { half, pending: Vec::new(), seen: Vec::new() }
    }

    /// Receives `bytes`, and records all events up to the first failure.
    pub fn arrive(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.pending.extend_from_slice(bytes);
        while self.step()? {}
        Ok(())
    }

    /// Handles one event. Returns whether there was one.
    fn step(&mut self) -> Result<bool, Failure> {
        let whole = self.half.take_whole_message(&self.pending);
        let mut bytes = self.pending.clone();
        let unmasked = self.half.unmask_whole_message(&mut bytes);
        let parts = unmasked.map(|(kind, range)| (kind, range.end, &bytes[range]));
        assert_eq!(parts, whole.as_ref().map(|whole| (whole.kind, whole.frame_size, &whole.payload[..])));
        assert!(whole.is_some() || bytes == self.pending, "what was refused is left as it was");
        let at_data = self.half.is_at_data(&self.pending);
        let before = self.pending.clone();
        let result = self.half.handle_bytes(&mut self.pending);
        let Ok((taken, event)) = result else {
            assert_eq!(whole, None, "a whole message is not a failure");
            assert_eq!(self.half.handle_bytes(&mut []), result, "a failure stays");
            return result.map(|_| false);
        };
        assert_eq!(self.pending[taken..], before[taken..], "bytes that were not taken are not touched");
        if event.is_none() && !self.half.is_closed() {
            assert_eq!(taken, 0, "nothing is taken without an event");
        }
        let at = |range: std::ops::Range<usize>| {
            assert!(range.end <= taken, "an event is within what was taken");
            self.pending[range].to_vec()
        };
        assert_eq!(at_data && event.is_some(), matches!(event, Some(Event::Data(_))), "{event:?}");
        let seen = event.map(|event| match event {
            Event::Data(data) => {
                let payload = at(data.payload);
                Seen::Data { kind: data.kind, payload, first: data.first, last: data.last }
            }
            Event::Ping(payload) => Seen::Ping(at(payload)),
            Event::Pong(payload) => Seen::Pong(at(payload)),
            Event::Close(frame) => Seen::Close(frame),
        });
        if let Some(whole) = whole {
            assert_eq!(taken, whole.frame_size);
            let data = Seen::Data { kind: whole.kind, payload: whole.payload, first: true, last: true };
            assert_eq!(seen.as_ref(), Some(&data), "both ways to a whole message are the same");
        }
        self.pending.drain(..taken);
        let Some(seen) = seen else { return Ok(false) };
        self.seen.push(seen);
        Ok(true)
    }
}

/// Joins adjacent pieces of a message, so that the result doesn't depend on the splits.
pub fn joined(seen: &[Seen]) -> Vec<Seen> {
    let mut joined: Vec<Seen> = Vec::new();
    for next in seen {
        match (joined.last_mut(), next) {
            (
                Some(Seen::Data { kind, payload, last: last @ false, .. }),
                Seen::Data { kind: next_kind, payload: more, first: false, last: next_last },
            ) if kind == next_kind => {
                payload.extend_from_slice(more);
                *last = *next_last;
            }
            _ => joined.push(next.clone()),
        }
    }
    joined
}

/// Asserts that two receivers saw equal events. In the frame that failed, one receiver may have seen more
/// bytes than the other.
pub fn assert_same(one: &Receiver, other: &Receiver, failed: bool) {
    let (mut one, mut other) = (joined(&one.seen), joined(&other.seen));
    if failed {
        let (one, other) = (pop_unfinished(&mut one), pop_unfinished(&mut other));
        assert!(one.starts_with(&other) || other.starts_with(&one), "{one:?} {other:?}");
    }
    assert_eq!(one, other);
}

fn pop_unfinished(seen: &mut Vec<Seen>) -> Vec<u8> {
    match seen.pop_if(|seen| matches!(seen, Seen::Data { last: false, .. })) {
        Some(Seen::Data { payload, .. }) => payload,
        _ => Vec::new(),
    }
}

/// The messages in the bytes that a role received, up to a Close frame or a failure.
pub struct Messages {
    /// The complete messages, and the end of each.
    pub whole: Vec<(MessageKind, Vec<u8>, usize)>,
    /// The start of the incomplete message after them.
    pub begun: Option<(MessageKind, Vec<u8>)>,
}

pub fn messages_in(role: Role, limits: ReceiveLimits, bytes: &[u8]) -> Messages {
    let mut half = ReceiveHalf::new(role, limits);
    let mut messages = Messages { whole: Vec::new(), begun: None };
    let mut unmasked = bytes.to_vec();
    let mut end = 0;
    let at_failure = loop {
        let before = half.clone();
        match half.handle_bytes(&mut unmasked[end..]) {
            Ok((taken, Some(event))) => {
                messages.arrive(event, &unmasked[end..], end + taken);
                end += taken;
            }
            Ok((_, None)) => return messages,
            Err(_) => break before,
        }
    };
    // The valid start of the frame may have arrived before the wrong byte.
    half = at_failure;
    let mut arrived = Vec::new();
    for &byte in &bytes[end..] {
        arrived.push(byte);
        while let Ok((taken, Some(event))) = half.handle_bytes(&mut arrived) {
            messages.arrive(event, &arrived, end + taken);
            arrived.drain(..taken);
        }
    }
    messages
}

impl Messages {
    /// Applies an event in `bytes`, whose end is at `end` of all bytes.
    fn arrive(&mut self, event: Event, bytes: &[u8], end: usize) {
        let Event::Data(data) = event else { return };
        let (kind, mut open) = self.begun.take().unwrap_or((data.kind, Vec::new()));
        open.extend_from_slice(&bytes[data.payload]);
        if data.last {
            self.whole.push((kind, open, end));
        } else {
            self.begun = Some((kind, open));
        }
    }
}

/// A sent frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: Opcode,
    pub payload: Vec<u8>,
}

/// The output of one side, checked against the rules.
pub struct Outgoing {
    role: Role,
    /// The bytes of an incomplete frame.
    partial: Vec<u8>,
    /// The fragments of an incomplete message.
    open: Option<(MessageKind, Vec<u8>)>,
    pub messages: Vec<(MessageKind, Vec<u8>)>,
    pub pings: Vec<Vec<u8>>,
    pub pongs: Vec<Vec<u8>>,
    /// The payload of the Close frame, once it was sent.
    pub close: Option<Vec<u8>>,
}

impl Outgoing {
    pub fn of(role: Role) -> Self {
        Self {
            role,
            partial: Vec::new(),
            open: None,
            messages: Vec::new(),
            pings: Vec::new(),
            pongs: Vec::new(),
            close: None,
        }
    }

    /// Returns whether the output consists of whole frames.
    pub fn is_whole(&self) -> bool {
        self.partial.is_empty()
    }

    pub fn arrive(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        while let Some((header, size)) =
            FrameHeader::decode(&self.partial).expect("the headers we send are right")
        {
            let end = size + usize::try_from(header.payload_len).expect("what we send fits in memory");
            if self.partial.len() < end {
                break;
            }
            assert_eq!(header.reserved, 0);
            assert_eq!(
                header.masking_key.is_some(),
                self.role == Role::Client,
                "clients mask, servers do not"
            );
            let mut payload = self.partial[size..end].to_vec();
            mask(&mut payload, header.masking_key.unwrap_or_default(), 0);
            self.partial.drain(..end);
            self.frame(Frame { fin: header.fin, opcode: header.opcode, payload });
        }
    }

    fn frame(&mut self, frame: Frame) {
        assert_eq!(self.close, None, "nothing follows a Close frame");
        let kind = match frame.opcode {
            Opcode::Ping => return self.pings.push(frame.payload),
            Opcode::Pong => return self.pongs.push(frame.payload),
            Opcode::Close => return self.close = Some(frame.payload),
            Opcode::Continuation => None,
            Opcode::Text => Some(MessageKind::Text),
            Opcode::Binary => Some(MessageKind::Binary),
        };
        assert_eq!(kind.is_none(), self.open.is_some(), "messages do not interleave");
        let (kind, mut payload) =
            self.open.take().or(kind.map(|kind| (kind, Vec::new()))).expect("one is there");
        payload.extend(frame.payload);
        if frame.fin {
            self.messages.push((kind, payload));
        } else {
            self.open = Some((kind, payload));
        }
    }
}
