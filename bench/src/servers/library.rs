//! The libraries under comparison, and the behaviours of their servers.

/// A library under comparison, plain or batched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Library {
    Floor,
    Limit,
    Bowline,
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
    /// Sends each message to all.
    Chat,
}
