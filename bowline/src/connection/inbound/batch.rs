//! Messages that arrived together and were decoded together.

use std::ops::Range;

use bowline_proto::{MessageKind, ReceiveHalf};
use bytes::{Buf, Bytes};

use crate::message::Message;
use crate::message::tally::Tally;

/// The largest block, headers included. A message that the application keeps holds on to its block.
const BLOCK_SIZE: usize = 4096;

/// The first byte of a text message in one frame (RFC 6455 5.2).
const TEXT: u8 = 0x81;

/// The largest frame that begins a block. The larger a message, the less is saved by sharing an allocation.
const FRAME_SIZE: usize = 1024;

/// The messages that a `WebSocket` has taken from its connection together, and has not handed out yet.
///
/// Small messages that have arrived together are unmasked and validated under one lock, and their frames are
/// copied into one block of memory. The messages are then handed out without any lock, and share the block.
///
/// ```text
/// empty --recv: more frames are in memory--> at work --recv: the last frame was handed out--> empty
/// ```
///
/// While a `WebSocket` works through a batch, the replies that it sends itself are held back: see [`Hold`].
#[derive(Default)]
pub(crate) struct Batch {
    /// In a box, as most of the time there is none.
    block: Option<Box<Bytes>>,
    /// Set if more messages are in memory, either in the block or in the read buffer.
    pub(crate) has_more: bool,
    /// Set if the `WebSocket` has ended as a stream.
    #[cfg(feature = "futures")]
    pub(crate) stream_ended: bool,
}

/// Tells whether a message may wait for messages that are sent after it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The `WebSocket` sends it while working through a batch.
    InBatch,
    /// A `SendBatch` gathers it.
    InSendBatch,
    /// Anyone sends it outside of a batch: it is written at once.
    #[default]
    Never,
}

impl Hold {
    /// Returns `other` if this is [`Never`](Self::Never).
    #[cfg(feature = "futures")]
    pub(crate) fn or(self, other: Self) -> Self {
        if self == Self::Never { other } else { self }
    }
}

impl Batch {
    /// Returns the [`Hold`] of a message that the `WebSocket` sends now.
    #[inline]
    pub(crate) fn hold(&self) -> Hold {
        if self.has_more || self.has_messages() { Hold::InBatch } else { Hold::Never }
    }

    /// Returns whether messages are in the block.
    #[inline]
    pub(crate) fn has_messages(&self) -> bool {
        self.block.is_some()
    }

    /// Takes the next message out of the block.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Message> {
        let block = self.block.as_mut()?;
        let (kind, payload) = whole_message(block);
        let mut frame =
            if block.len() > payload.end { block.split_to(payload.end) } else { *self.block.take()? };
        frame.advance(payload.start);
        Some(Message::from_validated(kind, frame))
    }

    /// Returns whether a frame of `size` bytes is small enough for a block.
    ///
    /// To be asked before [`fill`](Self::fill), which would take memory for a block in vain.
    #[inline]
    pub(crate) fn may_contain(size: usize) -> bool {
        size <= FRAME_SIZE
    }

    /// Copies the small messages at the start of `bytes` into a new block, up to the first frame that is
    /// anything else. They are unmasked where they are.
    ///
    /// Returns the number of bytes that were copied. No message may be left in the batch.
    pub(crate) fn fill(&mut self, half: &ReceiveHalf, bytes: &mut [u8], tally: &mut Tally) -> usize {
        debug_assert!(self.block.is_none(), "a batch is filled only when it is empty");
        let room = bytes.len().min(BLOCK_SIZE);
        let (mut size, mut count, mut payloads) = (0, 0, 0);
        while let Some((_, payload)) = half.unmask_whole_message(&mut bytes[size..room]) {
            size += payload.end;
            count += 1;
            payloads += payload.len();
        }
        if size > 0 {
            tally.add_messages(count, payloads);
            // With spare capacity, `Bytes` counts references from the beginning, and each of them costs less.
            let mut block = Vec::with_capacity(size + 1);
            block.extend_from_slice(&bytes[..size]);
            self.block = Some(Box::new(block.into()));
        }
        size
    }
}

/// Returns the kind and the payload of the whole message at the front of a block.
#[inline]
fn whole_message(block: &[u8]) -> (MessageKind, Range<usize>) {
    let kind = if block[0] == TEXT { MessageKind::Text } else { MessageKind::Binary };
    // RFC 6455 5.2: the length follows in two bytes if it is 126, and the masking key if the high bit is set.
    let (len, end): (usize, _) = match block[1] & 0x7F {
        126 => (u16::from_be_bytes([block[2], block[3]]).into(), 4),
        len => (len.into(), 2),
    };
    let start = end + if block[1] & 0x80 == 0 { 0 } else { 4 };
    (kind, start..start + len)
}
