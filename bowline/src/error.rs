//! The error type of all operations.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use bowline_proto::{CloseFrame, Escaped, Failure, Limit, Misuse};
use bytes::Bytes;

/// The category of an [`Error`], as returned by [`Error::kind`].
///
/// # Examples
///
/// ```
/// use bowline::{Error, ErrorKind};
///
/// /// Decides whether a client should dial again.
/// fn is_worth_a_retry(error: &Error) -> bool {
///     matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Timeout | ErrorKind::Io)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The connection is closed: the peer closed it with a code other than 1000 and 1001 (see
    /// [`Error::close_frame`]), or the application sent on a connection that had been closed.
    Closed,
    /// The transport ended without a Close frame: the peer ended its stream, reset it, or is unreachable. If
    /// there was an I/O error, it is the [source](StdError::source).
    Disconnected,
    /// The peer broke the protocol (RFC 6455, RFC 7692) or sent text that is not valid UTF-8.
    Protocol,
    /// The peer exceeded one of our [`Limits`](crate::Limits). The text names the limit and its setting.
    Limit,
    /// The peer did not answer an opening handshake, a closing handshake or a keepalive ping in time.
    Timeout,
    /// The opening handshake failed. If there was a response, [`Error::response`] returns it.
    Handshake,
    /// The operating system, the network or TLS failed. The [source](StdError::source) is the cause.
    Io,
    /// An argument or a setting is invalid.
    InvalidInput,
    /// A message of the peer is not what the application asked for: neither the JSON nor the protobuf of the
    /// requested type, or not of the requested kind. The connection goes on, unless the method documents
    /// otherwise.
    InvalidData,
}

impl ErrorKind {
    /// Returns the kind of an error of a transport: `Disconnected` if the peer is gone, or else `Io`.
    ///
    /// A stream that is not the library's own may say more, by an [`Error`] in the I/O error.
    pub(crate) fn of_transport(error: &io::Error) -> Self {
        use io::ErrorKind as Io;
        if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            return inner.kind();
        }
        match error.kind() {
            // The last one is how rustls reports the end of a stream without close_notify.
            Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::BrokenPipe
            | Io::NotConnected
            | Io::TimedOut
            | Io::HostUnreachable
            | Io::NetworkUnreachable
            | Io::NetworkDown
            | Io::UnexpectedEof => Self::Disconnected,
            _ => Self::Io,
        }
    }
}

impl fmt::Display for ErrorKind {
    /// Writes a description of few words, such as `connection lost`, for the labels of logs and metrics.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Closed => "connection closed",
            Self::Disconnected => "connection lost",
            Self::Protocol => "protocol violation",
            Self::Limit => "limit exceeded",
            Self::Timeout => "timed out",
            Self::Handshake => "handshake failed",
            Self::Io => "I/O error",
            Self::InvalidInput => "invalid input",
            Self::InvalidData => "invalid data",
        })
    }
}

/// The error of all operations on connections and handshakes.
///
/// [`kind`](Self::kind) classifies the error. Its text says what happened and, where a setting helps, names
/// the setting. The [source](StdError::source) is the underlying error, if there is one. Cloning is cheap.
///
/// An `Error` converts into an [`io::Error`], so `?` works in functions that return [`io::Result`].
///
/// # Examples
///
/// ```
/// use bowline::{CloseCode, ErrorKind};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), bowline::Error> {
/// let (mut client, server) = bowline::pair();
/// tokio::spawn(async move { server.close(CloseCode::TRY_AGAIN_LATER, "busy").await });
///
/// let error = client.recv().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Closed);
/// assert_eq!(error.close_frame().unwrap().code(), CloseCode::TRY_AGAIN_LATER);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    close_frame: Option<CloseFrame>,
    /// A `http::Response<Bytes>`. In a page, whose errors have none, the program has no code to drop one.
    response: Option<Box<dyn Any + Send + Sync>>,
}

impl Error {
    /// Returns the category of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the peer's Close frame, if that frame is the cause of the error.
    pub fn close_frame(&self) -> Option<&CloseFrame> {
        self.0.close_frame.as_ref()
    }

    /// Returns the response of a server that did not accept the handshake: its status, its headers and the
    /// first KiB of its body.
    pub fn response(&self) -> Option<&http::Response<Bytes>> {
        self.0.response.as_deref()?.downcast_ref()
    }

