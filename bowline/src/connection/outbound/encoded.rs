//! A message that user code has written into a buffer for us: a serialiser.

use bowline_proto::{FrameHeader, MessageKind};

use crate::connection::outbound::write_queue::{give_spare, take_spare};
use crate::error::Error;

/// A message in a buffer that can become the write buffer as it is: there is room for the header in front of the payload.
///
/// It is written without a lock on the connection, because a serialiser is user code, which may well send on the same
/// connection.
pub(crate) struct Encoded {
    pub(crate) kind: MessageKind,
    /// [`FrameHeader::MAX_SIZE`] bytes, and the payload.
    pub(crate) buffer: Vec<u8>,
}

impl Encoded {
    /// Lets `write` append the payload of a message. If it fails, nothing is left of what it has written.
    pub(crate) fn new(
        kind: MessageKind,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut encoded = Self { kind, buffer: take_spare() };
        encoded.buffer.resize(FrameHeader::MAX_SIZE, 0);
        write(&mut encoded.buffer)?;
        Ok(encoded)
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.buffer[FrameHeader::MAX_SIZE..]
    }
}

impl Drop for Encoded {
    /// Gives the memory back to the thread, if it has not become the write buffer.
    fn drop(&mut self) {
        self.buffer.clear();
        give_spare(std::mem::take(&mut self.buffer));
    }
}
