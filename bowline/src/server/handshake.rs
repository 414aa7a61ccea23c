//! The server's side of an opening handshake, without I/O (RFC 6455 4.2, RFC 8441 5).

pub(crate) mod origin;

use std::fmt;
use std::net::SocketAddr;

use bowline_proto::Role;
use bowline_proto::handshake::{Key, VERSION};
use bowline_proto::header::{Extension, is_token, parse_tokens};
use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Extensions, Method, Request, Response, StatusCode, Uri, Version};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::parts::{Config, ConnectionParts};
use crate::handshake::headers::{Occurrence, has_token};
use crate::handshake::negotiated::Negotiated;
use crate::handshake::protocol::ConnectProtocol;
use crate::limits::Limits;
use crate::server::handshake::origin::{Origins, RequestScheme};
use crate::server::registry::{Connections, Registration};
use crate::server::rejection::{Rejection, RejectionReason};
use crate::socket::{Adoption, WebSocket};
use crate::transport::hyper_http2::protocol_of;
use crate::transport::{Addresses, Transport};

/// The terms on which a server accepts handshakes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    /// In the order of preference.
    pub(crate) subprotocols: Vec<String>,
    pub(crate) origins: Origins,
    /// The options of the connection, whose compression is part of the handshake.
    pub(crate) config: Config,
    /// The registry of the connections.
    pub(crate) connections: Option<Connections>,
}

/// The head of a request that may be a handshake.
pub(crate) struct RequestHead<'a> {
    method: &'a Method,
    uri: &'a Uri,
    version: Version,
    headers: &'a HeaderMap,
    /// The `:protocol` of an extended CONNECT (RFC 8441 4).
    protocol: Option<&'a str>,
    scheme: RequestScheme,
}

impl<'a> From<&'a Parts> for RequestHead<'a> {
    fn from(head: &'a Parts) -> Self {
        let Parts { method, uri, version, headers, extensions, .. } = head;
        let (protocol, scheme) = (protocol_in(extensions), RequestScheme::of(uri, extensions));
        Self { method, uri, version: *version, headers, protocol, scheme }
    }
}

impl<'a, A> From<&'a Request<A>> for RequestHead<'a> {
    fn from(request: &'a Request<A>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
            protocol: protocol_in(request.extensions()),
            scheme: RequestScheme::of(request.uri(), request.extensions()),
        }
    }
}

fn protocol_in(extensions: &Extensions) -> Option<&str> {
    extensions.get().map(ConnectProtocol::as_str).or_else(|| protocol_of(extensions))
}

/// Returns `true` if a request asks for a WebSocket, even if in vain: over HTTP/1.1 by `Upgrade: websocket`
/// or a Sec-WebSocket-Key, over HTTP/2 and HTTP/3 by CONNECT.
///
/// A proxy that is not made for WebSockets may remove `Upgrade`, but not the key. CONNECT is never a request
/// for a page.
pub(crate) fn asks_for_websocket(head: &Parts) -> bool {
    let Parts { method, version, headers, .. } = head;
    let by_header = || has_token(headers, UPGRADE, "websocket") || headers.contains_key(SEC_WEBSOCKET_KEY);
    method == Method::CONNECT || (*version <= Version::HTTP_11 && by_header())
}

/// Checks the Host of a request that asks for no WebSocket.
pub(crate) fn check_host(head: &Parts) -> Result<(), Rejection> {
    // RFC 9112 3.2: a request of HTTP/1.1 has a Host header, and no request has two. Otherwise, a proxy may
    // have answered for another host than the application does.
    match Occurrence::of(&head.headers, HOST) {
        Occurrence::Repeated => Err(bad_request("the request has more than one Host header")),
        Occurrence::None if head.version == Version::HTTP_11 => {
            Err(bad_request("the request needs one Host header"))
        }
        Occurrence::None | Occurrence::Once(_) => Ok(()),
    }
}

/// The lines in which a client offers subprotocols and extensions.
pub(crate) struct Offers(HeaderMap);

impl Offers {
    /// Copies the lines from the headers of a request that has been checked.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut offers = HeaderMap::new();
        for name in [SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_EXTENSIONS] {
            for line in headers.get_all(&name) {
                offers.append(&name, line.clone());
            }
        }
        Self(offers)
    }

    pub(crate) fn has_subprotocol(&self, subprotocol: &str) -> bool {
        offered_subprotocols(&self.0).is_ok_and(|offered| offered.contains(&subprotocol))
    }

    pub(crate) fn extensions(&self) -> Vec<Extension<'_>> {
        offered_extensions(&self.0).unwrap_or_default()
    }
}

