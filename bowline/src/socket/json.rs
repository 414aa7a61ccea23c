//! Values sent and received as JSON.

use std::future::Future;
use std::sync::Arc;

use bowline_proto::MessageKind;
use serde::Serialize;
use serde::de::{DeserializeOwned, Error as _};

use crate::connection::Connection;
use crate::connection::inbound::batch::Hold;
use crate::connection::outbound::encoded::Encoded;
use crate::error::{Error, ErrorKind, escaped};
use crate::message::Message;
use crate::socket::sender::Sender;
use crate::socket::websocket::WebSocket;

/// With the feature `json`.
impl WebSocket {
    /// Sends a value as JSON, in a text message; it waits as [`send`](Self::send) does.
    ///
    /// The value is serialised at once, when this is called, straight into what becomes the write buffer.
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
    /// Why the connection is closed; or [`ErrorKind::InvalidInput`] if the value can't be serialised, with what
    /// `serde_json` says as the source. Nothing was sent then, and the connection goes on.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, nothing was sent.
    pub fn send_json<T: Serialize + ?Sized>(&self, value: &T) -> impl Future<Output = Result<(), Error>> {
        send(&self.connection, self.batch.hold(), encode(value))
    }

    /// Receives the next message, text or binary, as a value in JSON; `None` once the connection has ended normally.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidData`] if the message is not JSON, or not that of a `T`: it says at which line and column,
    /// and has what `serde_json` says as its source, with control characters of the message escaped. The message is gone, and the connection goes on: the next call
    /// gives the next message. All others are those of [`recv`](Self::recv).
    ///
    /// # Cancel safety
    ///
    /// As [`recv`](Self::recv): nothing is lost if the future is dropped.
    pub async fn recv_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        self.recv().await?.map(|message| decode(&message)).transpose()
    }
}

/// With the feature `json`.
impl Sender {
    /// Sends a value as JSON: see [`WebSocket::send_json`].
    ///
    /// # Errors
    ///
    /// Why the connection is closed; or [`ErrorKind::InvalidInput`] if the value can't be serialised. Nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, nothing was sent.
    pub fn send_json<T: Serialize + ?Sized>(&self, value: &T) -> impl Future<Output = Result<(), Error>> {
        send(&self.connection, Hold::Never, encode(value))
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

fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Encoded, Error> {
    Encoded::new(MessageKind::Text, |buffer| {
        serde_json::to_writer(buffer, value).map_err(|error| {
            let text = "the value can't be serialised as JSON: nothing was sent";
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
        // It quotes the names of fields, and strings.
        let said = error.to_string();
        let shown = escaped(&said);
        let error = if shown == said { error } else { serde_json::Error::custom(shown) };
        Error::with_source(ErrorKind::InvalidData, text, error)
    })
}
