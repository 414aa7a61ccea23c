//! The receiving half of a connection: bytes in, messages out.

mod assembler;
mod decompressor;
mod read_buffer;
mod undelivered;

use std::ops::Range;
use std::task::{Context, Poll};

use bowline_proto::{CloseCode, CloseFrame, Data, Event, Failure, MessageKind, ReceiveHalf};
use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::task::coop::has_budget_remaining;

use crate::compression::Window;
use crate::connection::batch::Batch;
use crate::connection::effect::Effect;
use crate::connection::inbound::assembler::{Assembly, Filled};
use crate::connection::inbound::decompressor::Inflation;
use crate::connection::inbound::read_buffer::ReadBuffer;
use crate::connection::inbound::undelivered::{Backlog, Waiting};
use crate::error::{Error, ErrorKind};
use crate::message::Message;
use crate::transport::ReadTransport;

const ENDED: &str = "the peer ended the connection without a Close frame";
const READING_FAILED: &str = "the connection ended without a Close frame: reading from the peer failed";

/// Everything that reading touches, behind one lock.
///
/// A thread that holds it may take that of the sending half too, so that answers keep the order of what was received.
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub(crate) struct Receive {
    transport: Option<ReadTransport>,
    half: ReceiveHalf,
    buffer: ReadBuffer,
    message: Assembly,
    /// Whole messages that had arrived when we closed. In a box, as most of the time there are none.
    backlog: Option<Box<Backlog>>,
    /// What comes is not for the application any more.
    discards: bool,
    /// We sent the first Close frame: whatever follows, the application has its end already.
    closed_by_us: bool,
    /// In a box, as most of the time there is none.
    peer_close: Option<Box<PeerClose>>,
    /// Nothing more arrives, and why; `Ok` after a normal Close frame.
    ended: Option<Result<(), Error>>,
    /// The sending half has done what the end asked of it, so that the application may hear of it.
    settled: bool,
    /// What had arrived before the end has been looked at.
    exhausted: bool,
    /// Something arrived since [`take_received`](Self::take_received).
    received: bool,
    /// The transport had nothing when it was asked last, and knows whom to call.
    awaits_transport: bool,
    /// The `WebSocket` has messages that were taken together, and has not handed out the last of them.
    has_batch: bool,
    handed_out: HandedOut,
    stream: StreamEnd,
    /// Messages may be compressed, in this window.
    window: Option<Window>,
    /// There is one once a message was compressed.
    inflation: Option<Box<Inflation>>,
}

/// The peer's Close frame, which may have no code.
struct PeerClose(Option<CloseFrame>);

/// Whether the application was handed anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HandedOut {
    Never,
    /// Not since [`take_handed_out`](Receive::take_handed_out).
    Before,
    /// Since then, too.
    Recently,
}

/// The end of the stream of bytes, which is not always that of the connection.
///
/// ```text
/// Open --end, and the application may be replying--> HalfOpen --it is told--> Told
///   '------------------- end, or an error --------------------------------------^
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamEnd {
    Open,
    /// The peer sends nothing more, but may still receive. The application has yet to hear of it.
    HalfOpen,
    Told,
}

/// What was found in the bytes that have arrived.
pub(crate) enum Advance {
    /// A part of a message, or its end; or something that nobody wants.
    Data,
    /// Something for the sending half to do.
    Effect(Effect),
    /// All bytes have been looked at.
    NeedsBytes,
}

/// What has come of reading.
pub(crate) enum Fill {
    /// So many bytes have arrived. None if that was the end, which may have been known before.
    Bytes(usize),
    /// The end, and what the sending half has to do about it.
    Effect(Effect),
}

impl Receive {
    pub(crate) fn new(transport: ReadTransport, half: ReceiveHalf, leftover: &[u8]) -> Self {
        let mut buffer = ReadBuffer::default();
        buffer.load(leftover);
        Self {
            transport: Some(transport),
            half,
            buffer,
            message: Assembly::default(),
            backlog: None,
            discards: false,
            closed_by_us: false,
            peer_close: None,
            ended: None,
            settled: false,
            exhausted: false,
            received: false,
            awaits_transport: false,
            has_batch: false,
            handed_out: HandedOut::Never,
            stream: StreamEnd::Open,
            window: None,
            inflation: None,
        }
    }

