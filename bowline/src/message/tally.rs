//! Counts of messages.

/// The messages of one direction of a connection, as they are counted under the lock of that direction.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) messages: u64,
    /// The payloads of all messages, not compressed, and including the parts of incomplete ones.
    pub(crate) payload_bytes: u64,
}

impl Tally {
    /// Adds a whole message.
    #[inline]
    pub(crate) fn add_message(&mut self, payload_size: usize) {
        self.add_messages(1, payload_size);
    }

    /// Adds whole messages, with the size of all their payloads.
    #[inline]
    pub(crate) fn add_messages(&mut self, messages: usize, payload_size: usize) {
        self.messages += messages as u64;
        self.payload_bytes += payload_size as u64;
    }

    /// Adds a part of a message, which may be its end.
    pub(crate) fn add_part(&mut self, payload_size: usize, is_last: bool) {
        self.add_messages(is_last.into(), payload_size);
    }
}
