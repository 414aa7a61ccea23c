//! A message that a serialiser, which is user code, has written.

use bowline_proto::MessageKind;

use super::operations;
use super::sender::Sender;
use super::websocket::WebSocket;
use crate::error::Error;
use crate::message::Message;

/// A message that is encoded already.
pub(crate) struct Encoded(Message);

impl Encoded {
    /// Lets `write` append the payload of a message, which is UTF-8 if `kind` is text.
    ///
    /// # Errors
    ///
    /// Returns the error of `write`.
    pub(crate) fn new(
        kind: MessageKind,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let mut buffer = Vec::new();
        write(&mut buffer)?;
        Ok(Self(Message::from_validated(kind, buffer.into())))
    }
}

impl WebSocket {
    /// Sends a message that is encoded already.
    pub(crate) fn send_encoded(
        &self,
        encoded: Result<Encoded, Error>,
    ) -> impl Future<Output = Result<(), Error>> {
        let sending = encoded.map(|Encoded(message)| operations::send(&self.connection, message.into()));
        async { sending?.await }
    }
}

impl Sender {
    /// Sends a message that is encoded already.
    pub(crate) fn send_encoded(
        &self,
        encoded: Result<Encoded, Error>,
    ) -> impl Future<Output = Result<(), Error>> {
        let sending = encoded.map(|Encoded(message)| operations::send(&self.connection, message.into()));
        async { sending?.await }
    }
}
