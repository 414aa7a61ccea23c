//! Messages that arrived together and were decoded together.

use bowline_proto::{MessageKind, ReceiveHalf};
use bytes::{Buf, Bytes};

use crate::message::Message;

/// The largest block, headers included. A message that the application keeps holds on to its block.
const BLOCK_SIZE: usize = 4096;

/// The largest frame that is copied into a block. The larger a message, the less it saves to share an allocation.
const FRAME_SIZE: usize = 1024;

/// The size of what is in front of each payload.
const HEADER_SIZE: usize = 2;

/// The bit of a header that is set for a text message. The other bits are the length of the payload.
const TEXT: u16 = 0x8000;

/// The messages that a `WebSocket` has taken from its connection together and not handed out yet.
///
/// Small messages that have arrived together are unmasked and validated under one lock, into one block of memory: each is a
/// header of two bytes and the payload. Messages are then handed out without any lock, and share the block.
///
/// ```text
/// empty --recv: more frames in the read buffer--> at work --recv: the last frame was handed out--> empty
/// ```
///
/// While a `WebSocket` works off a batch, the replies that it sends itself are held back: see [`Hold`].
#[derive(Default)]
pub(crate) struct Batch {
    /// In a box, as most of the time there is none.
    block: Option<Box<Bytes>>,
    /// More messages are in memory: in the block, or in the read buffer.
    pub(crate) has_more: bool,
    /// As a stream, the `WebSocket` has ended.
    #[cfg(feature = "futures")]
    pub(crate) stream_ended: bool,
}

/// Whether a message may wait for those that are sent after it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The `WebSocket` sends it while working off a batch.
    InBatch,
    #[default]
    Never,
}

impl Hold {
    #[cfg(feature = "futures")]
    pub(crate) fn or(self, other: Self) -> Self {
        if self == Self::Never { other } else { self }
    }
}

impl Batch {
    /// Returns whether what the `WebSocket` sends now may be held back.
    #[inline]
    pub(crate) fn hold(&self) -> Hold {
        if self.has_more || self.has_messages() { Hold::InBatch } else { Hold::Never }
    }

    #[inline]
    pub(crate) fn has_messages(&self) -> bool {
        self.block.is_some()
    }

    /// Takes the next message.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Message> {
        let block = self.block.as_mut()?;
        let header = block.get_u16();
        let kind = if header & TEXT == 0 { MessageKind::Binary } else { MessageKind::Text };
        let len = usize::from(header & !TEXT);
        let payload = if block.len() > len { block.split_to(len) } else { *self.block.take()? };
        Some(Message::from_validated(kind, payload))
    }

    /// Copies the small messages with which `bytes` begins into a new block, up to the first frame that is anything else.
    ///
    /// Returns the size of what was copied. There must be no message left in the batch.
    pub(crate) fn fill(&mut self, half: &ReceiveHalf, mut bytes: &[u8]) -> usize {
        debug_assert!(self.block.is_none(), "a batch is filled when it is empty");
        let size = bytes.len();
        // The header of a frame is no shorter than ours.
        let mut block = Vec::with_capacity(size.min(BLOCK_SIZE));
        loop {
            let start = block.len();
            let room = bytes.len().min(BLOCK_SIZE - start).min(FRAME_SIZE);
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
        }
        if !block.is_empty() {
            self.block = Some(Box::new(Bytes::from(block.into_boxed_slice())));
        }
        size - bytes.len()
    }
}
