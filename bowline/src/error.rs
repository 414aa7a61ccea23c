//! The one error type.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use bowline_proto::{CloseFrame, Failure, Limit};
use bytes::Bytes;

/// What went wrong, in a word: see [`Error::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The peer closed the connection with a code other than 1000 and 1001 ([`Error::close_frame`]), or something was
    /// sent on a connection that is closed.
    Closed,
    /// The transport ended without a Close frame: the peer ended its stream, reset it, or is unreachable. The
    /// [source](StdError::source) has the I/O error, if there was one.
    Disconnected,
    /// The peer broke the protocol (RFC 6455, RFC 7692), or sent text that is not UTF-8.
    Protocol,
    /// The peer went over one of our [`Limits`](crate::Limits).
    Limit,
    /// The peer did not answer in time: a handshake, a close, or a keepalive.
    Timeout,
    /// The opening handshake failed: see [`Error::response`].
    Handshake,
    /// The operating system, the network or TLS failed; the [source](StdError::source) says how.
    Io,
    /// Our own side asked for something impossible; nothing was sent.
    InvalidInput,
    /// A message of the peer is not what was asked for: not JSON or protobuf, or not of the wanted kind. It says nothing
    /// about the connection, which goes on unless that is documented.
    InvalidData,
}

/// Why an operation failed.
///
/// Cloning is cheap. The text says what happened and what to do about it; the cause, if there is one, is the
/// [source](StdError::source).
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    close_frame: Option<CloseFrame>,
    response: Option<http::Response<Bytes>>,
}

impl Error {
    /// What went wrong, in a word.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The Close frame that the peer sent, if that is the cause.
    pub fn close_frame(&self) -> Option<&CloseFrame> {
        self.0.close_frame.as_ref()
    }

    /// What a server answered instead of accepting the handshake: its status, its headers and the first KiB of its
    /// body.
    pub fn response(&self) -> Option<&http::Response<Bytes>> {
        self.0.response.as_ref()
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self(Arc::new(Inner { kind, message, source: None, close_frame: None, response: None }))
    }

    pub(crate) fn with_source(
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let (message, source) = (message.into(), Some(source.into()));
        Self(Arc::new(Inner { kind, message, source, close_frame: None, response: None }))
    }

    /// How a transport has failed: its end without a Close frame, or something else.
    pub(crate) fn of_transport(message: &'static str, error: io::Error) -> Self {
        use io::ErrorKind as Io;
        let kind = match error.kind() {
            // The last is that of TLS without close_notify.
            Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::BrokenPipe
            | Io::NotConnected
            | Io::TimedOut
            | Io::HostUnreachable
            | Io::NetworkUnreachable
            | Io::NetworkDown
            | Io::UnexpectedEof => ErrorKind::Disconnected,
            _ => ErrorKind::Io,
        };
        Self::with_source(kind, message, error)
    }

    /// What the peer has done.
    pub(crate) fn of(failure: Failure) -> Self {
        match failure {
            Failure::Violation(violation) => {
                Self::new(ErrorKind::Protocol, format!("the peer broke the protocol: {violation}"))
            }
            Failure::Limit(limit) => {
                let setting = match limit {
                    Limit::FramesPerMessage(_) => "Limits::frames_per_message",
                    _ => "Limits::message_size",
                };
                Self::new(ErrorKind::Limit, format!("{limit} (raise it with {setting})"))
            }
        }
    }

    pub(crate) fn with_close_frame(message: impl Into<Cow<'static, str>>, frame: Option<CloseFrame>) -> Self {
        let (kind, message) = (ErrorKind::Closed, message.into());
        Self(Arc::new(Inner { kind, message, source: None, close_frame: frame, response: None }))
    }

