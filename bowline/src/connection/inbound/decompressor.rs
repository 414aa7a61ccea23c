//! The decompression of the messages that are received.

use bowline_proto::{Data, Failure, MessageKind};
use bytes::{Buf, Bytes};

use crate::compression::DeflateWindow;
use crate::compression::codec::Inflater;
use crate::connection::inbound::assembler::Assembler;
use crate::connection::inbound::read_buffer::ReadBuffer;

/// Compressed payload on its way from the read buffer into a message.
///
/// What has arrived of a frame stays at the front of the buffer, and is decompressed step by step: no further than the
/// application takes it. What had arrived when we closed has left the buffer, and is decompressed in the same way.
pub(crate) struct Decompressor {
    inflater: Inflater,
    /// Payload that is not in the buffer; while there is some, none is there.
    set_aside: Bytes,
    /// How much of the front of the buffer is payload.
    pending: usize,
    /// It is the end of its message.
    last: bool,
    /// Not all of it was read, as too much came out.
    more: bool,
}

impl Decompressor {
    pub(crate) fn new(window: DeflateWindow, message_size: u64) -> Self {
        let inflater = Inflater::new(message_size, window.bits, window.is_taken_over);
        Self { inflater, set_aside: Bytes::new(), pending: 0, last: false, more: false }
    }

    /// A part of a message has arrived, and is at the front of the buffer.
    pub(crate) fn begin(&mut self, data: &Data) {
        if data.first {
            self.inflater.begin(data.kind);
        }
        self.pending = data.payload.len();
        self.last = data.last;
    }

    /// A message is to be decompressed all of which was set aside.
    pub(crate) fn begin_set_aside(&mut self, kind: MessageKind, payload: Vec<u8>) {
        self.inflater.begin(kind);
        self.go_on_with(payload, true);
    }

    /// The message goes on with payload that was set aside.
    pub(crate) fn go_on_with(&mut self, payload: Vec<u8>, last: bool) {
        self.set_aside = payload.into();
        self.last = last;
    }

    /// Whether [`advance`](Self::advance) has something to do.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending > 0 || self.last || !self.set_aside.is_empty()
    }

    /// Whether more comes out of what was read from the transport.
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }

    /// Decompresses a part of what is pending: 1 KiB at most, from which 64 KiB come at most.
    pub(crate) fn advance(
        &mut self,
        buffer: &mut ReadBuffer,
        message: &mut Assembler,
    ) -> Result<(), Failure> {
        let is_set_aside = !self.set_aside.is_empty();
        let input = if is_set_aside { &self.set_aside } else { &buffer.bytes()[..self.pending] };
        let inflated = message.inflate(&mut self.inflater, input, self.last)?;
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

    /// Takes what is pending out of the hands of [`advance`](Self::advance): how much of the front of the buffer it is, and whether
    /// the message ends with it.
    pub(crate) fn take_pending(&mut self) -> (usize, bool) {
        (std::mem::take(&mut self.pending), std::mem::take(&mut self.last))
    }

    /// Nobody wants what is pending.
    pub(crate) fn discard(&mut self, buffer: &mut ReadBuffer) {
        buffer.consume(std::mem::take(&mut self.pending));
        self.set_aside = Bytes::new();
        self.last = false;
        self.more = false;
    }
}
