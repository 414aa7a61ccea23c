//! Messages that arrived together and were decoded together.

use bowline_proto::{MessageKind, ReceiveHalf};
use bytes::{Buf, Bytes};

use crate::message::Message;
use crate::message::tally::Tally;

/// The largest block, headers included. A message that the application keeps holds on to its block.
const BLOCK_SIZE: usize = 4096;

/// The largest frame that is copied into a block. The larger a message, the less is saved by sharing an
/// allocation.
const FRAME_SIZE: usize = 1024;

/// The spare capacity that a block may have beyond twice its length.
const SPARE_SIZE: usize = 256;

/// The size of the header in front of each payload.
const HEADER_SIZE: usize = 2;

/// The bit of a header that is set for a text message. The other bits are the length of the payload.
const TEXT: u16 = 0x8000;

/// The messages that a `WebSocket` has taken from its connection together, and has not handed out yet.
///
/// Small messages that have arrived together are unmasked and validated under one lock, into one block of
/// memory. Each is a header of two bytes and the payload. The messages are then handed out without any lock,
/// and share the block.
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
        let header = block.get_u16();
        let kind = if header & TEXT == 0 { MessageKind::Binary } else { MessageKind::Text };
        let len = usize::from(header & !TEXT);
        let payload = if block.len() > len { block.split_to(len) } else { *self.block.take()? };
        Some(Message::from_validated(kind, payload))
    }

    /// Returns whether a frame of `size` bytes is small enough for a block.
    ///
    /// To be asked before [`fill`](Self::fill), which would take memory for a block in vain.
    #[inline]
    pub(crate) fn may_contain(size: usize) -> bool {
        size <= FRAME_SIZE
    }

    /// Copies the small messages at the start of `bytes` into a new block, up to the first frame that is
    /// anything else.
    ///
    /// Returns the number of bytes that were copied. No message may be left in the batch.
    pub(crate) fn fill(&mut self, half: &ReceiveHalf, mut bytes: &[u8], tally: &mut Tally) -> usize {
        debug_assert!(self.block.is_none(), "a batch is filled only when it is empty");
        let (size, mut count) = (bytes.len(), 0);
        // The header of a frame is no shorter than the header in the block.
        let mut block = Vec::with_capacity(size.min(BLOCK_SIZE));
        loop {
            let start = block.len();
            let room = bytes.len().min(BLOCK_SIZE - start).min(FRAME_SIZE);
            if room <= HEADER_SIZE {
                break;
            }
            block.extend_from_slice(&[0; HEADER_SIZE]);
            let Some((kind, size)) = half.append_whole_message(&bytes[..room], &mut block) else {
                block.truncate(start);
                break;
            };
            let (header, payload) = block[start..].split_at_mut(HEADER_SIZE);
            let len = u16::try_from(payload.len()).expect("a block is smaller than 4 KiB");
            let kind = if kind == MessageKind::Text { TEXT } else { 0 };
            header.copy_from_slice(&(kind | len).to_be_bytes());
            bytes = &bytes[size..];
            count += 1;
        }
        if !block.is_empty() {
            tally.add_messages(count, block.len() - count * HEADER_SIZE);
            // Memory is left over for the headers of frames, and for frames that are not in the block. A
            // little of it is not worth a copy.
            if block.capacity() > 2 * block.len() + SPARE_SIZE {
                block.shrink_to_fit();
            }
            self.block = Some(Box::new(Bytes::from(block)));
        }
        size - bytes.len()
    }
}
