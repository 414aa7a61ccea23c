//! The builder of client options, and the way from a URL to a connection.

use std::fmt::Display;

use bowline_proto::Role;
use http::header::{SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderValue, Response, StatusCode};

use super::operations;
use super::socket;
use super::websocket::WebSocket;
use crate::error::{Error, ErrorKind};
use crate::events::{self, HandshakeSubject};
use crate::limits::Limits;

/// Connects to a WebSocket server with the default options.
///
/// See [`Connector`] for the options, and [`Connector::connect`] for the URL.
///
/// ```no_run
/// # async fn example() -> Result<(), bowline::Error> {
/// let mut socket = bowline::connect("wss://example.com/feed").await?;
/// socket.send("hello").await?;
/// while let Some(message) = socket.recv().await? {
///     println!("{message:?}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Returns the errors that [`Connector::connect`] returns.
///
/// # Cancel safety
///
/// This function is cancel safe. Dropping the future ends the attempt and closes its connection.
pub async fn connect(url: impl Display) -> Result<WebSocket, Error> {
    let socket = Connector::new().start(&url.to_string())?;
    opened(socket).await
}

/// A configurable client that opens WebSocket connections.
///
/// The methods that set options never fail. An invalid setting is kept, and [`connect`](Self::connect)
/// returns it as [`ErrorKind::InvalidInput`] before anything is sent.
///
/// Browsers choose everything else: headers, the origin, TLS, proxies, the version of HTTP, compression and
/// keepalive pings. The methods for these don't exist here. To authenticate, use a cookie, a token in the
/// URL's query, or a token as a second [subprotocol](Self::subprotocols) that the server does not choose.
///
/// ```no_run
/// use bowline::{Connector, Limits};
///
/// # async fn example() -> Result<(), bowline::Error> {
/// let connector = Connector::new()
///     .subprotocols(["chat.v2", "chat.v1"])
///     .limits(Limits::default().message_size(16 * 1024 * 1024));
/// let (socket, _) = connector.connect("wss://example.com/chat").await?;
/// println!("{:?}", socket.subprotocol());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Connector {
    subprotocols: Vec<String>,
    limits: Limits,
}

impl Connector {
    /// Returns a connector with the default options.
    ///
    /// By default there are no subprotocols. The limits are [`Limits::default`].
    ///
    /// ```
    /// let connector = bowline::Connector::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the subprotocols to offer, the preferred one first (RFC 6455 1.9). Default: none.
    ///
    /// Each must be a token (RFC 9110 5.6.2) and occur once. [`WebSocket::subprotocol`] returns the server's
    /// choice.
    ///
    /// ```
    /// let connector = bowline::Connector::new().subprotocols(["chat.v2", "chat.v1"]);
    /// ```
    pub fn subprotocols<S: Into<String>>(mut self, subprotocols: impl IntoIterator<Item = S>) -> Self {
        self.subprotocols = subprotocols.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the limits of the handshake and of the connection. Default: [`Limits::default`].
    ///
    /// ```
    /// use bowline::{Connector, Limits};
    ///
    /// let connector = Connector::new().limits(Limits::default().message_size(64 * 1024));
    /// ```
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Connects to a server. Returns the connection, and as much of the head of the server's response as the
    /// browser tells: the subprotocol and the extensions.
    ///
    /// The URL is a `&str`, a `String`, an [`http::Uri`], or any other value that is displayed as a URL. Its
    /// scheme is `ws` or `wss`. Browsers of 2024 and later also accept `http` and `https`, and URLs that are
    /// relative to the page, such as `/feed`.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), bowline::Error> {
    /// let (mut socket, _) = bowline::Connector::new().connect("wss://example.com/feed").await?;
    /// println!("{:?}", socket.recv().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if the URL or an option is invalid. In that case nothing was
    ///   sent.
    /// - Returns [`ErrorKind::Timeout`] if the handshake takes longer than [`Limits::handshake_timeout`].
    /// - Returns [`ErrorKind::Disconnected`] if the server can't be reached, TLS fails, or the server does
    ///   not accept the handshake. Browsers don't tell which, so that pages can't explore a network; the
    ///   developer tools do.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future ends the attempt and closes its connection.
    pub async fn connect(&self, url: impl Display) -> Result<(WebSocket, Response<()>), Error> {
        let socket = self.start(&url.to_string())?;
        let socket = opened(socket).await?;
        let response = response_of(&socket);
        Ok((socket, response))
    }

    /// Starts to connect. The drop of the `WebSocket` ends the attempt.
    ///
    /// Not `async`, so that no object of JavaScript is held while waiting.
    fn start(&self, url: &str) -> Result<WebSocket, Error> {
        if let Some(text) = self.limits.invalid() {
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let connection = socket::open(url, &self.subprotocols, self.limits.clone())?;
        Ok(WebSocket::new(connection))
    }
}

/// Waits until the connection is open.
async fn opened(mut socket: WebSocket) -> Result<WebSocket, Error> {
    operations::opened(&socket.connection).await?;
    socket.subprotocol = socket.connection.subprotocol();
    events::handshake_accepted(HandshakeSubject::of_client(), socket.subprotocol(), None);
    events::connection_opened(Role::Client, None);
    Ok(socket)
}

/// Returns what the browser tells of the response of the handshake.
fn response_of(socket: &WebSocket) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let extensions = socket::find(&socket.connection).ok().flatten().map(|socket| socket.extensions());
    let told = [
        (SEC_WEBSOCKET_PROTOCOL, socket.subprotocol()),
        (SEC_WEBSOCKET_EXTENSIONS, extensions.as_deref().filter(|text| !text.is_empty())),
    ];
    for (name, value) in told {
        if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
