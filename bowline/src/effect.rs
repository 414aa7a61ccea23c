//! What passes from the receiving half of a connection to the sending half.

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
    /// The transport has ended.
    Lost(Error),
}

/// How the peer has ended the connection.
pub(crate) enum Ending {
    ClosedByPeer(Option<CloseCode>),
    /// It broke the protocol, or went over a limit.
    Failed(CloseCode, Error),
}

impl Ending {
    pub(crate) fn of(effect: &Effect) -> Option<Self> {
        match effect {
            Effect::Echo(frame) => Some(Self::ClosedByPeer(frame.as_ref().map(CloseFrame::code))),
            Effect::Fail(code, error) => Some(Self::Failed(*code, error.clone())),
            Effect::Answer(_) | Effect::Ponged(_) | Effect::Lost(_) => None,
        }
    }
}
