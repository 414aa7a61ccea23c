//! Whole messages that had arrived before our side closed.

use std::collections::VecDeque;

use bowline_proto::{Data, MessageKind};

use crate::connection::inbound::assembler::Assembler;
use crate::message::Message;

/// Messages that wait for the application, in the order in which they arrived.
///
/// Compressed messages stay compressed until they are taken: decompressed, they may together be a thousand
/// times as large as what was received.
#[derive(Default)]
pub(crate) struct Undelivered {
    messages: VecDeque<UndeliveredMessage>,
    /// A compressed message whose end is missing.
    open: Option<(MessageKind, Vec<u8>)>,
    /// The rest of the compressed message that had begun before.
    rest: Vec<u8>,
    /// The message that had begun before, once its rest is complete.
    begun: Option<Assembler>,
}

/// A message that waits for the application.
pub(crate) enum UndeliveredMessage {
    Message(Message),
    Compressed(MessageKind, Vec<u8>),
}

impl Undelivered {
    /// Adds a message.
    pub(crate) fn push(&mut self, message: Message) {
        self.messages.push_back(UndeliveredMessage::Message(message));
    }

    /// Adds a part of a compressed message. Returns `false` if the part belongs to a message that had begun
    /// before.
    pub(crate) fn push_compressed(&mut self, data: &Data, payload: &[u8]) -> bool {
        if data.first {
            self.open = Some((data.kind, Vec::new()));
        }
        let Some((_, arrived)) = &mut self.open else { return false };
        arrived.extend_from_slice(payload);
        if data.last {
            let whole = self.open.take().map(|(kind, payload)| UndeliveredMessage::Compressed(kind, payload));
            self.messages.extend(whole);
        }
        true
    }

    /// Adds a part of the message that had begun before.
    pub(crate) fn push_rest(&mut self, payload: &[u8]) {
        self.rest.extend_from_slice(payload);
    }

    /// Adds the message that had begun before, whose rest is complete.
    pub(crate) fn push_begun(&mut self, message: Assembler) {
        self.begun = Some(message);
    }

    /// Ends the collection. Returns the message that had begun before, if its end has arrived, and its rest.
    pub(crate) fn end(&mut self) -> (Option<Assembler>, Vec<u8>) {
        self.open = None;
        (self.begun.take(), std::mem::take(&mut self.rest))
    }

    /// Takes the first message.
    pub(crate) fn pop(&mut self) -> Option<UndeliveredMessage> {
        self.messages.pop_front()
    }
}
