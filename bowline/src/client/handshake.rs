//! The client's side of an opening handshake, without I/O (RFC 6455 4.1, RFC 8441 5).

use std::fmt;
use std::net::SocketAddr;

use bowline_proto::handshake::{Key, VERSION};
use bowline_proto::header::Extension;
use bowline_proto::{InvalidAnswer, Role};
use bytes::Bytes;
use http::header::{
    CONNECTION, Entry, HeaderMap, HeaderValue, LOCATION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, SET_COOKIE, UPGRADE,
};
use http::{Response, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::outbound::random::{random, renew_after_fork};
use crate::connection::parts::{Config, ConnectionParts};
use crate::error::Error;
use crate::events::{self, HandshakeSubject};
use crate::handshake::headers::{Occurrence, has_token};
use crate::handshake::negotiated::Negotiated;
use crate::limits::Limits;
use crate::socket::{Adoption, WebSocket};
use crate::transport::{Addresses, Transport};

/// The number of bytes of a response's body that an error keeps.
pub(crate) const BODY_KEPT: usize = 1024;

/// An opening handshake that another HTTP client carries out.
///
/// [`Connector::request`](crate::Connector::request) returns it together with the request. Once the response
/// has arrived, [`verify`](Self::verify) checks it.
///
/// ```no_run
/// use bowline::{Connector, WebSocket};
/// use http::{Request, Response};
/// # use tokio::io::DuplexStream;
/// # async fn send(_: Request<()>) -> Response<()> { unimplemented!() }
/// # async fn upgrade(_: Response<()>) -> (DuplexStream, Vec<u8>) { unimplemented!() }
///
/// # async fn example() -> Result<(), bowline::Error> {
/// let (request, handshake) = Connector::new().request("wss://example.com/feed")?;
/// // `send` and `upgrade` stand for the HTTP client. The second returns the stream, and the bytes after the
/// // response that were already read.
/// let response = send(request).await;
/// let verified = handshake.verify(&response)?;
/// let (stream, leftover) = upgrade(response).await;
/// let socket: WebSocket = verified.finish(stream, leftover);
/// # Ok(())
/// # }
/// ```
pub struct ClientHandshake {
    key: Key,
    /// The subprotocols that were offered.
    subprotocols: Vec<String>,
    config: Config,
}

impl ClientHandshake {
    /// Begins a handshake with a new key.
    pub(crate) fn new(subprotocols: Vec<String>, config: Config) -> Self {
        renew_after_fork();
        // RFC 6455 4.1: a nonce of 16 bytes, selected randomly for each connection.
        Self { key: Key::from_nonce(random()), subprotocols, config }
    }

    /// Adds the headers of the handshake to those of a request.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        let key = HeaderValue::from_str(self.key.as_str()).expect("base64 is a header's value");
        // RFC 6455 4.1: Upgrade, Connection, Sec-WebSocket-Key, -Version and optionally -Protocol.
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_KEY, key);
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
        if !self.subprotocols.is_empty() {
            let list = self.subprotocols.join(", ");
            let mut list = HeaderValue::try_from(list).expect("tokens are a header's value");
            // Pages in browsers can send a token only as a subprotocol, so this may be one.
            list.set_sensitive(true);
            headers.insert(SEC_WEBSOCKET_PROTOCOL, list);
        }
        if let Some(wish) = self.config.compression.wish() {
            let offer = HeaderValue::try_from(wish.offer().to_string()).expect("tokens are a header's value");
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, offer);
        }
    }

    /// Checks the response. Returns the handshake that opens the connection on the upgraded stream.
    ///
    /// The response is that of hyper, or of any client with the types of the crate [`http`]. Call this method
    /// before the stream is asked for: a client has no stream if the server did not agree, and its error then
    /// says less.
    ///
    /// A response that arrives as [`Parts`](http::response::Parts) is `Response::from_parts(parts, ())`. One
    /// of reqwest can be converted in both directions:
    ///
    /// ```
    /// use bowline::{Connector, WebSocket};
    /// use reqwest::{Body, Client, Response};
    ///
    /// async fn connect(client: &Client, url: &str) -> Result<WebSocket, Box<dyn std::error::Error>> {
    ///     let (request, handshake) = Connector::new().request(url)?;
    ///     let request = request.map(|()| Body::default()).try_into()?;
    ///     let response = http::Response::from(client.execute(request).await?);
    ///     let verified = handshake.verify(&response)?;
    ///     let upgraded = Response::from(response).upgrade().await?;
    ///     Ok(verified.finish(upgraded, Vec::new()))
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Handshake`](crate::ErrorKind::Handshake) if the response does not accept the
    /// handshake. The text of the error says why, and [`Error::response`] returns the response without its
    /// body.
    pub fn verify<B>(self, response: &Response<B>) -> Result<VerifiedHandshake, Error> {
        self.verify_beside(response, Bytes::new())
    }

    /// Checks a response whose body was received, as [`verify`](Self::verify) does. The response in an error
    /// has the first KiB of the body, in which servers often say why they refuse.
    ///
    /// ```
    /// use bowline::{ClientHandshake, Error, VerifiedHandshake};
    /// use http::Response;
    ///
    /// fn verify(handshake: ClientHandshake, response: Response<String>) -> Result<VerifiedHandshake, Error>
    /// {
    ///     handshake.verify_whole(response)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors that [`verify`](Self::verify) returns.
    pub fn verify_whole(self, response: Response<impl Into<Bytes>>) -> Result<VerifiedHandshake, Error> {
        let response = response.map(Into::into);
        let body = response.body();
        let start = body.slice(..body.len().min(BODY_KEPT));
        self.verify_beside(&response, start)
    }

    fn verify_beside<B>(self, response: &Response<B>, body: Bytes) -> Result<VerifiedHandshake, Error> {
        let agreed = self.conclude(response).map_err(|text| refused(text, response, body))?;
        Ok(VerifiedHandshake { agreed, config: self.config, addresses: Addresses::default() })
    }

    /// Opens the connection after a response that was accepted.
    pub(crate) fn complete(&self, transport: Transport, leftover: &[u8], agreed: Negotiated) -> WebSocket {
        WebSocket::open(ConnectionParts {
            transport,
            role: Role::Client,
            leftover,
            config: &self.config,
            negotiated: agreed,
        })
    }

    /// Returns the limits of the connector, of which the HTTP client keeps those of the handshake.
    ///
    /// ```
    /// # fn example() -> Result<(), bowline::Error> {
    /// let (_request, handshake) = bowline::Connector::new().request("wss://example.com/feed")?;
    /// let (timeout, head_size) = (handshake.limits().handshake_timeout, handshake.limits().head_size);
    /// # assert_eq!((timeout.as_secs(), head_size), (10, 16 * 1024));
    /// # Ok(())
    /// # }
    /// # example().unwrap();
    /// ```
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Checks the response, and returns what was agreed on, or what is wrong.
    pub(crate) fn conclude<B>(&self, response: &Response<B>) -> Result<Negotiated, String> {
        self.check(response).inspect(|agreed| agreed.announce(HandshakeSubject::of_client())).inspect_err(
            |reason| {
                events::handshake_rejected(HandshakeSubject::of_client(), response.status(), reason);
            },
        )
    }

    fn check<B>(&self, response: &Response<B>) -> Result<Negotiated, String> {
        let headers = response.headers();
        if response.version() <= Version::HTTP_11 {
            self.verify_upgrade(response)?;
        } else if !response.status().is_success() {
            // RFC 8441 5, RFC 9110 9.3.6: a CONNECT that succeeds is answered with 200 or another 2xx, and
            // without a key.
            return Err(describe_status(response.status(), StatusCode::OK, headers));
        }
        let mut agreed = Negotiated::on_subprotocol(self.verify_subprotocol(headers)?);
        self.verify_extensions(headers, &mut agreed)?;
        Ok(agreed)
    }

    fn verify_upgrade<B>(&self, response: &Response<B>) -> Result<(), String> {
        let headers = response.headers();
        // RFC 6455 4.1: a status other than 101 does not accept the handshake.
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(describe_status(response.status(), StatusCode::SWITCHING_PROTOCOLS, headers));
        }
        // RFC 6455 4.1: Upgrade is `websocket`, and Connection contains `Upgrade`, both in any case.
        match Occurrence::of(headers, UPGRADE) {
            Occurrence::Once(value) if value.as_bytes().eq_ignore_ascii_case(b"websocket") => {}
            Occurrence::Repeated => {
                return Err("the server's response has more than one Upgrade header".to_owned());
            }
            _ => return Err("the server's response does not have `Upgrade: websocket`".to_owned()),
        }
        if !has_token(headers, CONNECTION, "upgrade") {
            return Err("the server's response does not have `Connection: Upgrade`".to_owned());
        }
        // RFC 6455 4.1, 11.3.3: Sec-WebSocket-Accept occurs once, with the value that the key demands.
        match Occurrence::of(headers, SEC_WEBSOCKET_ACCEPT) {
            Occurrence::Once(accept) if self.key.accept().matches(accept.as_bytes()) => Ok(()),
            Occurrence::Once(_) => {
                Err("the server's Sec-WebSocket-Accept does not belong to this request".to_owned())
            }
            Occurrence::None => Err("the server's response has no Sec-WebSocket-Accept".to_owned()),
            Occurrence::Repeated => {
                Err("the server's response has more than one Sec-WebSocket-Accept".to_owned())
            }
        }
    }

    fn verify_extensions(&self, headers: &HeaderMap, agreed: &mut Negotiated) -> Result<(), String> {
        let malformed = || "the server's Sec-WebSocket-Extensions is not a list of extensions".to_owned();
        let mut answer = Vec::new();
        for line in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
            let line = line.to_str().map_err(|_| malformed())?;
            answer.extend(Extension::parse_list(line).ok_or_else(malformed)?);
        }
        if let Some(wish) = self.config.compression.wish() {
            agreed.deflate = wish.verify(&answer).map_err(describe_answer)?;
        } else if !answer.is_empty() {
            // RFC 6455 4.1: an extension that was not offered fails the connection. Here none was offered.
            return Err("the server chose an extension, but none was offered".to_owned());
        }
        Ok(())
    }

    fn verify_subprotocol<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, String> {
        match Occurrence::of(headers, SEC_WEBSOCKET_PROTOCOL) {
            Occurrence::None => Ok(None),
            Occurrence::Repeated => Err("the server chose more than one subprotocol".to_owned()),
            // RFC 9110 5.6.1: an empty list chooses no subprotocol.
            Occurrence::Once(value) if value.as_bytes().trim_ascii().is_empty() => Ok(None),
            // RFC 6455 4.1: a subprotocol that was not offered fails the connection.
            Occurrence::Once(value) => match value.to_str() {
                Ok(chosen) if self.subprotocols.iter().any(|offered| offered == chosen) => Ok(Some(chosen)),
                _ => Err(format!("the server chose the subprotocol {value:?}, which was not offered")),
            },
        }
    }
}