    /// From now on messages may be compressed.
    pub(crate) fn decompress(&mut self, window: Window) {
        self.window = Some(window);
        self.half.allow_compression();
    }

    // ---- what the application takes

    /// The next whole message, or the end.
    pub(crate) fn take_message(&mut self) -> Option<Result<Option<Message>, Error>> {
        if let Some(message) = self.take_whole_message() {
            return Some(Ok(Some(message)));
        }
        if self.message.is_open() || self.backlog.is_some() {
            self.message.abandon();
            let message = self.take_whole().or_else(|| self.message.finish());
            if message.is_some() {
                return Some(Ok(message));
            }
        }
        self.end().map(|end| end.map(|()| None))
    }

    /// Whether the next thing for the application may be at the front of the buffer.
    #[inline]
    fn is_next_in_buffer(&self) -> bool {
        !self.buffer.is_empty() && !self.message.is_open() && !self.discards && self.ended.is_none()
    }

    /// The next message, if all of it is in one frame and in memory, and it is the next thing for the application.
    #[inline]
    fn take_whole_message(&mut self) -> Option<Message> {
        if !self.is_next_in_buffer() {
            return None;
        }
        let message = self.half.take_whole_message(self.buffer.bytes())?;
        self.buffer.consume(message.frame_size);
        let payload = Bytes::from(message.payload.into_boxed_slice());
        Some(Message::from_validated(message.kind, payload))
    }

    /// Takes the small messages that come next all at once. The last batch was handed out.
    pub(crate) fn fill(&mut self, batch: &mut Batch) {
        if self.is_next_in_buffer() {
            let size = batch.fill(&self.half, self.buffer.bytes());
            self.buffer.consume(size);
        }
        self.has_batch = batch.has_messages();
    }

    /// Notes that the last message of the batch was handed out.
    pub(crate) fn end_batch(&mut self) {
        self.has_batch = false;
    }

    /// Begins to read a message of a batch, whose reader gets it from here.
    pub(crate) fn read_whole(&mut self, message: Message) {
        self.message = Assembly::of(message);
    }

    /// The kind of the message that has begun, which is the reader's from now on; or the end.
    pub(crate) fn take_start(&mut self) -> Option<Result<Option<MessageKind>, Error>> {
        self.message.abandon();
        if let Some(message) = self.take_whole() {
            let kind = message.kind();
            self.message = Assembly::of(message);
            return Some(Ok(Some(kind)));
        }
        if let Some(kind) = self.message.begin_reading() {
            return Some(Ok(Some(kind)));
        }
        self.end().map(|end| end.map(|()| None))
    }

    /// The next of the messages that had arrived when we closed. A compressed one begins with this, and is taken when
    /// [`inflate`](Self::inflate) has come to its end.
    fn take_whole(&mut self) -> Option<Message> {
        let backlog = self.backlog.as_mut()?;
        if self.inflation.as_ref().is_some_and(|inflation| inflation.is_pending()) {
            return None;
        }
        if let Some(message) = self.message.finish() {
            return Some(message);
        }
        match backlog.pop()? {
            Waiting::Message(message) => Some(message),
            Waiting::Compressed(kind, payload) => {
                self.message.begin_compressed(kind);
                self.inflation()?.begin_set_aside(kind, payload);
                // The end comes behind it.
                self.exhausted = false;
                None
            }
        }
    }

    /// Moves a part of the reader's message into `buf`; nothing at its end.
    pub(crate) fn take_bytes(&mut self, buf: &mut ReadBuf<'_>) -> Option<Result<(), Error>> {
        if self.message.take_bytes(buf).is_some() {
            return Some(Ok(()));
        }
        (self.exhausted || !self.message.is_open()).then(|| Err(self.interruption()))
    }

    /// The reader of the message has gone; the rest of it is passed over.
    pub(crate) fn abandon_message(&mut self) {
        self.message.abandon();
    }

    /// How receiving ended, once all that arrived before has been taken.
    fn end(&self) -> Option<Result<(), Error>> {
        let ended = self.ended.as_ref().filter(|_| self.exhausted)?;
        Some(if self.closed_by_us { Ok(()) } else { ended.clone() })
    }

    /// Why a message that has begun will not end.
    fn interruption(&self) -> Error {
        match &self.ended {
            Some(Err(error)) if !self.closed_by_us => error.clone(),
            _ => Error::new(ErrorKind::Closed, "the connection was closed in the middle of the message"),
        }
    }

