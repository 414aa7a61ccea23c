//! What passes from the receiving half of a connection to the sending half.

use bowline_proto::{CloseCode, CloseFrame};

use crate::connection::outbound::Transmit;
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

/// How the connection has ended for us.
pub(crate) enum Ending {
    ClosedByPeer(Option<CloseCode>),
    /// The peer broke the protocol, or went over a limit.
    Failed(CloseCode, Error),
    Lost,
}

impl Effect {
    /// Does what is asked, and says if that is the end of the connection.
    pub(crate) fn apply(self, transmit: &mut Transmit) -> Option<Ending> {
        match self {
            Self::Answer(payload) => {
                transmit.answer(payload);
                None
            }
            Self::Ponged(payload) => {
                transmit.ponged(payload);
                None
            }
            // RFC 6455 5.5.1: the answer to a Close frame typically echoes its code.
            Self::Echo(frame) => {
                let text = frame.as_ref().map_or("no code".to_owned(), ToString::to_string);
                let error = Error::with_close_frame(
                    format!("the connection is closed: the peer closed it with {text}"),
                    frame.clone(),
                );
                transmit.close(frame.as_ref(), error);
                Some(Ending::ClosedByPeer(frame.as_ref().map(CloseFrame::code)))
            }
            Self::Fail(code, error) => {
                transmit.fail(code, error.clone());
                Some(Ending::Failed(code, error))
            }
            Self::HalfOpen(error) => {
                transmit.end_pings(error);
                None
            }
            Self::EndOfStream(error) => {
                transmit.refuse(error);
                Some(Ending::Lost)
            }
            Self::Lost(error) => {
                transmit.lose(error);
                Some(Ending::Lost)
            }
        }
    }
}
