//! The inbound half of a connection: bytes in, messages out.
//!
//! The path of a byte:
//!
//! ```text
//! transport --> read_buffer --> ReceiveHalf (proto) --> assembler --------------> recv, reader
//!                    |            unmasks, validates        ^
//!                    |                                      |
//!                    |          compressed frames --> decompressor
//!                    |
//!                    '--- whole small messages ---> batch ----------------------> recv
//! ```
//!
//! - The most frequent case has a path of its own: a message that is one frame and entirely in memory is
//!   copied and unmasked in one pass. If more such messages follow, a [`batch`] takes those under the same
//!   lock that are small and fit into its block.
//! - All other frames go through [`ReceiveHalf::handle_bytes`], one at a time. A large message is read from
//!   the transport straight into its own memory.
//! - Control frames become an [`Effect`] for the outbound half.
//! - When our side closes, the whole messages that are in memory become [`undelivered`] ones, which the
//!   application may still take.
//!
//! # The end
//!
//! Three things are tracked separately, since they happen in any order: which data the application still
//! receives ([`Delivery`]), why nothing more arrives ([`End`]), and whether the stream of bytes itself has
//! ended ([`StreamEnd`]).
//!
//! Receiving ends once, by the peer's Close frame, a violation or limit, the end of the stream, or an error
//! of the transport. The application learns of the end after every message that arrived before, and only
//! after the outbound half has acted on it. A `send` that follows such a `recv` therefore reports the same
//! end.
//!
//! A peer may shut down its direction of the stream and still receive. If the application has been handed a
//! message, it may be about to reply. The connection then stays open for sending until the application has
//! learned of the end.

mod assembler;
pub(crate) mod batch;
mod decompressor;
pub(crate) mod effect;
mod read_buffer;
mod undelivered;

use std::ops::Range;
use std::task::{Context, Poll};

use bowline_proto::{CloseCode, CloseFrame, Data, Event, Failure, MessageKind, ReceiveHalf};
use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::task::coop::has_budget_remaining;

use crate::compression::DeflateWindow;
use crate::connection::inbound::assembler::{Assembler, Filled};
use crate::connection::inbound::batch::Batch;
use crate::connection::inbound::decompressor::Decompressor;
use crate::connection::inbound::effect::Effect;
use crate::connection::inbound::read_buffer::ReadBuffer;
use crate::connection::inbound::undelivered::{Undelivered, UndeliveredMessage};
use crate::error::{Error, ErrorKind};
use crate::message::Message;
use crate::transport::ReadTransport;

const ENDED: &str = "the peer ended the connection without a Close frame";
const READING_FAILED: &str = "the connection ended without a Close frame: reading from the peer failed";

/// Everything that reading touches, behind one lock.
///
/// A thread that holds this lock may take that of the outbound half too, so that answers keep the order of
/// what was received.
pub(crate) struct Inbound {
    transport: Option<ReadTransport>,
    half: ReceiveHalf,
    buffer: ReadBuffer,
    message: Assembler,
    /// Whole messages that had arrived before our side closed. In a box, as most of the time there are none.
    undelivered: Option<Box<Undelivered>>,
    delivery: Delivery,
    /// The peer's Close frame, once it has arrived. In a box, as most of the time there is none.
    peer_close: Option<Box<CloseFrame>>,
    /// Present once nothing more arrives.
    end: Option<End>,
    /// Set if something has arrived since [`take_received`](Self::take_received).
    received: bool,
    /// Set if the transport had nothing when it was last asked, and knows the connection's waker.
    awaits_transport: bool,
    /// Set if the `WebSocket` has a batch of messages, and has not handed out the last of them.
    has_batch: bool,
    handed_out: HandedOut,
    stream: StreamEnd,
    /// Present if messages may be compressed, with this window.
    window: Option<DeflateWindow>,
    /// Present once a compressed message has arrived.
    decompressor: Option<Box<Decompressor>>,
}

