//! The receiving half of a connection: bytes in, messages out.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bowline_proto::{CloseCode, CloseFrame, Data, Event, Failure, Limit, MessageKind, ReceiveHalf};
use bytes::{BufMut, Bytes};
use tokio::io::ReadBuf;
use tokio_util::io::poll_read_buf;

use crate::error::{Error, ErrorKind};
use crate::message::Message;
use crate::read_buffer::{READ_SIZE, ReadBuffer};
use crate::transport::ReadTransport;
use crate::utf8_bytes::Utf8Bytes;

/// From how many missing bytes on a message is read straight into its own buffer.
const DIRECT_SIZE: usize = 16 * 1024;

/// How much more than a message is asked for, so that the read comes back short and the end of the data is known
/// without another call.
const DIRECT_SLACK: usize = 64;

/// Everything that reading touches. Behind one lock, which is never held together with that of the sending half.
pub(crate) struct Receive {
    transport: Option<ReadTransport>,
    half: ReceiveHalf,
    buffer: ReadBuffer,
    /// The message that is being received.
    message: Option<OpenMessage>,
    /// Its payload, as far as it has arrived and was not taken by a reader.
    payload: Vec<u8>,
    /// How much of `payload` a reader has taken.
    taken: usize,
    /// Whole messages that had arrived when we closed.
    whole: VecDeque<Message>,
    /// What comes is not for the application any more.
    discards: bool,
    /// We sent the first Close frame: whatever follows, the application has its end already.
    closed_by_us: bool,
    peer_close: Option<Option<CloseFrame>>,
    /// Nothing more arrives, and why; `Ok` after a normal Close frame.
    ended: Option<Result<(), Error>>,
    /// What had arrived before the end has been looked at.
    exhausted: bool,
    /// Something arrived since [`take_received`](Self::take_received).
    received: bool,
}

struct OpenMessage {
    kind: MessageKind,
    whole: bool,
    consumer: Consumer,
}

/// Who gets a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Consumer {
    /// `recv`, once it is whole; or a reader, if one comes first.
    Recv,
    Reader,
    /// Its reader was dropped: the rest is passed over.
    Nobody,
}

/// What was found in the bytes that have arrived.
pub(crate) enum Advance {
    /// A part of a message, or its end.
    Data,
    /// Something for the sending half to do.
    Effect(Effect),
    /// All bytes have been looked at.
    NeedsBytes,
}

/// What receiving asks of the sending half.
pub(crate) enum Effect {
    /// A ping is to be answered.
    Answer(Bytes),
    /// The pong to one of our pings, perhaps.
    Ponged([u8; 8]),
    /// The peer's Close frame is to be echoed.
    Echo(Option<CloseFrame>),
    /// The connection is to be failed with this code (RFC 6455 7.1.7).
    Fail(CloseCode, Error),
    /// The transport has ended.
    Lost(Error),
}

impl Receive {
    pub(crate) fn new(transport: ReadTransport, half: ReceiveHalf, leftover: &[u8]) -> Self {
        let mut buffer = ReadBuffer::default();
        buffer.load(leftover);
        Self {
            transport: Some(transport),
            half,
            buffer,
            message: None,
            payload: Vec::new(),
            taken: 0,
            whole: VecDeque::new(),
            discards: false,
            closed_by_us: false,
            peer_close: None,
            ended: None,
            exhausted: false,
            received: false,
        }
    }

    // ---- what the application takes

    /// The next whole message, or the end.
    pub(crate) fn take_message(&mut self) -> Option<Result<Option<Message>, Error>> {
        self.abandon_read_message();
        if let Some(message) = self.whole.pop_front() {
            return Some(Ok(Some(message)));
        }
        if self.message.as_ref().is_some_and(|message| message.whole) {
            return Some(Ok(self.finish_message()));
        }
        self.end().map(|end| end.map(|()| None))
    }

    /// The kind of the message that has begun, which is the reader's from now on; or the end.
    pub(crate) fn take_start(&mut self) -> Option<Result<Option<MessageKind>, Error>> {
        self.abandon_read_message();
        if let Some(message) = self.whole.pop_front() {
            let kind = message.kind();
            self.payload = message.into_bytes().into();
            self.message = Some(OpenMessage { kind, whole: true, consumer: Consumer::Reader });
            return Some(Ok(Some(kind)));
        }
        if let Some(message) = self.message.as_mut().filter(|message| message.consumer == Consumer::Recv) {
            message.consumer = Consumer::Reader;
            return Some(Ok(Some(message.kind)));
        }
        self.end().map(|end| end.map(|()| None))
    }

