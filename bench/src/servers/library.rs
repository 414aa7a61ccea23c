//! The libraries under comparison, and the behaviours of their servers.

/// A library under comparison, plain or batched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Library {
    Floor,
    Limit,
    Bowline,
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
}

/// The behaviour of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Behavior {
    /// Sends back each message.
    Echo,
    /// Sends back each message piece by piece, as it arrives.
    Stream,
    /// Sends a message of its own to all, on request.
    FanOut,
    /// Sends [`BURST`] messages of its own to all, on request, with one write for each connection.
    Burst,
    /// Sends [`BURST`] messages of its own to all, on request, one after the other.
    BurstOneByOne,
    /// Sends each message to all.
    Chat,
}

/// The number of messages in a burst.
pub const BURST: usize = 16;

impl Behavior {
    /// Returns the number of messages that the server sends to each connection at a time.
    pub fn messages(self) -> usize {
        if matches!(self, Self::Burst | Self::BurstOneByOne) { BURST } else { 1 }
    }
}
