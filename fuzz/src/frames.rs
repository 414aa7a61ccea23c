//! Frames, and receivers that note what comes out.

use bowline_proto::{
    CloseFrame, Event, Failure, FrameHeader, MessageKind, Opcode, ReceiveHalf, ReceiveLimits, Role, mask,
};

pub const NO_LIMITS: ReceiveLimits = ReceiveLimits { message_size: u64::MAX, frames_per_message: u32::MAX };

/// The pieces into which `splits` cuts `bytes`: their sizes in turn, from 1 on; the last one over and over.
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

/// A frame as `role` sends it.
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

/// An event with the bytes that its range stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Data { kind: MessageKind, payload: Vec<u8>, first: bool, last: bool },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<CloseFrame>),
}

/// A receiving half with the buffer that its caller keeps. Every step checks what the half promises.
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

    /// Takes in `bytes` and notes all events up to the first failure.
    pub fn arrive(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.pending.extend_from_slice(bytes);
        while self.step()? {}
        Ok(())
    }

    /// Whether there was an event.
    fn step(&mut self) -> Result<bool, Failure> {
        let whole = self.half.take_whole_message(&self.pending);
        let mut appended = Vec::new();
        let kind_and_size = self.half.append_whole_message(&self.pending, &mut appended);
        assert_eq!(kind_and_size, whole.as_ref().map(|whole| (whole.kind, whole.frame_size)));
        assert!(whole.as_ref().is_none_or(|whole| whole.payload == appended));
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

/// Puts neighbouring pieces of one message together, so that only what was said is left, not how it was split.
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

/// Asserts that two receivers saw the same. Of the frame in which they failed, one may have seen more than the other.
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

/// The messages in `bytes`, which `role` receives, up to a Close frame or a failure.
pub struct Messages {
    /// Those that are whole, and where each ends.
    pub whole: Vec<(MessageKind, Vec<u8>, usize)>,
    /// What there is of the one behind them.
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
    // What is right of the frame may have come before what is wrong with it.
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
    /// Takes what an event in `bytes` says, behind which the bytes of all go on at `end`.
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

/// A frame that was sent, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: Opcode,
    pub payload: Vec<u8>,
}

/// What one side has sent, and whether that follows the rules.
pub struct Outgoing {
    role: Role,
    /// A frame that is not whole yet.
    partial: Vec<u8>,
    /// What was sent of a message that is not whole yet.
    open: Option<(MessageKind, Vec<u8>)>,
    pub messages: Vec<(MessageKind, Vec<u8>)>,
    pub pings: Vec<Vec<u8>>,
    pub pongs: Vec<Vec<u8>>,
    /// The payload of the Close frame.
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

    /// Whether all of what was sent is whole frames.
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