    /// Moves a part of the reader's message into `buf`; nothing at its end.
    pub(crate) fn take_bytes(&mut self, buf: &mut ReadBuf<'_>) -> Option<Result<(), Error>> {
        let available = &self.payload[self.taken..];
        if !available.is_empty() {
            let count = available.len().min(buf.remaining());
            buf.put_slice(&available[..count]);
            self.taken += count;
            if self.taken == self.payload.len() {
                self.payload.clear();
                self.taken = 0;
            }
            return Some(Ok(()));
        }
        match &self.message {
            Some(message) if message.whole => Some(Ok(())),
            Some(_) if !self.exhausted => None,
            _ => Some(Err(self.interruption())),
        }
    }

    /// The reader of the message has gone, if there was one; the rest of it is passed over.
    pub(crate) fn abandon_read_message(&mut self) {
        let Some(message) = self.message.as_mut().filter(|message| message.consumer == Consumer::Reader)
        else {
            return;
        };
        message.consumer = Consumer::Nobody;
        if message.whole {
            self.message = None;
        }
        self.payload = Vec::new();
        self.taken = 0;
    }

    fn finish_message(&mut self) -> Option<Message> {
        let message = self.message.take()?;
        let payload = Bytes::from(std::mem::take(&mut self.payload));
        Some(match message.kind {
            MessageKind::Text => Message::Text(Utf8Bytes::from_validated(payload)),
            MessageKind::Binary => Message::Binary(payload),
        })
    }

    /// How receiving ended, once all that arrived before has been taken.
    fn end(&self) -> Option<Result<(), Error>> {
        let ended = self.ended.as_ref().filter(|_| self.exhausted)?;
        Some(if self.closed_by_us { Ok(()) } else { ended.clone() })
    }

    /// Why a message that has begun will not end.
    fn interruption(&self) -> Error {
        match &self.ended {
            Some(Err(error)) => error.clone(),
            _ => Error::new(ErrorKind::Closed, "the connection was closed in the middle of the message"),
        }
    }

    // ---- what has arrived

    /// Looks at the next frame, or part of one.
    pub(crate) fn advance(&mut self) -> Advance {
        loop {
            let (consumed, event) = match self.half.handle_bytes(self.buffer.bytes_mut()) {
                Ok(progress) => progress,
                Err(failure) if self.ended.is_none() => return Advance::Effect(self.fail(failure)),
                Err(_) => return Advance::NeedsBytes,
            };
            let Some(event) = event else {
                self.buffer.consume(consumed);
                return Advance::NeedsBytes;
            };
            let advance = match event {
                Event::Data(data) => {
                    let payload = &self.buffer.bytes()[data.payload.clone()];
                    let wanted = !self.discards && track(&mut self.message, &data);
                    if wanted {
                        append(&mut self.payload, payload, self.half.remaining(), data.last);
                    }
                    wanted.then_some(Advance::Data)
                }
                Event::Ping(payload) => {
                    let payload = Bytes::copy_from_slice(&self.buffer.bytes()[payload]);
                    Some(Advance::Effect(Effect::Answer(payload)))
                }
                // RFC 6455 5.5.3: a pong that nobody asked for is not answered.
                Event::Pong(payload) => {
                    let payload = self.buffer.bytes()[payload].try_into();
                    payload.ok().map(|payload| Advance::Effect(Effect::Ponged(payload)))
                }
                Event::Close(frame) => Some(Advance::Effect(self.close_received(frame))),
            };
            self.buffer.consume(consumed);
            if let Some(advance) = advance {
                return advance;
            }
        }
    }