/// The data that the application still receives.
///
/// ```text
/// All --our side closes--> Collecting --everything in memory is parsed--> Arrived
///  |                                                                         |
///  '---------------------- the WebSocket is dropped -------------------------+--> Nothing
/// ```
///
/// `Collecting` is left before the lock is released.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// All data.
    All,
    /// Our Close frame is about to be sent: all bytes in memory are parsed, and the messages in them are set
    /// aside.
    Collecting,
    /// The messages that arrived before our Close frame was sent. Later data is discarded.
    Arrived,
    /// Nothing: the application has dropped its `WebSocket`.
    Nothing,
}

impl Delivery {
    /// Returns whether data that arrives is not for the application any more.
    fn discards(self) -> bool {
        matches!(self, Self::Arrived | Self::Nothing)
    }
}

/// The end of receiving, and its reason.
struct End {
    /// `Ok` after a normal Close frame.
    outcome: Result<(), Error>,
    /// Our side sent the first Close frame: whatever the outcome, the application receives a normal end.
    closed_by_us: bool,
    notice: Notice,
}

/// The stage at which the application may be told about the end.
///
/// ```text
/// Unsettled --outbound has reacted--> Settled --a read finds nothing left--> Due
///                                        ^                                    |
///                                        '-- an undelivered message begins ---'
///                                            to be decompressed
/// ```
///
/// The end of a stream that stays open in our direction is settled at once: the outbound half has only to
/// give up its pings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notice {
    /// The outbound half has not reacted to the end yet.
    Unsettled,
    /// The application may learn of the end, after everything that arrived before.
    Settled,
    /// Everything that arrived before has been parsed.
    Due,
}

/// Tells whether the application was handed anything.
///
/// ```text
/// Never --hand_out--> Recently --take_handed_out--> Before
///                         ^------- hand_out -----------'
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
enum HandedOut {
    /// Nothing since the connection was opened.
    Never,
    /// Something before the last [`take_handed_out`](Inbound::take_handed_out), nothing since then.
    Before,
    /// Something since then.
    Recently,
}

/// The end of the stream of bytes, which is not always that of the connection.
///
/// ```text
/// Open --end, and the application may be replying--> HalfOpen --it has learned of the end--> Told
///   '--------------------- any other end, or an error of the transport ----------------------^
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamEnd {
    /// Bytes may still arrive.
    Open,
    /// The peer sends nothing more, but may still receive. The application has not learned of that yet.
    HalfOpen,
    /// The end of the stream ends the connection.
    Told,
}

/// The result of parsing one step of the bytes that have arrived.
pub(crate) enum Advance {
    /// A part of a message, or its end, or something that nobody wants.
    Data,
    /// A request to the outbound half.
    Effect(Effect),
    /// All bytes have been parsed.
    NeedsBytes,
}

/// The result of one read.
pub(crate) enum Fill {
    /// The number of bytes that have arrived. 0 is the end, which may have been known before.
    Bytes(usize),
    /// The end, and its request to the outbound half.
    Effect(Effect),
}

impl Inbound {
    pub(crate) fn new(transport: ReadTransport, half: ReceiveHalf, leftover: &[u8]) -> Self {
        let mut buffer = ReadBuffer::default();
        buffer.load(leftover);
        Self {
            transport: Some(transport),
            half,
            buffer,
            message: Assembler::default(),
            undelivered: None,
            delivery: Delivery::All,
            peer_close: None,
            end: None,
            received: false,
            awaits_transport: false,
            has_batch: false,
            handed_out: HandedOut::Never,
            stream: StreamEnd::Open,
            window: None,
            decompressor: None,
        }
    }

    /// Accepts compressed messages from now on, with this window.
    pub(crate) fn enable_compression(&mut self, window: DeflateWindow) {
        self.window = Some(window);
        self.half.allow_compression();
    }

    // ---- taking

    /// Takes the next whole message, or returns the end. Returns `None` if neither is there yet.
    pub(crate) fn take_message(&mut self) -> Option<Result<Option<Message>, Error>> {
        if let Some(message) = self.take_whole_message() {
            return Some(Ok(Some(message)));
        }
        if self.message.is_open() || self.undelivered.is_some() {
            self.message.abandon();
            let message = self.take_undelivered().or_else(|| self.message.finish());
            if message.is_some() {
                return Some(Ok(message));
            }
        }
        self.end().map(|end| end.map(|()| None))
    }

