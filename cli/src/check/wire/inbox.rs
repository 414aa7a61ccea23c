//! The server's bytes as events: messages, control frames, faults and the end.

use std::collections::VecDeque;
use std::fmt;

use bowline_proto::{CloseFrame, Event, Failure, Inflater, MessageKind, ReceiveHalf, ReceiveLimits, Role};

use super::carrier::{Incoming, StreamEnd};
use super::transcript::{Direction, Transcript};
use crate::escape;

/// The largest message that a server may send, and the bytes of the events that are kept.
const KEPT: usize = 4 << 20;

/// The events that are kept. More belong to no case.
const EVENTS: usize = 4096;

/// The events of one WebSocket that no step has looked at yet.
pub(crate) struct Inbox {
    half: ReceiveHalf,
    /// Bytes that are not a whole frame header or control frame yet.
    partial: Vec<u8>,
    message: Vec<u8>,
    inflater: Option<Inflater>,
    events: VecDeque<Received>,
    kept: usize,
    /// Payloads of pings that are to be answered.
    owed: Vec<Vec<u8>>,
    stage: Stage,
}

/// The events that may still arrive.
///
/// ```text
/// Frames ──a Close frame──▶ Closed ──the end of the stream──▶ Ended
///    │                                                          ▲
///    ├──a fault of the server──▶ Faulty ──the end of the stream─┤
///    └───────────────the end of the stream──────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Frames,
    Closed,
    Faulty,
    Ended,
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Text,
    Binary,
}

/// An event.
#[derive(Clone, Debug)]
pub(crate) enum Received {
    Message(Kind, Vec<u8>),
    Ping,
    Pong(Vec<u8>),
    Close(CloseFrame),
    /// A violation of the protocol by the server, which ends the reading.
    Fault(String),
    End(StreamEnd),
}

impl Inbox {
    pub(crate) fn new() -> Self {
        let limits = ReceiveLimits { message_size: KEPT as u64, frames_per_message: u32::MAX };
        let half = ReceiveHalf::new(Role::Client, limits);
        let (partial, message, owed) = (Vec::new(), Vec::new(), Vec::new());
        let (inflater, events, stage) = (None, VecDeque::new(), Stage::Frames);
        Self { half, partial, message, inflater, events, kept: 0, owed, stage }
    }

    /// Accepts compressed messages from now on.
    pub(crate) fn allow_compression(&mut self, inflater: Inflater) {
        self.half.allow_compression();
        self.inflater = Some(inflater);
    }

    pub(crate) fn pop(&mut self) -> Option<Received> {
        let event = self.events.pop_front()?;
        self.kept -= event.size();
        Some(event)
    }

    /// Puts events back, in front of all others.
    pub(crate) fn put_back(&mut self, events: Vec<Received>) {
        for event in events.into_iter().rev() {
            self.kept += event.size();
            self.events.push_front(event);
        }
    }

    pub(crate) fn take_owed(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.owed)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    pub(crate) fn take(&mut self, incoming: Incoming, transcript: &mut Transcript) {
        match incoming {
            Incoming::Bytes(bytes) => {
                transcript.add(Direction::Received, &bytes);
                self.take_bytes(&bytes);
            }
            Incoming::End(end) => {
                transcript.note(Direction::Received, end.to_string());
                self.stage = Stage::Ended;
                self.push(Received::End(end));
            }
        }
    }

    /// Takes bytes that arrived with the response of the opening handshake.
    pub(crate) fn take_leftover(&mut self, bytes: Vec<u8>, transcript: &mut Transcript) {
        if !bytes.is_empty() {
            self.take(Incoming::Bytes(bytes), transcript);
        }
    }

