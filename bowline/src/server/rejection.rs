//! The rejection of an opening handshake.

use std::error::Error as StdError;
use std::fmt;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::error::{Error, ErrorKind, escaped};

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
pub struct Rejection(Box<Response<String>>);

impl Rejection {
    pub(crate) fn new(status: StatusCode, text: &str) -> Self {
        let mut response = Response::new(format!("{text}\n"));
        *response.status_mut() = status;
        let plain_text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, plain_text);
        Self(Box::new(response))
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.0.headers_mut().insert(name, HeaderValue::from_static(value));
        self
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
        self.0.status()
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
        self.0.map(B::from)
    }
}

impl From<StatusCode> for Rejection {
    /// Makes a response with this status, and the name of the status as its body.
    fn from(status: StatusCode) -> Self {
        Self::new(status, status.canonical_reason().unwrap_or("rejected"))
    }
}

impl From<Response<String>> for Rejection {
    fn from(response: Response<String>) -> Self {
        Self(Box::new(response))
    }
}

impl fmt::Display for Rejection {
    /// Writes the status and the body in one line. Control characters, which may come from the request, are
    /// escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status(), escaped(self.0.body().trim_end()))
    }
}

impl fmt::Debug for Rejection {
    /// Omits the headers, which may set cookies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Rejection");
        debug.field("status", &self.status()).field("body", self.0.body()).finish_non_exhaustive()
    }
}

impl StdError for Rejection {}