    /// Reads once. Ready when there is something new to look at, which may be the end.
    ///
    /// Once receiving has ended, all that arrived counts as looked at.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Option<Effect>> {
        let Some(transport) = self.transport.as_mut().filter(|_| self.ended.is_none()) else {
            self.exhausted = true;
            return Poll::Ready(None);
        };
        let remaining = usize::try_from(self.half.remaining()).unwrap_or(usize::MAX);
        let direct = remaining >= DIRECT_SIZE
            && self.payload.len() >= DIRECT_SIZE
            && self.message.as_ref().is_some_and(|message| message.consumer == Consumer::Recv)
            && !self.discards
            && self.buffer.is_empty();
        let result = if direct {
            self.buffer.park();
            poll_fill_message(transport, &mut self.half, &mut self.payload, remaining, cx)
        } else {
            self.buffer.poll_fill(transport, cx).map_ok(Filled::Buffer)
        };
        let filled = match result {
            Poll::Ready(filled) => filled,
            Poll::Pending => {
                self.buffer.park();
                return Poll::Pending;
            }
        };
        Poll::Ready(match filled {
            Ok(Filled::Buffer(0)) => {
                let text = "the peer ended the connection without a Close frame";
                Some(self.end_of_stream(Error::new(ErrorKind::Disconnected, text)))
            }
            Ok(Filled::Buffer(_)) => {
                self.received = true;
                None
            }
            Ok(Filled::Message { behind, event }) => {
                self.received = true;
                self.buffer.load(&behind);
                match event {
                    Ok(Some(Event::Data(data))) => {
                        track(&mut self.message, &data);
                        None
                    }
                    Ok(_) => None,
                    Err(failure) => Some(self.fail(failure)),
                }
            }
            Err(error) => {
                let text = "the connection ended without a Close frame: reading from the peer failed";
                Some(self.end_of_stream(Error::with_source(ErrorKind::Io, text, error)))
            }
        })
    }

    /// Reads and throws away, until the stream ends.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(transport) = &mut self.transport else { return Poll::Ready(()) };
        let mut scratch = ReadBuffer::default();
        loop {
            match scratch.poll_fill(transport, cx) {
                Poll::Ready(Ok(count)) if count > 0 => scratch.consume(count),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    scratch.park();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Whether reading on would go past data that nobody has asked for.
    pub(crate) fn is_stopped_by_data(&self) -> bool {
        !self.discards
            && self.ended.is_none()
            && match &self.message {
                Some(message) => message.consumer != Consumer::Nobody,
                None => self.half.is_at_data(self.buffer.bytes()),
            }
    }

    /// Whether the next message is in memory already.
    pub(crate) fn has_more_frames(&self) -> bool {
        self.half.is_at_whole_frame(self.buffer.bytes())
    }

    /// Whether something has arrived that was not looked at.
    pub(crate) fn has_bytes(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Whether a message is being received.
    pub(crate) fn is_in_message(&self) -> bool {
        self.message.is_some()
    }

    /// Keeps no more memory than there are bytes.
    pub(crate) fn park(&mut self) {
        self.buffer.park();
    }

    /// Whether anything arrived since the last call.
    pub(crate) fn take_received(&mut self) -> bool {
        std::mem::take(&mut self.received)
    }

    // ---- the end

    /// We close: whole messages that are here stay, what comes later is thrown away.
    pub(crate) fn close(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.ended.is_some() || self.closed_by_us {
            return effects;
        }
        self.closed_by_us = true;
        // The reader's message keeps its place; those behind it queue up.
        let mut read = None;
        loop {
            match &self.message {
                Some(message) if message.whole && message.consumer == Consumer::Reader => {
                    let taken = std::mem::take(&mut self.taken);
                    read = Some((self.message.take(), std::mem::take(&mut self.payload), taken));
                }
                Some(message) if message.whole => {
                    let message = self.finish_message();
                    self.whole.extend(message);
                }
                _ => {}
            }
            match self.advance() {
                Advance::Data => {}
                Advance::Effect(effect) => {
                    // The peer's Close frame was here before ours.
                    self.closed_by_us &= !matches!(effect, Effect::Echo(_));
                    effects.push(effect);
                }
                Advance::NeedsBytes => break,
            }
        }
        if let Some((message, payload, taken)) = read {
            (self.message, self.payload, self.taken) = (message, payload, taken);
        } else if self.message.as_ref().is_some_and(|message| message.consumer != Consumer::Reader) {
            self.message = None;
            self.payload = Vec::new();
        }
        self.discards = true;
        self.half.discard_data();
        effects
    }

    /// The application does not take anything any more.
    pub(crate) fn discard(&mut self) {
        self.message = None;
        self.payload = Vec::new();
        self.taken = 0;
        self.whole = VecDeque::new();
        self.discards = true;
        self.half.discard_data();
    }

    /// The transport is given up.
    pub(crate) fn lose(&mut self, error: Error) -> Effect {
        if self.ended.is_none() {
            self.ended = Some(Err(error.clone()));
        }
        Effect::Lost(error)
    }

    /// Lets go of the transport.
    pub(crate) fn release(&mut self) {
        self.transport = None;
        self.buffer.park();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    pub(crate) fn has_peer_close(&self) -> bool {
        self.peer_close.is_some()
    }

    /// The peer's Close frame, or why there is none.
    pub(crate) fn peer_close(&self) -> Result<Option<CloseFrame>, Error> {
        match (&self.peer_close, &self.ended) {
            (Some(frame), _) => Ok(frame.clone()),
            (None, Some(Err(error))) => Err(error.clone()),
            (None, _) => Ok(None),
        }
    }

    fn end_of_stream(&mut self, error: Error) -> Effect {
        self.transport = None;
        self.lose(error)
    }

    fn close_received(&mut self, frame: Option<CloseFrame>) -> Effect {
        let normal = frame
            .as_ref()
            .is_none_or(|frame| matches!(frame.code(), CloseCode::NORMAL | CloseCode::GOING_AWAY));
        self.ended = Some(if normal {
            Ok(())
        } else {
            let text = frame.as_ref().map(ToString::to_string).unwrap_or_default();
            Err(Error::with_close_frame(format!("the peer closed the connection with {text}"), frame.clone()))
        });
        self.peer_close = Some(frame.clone());
        Effect::Echo(frame)
    }

    fn fail(&mut self, failure: Failure) -> Effect {
        let error = match failure {
            Failure::Violation(violation) => {
                Error::new(ErrorKind::Protocol, format!("the peer broke the protocol: {violation}"))
            }
            Failure::Limit(limit) => {
                let setting = match limit {
                    Limit::FramesPerMessage(_) => "Limits::frames_per_message",
                    _ => "Limits::message_size",
                };
                Error::new(ErrorKind::Limit, format!("{limit} (raise it with {setting})"))
            }
        };
        self.ended = Some(Err(error.clone()));
        self.buffer.consume(self.buffer.bytes().len());
        Effect::Fail(failure.into(), error)
    }
}

enum Filled {
    /// So many bytes came into the shared buffer.
    Buffer(usize),
    /// Bytes came into the message's own, some of them from behind it.
    Message { behind: Vec<u8>, event: Result<Option<Event>, Failure> },
}

/// Keeps track of the message that `data` is a part of; whether anyone wants it.
fn track(message: &mut Option<OpenMessage>, data: &Data) -> bool {
    let begin = || OpenMessage { kind: data.kind, whole: false, consumer: Consumer::Recv };
    let open = message.get_or_insert_with(begin);
    open.whole = data.last;
    let wanted = open.consumer != Consumer::Nobody;
    if data.last && !wanted {
        *message = None;
    }
    wanted
}

/// Appends what has arrived of a frame of which `remaining` bytes are missing.
///
/// What is announced takes no memory before it arrives: the payload's memory about doubles at most.
fn append(payload: &mut Vec<u8>, arrived: &[u8], remaining: u64, last: bool) {
    let total = payload.len() + arrived.len();
    let remaining = usize::try_from(remaining).unwrap_or(usize::MAX);
    if remaining > 0 {
        payload.reserve_exact(arrived.len() + remaining.min(total));
    } else if last {
        payload.reserve_exact(arrived.len());
    }
    payload.extend_from_slice(arrived);
}

/// Reads once into the payload of a message that lacks `remaining` bytes of the current frame.
fn poll_fill_message(
    transport: &mut ReadTransport,
    half: &mut ReceiveHalf,
    payload: &mut Vec<u8>,
    remaining: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Filled>> {
    let arrived = payload.len();
    let missing = remaining.saturating_add(DIRECT_SLACK);
    if payload.capacity() - arrived < missing.min(READ_SIZE / 2) {
        payload.reserve_exact(missing.min(arrived.max(READ_SIZE)));
    }
    let limit = missing.min(payload.capacity() - arrived);
    let count = ready!(poll_read_buf(Pin::new(transport), cx, &mut (&mut *payload).limit(limit)))?;
    if count == 0 {
        return Poll::Ready(Ok(Filled::Buffer(0)));
    }
    let (consumed, event) = match half.handle_bytes(&mut payload[arrived..]) {
        Ok((consumed, event)) => (consumed, Ok(event)),
        Err(failure) => (count, Err(failure)),
    };
    let behind = payload[arrived + consumed..].to_vec();
    payload.truncate(arrived + consumed);
    Poll::Ready(Ok(Filled::Message { behind, event }))
}