    /// Takes note that the application was handed something.
    pub(crate) fn hand_out(&mut self) {
        self.handed_out = HandedOut::Recently;
    }

    /// Whether the application was handed anything since the last call.
    pub(crate) fn take_handed_out(&mut self) -> bool {
        let recently = self.handed_out == HandedOut::Recently;
        if recently {
            self.handed_out = HandedOut::Before;
        }
        recently
    }

    // ---- what has arrived

    /// Looks at the next frame, or part of one.
    #[inline]
    pub(crate) fn advance(&mut self) -> Advance {
        if self.is_inflating() {
            self.inflate()
        } else if self.buffer.is_empty() {
            Advance::NeedsBytes
        } else {
            self.advance_in_buffer()
        }
    }

    /// Whether compressed payload is at the front of the buffer.
    #[inline]
    fn is_inflating(&self) -> bool {
        self.inflation.as_ref().is_some_and(|inflation| inflation.is_pending())
    }

    /// Whether a part of a message came out, and more of it could at once.
    pub(crate) fn has_more_to_inflate(&self) -> bool {
        self.inflation.as_ref().is_some_and(|inflation| inflation.has_more())
    }

    /// What decompresses, if that was agreed on.
    fn inflation(&mut self) -> Option<&mut Inflation> {
        let (window, limit) = (self.window?, self.half.limits().message_size);
        Some(self.inflation.get_or_insert_with(|| Box::new(Inflation::new(window, limit))))
    }

    /// Puts a part of a compressed message behind what waits, if we are closing.
    fn set_aside(&mut self, data: &Data) -> bool {
        if !self.closed_by_us {
            return false;
        }
        let payload = &self.buffer.bytes()[data.payload.clone()];
        if !self.backlog.get_or_insert_default().push_compressed(data, payload) {
            self.set_rest_aside(data.payload.clone(), data.last);
        }
        true
    }

    /// The same for a part of the message that had begun before.
    fn set_rest_aside(&mut self, payload: Range<usize>, last: bool) {
        let backlog = self.backlog.get_or_insert_default();
        backlog.push_rest(&self.buffer.bytes()[payload]);
        if last {
            // Those behind it are put together meanwhile.
            backlog.push_begun(std::mem::take(&mut self.message));
        }
    }

    /// Decompresses a part of it.
    #[cold]
    fn inflate(&mut self) -> Advance {
        let Some(inflation) = &mut self.inflation else { return Advance::Data };
        // Of what was set aside when we closed, all is for the application.
        if self.discards && !self.message.is_open() {
            inflation.discard(&mut self.buffer);
        } else if let Err(failure) = inflation.advance(&mut self.buffer, &mut self.message) {
            inflation.discard(&mut self.buffer);
            if self.discards {
                // Our Close frame was sent: it is too late to say what is wrong.
                self.message = Assembly::default();
                self.backlog = None;
                return Advance::Data;
            }
            self.half.fail(failure);
            // Of a transport that was lost, what had arrived before still comes out.
            if self.ended.is_none() {
                return Advance::Effect(self.fail(failure));
            }
        }
        Advance::Data
    }

    /// Looks at one frame, or what there is of it: how many is up to the caller, as each is work.
    fn advance_in_buffer(&mut self) -> Advance {
        let (mut consumed, event) = match self.half.handle_bytes(self.buffer.bytes_mut()) {
            Ok(progress) => progress,
            Err(failure) if self.ended.is_none() => return Advance::Effect(self.fail(failure)),
            Err(_) => return Advance::NeedsBytes,
        };
        let Some(event) = event else {
            self.buffer.consume(consumed);
            return Advance::NeedsBytes;
        };
        let advance = match event {
            Event::Data(data) if data.compressed && !self.discards => {
                if self.set_aside(&data) {
                    self.buffer.consume(consumed);
                    return Advance::Data;
                }
                self.message.track(&data);
                if let Some(inflation) = self.inflation() {
                    inflation.begin(&data);
                }
                self.buffer.consume(data.payload.start);
                return Advance::Data;
            }
            Event::Data(data) => {
                let payload = &self.buffer.bytes()[data.payload.clone()];
                if !self.discards && self.message.track(&data) {
                    self.message.append(payload, self.half.remaining(), data.last);
                }
                Advance::Data
            }
            Event::Ping(payload) => Advance::Effect(Effect::Answer(self.buffer.bytes()[payload].into())),
            // RFC 6455 5.5.3: a pong that nobody asked for is not answered.
            Event::Pong(payload) => match self.buffer.bytes()[payload].try_into() {
                Ok(payload) => Advance::Effect(Effect::Ponged(payload)),
                Err(_) => Advance::Data,
            },
            Event::Close(frame) => {
                // RFC 6455 1.4: whatever follows is discarded, and so holds no memory.
                consumed = self.buffer.bytes().len();
                Advance::Effect(self.close_received(frame))
            }
        };
        self.buffer.consume(consumed);
        advance
    }

