//! The rejection of an opening handshake.

mod reason;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::error::{Error, ErrorKind, escaped, write_causes};

pub use reason::RejectionReason;

/// The seconds after which a client that was refused by a limit on the load may try again (RFC 9110 10.2.3).
pub(crate) const RETRY_SECONDS: &str = "5";

/// The response that rejects an opening handshake.
///
/// [`accept`](crate::accept) returns rejections. The closure of
/// [`Server::on_request`](crate::Server::on_request) makes its own: from a [`StatusCode`], or from any
/// response.
///
/// ```
/// use bowline::Rejection;
/// use http::StatusCode;
///
/// let rejection = Rejection::from(StatusCode::UNAUTHORIZED);
/// assert_eq!(rejection.status(), 401);
/// ```
#[derive(Clone)]
pub struct Rejection(Box<Content>);

#[derive(Clone)]
struct Content {
    response: Response<String>,
    reason: RejectionReason,
    /// For the server only.
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Rejection {
    pub(crate) fn new(status: StatusCode, text: &str) -> Self {
        let mut response = Response::new(format!("{text}\n"));
        *response.status_mut() = status;
        let plain_text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, plain_text);
        Self(Box::new(Content { response, reason: RejectionReason::Handshake, source: None }))
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.0.response.headers_mut().insert(name, HeaderValue::from_static(value));
        self
    }

    /// Sets the cause of the rejection, for the server's own log. The client does not receive it.
    ///
    /// [`Server::on_error`](crate::Server::on_error) and the event `handshake_rejected` include the text of
    /// the cause, and [`source`](StdError::source) returns the cause. Default: none, except for a request
    /// whose origin is foreign.
    ///
    /// ```
    /// use bowline::{Rejection, Server};
    /// use http::StatusCode;
    /// use http::request::Parts;
    ///
    /// let server = Server::new().on_request(|head: Parts| async move {
    ///     let Some(token) = head.headers.get("authorization") else {
    ///         return Err(Rejection::from(StatusCode::UNAUTHORIZED).with_source("there is no token"));
    ///     };
    ///     if token != "Bearer 1234" {
    ///         return Err(Rejection::from(StatusCode::UNAUTHORIZED).with_source("the token is unknown"));
    ///     }
    ///     Ok(head)
    /// });
    /// ```
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// Sets the reason by which the server counts the rejection.
    pub(crate) fn because_of(mut self, reason: RejectionReason) -> Self {
        self.0.reason = reason;
        self
    }

    /// Creates the rejection of a request for which the server has no room.
    pub(crate) fn of_load(reason: RejectionReason) -> Self {
        let (status, text) = match reason {
            RejectionReason::ConnectionsPerAddress => {
                // RFC 6585 4: the status of a client that asks for too much.
                (StatusCode::TOO_MANY_REQUESTS, "there are too many connections of this address")
            }
            _ => (StatusCode::SERVICE_UNAVAILABLE, "the server has no room for another connection now"),
        };
        Self::new(status, text).with_header(RETRY_AFTER, RETRY_SECONDS).because_of(reason)
    }

    /// Returns the error of a request that was rejected.
    pub(crate) fn into_error(self) -> Error {
        Error::with_source(ErrorKind::Handshake, "the client's request was rejected", self)
    }

    /// Returns the status of the response.
    ///
    /// ```
    /// let rejection = bowline::Rejection::from(http::StatusCode::FORBIDDEN);
    /// assert_eq!(rejection.status(), 403);
    /// ```
    pub fn status(&self) -> StatusCode {
        self.0.response.status()
    }

    /// Returns the response to send.
    ///
    /// Its body is a line of text that says what is wrong. A rejection that was made from a response returns
    /// that response.
    ///
    /// ```
    /// use bowline::Rejection;
    /// use http::{Response, StatusCode};
    ///
    /// let response: Response<String> = Rejection::from(StatusCode::FORBIDDEN).into_response();
    /// assert_eq!(response.body(), "Forbidden\n");
    /// ```
    pub fn into_response<B: From<String>>(self) -> Response<B> {
        self.0.response.map(B::from)
    }
}

impl From<StatusCode> for Rejection {
    /// Makes a response with this status, and the name of the status as its body.
    fn from(status: StatusCode) -> Self {
        Self::new(status, status.canonical_reason().unwrap_or("rejected"))
            .because_of(RejectionReason::OnRequest)
    }
}

impl From<Response<String>> for Rejection {
    fn from(response: Response<String>) -> Self {
        Self(Box::new(Content { response, reason: RejectionReason::OnRequest, source: None }))
    }
}

impl fmt::Display for Rejection {
    /// Writes the status, the body unless it repeats the status, and the causes, in one line. Control
    /// characters, which may come from the request, are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = escaped(self.0.response.body().trim_end());
        write!(f, "{}", self.status())?;
        // The body of a rejection that is only a status repeats its words.
        if !body.is_empty() && self.status().canonical_reason() != Some(&body) {
            write!(f, ": {body}")?;
        }
        write_causes(f, self.source(), body)
    }
}

impl fmt::Debug for Rejection {
    /// Omits the headers, which may set cookies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Rejection");
        debug.field("status", &self.status()).field("body", self.0.response.body());
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish_non_exhaustive()
    }
}

impl StdError for Rejection {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl RejectionReason {
    /// Returns the reason why an opening handshake failed with `error`.
    pub(crate) fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::Limit => Self::HeadSize,
            ErrorKind::Disconnected | ErrorKind::Io => Self::Disconnected,
            _ => {
                let rejection = error.source().and_then(|source| source.downcast_ref::<Rejection>());
                rejection.map_or(Self::Handshake, |rejection| rejection.0.reason)
            }
        }
    }
}