    /// Returns whether the next thing for the application may be at the front of the buffer.
    #[inline]
    fn is_next_in_buffer(&self) -> bool {
        !self.buffer.is_empty() && !self.message.is_open() && !self.delivery.discards() && self.end.is_none()
    }

    /// Takes the next message if all of it is in one frame and in memory, and if it is the next thing for the
    /// application.
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

    /// Returns whether the next frame in memory is a whole message, though it may be invalid text.
    #[inline]
    pub(crate) fn has_message(&self) -> bool {
        self.is_next_in_buffer() && self.half.is_at_whole_message(self.buffer.bytes())
    }

    /// Takes the next small messages into `batch`, all at once. The last batch was handed out entirely.
    pub(crate) fn fill(&mut self, batch: &mut Batch) {
        let size = batch.fill(&self.half, self.buffer.bytes());
        self.buffer.consume(size);
        self.has_batch = batch.has_messages();
    }

    /// Notes that the last message of the batch was handed out.
    pub(crate) fn end_batch(&mut self) {
        self.has_batch = false;
    }

    /// Makes a message of a batch the open message, which belongs to its reader.
    pub(crate) fn read_whole(&mut self, message: Message) {
        self.message = Assembler::of(message);
    }

    /// Gives the open message to a reader and returns its kind, or returns the end.
    pub(crate) fn take_start(&mut self) -> Option<Result<Option<MessageKind>, Error>> {
        self.message.abandon();
        if let Some(message) = self.take_undelivered() {
            let kind = message.kind();
            self.message = Assembler::of(message);
            return Some(Ok(Some(kind)));
        }
        if let Some(kind) = self.message.begin_reading() {
            return Some(Ok(Some(kind)));
        }
        self.end().map(|end| end.map(|()| None))
    }

    /// Takes the next of the undelivered messages.
    ///
    /// A compressed message only starts to be decompressed, so this function returns `None`. The message is
    /// taken once [`decompress_part`](Self::decompress_part) has completed the message.
    fn take_undelivered(&mut self) -> Option<Message> {
        let undelivered = self.undelivered.as_mut()?;
        if self.decompressor.as_ref().is_some_and(|decompressor| decompressor.is_pending()) {
            return None;
        }
        if let Some(message) = self.message.finish() {
            return Some(message);
        }
        match undelivered.pop()? {
            UndeliveredMessage::Message(message) => Some(message),
            UndeliveredMessage::Compressed(kind, payload) => {
                self.message.begin_compressed(kind);
                self.decompressor()?.begin_set_aside(kind, payload);
                // The end is due again only after this message.
                if let Some(end) = self.end.as_mut().filter(|end| end.notice == Notice::Due) {
                    end.notice = Notice::Settled;
                }
                None
            }
        }
    }

    /// Moves a part of the reader's message into `buf`, or nothing at the end of the message.
    pub(crate) fn take_bytes(&mut self, buf: &mut ReadBuf<'_>) -> Option<Result<(), Error>> {
        if self.message.take_bytes(buf).is_some() {
            return Some(Ok(()));
        }
        (self.due_end().is_some() || !self.message.is_open()).then(|| Err(self.interruption()))
    }

    /// Notes that the reader of the message was dropped. The rest of the message is skipped.
    pub(crate) fn abandon_message(&mut self) {
        self.message.abandon();
    }

    /// Returns the outcome of receiving, once everything that arrived before has been taken.
    fn end(&self) -> Option<Result<(), Error>> {
        let end = self.due_end()?;
        Some(if end.closed_by_us { Ok(()) } else { end.outcome.clone() })
    }

    /// Returns the end, once everything that arrived before has been parsed.
    fn due_end(&self) -> Option<&End> {
        self.end.as_ref().filter(|end| end.notice == Notice::Due)
    }

    /// Returns the reason why an open message will not be completed.
    fn interruption(&self) -> Error {
        match &self.end {
            Some(End { outcome: Err(error), closed_by_us: false, .. }) => error.clone(),
            _ => Error::new(ErrorKind::Closed, "the connection was closed in the middle of the message"),
        }
    }

