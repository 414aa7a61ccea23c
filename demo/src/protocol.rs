//! The messages between a client and its node, in JSON. The hub has no protocol: this one is the
//! application's.

use bowline_hub::Position;
use serde::{Deserialize, Serialize};

/// A message of a client.
#[derive(Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum FromClient {
    /// The first message of each connection.
    Hello {
        /// The name that others see.
        name: String,
        /// The identity of the client, which it keeps when it connects again.
        publisher: String,
        /// The position of the last message that the client has received.
        #[serde(default)]
        since: Option<String>,
    },
    /// A message for the room.
    Publish(Said),
}

/// A message for a room, without its publisher.
#[derive(Deserialize, Serialize)]
pub(crate) struct Said {
    /// The number of the message. A publisher counts its messages, and begins with 1.
    pub(crate) number: u64,
    pub(crate) text: String,
}

/// A message as it is stored.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Published {
    pub(crate) publisher: String,
    pub(crate) name: String,
    pub(crate) number: u64,
    pub(crate) text: String,
}

/// A message to a client.
#[derive(Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum ToClient {
    /// The client is live in the room.
    Welcome { node: String, at: Place },
    /// A message of the room.
    Message {
        at: Place,
        #[serde(flatten)]
        message: Published,
    },
    /// Messages are lost. The room continues after this place.
    Lost { at: Place },
    /// The message of this client with the number is published.
    Accepted { number: u64 },
    /// The broker is away. The client may publish the message again.
    Refused { number: u64, reason: String },
}

/// A position. Clients return the position itself, and need the other two numbers only to check that nothing
/// is missing.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
pub(crate) struct Place {
    pub(crate) position: String,
    pub(crate) offset: u64,
    /// As text: JavaScript has no integers of 64 bits.
    pub(crate) epoch: String,
}

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        let epoch = format!("{:016x}", position.epoch());
        Self { position: position.to_string(), offset: position.offset(), epoch }
    }
}
