//! The verdict on a stream of frames equals that of tungstenite, apart from the differences that the README
//! justifies.
#![no_main]

use std::io::{self, Read, Write};

use bowline_fuzz::{Receiver, Seen, take_byte};
use bowline_proto::{CloseCode, Failure, MessageKind, ReceiveLimits, Role, Violation};
use libfuzzer_sys::fuzz_target;
use tungstenite::Message;
use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::{WebSocketConfig, WebSocketContext};

/// The largest message, and therefore the largest frame.
const MESSAGE_SIZE: usize = 4096;

/// The result of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

// the role, then the bytes that arrive
fuzz_target!(|data: &[u8]| {
    let mut bytes = data;
    let role = if take_byte(&mut bytes) & 1 == 0 { Role::Client } else { Role::Server };
    let mut bytes = bytes.to_vec();
    complete(&mut bytes);
    let (our_messages, ours, rest) = bowline(role, &bytes);
    let (mut their_messages, mut theirs) = tungstenite(role, &bytes);

    match ours {
        // Difference 1: lengths in more bytes than needed. A control frame with such a length is too large.
        Some(Failure::Violation(Violation::NonMinimalLength | Violation::OversizedControlFrame))
            if !is_minimal(&rest) =>
        {
            assert!(their_messages.starts_with(&our_messages));
            return;
        }
        // Difference 2: the code of a Close frame. tungstenite answers forbidden codes with 1002.
        Some(Failure::Violation(Violation::InvalidCloseCode(_))) if theirs.is_none() => {
            let replaced = Said::Close(Some((1002, "Protocol violation".to_owned())));
            assert_eq!(their_messages.pop(), Some(replaced));
            theirs = Some(ProtocolError::InvalidCloseSequence.into());
        }
        // Difference 3: 1014 was registered after RFC 6455, and tungstenite doesn't know it.
        None if matches!(our_messages.last(), Some(Said::Close(Some((1014, _))))) => {
            let replaced = Said::Close(Some((1002, "Protocol violation".to_owned())));
            assert_eq!(their_messages.pop(), Some(replaced));
            their_messages.push(our_messages[our_messages.len() - 1].clone());
        }
        _ => {}
    }
    assert_eq!(our_messages, their_messages);
    assert_eq!(ours.is_some(), theirs.is_some(), "{ours:?} {theirs:?}");
});

/// Returns the events up to a Close frame or a failure, the failure, and the bytes from its frame on.
fn bowline(role: Role, bytes: &[u8]) -> (Vec<Said>, Option<Failure>, Vec<u8>) {
    let limits = ReceiveLimits { message_size: MESSAGE_SIZE as u64, frames_per_message: u32::MAX };
    let mut receiver = Receiver::new(role, limits);
    let failure = receiver.arrive(bytes).err();
    let mut said = Vec::new();
    let mut open = Vec::new();
    for seen in receiver.seen {
        said.push(match seen {
            Seen::Data { kind, payload, last, .. } => {
                open.extend(payload);
                if !last {
                    continue;
                }
                Said::Message(kind, std::mem::take(&mut open))
            }
            Seen::Ping(payload) => Said::Ping(payload),
            Seen::Pong(payload) => Said::Pong(payload),
            Seen::Close(frame) => {
                let has_code = frame.code() != CloseCode::NO_STATUS;
                Said::Close(has_code.then(|| (frame.code().0, frame.reason().to_owned())))
            }
        });
    }
    (said, failure, receiver.pending)
}

fn tungstenite(role: Role, bytes: &[u8]) -> (Vec<Said>, Option<Error>) {
    let role = match role {
        Role::Client => tungstenite::protocol::Role::Client,
        Role::Server => tungstenite::protocol::Role::Server,
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(256)
        .max_message_size(Some(MESSAGE_SIZE))
        .max_frame_size(Some(MESSAGE_SIZE));
    let mut context = WebSocketContext::new(role, Some(config));
    let mut stream = Stream(bytes);
    let mut said = Vec::new();
    loop {
        said.push(match context.read(&mut stream) {
            Ok(Message::Text(text)) => Said::Message(MessageKind::Text, text.as_bytes().to_vec()),
            Ok(Message::Binary(payload)) => Said::Message(MessageKind::Binary, payload.to_vec()),
            Ok(Message::Ping(payload)) => Said::Ping(payload.to_vec()),
            Ok(Message::Pong(payload)) => Said::Pong(payload.to_vec()),
            Ok(Message::Close(frame)) => {
                let frame = frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned()));
                said.push(Said::Close(frame));
                return (said, None);
            }
            Ok(Message::Frame(frame)) => unreachable!("it is for sending only: {frame:?}"),
            // The end of the bytes.
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return (said, None),
            Err(error) => return (said, Some(error)),
        });
    }
}

/// A stream that returns the bytes, and discards writes.
struct Stream<'a>(&'a [u8]);

impl Read for Stream<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Completes the last frame, since tungstenite parses only whole frames, whereas bowline fails at their first
/// wrong byte.
fn complete(bytes: &mut Vec<u8>) {
    let mut start = 0;
    while let Some((len, size)) = raw_length(&bytes[start..]) {
        let Some(end) =
            usize::try_from(len).ok().filter(|len| *len <= MESSAGE_SIZE).map(|len| start + size + len)
        else {
            return;
        };
        if end > bytes.len() {
            bytes.resize(end, 0);
        }
        start = end;
    }
    bytes.truncate(start);
}

/// Returns whether the payload length uses the minimal number of bytes.
fn is_minimal(frame: &[u8]) -> bool {
    match (raw_length(frame), frame[1] & 0x7F) {
        (Some((len, _)), 126) => len > 125,
        (Some((len, _)), 127) => len > 0xFFFF,
        _ => true,
    }
}

/// Returns the lengths of the payload and of the header before it, whatever is wrong with the header.
fn raw_length(bytes: &[u8]) -> Option<(u64, usize)> {
    let [_, second, rest @ ..] = bytes else { return None };
    let (len, size) = match second & 0x7F {
        126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
        127 => (u64::from_be_bytes(*rest.first_chunk()?), 10),
        len => (u64::from(len), 2),
    };
    let size = size + if second & 0x80 == 0 { 0 } else { 4 };
    (size <= bytes.len()).then_some((len, size))
}
