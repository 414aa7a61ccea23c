//! The errors of options, and of connections that were not opened.

use std::fmt;

use bowline::Error;

use crate::exit::Exit;

/// Arguments that can't be used. The text names the option.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// A connection that was not opened.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// The transport was not opened, by this program's own way to the server.
    Dial(String),
    /// The library's error.
    Library(Error),
}

impl ConnectError {
    /// The status of the process after this error.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Dial(_) => Exit::Unreachable,
            Self::Library(error) => Exit::of_connect(error),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<Error> for ConnectError {
    fn from(error: Error) -> Self {
        Self::Library(error)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(text) => f.write_str(text),
            Self::Library(error) => f.write_str(&in_options(error)),
        }
    }
}

/// Items of the library in the texts of errors that no option of this program changes.
const UNCHANGEABLE: [&str; 6] = [
    " (Limits::handshake_timeout)",
    " (Limits::close_timeout)",
    " (Limits::head_size)",
    " (Limits::max_headers)",
    " (raise it with Limits::frames_per_message)",
    " (Limits::max_streams)",
];

/// The text of an error, which names this program's options instead of the library's settings.
pub(crate) fn in_options(error: &dyn fmt::Display) -> String {
    let text = error.to_string();
    UNCHANGEABLE
        .iter()
        .fold(text, |text, item| text.replace(item, ""))
        .replace(" within Limits::close_timeout", " in time")
        .replace(
            "connect there if it can be trusted (Connector::redirects follows redirects to the same host)",
            "redirects are not followed, so give that URL instead if it can be trusted",
        )
        .replace("opening a stream to the server failed (Reconnecting::dial): ", "")
        .replace("pass None to Connector::keepalive", "use --ping none")
        .replace("Proxy::none()", "--proxy none")
        .replace("Connector::keepalive", "--ping")
        .replace("Limits::message_size", "--max-size")
}