    /// Reads once. Ready when there is something new to look at, which may be the end.
    ///
    /// Once receiving has ended, all that arrived counts as looked at; whoever [settles](Self::settle) that wakes the
    /// reader.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Fill> {
        if self.ended.is_some() {
            self.exhausted = self.settled;
            return if self.settled { Poll::Ready(Fill::Bytes(0)) } else { Poll::Pending };
        }
        let Some(transport) = &mut self.transport else { return Poll::Pending };
        let direct =
            self.buffer.is_empty() && !self.discards && self.message.is_direct(self.half.remaining());
        let read = if direct {
            self.buffer.park();
            self.message.poll_fill(transport, &mut self.half, cx)
        } else {
            let read = self.buffer.poll_fill(transport, cx);
            if let Poll::Ready(Ok(count @ 1..)) = read {
                (self.received, self.awaits_transport) = (true, false);
                return Poll::Ready(Fill::Bytes(count));
            }
            read.map_ok(|_| None)
        };
        self.awaits_transport = read.is_pending();
        let Poll::Ready(read) = read else {
            self.park();
            return Poll::Pending;
        };
        let effect = match read {
            Ok(Some(Filled { count, behind, failure })) => {
                self.received = true;
                self.buffer.load(&behind);
                match failure {
                    None => return Poll::Ready(Fill::Bytes(count)),
                    Some(failure) => self.fail(failure),
                }
            }
            Ok(None) => self.end_of_stream(),
            Err(error) => {
                self.stream = StreamEnd::Told;
                self.lose(Error::of_transport(READING_FAILED, error))
            }
        };
        Poll::Ready(Fill::Effect(effect))
    }

    /// Whether there is nothing to read for now, so that the transport will call when there is.
    pub(crate) fn is_idle(&mut self, cx: &mut Context<'_>) -> bool {
        self.awaits_transport = self.ended.is_none()
            && self.transport.as_ref().is_some_and(|transport| transport.poll_readable(cx).is_pending())
            // A stream whose budget is spent says nothing, and remembers nobody.
            && has_budget_remaining();
        self.awaits_transport
    }

    /// Has the transport take what has arrived, without reading it.
    pub(crate) fn gather(&mut self, cx: &mut Context<'_>) {
        if let Some(transport) = &mut self.transport {
            transport.gather(cx);
            // There may be something to read now, of which it has told already.
            self.awaits_transport = false;
        }
    }

    /// Reads and throws away, until the stream ends.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.transport {
            Some(transport) if self.stream == StreamEnd::Open => ReadBuffer::poll_drain(transport, cx),
            _ => Poll::Ready(()),
        }
    }

    /// Whether reading on would go past data that nobody has asked for.
    pub(crate) fn is_stopped_by_data(&self) -> bool {
        !self.discards
            && self.ended.is_none()
            && (self.has_batch
                || self.message.is_wanted()
                || ((!self.message.is_open() || self.message.is_spent())
                    && self.half.is_at_data(self.buffer.bytes())))
    }

    /// Whether the transport will call when there is something to read.
    pub(crate) fn awaits_transport(&self) -> bool {
        self.awaits_transport && self.ended.is_none()
    }

    /// Whether nothing is in memory, be it bytes, a message, or the end.
    #[inline]
    pub(crate) fn is_bare(&self) -> bool {
        self.buffer.is_empty() && self.ended.is_none() && self.is_quiet()
    }

    /// Whether nothing was left for the application, if there is nothing to read either.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.message.is_open() && self.backlog.is_none() && !self.is_inflating()
    }

    /// Whether the next message is in memory already.
    #[inline]
    pub(crate) fn has_more_frames(&self) -> bool {
        !self.is_inflating() && self.half.is_at_whole_frame(self.buffer.bytes())
    }

    /// Whether something has arrived that was not looked at.
    pub(crate) fn has_bytes(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Whether a message is being received.
    pub(crate) fn is_in_message(&self) -> bool {
        self.message.is_open() && !self.message.is_spent()
    }

    /// Keeps no more memory than there are bytes.
    pub(crate) fn park(&mut self) {
        self.buffer.park();
        self.message.park();
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
        // To decompress is more work than may be done at once, and left to whoever takes the message.
        if let Some(inflation) = self.inflation.as_mut().filter(|inflation| inflation.is_pending()) {
            let (pending, last) = inflation.take_pending();
            self.set_rest_aside(0..pending, last);
            self.buffer.consume(pending);
        }
        // The message that has begun keeps its place; those behind it queue up.
        let mut read = None;
        loop {
            if self.message.has_reader() && self.message.is_whole() {
                read = Some(std::mem::take(&mut self.message));
            }
            if let Some(message) = self.message.finish() {
                self.backlog.get_or_insert_default().push(message);
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
        let (begun, rest) = self.backlog.as_mut().map(|backlog| backlog.end()).unwrap_or_default();
        let is_whole = begun.is_some();
        if !self.message.has_reader() {
            self.message = read.or(begun).unwrap_or_default();
        }
        if let Some(inflation) = self.inflation.as_mut().filter(|_| is_whole || self.message.has_reader()) {
            inflation.go_on_with(rest, is_whole);
        }
        self.discards = true;
        self.half.discard_data();
        effects
    }

    /// The application does not take anything any more.
    pub(crate) fn discard(&mut self) {
        self.message = Assembly::default();
        self.backlog = None;
        self.discards = true;
        self.half.discard_data();
    }

    /// The transport is given up.
    pub(crate) fn lose(&mut self, error: Error) -> Effect {
        self.ended.get_or_insert(Err(error.clone()));
        Effect::Lost(error)
    }

    /// The sending half has done what the end asked of it.
    pub(crate) fn settle(&mut self) {
        self.settled = self.ended.is_some();
    }

    /// Lets go of the transport, which the caller drops once no lock is held.
    #[must_use = "it is to be dropped once no lock is held"]
    pub(crate) fn release(&mut self) -> Option<ReadTransport> {
        self.buffer.park();
        self.transport.take()
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
            (Some(close), _) => Ok(close.0.clone()),
            (None, Some(Err(error))) => Err(error.clone()),
            (None, _) => Ok(None),
        }
    }

    /// The peer's direction has ended without a Close frame. If the application may be about to reply to what it was
    /// handed, that is not yet the end of ours.
    fn end_of_stream(&mut self) -> Effect {
        let error = Error::new(ErrorKind::Disconnected, ENDED);
        if self.closed_by_us || self.discards || self.handed_out == HandedOut::Never {
            self.stream = StreamEnd::Told;
            self.ended = Some(Err(error.clone()));
            return Effect::EndOfStream(error);
        }
        self.stream = StreamEnd::HalfOpen;
        self.ended = Some(Err(error.clone()));
        self.settle();
        Effect::HalfOpen(error)
    }

    /// That the peer has ended its direction of the stream, if the application does not know yet.
    pub(crate) fn half_open(&self) -> Option<Error> {
        let ended = self.ended.as_ref().filter(|_| self.stream == StreamEnd::HalfOpen)?;
        ended.as_ref().err().cloned()
    }

    /// Once the application has been told, the end of the peer's direction is that of ours.
    pub(crate) fn tell(&mut self) -> Option<Effect> {
        let ended = self.half_open().filter(|_| self.exhausted)?;
        self.stream = StreamEnd::Told;
        Some(Effect::EndOfStream(ended))
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
        self.peer_close = Some(Box::new(PeerClose(frame.clone())));
        Effect::Echo(frame)
    }

    fn fail(&mut self, failure: Failure) -> Effect {
        let error = Error::of(failure);
        self.ended = Some(Err(error.clone()));
        self.buffer.consume(self.buffer.bytes().len());
        Effect::Fail(failure.into(), error)
    }
}
