//! Messages of JSON.

use std::future::Future;

use bowline_proto::MessageKind;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind};
use crate::message::Message;
use crate::sender::Sender;
use crate::websocket::WebSocket;

impl WebSocket {
    /// Sends a value as a text message of JSON. It is serialised at once, into memory that is used again and again.
    ///
    /// ```
    /// # async fn example(mut socket: bowline::WebSocket) -> Result<(), bowline::Error> {
    /// #[derive(serde::Serialize, serde::Deserialize)]
    /// struct Move {
    ///     x: i32,
    ///     y: i32,
    /// }
    ///
    /// socket.send_json(&Move { x: 1, y: -1 }).await?;
    /// while let Some(Move { x, y }) = socket.recv_json().await? {
    ///     println!("to {x}, {y}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the value can't be serialised, with the reason as its
    /// [source](std::error::Error::source); or why the connection is closed. Nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    pub fn send_json<T: Serialize + ?Sized>(&self, value: &T) -> impl Future<Output = Result<(), Error>> {
        self.connection().send_encoded(MessageKind::Text, |out| write(value, out))
    }

    /// Receives the next message, text or binary, and parses it as JSON; `None` once the connection has ended normally.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`] if the message is not such JSON: the [source](std::error::Error::source) says where and why,
    /// and the connection goes on with the next message. All others are those of [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// As [`recv`](Self::recv).
    pub async fn recv_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let Some(message) = self.recv().await? else { return Ok(None) };
        let parsed = match &message {
            Message::Text(text) => serde_json::from_str(text),
            Message::Binary(bytes) => serde_json::from_slice(bytes),
        };
        parsed.map(Some).map_err(|error| {
            Error::with_source(ErrorKind::Decode, "a message is not the JSON that was to be received", error)
        })
    }
}

impl Sender {
    /// Sends a value as a text message of JSON: see [`WebSocket::send_json`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the value can't be serialised, or why the connection is closed. Nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    pub fn send_json<T: Serialize + ?Sized>(&self, value: &T) -> impl Future<Output = Result<(), Error>> {
        self.connection().send_encoded(MessageKind::Text, |out| write(value, out))
    }
}

fn write<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), Error> {
    serde_json::to_writer(out, value).map_err(|error| {
        Error::with_source(ErrorKind::InvalidInput, "the value can't be written as JSON", error)
    })
}
