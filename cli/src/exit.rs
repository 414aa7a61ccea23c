//! The status of the process.

use std::process::ExitCode;

use bowline::{Error, ErrorKind};

/// The status of the process, which the man page promises to scripts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// Everything ended as asked.
    Success,
    /// A failure that is none of the others, such as a file that can't be written.
    Failure,
    /// Wrong arguments. clap exits with the same status.
    Usage,
    /// The server was not reached: name resolution, TCP, TLS or a proxy failed.
    Unreachable,
    /// The server refused the opening handshake.
    Refused,
    /// The connection was lost, or the peer violated the protocol.
    Lost,
    /// The peer closed with a code other than 1000, 1001 or none.
    ClosedByPeer,
    /// The time of `--timeout` was up.
    TimedOut,
    /// `check` found a fault, or a condition of `--fail-if` was met.
    Findings,
    /// A signal, such as 2 for SIGINT.
    Signal(u8),
}

impl Exit {
    /// The status of an attempt to connect that failed.
    pub(crate) fn of_connect(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidInput => Self::Usage,
            ErrorKind::Handshake | ErrorKind::Protocol | ErrorKind::Limit => Self::Refused,
            _ if error.response().is_some() => Self::Refused,
            _ => Self::Unreachable,
        }
    }

    /// The status of an open connection that failed.
    pub(crate) fn of_connection(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Closed if error.close_frame().is_some() => Self::ClosedByPeer,
            _ => Self::Lost,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::Refused => 4,
            Exit::Lost => 5,
            Exit::ClosedByPeer => 6,
            Exit::TimedOut => 7,
            Exit::Findings => 8,
            Exit::Signal(number) => 128_u8.saturating_add(number),
        })
    }
}