    /// Notes that the application was handed something.
    pub(crate) fn hand_out(&mut self) {
        self.handed_out = HandedOut::Recently;
    }

    /// Returns whether the application was handed anything since the last call.
    pub(crate) fn take_handed_out(&mut self) -> bool {
        let recently = self.handed_out == HandedOut::Recently;
        if recently {
            self.handed_out = HandedOut::Before;
        }
        recently
    }

    // ---- parsing and reading

    /// Parses the next frame, or a part of one.
    #[inline]
    pub(crate) fn advance(&mut self) -> Advance {
        if self.is_decompressing() {
            self.decompress_part()
        } else if self.buffer.is_empty() {
            Advance::NeedsBytes
        } else {
            self.advance_in_buffer()
        }
    }

    /// Returns whether compressed payload waits to be decompressed.
    #[inline]
    fn is_decompressing(&self) -> bool {
        self.decompressor.as_ref().is_some_and(|decompressor| decompressor.is_pending())
    }

    /// Returns whether more of the message could be decompressed at once.
    pub(crate) fn has_more_to_decompress(&self) -> bool {
        self.decompressor.as_ref().is_some_and(|decompressor| decompressor.has_more())
    }

    /// Returns the decompressor, if compression was negotiated.
    fn decompressor(&mut self) -> Option<&mut Decompressor> {
        let (window, limit) = (self.window?, self.half.limits().message_size);
        Some(self.decompressor.get_or_insert_with(|| Box::new(Decompressor::new(window, limit))))
    }

    /// Adds a part of a compressed message to the undelivered ones, if our side is closing. Returns whether
    /// it did.
    fn set_aside(&mut self, data: &Data) -> bool {
        if self.delivery != Delivery::Collecting {
            return false;
        }
        let payload = &self.buffer.bytes()[data.payload.clone()];
        if !self.undelivered.get_or_insert_default().push_compressed(data, payload) {
            self.set_rest_aside(data.payload.clone(), data.last);
        }
        true
    }

    /// Adds a part of the compressed message that had begun before our side closed.
    fn set_rest_aside(&mut self, payload: Range<usize>, last: bool) {
        let undelivered = self.undelivered.get_or_insert_default();
        undelivered.push_rest(&self.buffer.bytes()[payload]);
        if last {
            // The following messages are assembled in the place of this one meanwhile.
            undelivered.push_begun(std::mem::take(&mut self.message));
        }
    }

    /// Decompresses a part of the compressed payload.
    #[cold]
    fn decompress_part(&mut self) -> Advance {
        let Some(decompressor) = &mut self.decompressor else { return Advance::Data };
        // An open message was set aside when our side closed, and is for the application. Any other payload
        // is discarded.
        if self.delivery.discards() && !self.message.is_open() {
            decompressor.discard(&mut self.buffer);
        } else if let Err(failure) = decompressor.advance(&mut self.buffer, &mut self.message) {
            decompressor.discard(&mut self.buffer);
            if self.delivery.discards() {
                // Our Close frame was sent, so the peer can't be told any more what is wrong.
                self.message = Assembler::default();
                self.undelivered = None;
                return Advance::Data;
            }
            self.half.fail(failure);
            // Messages that arrived before the loss of the transport are still delivered.
            if self.end.is_none() {
                return Advance::Effect(self.fail(failure));
            }
        }
        Advance::Data
    }