    #[cfg(feature = "client")]
    pub(crate) fn with_response(
        message: impl Into<Cow<'static, str>>,
        response: http::Response<Bytes>,
    ) -> Self {
        let (kind, message) = (ErrorKind::Handshake, message.into());
        Self(Arc::new(Inner { kind, message, source: None, close_frame: None, response: Some(response) }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        if let Some(frame) = &self.0.close_frame {
            debug.field("close_frame", frame);
        }
        if let Some(response) = &self.0.response {
            debug.field("response", response);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<Error> for io::Error {
    /// Wraps the error for the traits of I/O: [`io::Error::get_ref`] returns the [`Error`].
    ///
    /// | [`Error::kind`] | [`io::Error::kind`] |
    /// |---|---|
    /// | [`Closed`](ErrorKind::Closed) | [`BrokenPipe`](io::ErrorKind::BrokenPipe) |
    /// | [`Disconnected`](ErrorKind::Disconnected) | [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) |
    /// | [`Protocol`](ErrorKind::Protocol), [`Limit`](ErrorKind::Limit), [`InvalidData`](ErrorKind::InvalidData) | [`InvalidData`](io::ErrorKind::InvalidData) |
    /// | [`Timeout`](ErrorKind::Timeout) | [`TimedOut`](io::ErrorKind::TimedOut) |
    /// | [`InvalidInput`](ErrorKind::InvalidInput) | [`InvalidInput`](io::ErrorKind::InvalidInput) |
    /// | [`Handshake`](ErrorKind::Handshake), [`Io`](ErrorKind::Io) | [`Other`](io::ErrorKind::Other) |
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Closed => io::ErrorKind::BrokenPipe,
            ErrorKind::Disconnected => io::ErrorKind::UnexpectedEof,
            ErrorKind::Protocol | ErrorKind::Limit | ErrorKind::InvalidData => io::ErrorKind::InvalidData,
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
            ErrorKind::Handshake | ErrorKind::Io => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Text that may be the peer's, in one line: control characters are escaped, as in `Display` of [`CloseFrame`].
#[cfg(any(feature = "server", feature = "json"))]
pub(crate) fn escaped(text: &str) -> String {
    text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
}

/// Why [`try_send`](crate::Sender::try_send) did not send; the message comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrySendError<M> {
    /// The write buffer is full, others wait for it, or a [`MessageWriter`](crate::MessageWriter) is open.
    Full(M),
    /// The connection is closed.
    Closed(M),
}

impl<M> TrySendError<M> {
    /// The message that was not sent.
    pub fn into_inner(self) -> M {
        match self {
            Self::Full(message) | Self::Closed(message) => message,
        }
    }
}

impl<M> fmt::Display for TrySendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the write buffer is full",
            Self::Closed(_) => "the connection is closed",
        })
    }
}

impl<M: fmt::Debug> StdError for TrySendError<M> {}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Error, ErrorKind};

    #[test]
    fn an_io_error_has_the_fitting_kind_and_holds_the_error() {
        for (kind, expected) in [
            (ErrorKind::Closed, io::ErrorKind::BrokenPipe),
            (ErrorKind::Disconnected, io::ErrorKind::UnexpectedEof),
            (ErrorKind::Protocol, io::ErrorKind::InvalidData),
            (ErrorKind::Limit, io::ErrorKind::InvalidData),
            (ErrorKind::InvalidData, io::ErrorKind::InvalidData),
            (ErrorKind::Timeout, io::ErrorKind::TimedOut),
            (ErrorKind::InvalidInput, io::ErrorKind::InvalidInput),
            (ErrorKind::Handshake, io::ErrorKind::Other),
            (ErrorKind::Io, io::ErrorKind::Other),
        ] {
            let error = io::Error::from(Error::with_source(kind, "the text", io::Error::other("the cause")));
            assert_eq!(error.kind(), expected, "{kind:?}");
            assert_eq!(error.to_string(), "the text");
            // `io::Error::source` skips the error that it wraps, as that has the same text.
            assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the cause");
            let inner = error.into_inner().unwrap().downcast::<Error>().unwrap();
            assert_eq!(inner.kind(), kind);
        }
    }
}