impl fmt::Debug for ClientHandshake {
    /// Omits the key and the subprotocols, any of which may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientHandshake").field("config", &self.config).finish_non_exhaustive()
    }
}

/// An opening handshake whose response accepts it, in another HTTP client.
///
/// [`ClientHandshake::verify`] returns it. It is what [`ServerHandshake`](crate::ServerHandshake) is for
/// servers.
pub struct VerifiedHandshake {
    agreed: Negotiated,
    config: Config,
    addresses: Addresses,
}

impl VerifiedHandshake {
    /// Returns the subprotocol that the server chose, if any (RFC 6455 1.9).
    ///
    /// ```
    /// fn room(handshake: &bowline::VerifiedHandshake) -> &str {
    ///     handshake.subprotocol().unwrap_or("lobby")
    /// }
    /// ```
    pub fn subprotocol(&self) -> Option<&str> {
        self.agreed.subprotocol.as_deref()
    }

    /// Sets the address that [`WebSocket::peer_addr`] returns. Default: that of the stream, if the stream is
    /// a [`TcpStream`](tokio::net::TcpStream).
    ///
    /// ```
    /// # fn example(handshake: bowline::VerifiedHandshake, stream: tokio::io::DuplexStream) {
    /// let socket = handshake.peer_addr(([192, 0, 2, 1], 443)).finish(stream, Vec::new());
    /// # }
    /// ```
    pub fn peer_addr(mut self, address: impl Into<SocketAddr>) -> Self {
        self.addresses.peer = Some(address.into());
        self
    }

