//! Requests of the inbound half of a connection to the outbound half.

use bowline_proto::{CloseCode, CloseFrame};

use crate::error::Error;

/// A request of the inbound half to the outbound half.
pub(crate) enum Effect {
    /// Answer a ping with this payload.
    Answer(Box<[u8]>),
    /// A pong has arrived, perhaps the answer to one of our pings.
    Ponged(Box<[u8]>),
    /// Echo the peer's Close frame.
    Echo(CloseFrame),
    /// Fail the connection with this code (RFC 6455 7.1.7).
    Fail(CloseCode, Error),
    /// The peer has ended its direction of the transport, while ours continues: no pong will arrive any more.
    HalfOpen(Error),
    /// The peer has ended its direction of the transport: end ours as well, after everything that was
    /// accepted.
    EndOfStream(Error),
    /// The transport has failed.
    Lost(Error),
}