/// The result of a request that is acceptable.
pub(crate) struct Agreement {
    /// The answer to the key, which HTTP/2 does not have.
    accept: Option<HeaderValue>,
    /// The chosen extension, as the response lists it.
    extension: Option<HeaderValue>,
    /// The application's headers of the response.
    pub(crate) headers: HeaderMap,
    pub(crate) agreed: Negotiated,
    /// The options of the connection to come.
    pub(crate) config: Config,
    /// The registration of the connection to come.
    registration: Option<Registration>,
}

impl Terms {
    /// Checks the head of a request.
    pub(crate) fn check<'a>(&self, head: impl Into<RequestHead<'a>>) -> Result<Agreement, Rejection> {
        let RequestHead { method, uri, version, headers, protocol, scheme } = head.into();
        let is_upgrade = version <= Version::HTTP_11;
        if is_upgrade {
            check_upgrade(method, version, headers)?;
        } else {
            check_connect(method, protocol)?;
        }
        check_version(headers)?;
        // RFC 8441 5: an extended CONNECT has no key, and the response has no answer to one.
        let key = is_upgrade.then(|| check_key(headers)).transpose()?;
        // RFC 6455 4.2.1: the request has one Host header.
        if uri.authority().is_none() && !matches!(Occurrence::of(headers, HOST), Occurrence::Once(_)) {
            return Err(bad_request("the request needs one Host header"));
        }
        // RFC 6455 4.2.2, 10.2: the server checks the origin of a page that connects from a browser.
        self.origins.check(headers, uri, scheme).map_err(|why| {
            Rejection::new(StatusCode::FORBIDDEN, "pages of this origin may not connect here")
                .because_of(RejectionReason::Origin)
                .with_source(why)
        })?;
        let subprotocol = self.choose_subprotocol(headers)?;
        let accept =
            key.map(|key| HeaderValue::from_str(key.accept().as_str()).expect("base64 is a header's value"));
        let mut agreement = Agreement {
            accept,
            extension: None,
            headers: HeaderMap::new(),
            agreed: Negotiated::on_subprotocol(subprotocol),
            config: self.config.clone(),
            registration: None,
        };
        agreement.choose_extension(&offered_extensions(headers)?);
        agreement.registration = self.connections.as_ref().map(Connections::register).transpose()?;
        Ok(agreement)
    }

    /// Chooses one of the subprotocols that the client offers, or none (RFC 6455 4.2.2).
    pub(crate) fn choose_subprotocol(&self, headers: &HeaderMap) -> Result<Option<&str>, Rejection> {
        let offered = offered_subprotocols(headers)?;
        Ok(self.subprotocols.iter().map(String::as_str).find(|subprotocol| offered.contains(subprotocol)))
    }
}

impl Agreement {
    /// Chooses an extension under the options of the connection. The response omits declined extensions.
    pub(crate) fn choose_extension(&mut self, offers: &[Extension<'_>]) {
        let chosen = self.config.compression.wish().and_then(|wish| wish.accept(offers));
        let (agreed, answer) = chosen.unzip();
        self.agreed.deflate = agreed;
        self.extension = answer
            .map(|answer| HeaderValue::try_from(answer.to_string()).expect("tokens are a header's value"));
    }

    /// Returns the response that accepts the handshake.
    pub(crate) fn response<B: Default>(&self) -> Response<B> {
        // RFC 8441 5: an extended CONNECT is accepted with 200, which is the default of `Response`.
        let mut response = Response::new(B::default());
        if let Some(accept) = &self.accept {
            // RFC 6455 4.2.2: status 101, Upgrade, Connection and Sec-WebSocket-Accept.
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
        }
        let headers = response.headers_mut();
        if let Some(subprotocol) = &self.agreed.subprotocol {
            let token = HeaderValue::from_str(subprotocol).expect("a token is a header's value");
            headers.insert(SEC_WEBSOCKET_PROTOCOL, token);
        }
        if let Some(extension) = &self.extension {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, extension.clone());
        }
        headers.extend(self.headers.clone());
        response
    }
}

/// An opening handshake that another HTTP library carries out.
///
/// [`Acceptor::respond`](crate::Acceptor::respond) returns the handshake together with the response. Once the
/// response was sent, [`finish`](Self::finish) opens the connection. If a future returns the stream,
/// [`upgrade`](Self::upgrade) waits for it.
///
/// ```no_run
/// use bowline::{Acceptor, WebSocket};
/// # use tokio::io::DuplexStream;
/// # async fn read_head(_: &mut DuplexStream) -> (http::Request<()>, Vec<u8>) { unimplemented!() }
/// # async fn write_head(_: &mut DuplexStream, _: http::Response<String>) {}
///
/// # async fn example(mut stream: DuplexStream) -> Option<WebSocket> {
/// // `read_head` and `write_head` stand for the HTTP library. The first also returns the bytes that it has
/// // read ahead.
/// let (request, leftover) = read_head(&mut stream).await;
/// match Acceptor::new().respond(&request) {
///     Ok((response, handshake)) => {
///         write_head(&mut stream, response.map(|()| String::new())).await;
///         Some(handshake.finish(stream, leftover))
///     }
///     Err(rejection) => {
///         write_head(&mut stream, rejection.into_response()).await;
///         None
///     }
/// }
/// # }
/// ```
pub struct ServerHandshake {
    agreed: Negotiated,
    config: Config,
    addresses: Addresses,
    registration: Option<Registration>,
    /// The method and the URI of the request, for errors of the handler.
    line: (Method, Uri),
}

