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
//! - [`end`] tells how receiving ends, and when the application learns of it.

mod assembler;
pub(crate) mod batch;
mod decompressor;
pub(crate) mod effect;
mod end;
mod messages;
mod read_buffer;
mod undelivered;

use std::io;
use std::ops::Range;
use std::task::{Context, Poll};

use bowline_proto::{CloseFrame, Data, Event, ReceiveHalf};
use tokio::task::coop::has_budget_remaining;

use crate::connection::inbound::assembler::{Assembler, Filled};
use crate::connection::inbound::decompressor::Decompressor;
use crate::connection::inbound::effect::Effect;
use crate::connection::inbound::end::{End, Notice, StreamEnd};
use crate::connection::inbound::read_buffer::ReadBuffer;
use crate::connection::inbound::undelivered::Undelivered;
use crate::error::Error;
use crate::message::compression::DeflateWindow;
use crate::message::tally::Tally;
use crate::transport::ReadTransport;

const READING_FAILED: &str = "the connection ended without a Close frame: reading from the peer failed";

/// Everything that reading touches, behind one lock.
///
/// A thread that holds this lock may take that of the outbound half too, so that answers keep the order of
/// what was received.
pub(crate) struct Inbound {
    transport: Option<ReadTransport>,
    half: ReceiveHalf,
    /// The messages that have arrived and were not discarded.
    tally: Tally,
    /// The number of bytes that were read.
    read: u64,
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
/// All --our side closes--> Collecting --all in memory is parsed--> Arrived --more data--> Missed
///  |                                                                  |                     |
///  '------------------- the WebSocket is dropped ---------------------+---------------------+--> Nothing
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
    /// The messages that arrived before our Close frame was sent. Later data has been discarded.
    Missed,
    /// Nothing: the application has dropped its `WebSocket`.
    Nothing,
}

impl Delivery {
    /// Returns whether data that arrives is not for the application any more.
    fn discards(self) -> bool {
        matches!(self, Self::Arrived | Self::Missed | Self::Nothing)
    }
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
            tally: Tally::default(),
            read: leftover.len() as u64,
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
        } else if let Err(failure) =
            decompressor.advance(&mut self.buffer, &mut self.message, &mut self.tally)
        {
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
                if self.delivery == Delivery::Arrived && !payload.is_empty() {
                    self.delivery = Delivery::Missed;
                }
                if !self.delivery.discards() {
                    self.tally.add_part(payload.len(), data.last);
                    if self.message.track(&data) {
                        self.message.append(payload, self.half.remaining(), data.last);
                    }
                }
                Advance::Data
            }
            Event::Ping(payload) => Advance::Effect(Effect::Answer(self.buffer.bytes()[payload].into())),
            // RFC 6455 5.5.3: an unsolicited pong is not answered.
            Event::Pong(payload) => Advance::Effect(Effect::Ponged(self.buffer.bytes()[payload].into())),
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
    #[inline]
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Fill> {
        let (None, Some(transport)) = (&self.end, &mut self.transport) else { return self.poll_end() };
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
                self.read += count as u64;
                return Poll::Ready(Fill::Bytes(count));
            }
            read.map_ok(|_| None)
        };
        self.finish_fill(read)
    }

    /// Returns what a read returns after the end.
    #[cold]
    fn poll_end(&mut self) -> Poll<Fill> {
        let Some(end) = self.end.as_mut().filter(|end| end.notice != Notice::Unsettled) else {
            return Poll::Pending;
        };
        end.notice = Notice::Due;
        Poll::Ready(Fill::Bytes(0))
    }

    /// Notes the result of a read, unless bytes have arrived in the buffer.
    #[inline(never)]
    fn finish_fill(&mut self, read: Poll<io::Result<Option<Filled>>>) -> Poll<Fill> {
        self.awaits_transport = read.is_pending();
        // Nothing may arrive for long, or ever again.
        self.buffer.park();
        let Poll::Ready(read) = read else {
            self.message.park();
            return Poll::Pending;
        };
        let effect = match read {
            Ok(Some(Filled { count, following, failure })) => {
                self.received = true;
                self.read += count as u64;
                self.tally.add_part(count - following.len(), self.message.is_whole());
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

    /// Returns the messages that have arrived and were not discarded.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Returns the number of bytes that were read.
    pub(crate) fn read_count(&self) -> u64 {
        self.read
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

    /// Returns whether data was discarded, because it arrived after our Close frame was sent.
    pub(crate) fn has_missed_data(&self) -> bool {
        self.delivery == Delivery::Missed
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
    #[inline]
    pub(crate) fn park(&mut self) {
        self.buffer.park();
        self.message.park();
    }

    /// Returns whether anything has arrived since the last call.
    pub(crate) fn take_received(&mut self) -> bool {
        std::mem::take(&mut self.received)
    }
}