    /// Creates an error, for HTTP stacks and transports other than the library's own.
    ///
    /// The text is lower case without a full stop, and names the setting that helps, if there is one.
    ///
    /// A stream whose I/O errors contain an `Error` decides on the kind of the error that `recv` and `send`
    /// return. Other I/O errors become [`ErrorKind::Disconnected`] or [`ErrorKind::Io`].
    ///
    /// ```
    /// use std::io;
    ///
    /// use bowline::{Error, ErrorKind};
    ///
    /// fn timed_out() -> io::Error {
    ///     Error::new(ErrorKind::Timeout, "the peer did not answer for 30 s").into()
    /// }
    /// assert_eq!(timed_out().kind(), io::ErrorKind::TimedOut);
    /// ```
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let message = message.into();
        Self(Arc::new(Inner { kind, message, source: None, close_frame: None, response: None }))
    }

    /// Creates an error as [`new`](Self::new) does, with the underlying error as its
    /// [source](StdError::source).
    ///
    /// ```
    /// use bowline::{Error, ErrorKind};
    ///
    /// fn unreachable(error: std::io::Error) -> Error {
    ///     Error::with_source(ErrorKind::Io, "sending a datagram failed", error)
    /// }
    /// ```
    pub fn with_source(
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let (message, source) = (message.into(), Some(source.into()));
        Self(Arc::new(Inner { kind, message, source, close_frame: None, response: None }))
    }

    /// Creates the error for a transport that has failed: [`ErrorKind::Disconnected`] if the peer is gone, or
    /// else [`ErrorKind::Io`].
    pub(crate) fn of_transport(message: &'static str, error: io::Error) -> Self {
        Self::with_source(ErrorKind::of_transport(&error), message, error)
    }

    /// Creates the error for a peer that broke the protocol or exceeded a limit.
    pub(crate) fn of(failure: Failure) -> Self {
        match failure {
            Failure::Violation(violation) => {
                Self::new(ErrorKind::Protocol, format!("the peer broke the protocol: {violation}"))
            }
            Failure::Limit(limit) => {
                let setting = match limit {
                    Limit::FramesPerMessage(_) => "Limits::frames_per_message",
                    Limit::MessageSize(_) | Limit::CompressedSize(_) => "Limits::message_size",
                    // `Limit` may grow in another version of its crate.
                    _ => return Self::new(ErrorKind::Limit, limit.to_string()),
                };
                Self::new(ErrorKind::Limit, format!("{limit} (raise it with {setting})"))
            }
        }
    }

    pub(crate) fn with_close_frame(message: impl Into<Cow<'static, str>>, frame: CloseFrame) -> Self {
        let (kind, message) = (ErrorKind::Closed, message.into());
        Self(Arc::new(Inner { kind, message, source: None, close_frame: Some(frame), response: None }))
    }

    #[cfg(feature = "client")]
    pub(crate) fn with_response(
        message: impl Into<Cow<'static, str>>,
        response: http::Response<Bytes>,
    ) -> Self {
        let (kind, message) = (ErrorKind::Handshake, message.into());
        Self(Arc::new(Inner {
            kind,
            message,
            source: None,
            close_frame: None,
            response: Some(Box::new(response)),
        }))
    }
}

impl fmt::Display for Error {
    /// Writes the text. If the transport or the opening handshake failed, or an argument is invalid, the
    /// causes follow in the same line, with their control characters escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, message, .. } = &*self.0;
        f.write_str(message)?;
        match kind {
            ErrorKind::Io
            | ErrorKind::Disconnected
            | ErrorKind::Timeout
            | ErrorKind::Protocol
            | ErrorKind::Handshake
            | ErrorKind::InvalidInput => write_causes(f, self.source(), message.to_string()),
            // The cause may quote a message of the peer.
            _ => Ok(()),
        }
    }
}

