//! Methods that send and receive protobuf messages.

use std::future::Future;

use bowline_proto::{FrameHeader, MessageKind};
use prost::Message as Protobuf;

use crate::error::{Error, ErrorKind};
use crate::message::Message;
// Of the facade: `socket.rs`, or `browser.rs`, which includes this file, too.
use super::{Encoded, Sender, WebSocket};

impl WebSocket {
    /// Sends a protobuf message in a binary message.
    ///
    /// The call itself encodes the message, into memory that becomes the write buffer. The returned future
    /// waits as [`send`](Self::send) does.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bowline::Error> {
    /// #[derive(Clone, PartialEq, prost::Message)]
    /// struct Point {
    ///     #[prost(double, tag = "1")]
    ///     x: f64,
    ///     #[prost(double, tag = "2")]
    ///     y: f64,
    /// }
    ///
    /// let (client, mut server) = bowline::pair();
    /// client.send_protobuf(&Point { x: 1.5, y: -2.0 }).await?;
    /// let received: Option<Point> = server.recv_protobuf().await?;
    /// assert_eq!(received, Some(Point { x: 1.5, y: -2.0 }));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Closed`] if either side has closed the connection, or else the error that ended
    /// it. In both cases nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A future that is dropped before it is ready has sent nothing.
    pub fn send_protobuf<M: Protobuf>(&self, message: &M) -> impl Future<Output = Result<(), Error>> {
        self.send_encoded(encode(message))
    }

    /// Receives the next message as a protobuf message, or `None` after the connection has ended normally.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidData`] if the message is text, or is not an encoded `M`; in the second
    ///   case the error of `prost` is the source. The message is consumed, and the connection stays open.
    /// - Returns the errors of [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A dropped future loses nothing, as with [`recv`](Self::recv).
    pub async fn recv_protobuf<M: Protobuf + Default>(&mut self) -> Result<Option<M>, Error> {
        self.recv().await?.map(decode).transpose()
    }
}

impl Sender {
    /// Sends a protobuf message in a binary message: see [`WebSocket::send_protobuf`].
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Closed`] if either side has closed the connection, or else the error that ended
    /// it. In both cases nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A future that is dropped before it is ready has sent nothing.
    pub fn send_protobuf<M: Protobuf>(&self, message: &M) -> impl Future<Output = Result<(), Error>> {
        self.send_encoded(encode(message))
    }
}

fn encode<M: Protobuf>(message: &M) -> Result<Encoded, Error> {
    Encoded::new(MessageKind::Binary, |buffer| {
        // With the space that the header takes in front of the payload, once it is encoded.
        buffer.reserve(message.encoded_len() + FrameHeader::MAX_SIZE);
        message.encode(buffer).map_err(|error| {
            let text = "the message can't be encoded: nothing was sent";
            Error::with_source(ErrorKind::InvalidInput, text, error)
        })
    })
}

fn decode<M: Protobuf + Default>(message: Message) -> Result<M, Error> {
    match message {
        Message::Text(_) => {
            let text = "the message is text, but a binary message with protobuf was asked for";
            Err(Error::new(ErrorKind::InvalidData, text))
        }
        Message::Binary(bytes) => M::decode(bytes).map_err(|error| {
            let text = "the message is not the protobuf that was asked for";
            Error::with_source(ErrorKind::InvalidData, text, error)
        }),
    }
}
