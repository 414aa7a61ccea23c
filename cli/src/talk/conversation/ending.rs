//! The ends of a conversation, and the status of the process after each end.

use std::io;

use bowline::{CloseCode, CloseFrame, Error};

use crate::connect::{ConnectError, in_options};
use crate::exit::Exit;
use crate::talk::arguments::Settings;
use crate::talk::conversation::interruption::Interruption;
use crate::talk::display::Verbosity;
use crate::talk::display::error as print_error;
use crate::talk::display::style::Layout;
use crate::talk::display::style::code_and_reason;
use crate::talk::head;

/// The end of a conversation.
///
/// ```text
/// (connecting) --> Unconnected, Interrupted
/// (open) --> Enough, Silence, Asked, Left, StdoutEnded, BadInput, Interrupted    our side closes
///        --> ClosedByPeer, Failed                                                nothing is left to close
/// ```
#[derive(Debug)]
pub(in crate::talk) enum End {
    /// No connection was opened.
    Unconnected(ConnectError),
    /// Enough messages were received, or the right one, or everything was sent if none is waited for.
    Enough,
    /// Everything was sent, and the server has been silent for long enough.
    Silence,
    /// The input asked for this Close frame.
    Asked(CloseFrame),
    /// The user has left the prompt.
    Left,
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
    fn exit(&self) -> Exit {
        match self {
            Self::Unconnected(error) => error.exit(),
            Self::Enough
            | Self::Silence
            | Self::Asked(_)
            | Self::Left
            | Self::StdoutEnded
            | Self::ClosedByPeer(_) => Exit::Success,
            Self::BadInput(_) => Exit::Failure,
            Self::Interrupted(Interruption::Signal(number)) => Exit::Signal(*number),
            Self::Interrupted(Interruption::TimedOut) => Exit::TimedOut,
            Self::Failed(error) => Exit::of_connection(error),
        }
    }

    /// Returns whether the connection is still open, and ours to close.
    pub(super) fn leaves_open(&self) -> bool {
        !matches!(self, Self::Unconnected(_) | Self::ClosedByPeer(_) | Self::Failed(_))
    }

    /// Returns the end of a conversation that ended with `last` while this side waited for replies before its
    /// own close. Input that can't be sent is an error in any case.
    pub(super) fn after_replies(self, last: Self) -> Self {
        let is_ours = match last {
            Self::Silence | Self::Enough => true,
            Self::ClosedByPeer(_) | Self::Failed(_) | Self::StdoutEnded => matches!(self, Self::BadInput(_)),
            _ => false,
        };
        if is_ours { self } else { last }
    }

    /// Returns whether the conversation ended before what was waited for had arrived.
    fn is_too_early(&self) -> bool {
        matches!(self, Self::Silence | Self::ClosedByPeer(_) | Self::Failed(_))
    }
}

/// Reports the end of a conversation on stderr, and returns the status of the process. `written` is the
/// result of writing stdout.
pub(in crate::talk) fn report(
    end: &End,
    written: io::Result<()>,
    settings: &Settings,
    received: u64,
) -> Exit {
    match end {
        End::Unconnected(ConnectError::Library(error)) => print_error(&head::of_refusal(error)),
        End::Unconnected(error) => print_error(&error.to_string()),
        End::BadInput(error) => print_error(error),
        End::Interrupted(Interruption::TimedOut) => {
            let time = humantime::format_duration(settings.timeout.unwrap_or_default());
            print_error(&format!("timed out after {time} (--timeout)"));
        }
        End::ClosedByPeer(frame) if reports_normal_closure(settings) => {
            print_error(&describe(frame.as_ref()));
        }
        End::Failed(error) => match error.close_frame() {
            Some(frame) => print_error(&describe(Some(frame))),
            None => print_error(&in_options(error)),
        },
        _ => {}
    }
    match written {
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            print_error(&format!("writing to stdout failed: {error}"));
            return Exit::Failure;
        }
        _ => {}
    }
    match settings.goal.missing(received) {
        Some(missing) if end.is_too_early() => {
            print_error(&missing);
            if end.exit() == Exit::Success { Exit::Failure } else { end.exit() }
        }
        _ => end.exit(),
    }
}

/// Scripts are not told that everything is as it should be.
fn reports_normal_closure(settings: &Settings) -> bool {
    settings.verbosity >= Verbosity::Heads
        || (settings.layout == Layout::Prompt && settings.verbosity >= Verbosity::Notices)
}

/// Describes the Close frame of the peer: `closed by the peer: 4001 "logged out"`.
fn describe(frame: Option<&CloseFrame>) -> String {
    match frame {
        None => "the peer has ended the connection".into(),
        Some(frame) if frame.code() == CloseCode::NO_STATUS => "closed by the peer, without a code".into(),
        Some(frame) => format!("closed by the peer: {}", code_and_reason(frame)),
    }
}

#[cfg(test)]
mod tests {
    use bowline::{CloseCode, CloseFrame};

    use super::End;
    use crate::exit::Exit;
    use crate::talk::conversation::interruption::Interruption;

    #[test]
    fn a_wait_for_replies_ends_as_this_side_wanted_or_as_it_was_cut_short() {
        let bad = || End::BadInput("line 1".into());
        let asked = || End::Asked(CloseFrame::new(CloseCode(4001), "").unwrap());
        assert!(matches!(asked().after_replies(End::Silence), End::Asked(_)));
        assert!(matches!(asked().after_replies(End::Enough), End::Asked(_)));
        assert!(matches!(asked().after_replies(End::ClosedByPeer(None)), End::ClosedByPeer(None)));
        for last in [End::Silence, End::Enough, End::ClosedByPeer(None), End::StdoutEnded] {
            assert_eq!(bad().after_replies(last).exit(), Exit::Failure);
        }
        let signal = End::Interrupted(Interruption::Signal(15));
        assert_eq!(bad().after_replies(signal).exit(), Exit::Signal(15));
    }
}
