//! The messages that have arrived and wait to be received.

use std::collections::VecDeque;

use crate::error::{Error, ErrorKind};
use crate::limits::Limits;
use crate::message::Message;

/// The bytes that each message counts for in addition to its payload.
const OVERHEAD: usize = 64;

/// Received messages, in order, bounded by their size.
///
/// Where messages arrive on request, the next one is requested while there is room for the largest.
/// Elsewhere, a browser delivers messages whether or not anyone receives them. Then memory is bounded by
/// closing the connection: there is no other way to make the server wait.
#[derive(Default)]
pub(crate) struct Inbox {
    messages: VecDeque<Message>,
    /// The size of all messages, each with its overhead.
    size: usize,
    /// The last request was put off, because there was no room.
    is_paused: bool,
}

/// The times at which messages arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    AtAnyTime,
    OnRequest,
}

impl Inbox {
    /// Checks the size of a message that has arrived.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Limit`] if the message is too large, alone or together with those that wait.
    pub(crate) fn check(&self, size: usize, limits: &Limits, arrival: Arrival) -> Result<(), Error> {
        if size > limits.message_size {
            return Err(exceeded("a message is", limits.message_size, "message_size"));
        }
        // A single message of the largest size is no excess of its overhead.
        if arrival == Arrival::AtAnyTime && self.size.saturating_add(size) > limits.unread {
            return Err(exceeded("the messages that wait to be received are", limits.unread, "unread"));
        }
        Ok(())
    }

    /// Adds a message that has arrived. Returns whether there is room for the next.
    pub(crate) fn push(&mut self, message: Message, limits: &Limits) -> bool {
        self.size += message.len() + OVERHEAD;
        self.messages.push_back(message);
        self.is_paused = !self.has_room(limits);
        !self.is_paused
    }

    fn has_room(&self, limits: &Limits) -> bool {
        self.size.saturating_add(limits.message_size) <= limits.unread
    }

    /// Returns whether there is room again for a message whose request was put off.
    pub(crate) fn resume(&mut self, limits: &Limits) -> bool {
        let resumes = self.is_paused && self.has_room(limits);
        self.is_paused &= !resumes;
        resumes
    }

    /// Removes the oldest message.
    pub(crate) fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.size -= message.len() + OVERHEAD;
        Some(message)
    }
}

#[cold]
fn exceeded(subject: &str, limit: usize, setting: &str) -> Error {
    // Of this type are all numbers in texts, which makes programs smaller.
    let limit = (limit as u64).to_string();
    let text =
        [subject, " larger than the limit of ", &limit, " bytes (raise it with Limits::", setting, ")"];
    Error::new(ErrorKind::Limit, text.iter().copied().collect::<String>())
}
