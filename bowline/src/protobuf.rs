//! Messages of Protocol Buffers.

use std::future::Future;

use bowline_proto::MessageKind;
use prost::Message as Protobuf;

use crate::error::{Error, ErrorKind};
use crate::message::Message;
use crate::sender::Sender;
use crate::websocket::WebSocket;

impl WebSocket {
    /// Sends a Protocol Buffers message as a binary message. It is encoded at once, into memory that is used again and again.
    ///
    /// ```
    /// # async fn example(mut socket: bowline::WebSocket) -> Result<(), bowline::Error> {
    /// #[derive(prost::Message)]
    /// struct Move {
    ///     #[prost(sint32, tag = "1")]
    ///     x: i32,
    ///     #[prost(sint32, tag = "2")]
    ///     y: i32,
    /// }
    ///
    /// socket.send_protobuf(&Move { x: 1, y: -1 }).await?;
    /// while let Some(Move { x, y }) = socket.recv_protobuf().await? {
    ///     println!("to {x}, {y}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Why the connection is closed; nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    pub fn send_protobuf(&self, message: &impl Protobuf) -> impl Future<Output = Result<(), Error>> {
        self.connection().send_encoded(MessageKind::Binary, |out| write(message, out))
    }

    /// Receives the next message and decodes it; `None` once the connection has ended normally.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if the message is text or not such a message: the connection goes on with the next one. All
    /// others are those of [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// As [`recv`](Self::recv).
    pub async fn recv_protobuf<M: Protobuf + Default>(&mut self) -> Result<Option<M>, Error> {
        match self.recv().await? {
            Some(Message::Binary(bytes)) => M::decode(bytes).map(Some).map_err(|error| {
                let text = "a message is not the Protocol Buffers message that was to be received";
                Error::with_source(ErrorKind::Decode, text, error)
            }),
            Some(Message::Text(_)) => {
                let text =
                    "a text message came where one of Protocol Buffers was to be received, which is binary";
                Err(Error::new(ErrorKind::Decode, text))
            }
            None => Ok(None),
        }
    }
}

impl Sender {
    /// Sends a Protocol Buffers message as a binary message: see [`WebSocket::send_protobuf`].
    ///
    /// # Errors
    ///
    /// Why the connection is closed; nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    pub fn send_protobuf(&self, message: &impl Protobuf) -> impl Future<Output = Result<(), Error>> {
        self.connection().send_encoded(MessageKind::Binary, |out| write(message, out))
    }
}

fn write(message: &impl Protobuf, out: &mut Vec<u8>) -> Result<(), Error> {
    message
        .encode(out)
        .map_err(|error| Error::with_source(ErrorKind::InvalidInput, "the message can't be encoded", error))
}