    /// Parses one frame, or the part of it that is in memory. The caller decides how many, as each is work.
    fn advance_in_buffer(&mut self) -> Advance {
        let (mut consumed, event) = match self.half.handle_bytes(self.buffer.bytes_mut()) {
            Ok(progress) => progress,
            Err(failure) if self.end.is_none() => return Advance::Effect(self.fail(failure)),
            Err(_) => return Advance::NeedsBytes,
        };
        let Some(event) = event else {
            self.buffer.consume(consumed);
            return Advance::NeedsBytes;
        };
        let advance = match event {
            Event::Data(data) if data.compressed && !self.delivery.discards() => {
                if self.set_aside(&data) {
                    self.buffer.consume(consumed);
                    return Advance::Data;
                }
                self.message.track(&data);
                if let Some(decompressor) = self.decompressor() {
                    decompressor.begin(&data);
                }
                self.buffer.consume(data.payload.start);
                return Advance::Data;
            }
            Event::Data(data) => {
                let payload = &self.buffer.bytes()[data.payload.clone()];
                if !self.delivery.discards() && self.message.track(&data) {
                    self.message.append(payload, self.half.remaining(), data.last);
                }
                Advance::Data
            }
            Event::Ping(payload) => Advance::Effect(Effect::Answer(self.buffer.bytes()[payload].into())),
            // RFC 6455 5.5.3: an unsolicited pong is not answered.
            Event::Pong(payload) => match self.buffer.bytes()[payload].try_into() {
                Ok(payload) => Advance::Effect(Effect::Ponged(payload)),
                Err(_) => Advance::Data,
            },
            Event::Close(frame) => {
                // RFC 6455 1.4: all data after a Close frame is discarded, and so holds no memory.
                consumed = self.buffer.bytes().len();
                Advance::Effect(self.close_received(frame))
            }
        };
        self.buffer.consume(consumed);
        advance
    }

