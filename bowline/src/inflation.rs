//! The decompression of the messages that are received.

use bowline_proto::{Data, Failure, MessageKind};

use crate::assembly::Assembly;
use crate::codec::Inflater;
use crate::compression::Window;
use crate::message::Message;
use crate::read_buffer::ReadBuffer;

/// Compressed payload on its way from the read buffer into a message.
///
/// What has arrived of a frame stays at the front of the buffer, and is decompressed step by step: no further than the
/// application takes it.
pub(crate) struct Inflation {
    inflater: Inflater,
    /// How much of the front of the buffer is payload.
    pending: usize,
    /// It is the end of its message.
    last: bool,
    /// Not all of it was read, as too much came out.
    more: bool,
}

impl Inflation {
    pub(crate) fn new(window: Window, message_size: u64) -> Self {
        let inflater = Inflater::new(message_size, window.bits, window.is_taken_over);
        Self { inflater, pending: 0, last: false, more: false }
    }

    /// A part of a message has arrived, and is at the front of the buffer.
    pub(crate) fn begin(&mut self, data: &Data) {
        if data.first {
            self.inflater.begin(data.kind);
        }
        self.pending = data.payload.len();
        self.last = data.last;
    }

    /// Whether [`advance`](Self::advance) has something to do.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending > 0 || self.last
    }

    /// Whether more comes out of what was read from the transport.
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }

    /// Decompresses a part of what is pending.
    pub(crate) fn advance(&mut self, buffer: &mut ReadBuffer, message: &mut Assembly) -> Result<(), Failure> {
        let input = &buffer.bytes()[..self.pending];
        let inflated = message.inflate(&mut self.inflater, input, self.last)?;
        buffer.consume(inflated.consumed);
        self.pending -= inflated.consumed;
        self.last &= !inflated.done;
        self.more = self.pending > 0;
        Ok(())
    }

    /// Decompresses all of a message.
    pub(crate) fn message(&mut self, kind: MessageKind, payload: &[u8]) -> Result<Message, Failure> {
        self.inflater.begin(kind);
        let (mut input, mut message) = (payload, Vec::new());
        loop {
            let inflated = self.inflater.inflate(input, true, &mut message)?;
            if inflated.done {
                message.shrink_to_fit();
                return Ok(Message::from_validated(kind, message.into()));
            }
            input = &input[inflated.consumed..];
        }
    }

    /// Nobody wants what is pending.
    pub(crate) fn discard(&mut self, buffer: &mut ReadBuffer) {
        buffer.consume(std::mem::take(&mut self.pending));
        self.last = false;
        self.more = false;
    }
}
