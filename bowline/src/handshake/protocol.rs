//! The `:protocol` of an extended CONNECT, for any HTTP library.

use std::borrow::Cow;

/// The `:protocol` of an extended CONNECT (RFC 8441 4, RFC 9220 3), as an extension of a request.
///
/// Over HTTP/2 and HTTP/3, a WebSocket is opened by a CONNECT whose pseudo-header `:protocol` is `websocket`.
/// The types of the crate `http` have no place for this header. An HTTP library other than hyper and h2
/// inserts it into the extensions of the request, where `Acceptor::respond` finds it.
///
/// ```
/// use bowline::{Acceptor, ConnectProtocol};
/// use http::{Request, Version};
///
/// let request = Request::connect("https://example.com/chat")
///     .version(Version::HTTP_3)
///     .header("sec-websocket-version", "13")
///     .extension(ConnectProtocol::new("websocket"))
///     .body(())
///     .unwrap();
/// let (response, _handshake) = Acceptor::new().respond(&request).unwrap();
/// assert_eq!(response.status(), 200);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConnectProtocol(Cow<'static, str>);

impl ConnectProtocol {
    /// Creates the value of a `:protocol`, such as `websocket`.
    ///
    /// ```
    /// assert_eq!(bowline::ConnectProtocol::new("websocket").as_str(), "websocket");
    /// ```
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(name.into())
    }

    /// Returns the value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