    /// Reads once. Ready when there is something new to parse, or at the end.
    ///
    /// After the end, all bytes that arrived count as parsed. The end is pending until it is
    /// [settled](Self::settle). The caller that settles the end wakes the reader.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Fill> {
        if let Some(end) = &mut self.end {
            if end.notice == Notice::Unsettled {
                return Poll::Pending;
            }
            end.notice = Notice::Due;
            return Poll::Ready(Fill::Bytes(0));
        }
        let Some(transport) = &mut self.transport else { return Poll::Pending };
        let direct = self.buffer.is_empty()
            && !self.delivery.discards()
            && self.message.is_direct(self.half.remaining());
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
            Ok(Some(Filled { count, following, failure })) => {
                self.received = true;
                self.buffer.load(&following);
                match failure {
                    None => return Poll::Ready(Fill::Bytes(count)),
                    Some(failure) => self.fail(failure),
                }
            }
            Ok(None) => self.end_of_stream(),
            Err(error) => {
                self.stream = StreamEnd::Told;
                self.mark_lost(Error::of_transport(READING_FAILED, error))
            }
        };
        Poll::Ready(Fill::Effect(effect))
    }

    /// Asks the transport. Returns whether there is nothing to read for now, and the transport will wake the
    /// connection when there is.
    pub(crate) fn check_idle(&mut self, cx: &mut Context<'_>) -> bool {
        self.awaits_transport = self.end.is_none()
            && self.transport.as_ref().is_some_and(|transport| transport.poll_readable(cx).is_pending())
            // A stream whose budget is spent says that it has nothing, and remembers no waker.
            && has_budget_remaining();
        self.awaits_transport
    }

    /// Makes the transport take the bytes that have arrived, without reading them.
    pub(crate) fn gather(&mut self, cx: &mut Context<'_>) {
        if let Some(transport) = &mut self.transport {
            transport.gather(cx);
            // There may be something to read now, for which the transport has woken the connection before.
            self.awaits_transport = false;
        }
    }

    /// Reads and discards, until the stream ends.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.transport {
            Some(transport) if self.stream == StreamEnd::Open => ReadBuffer::poll_drain(transport, cx),
            _ => Poll::Ready(()),
        }
    }

    /// Returns whether further reading would go past data that nobody has asked for.
    pub(crate) fn is_stopped_by_data(&self) -> bool {
        !self.delivery.discards()
            && self.end.is_none()
            && (self.has_batch
                || self.message.is_wanted()
                || ((!self.message.is_open() || self.message.is_spent())
                    && self.half.is_at_data(self.buffer.bytes())))
    }

    /// Returns whether the transport will wake the connection when there is something to read.
    pub(crate) fn awaits_transport(&self) -> bool {
        self.awaits_transport && self.end.is_none()
    }

    /// Returns whether nothing is in memory, be it bytes, a message, or the end.
    #[inline]
    pub(crate) fn is_bare(&self) -> bool {
        self.buffer.is_empty() && self.end.is_none() && self.is_quiet()
    }

    /// Returns whether nothing is left for the application, provided that the buffer is empty and the
    /// transport has nothing.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.message.is_open() && self.undelivered.is_none() && !self.is_decompressing()
    }

    /// Returns whether the next whole frame is in memory.
    #[inline]
    pub(crate) fn has_more_frames(&self) -> bool {
        self.next_frame_size().is_some()
    }

    /// Returns the size of the next frame if all of it is in memory.
    #[inline]
    pub(crate) fn next_frame_size(&self) -> Option<usize> {
        if self.is_decompressing() { None } else { self.half.whole_frame_size(self.buffer.bytes()) }
    }

    /// Returns whether bytes have arrived that are not parsed.
    pub(crate) fn has_bytes(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Returns whether a message is being received.
    pub(crate) fn is_in_message(&self) -> bool {
        self.message.is_open() && !self.message.is_spent()
    }

    /// Releases all memory that holds no bytes.
    pub(crate) fn park(&mut self) {
        self.buffer.park();
        self.message.park();
    }

    /// Returns whether anything has arrived since the last call.
    pub(crate) fn take_received(&mut self) -> bool {
        std::mem::take(&mut self.received)
    }

    // ---- the end

    /// Parses everything in memory, as our side closes. Whole messages become undelivered ones; later data is
    /// discarded.
    ///
    /// Returns the requests to the outbound half that were found on the way.
    pub(crate) fn close(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.end.is_some() || self.delivery == Delivery::Arrived {
            return effects;
        }
        if self.delivery == Delivery::Nothing {
            while let Some(effect) = self.next_effect() {
                effects.push(effect);
            }
            return effects;
        }
        self.delivery = Delivery::Collecting;
        // Decompressing is more work than may be done at once, and is left to the caller that takes the
        // message.
        if let Some(decompressor) =
            self.decompressor.as_mut().filter(|decompressor| decompressor.is_pending())
        {
            let (pending, last) = decompressor.take_pending();
            self.set_rest_aside(0..pending, last);
            self.buffer.consume(pending);
        }
        // The open message keeps its reader; the messages after it queue up.
        let mut read = None;
        loop {
            if self.message.has_reader() && self.message.is_whole() {
                read = Some(std::mem::take(&mut self.message));
            }
            if let Some(message) = self.message.finish() {
                self.undelivered.get_or_insert_default().push(message);
            }
            match self.advance() {
                Advance::Data => {}
                Advance::Effect(effect) => effects.push(effect),
                Advance::NeedsBytes => break,
            }
        }
        let (begun, rest) =
            self.undelivered.as_mut().map(|undelivered| undelivered.end()).unwrap_or_default();
        let is_whole = begun.is_some();
        if !self.message.has_reader() {
            self.message = read.or(begun).unwrap_or_default();
        }
        if let Some(decompressor) =
            self.decompressor.as_mut().filter(|_| is_whole || self.message.has_reader())
        {
            decompressor.continue_with(rest, is_whole);
        }
        self.delivery = Delivery::Arrived;
        self.half.discard_data();
        effects
    }

    /// Parses up to the next request to the outbound half.
    fn next_effect(&mut self) -> Option<Effect> {
        loop {
            match self.advance() {
                Advance::Data => {}
                Advance::Effect(effect) => return Some(effect),
                Advance::NeedsBytes => return None,
            }
        }
    }

    /// Discards everything that was and will be received, as the application takes nothing any more.
    pub(crate) fn discard(&mut self) {
        self.message = Assembler::default();
        self.undelivered = None;
        self.delivery = Delivery::Nothing;
        self.half.discard_data();
    }

    /// Ends receiving, as the transport is lost or given up.
    pub(crate) fn mark_lost(&mut self, error: Error) -> Effect {
        if self.end.is_none() {
            self.set_end(Err(error.clone()));
        }
        Effect::Lost(error)
    }

    /// Sets the end of receiving, and its reason.
    fn set_end(&mut self, outcome: Result<(), Error>) {
        let closed_by_us = matches!(self.delivery, Delivery::Collecting | Delivery::Arrived);
        self.end = Some(End { outcome, closed_by_us, notice: Notice::Unsettled });
    }

    /// Notes that the outbound half has reacted to the end.
    pub(crate) fn settle(&mut self) {
        if let Some(end) = self.end.as_mut().filter(|end| end.notice == Notice::Unsettled) {
            end.notice = Notice::Settled;
        }
    }

    /// Returns the transport, which the caller drops once no lock is held.
    #[must_use = "the transport has to be dropped once no lock is held"]
    pub(crate) fn release(&mut self) -> Option<ReadTransport> {
        self.buffer.park();
        self.transport.take()
    }

    /// Returns whether nothing more arrives.
    pub(crate) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Returns whether the peer's Close frame has arrived.
    pub(crate) fn has_peer_close(&self) -> bool {
        self.peer_close.is_some()
    }

    /// Returns the peer's Close frame, if that frame has arrived.
    pub(crate) fn peer_close(&self) -> Option<CloseFrame> {
        self.peer_close.as_deref().cloned()
    }

    /// Returns the result of the closing handshake, once the connection has ended: the peer's Close frame, or
    /// the reason why there is none.
    pub(crate) fn closing_result(&self) -> Result<CloseFrame, Error> {
        match (&self.peer_close, &self.end) {
            (Some(frame), _) => Ok(CloseFrame::clone(frame)),
            (None, Some(End { outcome: Err(error), .. })) => Err(error.clone()),
            (None, _) => Err(Error::new(ErrorKind::Disconnected, ENDED)),
        }
    }

    /// Ends receiving, as the peer has ended its direction without a Close frame.
    ///
    /// The application may be about to reply to something that it was handed. In that case our direction
    /// stays open.
    fn end_of_stream(&mut self) -> Effect {
        let error = Error::new(ErrorKind::Disconnected, ENDED);
        let may_reply = !self.delivery.discards() && self.handed_out != HandedOut::Never;
        self.set_end(Err(error.clone()));
        if !may_reply {
            self.stream = StreamEnd::Told;
            return Effect::EndOfStream(error);
        }
        self.stream = StreamEnd::HalfOpen;
        self.settle();
        Effect::HalfOpen(error)
    }

    /// Returns the error of a stream whose peer has ended its direction, if the application has not learned
    /// of it yet.
    pub(crate) fn half_open(&self) -> Option<Error> {
        let end = self.end.as_ref().filter(|_| self.stream == StreamEnd::HalfOpen)?;
        end.outcome.as_ref().err().cloned()
    }

    /// Ends a half-open stream, once the application has learned that the peer has ended its direction.
    /// Returns the request to end ours.
    pub(crate) fn end_half_open(&mut self) -> Option<Effect> {
        let ended = self.half_open().filter(|_| self.due_end().is_some())?;
        self.stream = StreamEnd::Told;
        Some(Effect::EndOfStream(ended))
    }

    /// Ends receiving, as the peer's Close frame has arrived.
    fn close_received(&mut self, frame: CloseFrame) -> Effect {
        let outcome = match frame.code() {
            CloseCode::NORMAL | CloseCode::GOING_AWAY | CloseCode::NO_STATUS => Ok(()),
            _ => {
                let text = format!("the peer closed the connection with {frame}");
                Err(Error::with_close_frame(text, frame.clone()))
            }
        };
        // While messages are collected, the peer's Close frame arrived before ours was sent.
        let closed_by_us = self.delivery == Delivery::Arrived;
        self.end = Some(End { outcome, closed_by_us, notice: Notice::Unsettled });
        self.peer_close = Some(Box::new(frame.clone()));
        Effect::Echo(frame)
    }

    /// Ends receiving after a violation of the peer, or after a limit was exceeded.
    fn fail(&mut self, failure: Failure) -> Effect {
        let error = Error::of(failure);
        self.set_end(Err(error.clone()));
        self.buffer.consume(self.buffer.bytes().len());
        Effect::Fail(failure.into(), error)
    }
}
