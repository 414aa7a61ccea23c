//! A message that a serialiser, which is user code, has written into a buffer of ours.

use bowline_proto::{FrameHeader, MessageKind};

use crate::connection::outbound::write_queue::{put_spare, take_spare};
use crate::error::Error;

/// A message in a buffer that can become the write buffer as it is, since there is room for the header in
/// front of the payload.
///
/// The message is written without a lock on the connection, because a serialiser is user code, which may well
/// send on the same connection.
pub(crate) struct Encoded {
    pub(crate) kind: MessageKind,
    /// [`FrameHeader::MAX_SIZE`] bytes for the header, followed by the payload.
    pub(crate) buffer: Vec<u8>,
}

impl Encoded {
    /// Lets `write` append the payload of a message.
    ///
    /// # Errors
    ///
    /// Returns the error of `write`. In that case nothing is kept of the bytes that were written.
    pub(crate) fn new(
        kind: MessageKind,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut encoded = Self { kind, buffer: take_spare() };
        encoded.buffer.resize(FrameHeader::MAX_SIZE, 0);
        write(&mut encoded.buffer)?;
        Ok(encoded)
    }

    /// Returns the payload.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.buffer[FrameHeader::MAX_SIZE..]
    }
}

impl Drop for Encoded {
    /// Returns the memory to the thread, unless it has become the write buffer.
    fn drop(&mut self) {
        self.buffer.clear();
        put_spare(std::mem::take(&mut self.buffer));
    }
}
