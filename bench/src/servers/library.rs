//! The libraries under comparison, and the behaviours of their servers.

use crate::frames::Kind;

/// A library under comparison, plain or batched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Library {
    Floor,
    Limit,
    Bowline,
    /// bowline without [`Prepared`](bowline::Prepared), for rooms alone.
    BowlineUnprepared,
    /// The topics of bowline-hub, for rooms alone.
    BowlineHub,
    Fastwebsockets,
    FastwebsocketsBatch,
    TokioWebsockets,
    TokioWebsocketsBatch,
    TokioTungstenite,
    TokioTungsteniteBatch,
    Yawc,
    YawcBatch,
    SockudoWs,
    SockudoWsBatch,
    WebSocket,
    WebSocketBatch,
    Soketto,
    SokettoBatch,
    Wtx,
    Ratchet,
    #[cfg(feature = "frameworks")]
    ActixWs,
    #[cfg(feature = "frameworks")]
    Ntex,
}

/// The behaviour of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Behavior {
    /// Sends back each message.
    Echo,
    /// Sends back each message piece by piece, as it arrives.
    Stream,
    /// Parses each message as JSON, and sends back the document.
    Json,
    /// Sends a message of its own to all, on request.
    FanOut,
    /// Like `FanOut`, but the message is compressed.
    FanOutCompressed,
    /// Sends a message of its own to all members of a room, on request. There are many rooms.
    Rooms,
    /// Sends [`BURST`] messages of its own to all, on request, with one write for each connection.
    Burst,
    /// Sends [`BURST`] messages of its own to all, on request, one after the other.
    BurstOneByOne,
    /// Sends each message to all.
    Chat,
}

/// The number of messages in a burst.
pub const BURST: usize = 16;

/// The number of members of a room, where there are many rooms.
pub const MEMBERS: usize = 100;

impl Behavior {
    /// Returns the number of messages that the server sends to each connection at a time.
    pub fn messages(self) -> usize {
        if matches!(self, Self::Burst | Self::BurstOneByOne) { BURST } else { 1 }
    }

    /// Returns the kind of the server's own messages.
    pub fn kind(self) -> Kind {
        if self == Self::FanOutCompressed { Kind::Json } else { Kind::Binary }
    }
}
