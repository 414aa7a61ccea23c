//! The libraries that are compared, and what their servers do.

/// What is measured.
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

/// What the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Behavior {
    /// Sends back what it gets.
    Echo,
    /// The same, piece by piece.
    Stream,
    /// Gives to all a message of its own, when it is asked for one.
    FanOut,
    /// Gives each message to all.
    Chat,
}