    /// Sets the address that [`WebSocket::local_addr`] returns. Default: that of the stream, if the stream is
    /// a [`TcpStream`](tokio::net::TcpStream).
    ///
    /// ```
    /// # fn example(handshake: bowline::VerifiedHandshake, stream: tokio::io::DuplexStream) {
    /// let socket = handshake.local_addr(([192, 0, 2, 2], 49152)).finish(stream, Vec::new());
    /// # }
    /// ```
    pub fn local_addr(mut self, address: impl Into<SocketAddr>) -> Self {
        self.addresses.local = Some(address.into());
        self
    }

    /// Opens the connection on the upgraded stream.
    ///
    /// The stream is the one that the HTTP client returns after the response, such as `reqwest::Upgraded`, or
    /// hyper's `Upgraded` in a `TokioIo`. If hyper's runs over plain TCP, the TCP stream is taken out and
    /// nothing of hyper remains. Over HTTP/2 and HTTP/3, the stream is that of the request.
    ///
    /// `leftover` contains the bytes after the response that were already read. hyper and reqwest keep them
    /// in their streams, so `leftover` is empty there.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime, and in a runtime without its time driver.
    pub fn finish<S>(self, stream: S, leftover: impl Into<Bytes>) -> WebSocket
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self { agreed, config, addresses } = self;
        Adoption::after(agreed, addresses).leftover(leftover).open(stream, Role::Client, &config)
    }
}

