//! A handshake that a server does not accept.

use std::error::Error as StdError;
use std::fmt;

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::error::escaped;

/// Why a server did not accept an opening handshake, as the response that says so.
///
/// [`accept`](crate::accept) makes them, and so may the closure of
/// [`Server::on_request`](crate::Server::on_request): from a [`StatusCode`], or from any response.
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

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }

    /// The response to send. Its body is a line of text that says what is wrong, unless the rejection was made from a
    /// response, which comes back as it was.
    pub fn into_response<B: From<String>>(self) -> Response<B> {
        self.0.map(B::from)
    }
}

impl From<StatusCode> for Rejection {
    /// A response with this status, and its name as the body.
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
    /// Writes the status and the body in one line: control characters, which may come from the request, are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status(), escaped(self.0.body().trim_end()))
    }
}

impl fmt::Debug for Rejection {
    /// Leaves the headers out, which may set cookies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Rejection");
        debug.field("status", &self.status()).field("body", self.0.body()).finish_non_exhaustive()
    }
}

impl StdError for Rejection {}
