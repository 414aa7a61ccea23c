//! Values sent and received as messages of protobuf.

use std::future::Future;
use std::sync::Arc;

use bowline_proto::{FrameHeader, MessageKind};
use prost::Message as Protobuf;

use crate::connection::Connection;
use crate::connection::inbound::batch::Hold;
use crate::connection::outbound::encoded::Encoded;
use crate::error::{Error, ErrorKind};
use crate::message::Message;
use crate::socket::sender::Sender;
use crate::socket::websocket::WebSocket;

/// With the feature `protobuf`.
impl WebSocket {
    /// Sends a message of protobuf, in a binary message; it waits as [`send`](Self::send) does.
    ///
    /// It is encoded at once, when this is called, straight into what becomes the write buffer.
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
    /// Why the connection is closed; nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, nothing was sent.
    pub fn send_protobuf<M: Protobuf>(&self, message: &M) -> impl Future<Output = Result<(), Error>> {
        send(&self.connection, self.batch.hold(), encode(message))
    }

    /// Receives the next message as one of protobuf; `None` once the connection has ended normally.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidData`] if it is a text message, or not an `M`: what `prost` says is the source then. The
    /// message is gone, and the connection goes on: the next call gives the next message. All others are those of
    /// [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// As [`recv`](Self::recv): nothing is lost if the future is dropped.
    pub async fn recv_protobuf<M: Protobuf + Default>(&mut self) -> Result<Option<M>, Error> {
        self.recv().await?.map(decode).transpose()
    }
}

/// With the feature `protobuf`.
impl Sender {
    /// Sends a message of protobuf: see [`WebSocket::send_protobuf`].
    ///
    /// # Errors
    ///
    /// Why the connection is closed; nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, nothing was sent.
    pub fn send_protobuf<M: Protobuf>(&self, message: &M) -> impl Future<Output = Result<(), Error>> {
        send(&self.connection, Hold::Never, encode(message))
    }
}

async fn send(
    connection: &Arc<Connection>,
    hold: Hold,
    encoded: Result<Encoded, Error>,
) -> Result<(), Error> {
    let mut encoded = encoded?;
    connection.send_with(hold, move |outbound| outbound.accept_encoded(&mut encoded)).await
}

fn encode<M: Protobuf>(message: &M) -> Result<Encoded, Error> {
    Encoded::new(MessageKind::Binary, |buffer| {
        // With what the header takes for a moment.
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
            let text = "the message is text, where a binary one with protobuf was asked for";
            Err(Error::new(ErrorKind::InvalidData, text))
        }
        Message::Binary(bytes) => M::decode(bytes).map_err(|error| {
            let text = "the message is not the protobuf that was asked for";
            Error::with_source(ErrorKind::InvalidData, text, error)
        }),
    }
}