impl fmt::Debug for VerifiedHandshake {
    /// Omits the subprotocol, which may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedHandshake").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Returns the error for a response that does not accept the handshake.
pub(crate) fn refused<B>(text: String, response: &Response<B>, body: Bytes) -> Error {
    let mut copy = Response::new(body);
    *copy.status_mut() = response.status();
    *copy.version_mut() = response.version();
    copy.headers_mut().clone_from(response.headers());
    hide_secrets(copy.headers_mut());
    Error::with_response(text, copy)
}

/// Hides from `Debug` the headers that may contain credentials: cookies, and tokens in a URL or a
/// subprotocol.
pub(crate) fn hide_secrets(headers: &mut HeaderMap) {
    for name in [SET_COOKIE, LOCATION, SEC_WEBSOCKET_PROTOCOL] {
        if let Entry::Occupied(mut values) = headers.entry(name) {
            values.iter_mut().for_each(|value| value.set_sensitive(true));
        }
    }
}

fn describe_status(status: StatusCode, wanted: StatusCode, headers: &HeaderMap) -> String {
    match headers.get(LOCATION) {
        Some(location) if status.is_redirection() => format!(
            "the server redirects to {:?} with {status}; connect there if it can be trusted \
             (Connector::redirects follows redirects to the same host)",
            without_secrets(&String::from_utf8_lossy(location.as_bytes()))
        ),
        _ => format!("the server answered {status} instead of {wanted}"),
    }
}

/// Returns a URL without its userinfo and its query, which often contain passwords and tokens.
fn without_secrets(url: &str) -> String {
    let (shown, hidden) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    let (scheme, rest) = shown.split_at(shown.find("//").map_or(0, |slashes| slashes + 2));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority =
        authority.rsplit_once('@').map_or(authority.to_owned(), |(_, host)| format!("...@{host}"));
    let query = if hidden.is_empty() { "" } else { "?..." };
    format!("{scheme}{authority}{path}{query}")
}

/// Describes an invalid choice of an extension, and how to avoid the error.
fn describe_answer(invalid: InvalidAnswer) -> String {
    match invalid {
        InvalidAnswer::ContextTakeover => {
            format!("{invalid}: use Compression::ContextTakeover, or none, with this server")
        }
        InvalidAnswer::WindowBits => format!(
            "{invalid}: raise CompressionOptions::server_max_window_bits or \
             CompressionOptions::client_max_window_bits"
        ),
        _ => invalid.to_string(),
    }
}
