//! What passes from the inbound half of a connection to the outbound half.

use bowline_proto::{CloseCode, CloseFrame};

use crate::error::Error;

/// What receiving asks of the sending half.
pub(crate) enum Effect {
    /// A ping is to be answered.
    Answer(Box<[u8]>),
    /// The pong to one of our pings, perhaps.
    Ponged([u8; 8]),
    /// The peer's Close frame is to be echoed.
    Echo(Option<CloseFrame>),
    /// The connection is to be failed with this code (RFC 6455 7.1.7).
    Fail(CloseCode, Error),
    /// The peer has ended its direction of the transport, while ours goes on: no pong will come any more.
    HalfOpen(Error),
    /// The peer has ended its direction of the transport, so that ours is to end as well, in order.
    EndOfStream(Error),
    /// The transport has failed.
    Lost(Error),
}
