//! The error type of all operations of a hub.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// The category of an [`Error`], as returned by [`Error::kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or a setting is invalid.
    InvalidInput,
    /// A limit of [`HubLimits`](crate::HubLimits) is exceeded. The text names the limit.
    Limit,
    /// The engine failed, or did not answer within
    /// [`HubLimits::engine_timeout`](crate::HubLimits::engine_timeout). Another attempt may succeed.
    Unavailable,
    /// The connection of the member is closed, the member has left the topic in the meantime, or the runtime
    /// of the hub has ended.
    Closed,
}

impl fmt::Display for ErrorKind {
    /// Writes a description of few words, such as `limit exceeded`, for the labels of logs and metrics.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::InvalidInput => "invalid input",
            Self::Limit => "limit exceeded",
            Self::Unavailable => "engine unavailable",
            Self::Closed => "closed",
        })
    }
}

/// The error of all operations of a hub.
///
/// [`kind`](Self::kind) classifies the error. Its text says what happened and, where a setting helps, names
/// the setting.
///
/// # Examples
///
/// ```
/// use bowline_hub::{ErrorKind, Hub, Memory};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), bowline_hub::Error> {
/// let hub = Hub::builder(Memory::new()).build()?;
/// let error = hub.publish("news", "x".repeat(100_000)).await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Limit);
/// assert!(error.to_string().contains("HubLimits::message_size"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Returns the category of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn with_source(
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// Creates the error for a connection that is closed.
    pub(crate) fn closed(source: bowline::Error) -> Self {
        Self::with_source(ErrorKind::Closed, "the connection of the member is closed", source)
    }

    /// Creates the error for a connection that was closed before.
    pub(crate) fn closed_already() -> Self {
        Self::new(ErrorKind::Closed, "the connection of the member is closed")
    }

    /// Creates the error for a request that nobody answers.
    pub(crate) fn left() -> Self {
        Self::new(ErrorKind::Closed, "the member has left the topic, or the runtime of the hub has ended")
    }

    /// Creates the error for a hub whose workers are gone.
    pub(crate) fn ended() -> Self {
        Self::new(ErrorKind::Closed, "the runtime in which the hub was built has ended")
    }
}

impl fmt::Display for Error {
    /// Writes the text, and the cause in the same line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
