//! The messages between a client and its node, in JSON. The hub has no protocol: this one is the
//! application's. Positions are texts of the hub, which clients only compare and return.

use serde::{Deserialize, Serialize};

/// A message of a client.
#[derive(Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum FromClient {
    /// The first message of each connection.
    Hello {
        /// The name that others see. Clients of one name are one person.
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
    Welcome { node: String, at: String },
    /// A message of the room.
    Message {
        at: String,
        /// The position of the message before.
        before: String,
        #[serde(flatten)]
        message: Published,
    },
    /// Messages are lost. The room continues after this position or, without one, with its last messages.
    Lost { at: Option<String> },
    /// All who are in the room. The list replaces the earlier one.
    Here { names: Vec<String> },
    /// Somebody has come into the room.
    Joined { name: String },
    /// Somebody has left the room.
    Left { name: String },
    /// The message of this client with the number is published.
    Accepted { number: u64 },
    /// The broker is away. The client may publish the message again.
    Refused { number: u64, reason: String },
}