    fn take_bytes(&mut self, bytes: &[u8]) {
        let mut buf = std::mem::take(&mut self.partial);
        buf.extend_from_slice(bytes);
        let mut at = 0;
        while at < buf.len() {
            match self.stage {
                Stage::Frames => {}
                // RFC 6455 5.5.1: nothing follows a Close frame.
                Stage::Closed => {
                    self.fault(format!("{} bytes after its Close frame", buf.len() - at));
                    return;
                }
                Stage::Faulty | Stage::Ended => return,
            }
            match self.half.handle_bytes(&mut buf[at..]) {
                Ok((0, None)) => break,
                Ok((taken, event)) => {
                    if let Some(event) = event {
                        self.take_event(event, &buf[at..]);
                    }
                    at += taken;
                }
                Err(failure) => return self.fault(failure.to_string()),
            }
        }
        self.partial = buf[at..].to_vec();
    }

    fn take_event(&mut self, event: Event, bytes: &[u8]) {
        match event {
            Event::Data(data) => {
                let payload = &bytes[data.payload];
                let kind = match data.kind {
                    MessageKind::Text => Kind::Text,
                    MessageKind::Binary => Kind::Binary,
                };
                if data.compressed {
                    if let (Some(inflater), true) = (&mut self.inflater, data.first) {
                        inflater.begin(data.kind);
                    }
                    if let Err(failure) = self.inflate(payload, data.last) {
                        return self.fault(failure.to_string());
                    }
                } else {
                    self.message.extend_from_slice(payload);
                }
                if data.last {
                    let message = std::mem::take(&mut self.message);
                    self.push(Received::Message(kind, message));
                }
            }
            Event::Ping(payload) => {
                // The newest is answered (RFC 6455 5.5.3).
                self.owed = vec![bytes[payload].to_vec()];
                self.push(Received::Ping);
            }
            Event::Pong(payload) => self.push(Received::Pong(bytes[payload].to_vec())),
            Event::Close(frame) => {
                self.stage = Stage::Closed;
                self.push(Received::Close(frame));
            }
        }
    }

    fn inflate(&mut self, payload: &[u8], last: bool) -> Result<(), Failure> {
        let Some(inflater) = &mut self.inflater else { return Ok(()) };
        let mut rest = payload;
        loop {
            let progress = inflater.inflate(rest, last, &mut self.message)?;
            rest = &rest[progress.consumed..];
            if progress.done || progress.needs_input {
                return Ok(());
            }
        }
    }

    fn fault(&mut self, text: String) {
        self.stage = Stage::Faulty;
        self.partial = Vec::new();
        self.push(Received::Fault(text));
    }

    fn push(&mut self, event: Received) {
        let is_kept = self.events.len() < EVENTS && self.kept + event.size() <= KEPT;
        if is_kept || matches!(event, Received::Close(_) | Received::Fault(_) | Received::End(_)) {
            self.kept += event.size();
            self.events.push_back(event);
        }
    }
}

impl Received {
    /// The bytes that the event keeps.
    fn size(&self) -> usize {
        match self {
            Self::Message(_, payload) | Self::Pong(payload) => payload.len(),
            _ => 0,
        }
    }
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(Kind::Text, payload) => write!(f, "a text message of {} bytes", payload.len()),
            Self::Message(Kind::Binary, payload) => write!(f, "a binary message of {} bytes", payload.len()),
            Self::Ping => f.write_str("a ping"),
            Self::Pong(payload) => write!(f, "a pong with {} bytes", payload.len()),
            Self::Close(frame) => match frame.reason() {
                "" => write!(f, "a Close frame with the code {}", frame.code().0),
                reason => {
                    write!(f, "a Close frame with the code {} (\"{}\")", frame.code().0, escape::line(reason))
                }
            },
            Self::Fault(text) => write!(f, "a violation by the server: {text}"),
            Self::End(end) => end.fmt(f),
        }
    }
}

impl fmt::Display for StreamEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Orderly => f.write_str("the end of the stream"),
            Self::Abrupt(reason) => write!(f, "an abrupt end: {reason}"),
        }
    }
}