impl ServerHandshake {
    /// Creates the handshake of a request that was accepted.
    pub(crate) fn new(agreement: Agreement) -> Self {
        let Agreement { agreed, config, registration, .. } = agreement;
        Self { agreed, config, addresses: Addresses::default(), registration, line: Default::default() }
    }

    /// Notes the request, and the client's address if that is known, for errors of the handler.
    pub(crate) fn of_request<A>(mut self, request: &Request<A>) -> Self {
        self.line = (request.method().clone(), request.uri().clone());
        self.addresses.peer = request.extensions().get().copied();
        self
    }

    /// Returns the subprotocol that was chosen, if any (RFC 6455 1.9).
    ///
    /// ```
    /// fn room(handshake: &bowline::ServerHandshake) -> &str {
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
    /// # fn example(handshake: bowline::ServerHandshake, stream: tokio::io::DuplexStream) {
    /// let socket = handshake.peer_addr(([192, 0, 2, 1], 49152)).finish(stream, Vec::new());
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
    /// # fn example(handshake: bowline::ServerHandshake, stream: tokio::io::DuplexStream) {
    /// let socket = handshake.local_addr(([192, 0, 2, 2], 443)).finish(stream, Vec::new());
    /// # }
    /// ```
    pub fn local_addr(mut self, address: impl Into<SocketAddr>) -> Self {
        self.addresses.local = Some(address.into());
        self
    }

    /// Opens the connection on a stream, after the response was sent.
    ///
    /// `leftover` contains the bytes that were already read after the request. Over HTTP/2 and HTTP/3, the
    /// stream is that of the request. A `TcpStream` takes the library's fast path, and so does one inside of
    /// hyper's `Upgraded` in a `TokioIo`.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime, and in a runtime without its time driver.
    pub fn finish<S>(self, stream: S, leftover: impl Into<Bytes>) -> WebSocket
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self { agreed, config, addresses, registration, .. } = self;
        let adoption = Adoption::after(agreed, addresses).leftover(leftover);
        registered(adoption.open(stream, Role::Server, &config), registration)
    }

    /// Opens the connection on a transport, after the response was sent.
    pub(crate) fn complete(mut self, transport: Transport, leftover: &[u8]) -> WebSocket {
        let registration = self.take_registration();
        registered(self.open(transport, leftover), registration)
    }

    /// Takes the registration out, for a handler that outlives its `WebSocket`.
    pub(crate) fn take_registration(&mut self) -> Option<Registration> {
        self.registration.take()
    }

    /// Takes the method and the URI of the request out.
    pub(crate) fn take_line(&mut self) -> (Method, Uri) {
        std::mem::take(&mut self.line)
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.addresses.peer
    }

    /// Opens the connection as [`complete`](Self::complete) does, without its registration.
    pub(crate) fn open(self, mut transport: Transport, leftover: &[u8]) -> WebSocket {
        let Self { agreed: negotiated, config, addresses, .. } = self;
        transport.addresses = addresses.or(transport.addresses);
        WebSocket::open(ConnectionParts {
            transport,
            role: Role::Server,
            leftover,
            config: &config,
            negotiated,
        })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.config.limits
    }
}

impl fmt::Debug for ServerHandshake {
    /// Omits the subprotocol, which may be a token of the client.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandshake").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Returns `socket`, which is registered until it was dropped and its transport is closed.
fn registered(socket: WebSocket, registration: Option<Registration>) -> WebSocket {
    if let Some(registration) = registration {
        registration.attach_to(&socket);
    }
    socket
}

/// Returns the subprotocols that a client offers.
fn offered_subprotocols(headers: &HeaderMap) -> Result<Vec<&str>, Rejection> {
    let malformed =
        |why: &str| bad_request(&format!("Sec-WebSocket-Protocol is not a list of tokens: {why}"));
    let mut offered = Vec::new();
    for line in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        let line = line.to_str().map_err(|_| malformed("it is not text"))?;
        let tokens = parse_tokens(line).ok_or_else(|| malformed(&describe_no_token(line, offered.len())));
        offered.extend(tokens?);
    }
    Ok(offered)
}