/// Writes `cause` and its own causes, each after a colon and with its control characters escaped. `last` is
/// the text before them.
pub(crate) fn write_causes(
    f: &mut fmt::Formatter<'_>,
    mut cause: Option<&(dyn StdError + 'static)>,
    mut last: String,
) -> fmt::Result {
    while let Some(error) = cause {
        let text = escaped_once(&error.to_string());
        // Some errors include their own cause.
        if !has_part(&last, &text) {
            f.write_str(": ")?;
            f.write_str(&text)?;
            last = text;
        }
        cause = error.source();
    }
    Ok(())
}

/// Does what `str::contains` does, with less code: errors are short, and programs in pages should be.
fn has_part(text: &str, part: &str) -> bool {
    part.is_empty() || text.as_bytes().windows(part.len()).any(|window| window == part.as_bytes())
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
        if let Some(response) = self.response() {
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

impl From<Misuse> for Error {
    /// Returns an error of the kind [`ErrorKind::InvalidInput`], with the text of the misuse.
    fn from(misuse: Misuse) -> Self {
        Self::new(ErrorKind::InvalidInput, misuse.to_string())
    }
}

impl From<Error> for io::Error {
    /// Wraps the error for the traits of I/O. [`io::Error::get_ref`] returns the [`Error`].
    ///
    /// | [`Error::kind`] | [`io::Error::kind`] |
    /// |---|---|
    /// | `Closed` | `BrokenPipe` |
    /// | `Disconnected` | `UnexpectedEof` |
    /// | `Protocol`, `Limit`, `InvalidData` | `InvalidData` |
    /// | `Timeout` | `TimedOut` |
    /// | `InvalidInput` | `InvalidInput` |
    /// | `Handshake`, `Io` | `Other` |
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

/// Returns the first error of type `T` among `error` and its causes.
#[cfg(any(feature = "server", all(feature = "client", feature = "tls")))]
pub(crate) fn find_cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        let found = error.downcast_ref();
        if found.is_some() {
            return found;
        }
        // The `source` of an `io::Error` skips the error that it wraps.
        let wrapped = error.downcast_ref().and_then(io::Error::get_ref);
        next = wrapped.map_or_else(|| error.source(), |wrapped| Some(wrapped as _));
    }
    None
}

/// Escapes the control characters of text that may be the peer's, as `Display` of [`CloseFrame`] does.
pub(crate) fn escaped(text: &str) -> String {
    Escaped(text).to_string()
}

/// Escapes the control characters of text that may be escaped already: backslashes stay as they are.
pub(crate) fn escaped_once(text: &str) -> String {
    let mut result = String::new();
    for character in text.chars() {
        match character {
            '\\' => result.push(character),
            _ => result.push_str(&escaped(&character.to_string())),
        }
    }
    result
}

/// The error of [`try_send`](crate::Sender::try_send), which returns the message to the caller.
///
/// # Examples
///
/// ```
/// use bowline::{Sender, TrySendError};
///
/// /// Sends a position that is soon outdated, unless the peer does not keep up.
/// fn send_position(sender: &Sender, position: String) -> bool {
///     match sender.try_send(position) {
///         Ok(()) => true,
///         Err(TrySendError::Full(position)) => {
///             println!("skipped {position}");
///             true
///         }
///         Err(TrySendError::Closed(_)) => false,
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrySendError<M> {
    /// The message can't be sent without waiting: the write buffer is full, other senders wait, or a
    /// [`MessageWriter`](crate::MessageWriter) is open.
    Full(M),
    /// The connection is closed.
    Closed(M),
}

impl<M> TrySendError<M> {
    /// Returns the message that was not sent.
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
            // `io::Error::source` skips the error that it wraps, as that has the same text.
            assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the cause");
            let inner = error.into_inner().unwrap().downcast::<Error>().unwrap();
            assert_eq!(inner.kind(), kind);
        }
    }

    #[test]
    fn errors_without_content_of_messages_name_their_cause_in_one_line() {
        use ErrorKind::{Disconnected, Handshake, InvalidInput, Io, Protocol, Timeout};
        for kind in [Io, Disconnected, Timeout, Protocol, Handshake, InvalidInput] {
            let innermost = Error::with_source(kind, "reading failed", io::Error::other("line 1\nline 2"));
            let error = Error::with_source(kind, "the handshake failed", innermost);
            assert_eq!(error.to_string(), "the handshake failed: reading failed: line 1\\nline 2");
        }
        let error = Error::with_source(ErrorKind::InvalidData, "not JSON", io::Error::other("the cause"));
        assert_eq!(error.to_string(), "not JSON");
    }
}
