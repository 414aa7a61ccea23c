//! Methods that send and receive values as JSON.

use std::future::Future;

use bowline_proto::MessageKind;
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};

use crate::error::{Error, ErrorKind, escaped};
use crate::message::Message;
// Of the facade: `socket.rs`, or `browser.rs`, which includes this file, too.
use super::{Encoded, Sender, WebSocket};

impl WebSocket {
    /// Sends a value as JSON in a text message.
    ///
    /// The call itself serializes the value, into memory that becomes the write buffer. The returned future
    /// waits as [`send`](Self::send) does.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bowline::Error> {
    /// #[derive(serde::Serialize, serde::Deserialize, PartialEq, Debug)]
    /// struct Move {
    ///     from: String,
    ///     to: String,
    /// }
    ///
    /// let (client, mut server) = bowline::pair();
    /// client.send_json(&Move { from: "e2".into(), to: "e4".into() }).await?;
    /// let received: Option<Move> = server.recv_json().await?;
    /// assert_eq!(received, Some(Move { from: "e2".into(), to: "e4".into() }));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if the value can't be serialized. The error of `serde_json` is
    ///   the source, and the connection stays open.
    /// - Returns [`ErrorKind::Closed`] if either side has closed the connection, or else the error that ended
    ///   it.
    ///
    /// After an error, nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A future that is dropped before it is ready has sent nothing.
    pub fn send_json<T: Serialize + ?Sized>(&self, value: &T) -> impl Future<Output = Result<(), Error>> {
        self.send_encoded(encode(value))
    }

    /// Receives the next message, text or binary, as a value in JSON, or `None` after the connection has
    /// ended normally.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidData`] if the message is not the JSON of a `T`. The text has the line
    ///   and the column, and the error of `serde_json` is the source, with the control characters of the
    ///   message escaped. The message is consumed, and the connection stays open.
    /// - Returns the errors of [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A dropped future loses nothing, as with [`recv`](Self::recv).
    pub async fn recv_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        self.recv().await?.map(|message| decode(&message)).transpose()
    }
}

impl Sender {
    /// Sends a value as JSON in a text message: see [`WebSocket::send_json`].
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if the value can't be serialized.
    /// - Returns [`ErrorKind::Closed`] if either side has closed the connection, or else the error that ended
    ///   it.
    ///
    /// After an error, nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. A future that is dropped before it is ready has sent nothing.
    pub fn send_json<T: Serialize + ?Sized>(&self, value: &T) -> impl Future<Output = Result<(), Error>> {
        self.send_encoded(encode(value))
    }
}

fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Encoded, Error> {
    Encoded::new(MessageKind::Text, |buffer| {
        serde_json::to_writer(buffer, value).map_err(|error| {
            let text = "the value can't be serialized as JSON: nothing was sent";
            Error::with_source(ErrorKind::InvalidInput, text, error)
        })
    })
}

fn decode<T: DeserializeOwned>(message: &Message) -> Result<T, Error> {
    let decoded = match message {
        Message::Text(text) => serde_json::from_str(text),
        Message::Binary(bytes) => serde_json::from_slice(bytes),
    };
    decoded.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let text = format!("the message is not the JSON that was asked for, at line {line}, column {column}");
        // The text quotes names of fields and strings of the peer.
        let said = error.to_string();
        let shown = escaped(&said);
        let error = if shown == said { error } else { serde_json::Error::custom(shown) };
        Error::with_source(ErrorKind::InvalidData, text, error)
    })
}
