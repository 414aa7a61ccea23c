//! The ends of a conversation, and the status of the process after each end.

use bowline::{CloseCode, CloseFrame, Error};

use crate::connect::ConnectError;
use crate::exit::Exit;
use crate::talk::escape;
use crate::talk::interruption::Interruption;

/// The end of a conversation.
///
/// ```text
/// (connecting) --> Unconnected, Interrupted
/// (open) --> Enough, Silence, Asked, StdoutEnded, BadInput, Interrupted    our side closes
///        --> ClosedByPeer, Failed                                          nothing is left to close
/// ```
#[derive(Debug)]
pub(super) enum End {
    /// No connection was opened.
    Unconnected(ConnectError),
    /// Enough messages were received, or the right one, or everything was sent if none is waited for.
    Enough,
    /// Everything was sent, and the server has been silent for long enough.
    Silence,
    /// The input asked for this Close frame.
    Asked(CloseFrame),
    /// Nobody reads stdout any more, or it can't be written.
    StdoutEnded,
    /// The input can't be sent.
    BadInput(String),
    Interrupted(Interruption),
    /// The peer closed normally.
    ClosedByPeer(Option<CloseFrame>),
    /// The peer closed with an error, or the connection was lost.
    Failed(Error),
}

impl End {
    /// The status of the process.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Unconnected(error) => error.exit(),
            Self::Enough | Self::Silence | Self::Asked(_) | Self::StdoutEnded | Self::ClosedByPeer(_) => {
                Exit::Success
            }
            Self::BadInput(_) => Exit::Failure,
            Self::Interrupted(Interruption::Signal(number)) => Exit::Signal(*number),
            Self::Interrupted(Interruption::TimedOut) => Exit::TimedOut,
            Self::Failed(error) => Exit::of_connection(error),
        }
    }

    /// Returns whether the conversation ended before what was waited for had arrived.
    pub(super) fn is_too_early(&self) -> bool {
        matches!(self, Self::Silence | Self::ClosedByPeer(_))
    }
}

/// Describes the Close frame of the peer: `closed by the peer: 4001 "logged out"`.
pub(super) fn describe(frame: Option<&CloseFrame>) -> String {
    match frame {
        None => "the peer has ended the connection".into(),
        Some(frame) if frame.code() == CloseCode::NO_STATUS => "closed by the peer, without a code".into(),
        Some(frame) => format!("closed by the peer: {}", code_and_reason(frame)),
    }
}

/// Describes a Close frame: `4001 "logged out"`.
pub(super) fn code_and_reason(frame: &CloseFrame) -> String {
    match frame.reason() {
        "" => frame.code().0.to_string(),
        reason => format!("{} \"{}\"", frame.code().0, escape::line(reason)),
    }
}
