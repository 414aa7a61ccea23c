//! The decompression of messages that are received.

use bowline_proto::{Data, Failure, MessageKind};
use bytes::{Buf, Bytes};

use crate::connection::inbound::assembler::Assembler;
use crate::connection::inbound::read_buffer::ReadBuffer;
use crate::message::compression::DeflateWindow;
use crate::message::compression::codec::Inflater;
use crate::message::tally::Tally;

/// Compressed payload on its way from the read buffer into a message.
///
/// The part of a frame that has arrived stays at the front of the buffer. It is decompressed step by step, no
/// further than the application takes it. Payload that had arrived before our side closed has left the
/// buffer, and is decompressed in the same way.
pub(crate) struct Decompressor {
    inflater: Inflater,
    /// Payload that is not in the buffer. While there is some, no payload is in the buffer.
    set_aside: Bytes,
    /// The number of bytes at the front of the buffer that are payload.
    pending: usize,
    /// Set if the payload is the end of its message.
    last: bool,
    /// Set if not all of the payload was decompressed in the last step, as too much came out.
    more: bool,
}

impl Decompressor {
    pub(crate) fn new(window: DeflateWindow, message_size: u64) -> Self {
        let inflater = Inflater::new(message_size, window.bits, window.is_taken_over);
        Self { inflater, set_aside: Bytes::new(), pending: 0, last: false, more: false }
    }

    /// Starts with a part of a message, which has arrived and is at the front of the buffer.
    pub(crate) fn begin(&mut self, data: &Data) {
        if data.first {
            self.inflater.begin(data.kind);
        }
        self.pending = data.payload.len();
        self.last = data.last;
    }

    /// Starts with a message that was set aside entirely.
    pub(crate) fn begin_set_aside(&mut self, kind: MessageKind, payload: Vec<u8>) {
        self.inflater.begin(kind);
        self.continue_with(payload, true);
    }

    /// Continues the message with payload that was set aside.
    pub(crate) fn continue_with(&mut self, payload: Vec<u8>, last: bool) {
        self.set_aside = payload.into();
        self.last = last;
    }

    /// Returns whether [`advance`](Self::advance) has something to do.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending > 0 || self.last || !self.set_aside.is_empty()
    }

    /// Returns whether more comes out of the bytes that were read from the transport.
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }

    /// Decompresses a part of the pending payload: at most 1 KiB, which becomes at most 64 KiB.
    pub(crate) fn advance(
        &mut self,
        buffer: &mut ReadBuffer,
        message: &mut Assembler,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let is_set_aside = !self.set_aside.is_empty();
        let input = if is_set_aside { &self.set_aside } else { &buffer.bytes()[..self.pending] };
        let inflated = message.inflate(&mut self.inflater, input, self.last, tally)?;
        if is_set_aside {
            self.set_aside.advance(inflated.consumed);
        } else {
            buffer.consume(inflated.consumed);
            self.pending -= inflated.consumed;
        }
        self.last &= !inflated.done;
        self.more = self.pending > 0 || !self.set_aside.is_empty();
        Ok(())
    }

    /// Takes the pending payload away from [`advance`](Self::advance). Returns its length at the front of the
    /// buffer, and whether the message ends with it.
    pub(crate) fn take_pending(&mut self) -> (usize, bool) {
        (std::mem::take(&mut self.pending), std::mem::take(&mut self.last))
    }

    /// Discards the pending payload.
    pub(crate) fn discard(&mut self, buffer: &mut ReadBuffer) {
        buffer.consume(std::mem::take(&mut self.pending));
        self.set_aside = Bytes::new();
        self.last = false;
        self.more = false;
    }
}
