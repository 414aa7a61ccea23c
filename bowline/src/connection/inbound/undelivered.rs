//! Whole messages that had arrived when we closed.

use std::collections::VecDeque;

use bowline_proto::{Data, MessageKind};

use crate::connection::inbound::assembler::Assembler;
use crate::message::Message;

/// Messages that wait for the application, in the order in which they have arrived.
///
/// Compressed ones stay as they came until they are taken: together they may be a thousand times as large as what was
/// received.
#[derive(Default)]
pub(crate) struct Undelivered {
    messages: VecDeque<UndeliveredMessage>,
    /// A compressed one of which the end is missing.
    open: Option<(MessageKind, Vec<u8>)>,
    /// What goes on with the compressed one that had begun before.
    rest: Vec<u8>,
    /// That one, once the rest is all of it.
    begun: Option<Assembler>,
}

pub(crate) enum UndeliveredMessage {
    Message(Message),
    Compressed(MessageKind, Vec<u8>),
}

impl Undelivered {
    pub(crate) fn push(&mut self, message: Message) {
        self.messages.push_back(UndeliveredMessage::Message(message));
    }

    /// Takes a part of a compressed message; `false` if it belongs to one that had begun before.
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

    /// Takes what goes on with the message that had begun before.
    pub(crate) fn push_rest(&mut self, payload: &[u8]) {
        self.rest.extend_from_slice(payload);
    }

    /// Takes the message that had begun before, all of which is here.
    pub(crate) fn push_begun(&mut self, message: Assembler) {
        self.begun = Some(message);
    }

    /// Nothing more will come. Gives back the message that had begun before, if its end is here, and how it goes on.
    pub(crate) fn end(&mut self) -> (Option<Assembler>, Vec<u8>) {
        self.open = None;
        (self.begun.take(), std::mem::take(&mut self.rest))
    }

    pub(crate) fn pop(&mut self) -> Option<UndeliveredMessage> {
        self.messages.pop_front()
    }
}