/// Returns the extensions that a client offers. All offers must be well-formed, even those that are declined.
fn offered_extensions(headers: &HeaderMap) -> Result<Vec<Extension<'_>>, Rejection> {
    // RFC 6455 9.1: a value that does not follow the grammar fails the connection.
    let malformed = || bad_request("Sec-WebSocket-Extensions is not a list of extensions");
    let mut offers = Vec::new();
    for line in headers.get_all(SEC_WEBSOCKET_EXTENSIONS) {
        let line = line.to_str().map_err(|_| malformed())?;
        offers.extend(Extension::parse_list(line).ok_or_else(malformed)?);
    }
    Ok(offers)
}

/// Describes the first element of a line that is not a token. `before` is the number of elements in the lines
/// before.
///
/// The text omits the element, which may be a credential.
fn describe_no_token(line: &str, before: usize) -> String {
    let elements = line.split(',').map(str::trim).filter(|element| !element.is_empty());
    let wrong = elements.zip(before + 1..).find(|(element, _)| !is_token(element));
    let character = |(element, number): (&str, usize)| {
        let character = element.chars().find(|character| !is_token(character.encode_utf8(&mut [0; 4])))?;
        Some(format!("element {number} has {character:?}"))
    };
    wrong.and_then(character).unwrap_or_default()
}

/// Checks for a GET request of HTTP/1.1 or higher that asks for an upgrade to `websocket` (RFC 6455 4.2.1).
fn check_upgrade(method: &Method, version: Version, headers: &HeaderMap) -> Result<(), Rejection> {
    if method != Method::GET {
        let rejection = Rejection::new(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket is opened with GET");
        return Err(rejection.with_header(ALLOW, "GET"));
    }
    let upgrades = has_token(headers, UPGRADE, "websocket") && has_token(headers, CONNECTION, "upgrade");
    if version < Version::HTTP_11 || !upgrades {
        let text = "this is a WebSocket endpoint: the request needs HTTP/1.1, `Upgrade: websocket` and \
                    `Connection: Upgrade`";
        return Err(Rejection::new(StatusCode::UPGRADE_REQUIRED, text)
            .with_header(UPGRADE, "websocket")
            .with_header(CONNECTION, "Upgrade")
            .with_header(SEC_WEBSOCKET_VERSION, VERSION));
    }
    // Frames follow the request. An intermediary might take the first ones for a body, or a body for frames.
    let length = headers.get_all(CONTENT_LENGTH).iter().any(|length| length.as_bytes() != b"0");
    if length || headers.contains_key(TRANSFER_ENCODING) {
        return Err(bad_request("the request of a handshake has no body"));
    }
    Ok(())
}

/// Checks for an extended CONNECT with the `:protocol` `websocket` (RFC 8441 4).
fn check_connect(method: &Method, protocol: Option<&str>) -> Result<(), Rejection> {
    let text = "over HTTP/2 and HTTP/3, a WebSocket is opened with CONNECT and the :protocol websocket";
    match protocol {
        Some("websocket") if method == Method::CONNECT => Ok(()),
        // RFC 9220 3: an unknown protocol is answered with 501.
        Some(_) => Err(Rejection::new(StatusCode::NOT_IMPLEMENTED, text)),
        None if method == Method::CONNECT => Err(bad_request(text)),
        None => Err(Rejection::new(StatusCode::METHOD_NOT_ALLOWED, text).with_header(ALLOW, "CONNECT")),
    }
}

fn check_version(headers: &HeaderMap) -> Result<(), Rejection> {
    // RFC 6455 4.2.1, 4.4: the version is 13. The rejection of another version names this one.
    match Occurrence::of(headers, SEC_WEBSOCKET_VERSION) {
        Occurrence::Once(version) if version.as_bytes().trim_ascii() == VERSION.as_bytes() => Ok(()),
        _ => {
            let rejection = bad_request("Sec-WebSocket-Version has to be 13");
            Err(rejection.with_header(SEC_WEBSOCKET_VERSION, VERSION))
        }
    }
}

fn check_key(headers: &HeaderMap) -> Result<Key, Rejection> {
    // RFC 6455 4.2.1, 11.3.1: the key occurs once, and is the base64 of 16 bytes.
    match Occurrence::of(headers, SEC_WEBSOCKET_KEY) {
        Occurrence::Once(key) => Key::parse(key.as_bytes())
            .ok_or_else(|| bad_request("Sec-WebSocket-Key is not the base64 of 16 bytes")),
        Occurrence::None => Err(bad_request("Sec-WebSocket-Key is missing")),
        Occurrence::Repeated => Err(bad_request("Sec-WebSocket-Key occurs more than once")),
    }
}

fn bad_request(text: &str) -> Rejection {
    Rejection::new(StatusCode::BAD_REQUEST, text)
}
