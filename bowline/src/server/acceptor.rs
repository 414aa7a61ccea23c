//! The builder of handshake options, and the handshake in other people's servers.

pub(crate) mod accept_stream;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use bowline_proto::Role;
use bowline_proto::header::is_token;
use http::header::HeaderMap;
use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{Error, ErrorKind};
use crate::events::{self, HandshakeSubject};
use crate::limits::Limits;
use crate::server::acceptor::accept_stream::AcceptStream;
use crate::server::acceptor::settings::Settings;
use crate::server::handshake::origin::Pattern;
use crate::server::handshake::{Agreement, RequestHead, ServerHandshake, Terms};
use crate::server::registry::Connections;
use crate::server::rejection::Rejection;
use crate::server::upgrade::Upgrade;
use crate::socket::{Adoption, WebSocket};

/// Accepts an opening handshake with the default options, in a server that uses hyper.
///
/// The server may use any HTTP library that is built on [`http`]'s types and hyper. See [`Acceptor`] for the
/// options, and [`Acceptor::accept`] for the checks.
///
/// ```
/// use http::{Request, Response};
///
/// async fn serve<A>(mut request: Request<A>) -> Response<String> {
///     let (response, upgrade) = match bowline::accept(&mut request) {
///         Ok(accepted) => accepted,
///         Err(rejection) => return rejection.into_response(),
///     };
///     tokio::spawn(async move {
///         let mut socket = upgrade.await?;
///         while let Some(message) = socket.recv().await? {
///             socket.send(message).await?;
///         }
///         Ok::<_, bowline::Error>(())
///     });
///     response
/// }
/// ```
///
/// # Errors
///
/// Returns the response to send instead if the request is not an acceptable handshake: see
/// [`Acceptor::accept`].
pub fn accept<A, B: Default>(request: &mut Request<A>) -> Result<(Response<B>, Upgrade), Rejection> {
    Acceptor::default().accept(request)
}

/// A configurable acceptor of opening handshakes, for servers.
///
/// Clones are cheap, as they share the options. The methods that set options never fail. An invalid setting
/// is kept: then [`Server::serve`](crate::Server::serve) returns an error at once, and
/// [`accept`](Self::accept) rejects every handshake with a 500 that names the setting.
///
/// ```
/// use bowline::{Acceptor, Limits};
///
/// let acceptor = Acceptor::new()
///     .subprotocols(["chat.v2", "chat.v1"])
///     .allow_origin("https://*.example.com")
///     .limits(Limits::default().message_size(64 * 1024));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Acceptor(Arc<Settings>);

impl Acceptor {
    /// Returns an acceptor with the default options.
    ///
    /// The defaults are no subprotocols, pages of the same origin only, and the default [`Limits`].
    ///
    /// ```
    /// let acceptor = bowline::Acceptor::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the subprotocols that the server speaks, the preferred one first (RFC 6455 1.9). Default: none.
    ///
    /// The first one that the client offers too is chosen. If there is none, the connection has no
    /// subprotocol. Each must be a token (RFC 9110 5.6.2).
    ///
    /// ```
    /// let acceptor = bowline::Acceptor::new().subprotocols(["chat.v2", "chat.v1"]);
    /// ```
    pub fn subprotocols<S: Into<String>>(self, subprotocols: impl IntoIterator<Item = S>) -> Self {
        let subprotocols: Vec<String> = subprotocols.into_iter().map(Into::into).collect();
        let invalid = subprotocols.iter().find(|subprotocol| !is_token(subprotocol));
        let invalid = invalid.map(|invalid| format!("the subprotocol {invalid:?} is not a token"));
        self.with(|settings| settings.terms.subprotocols = subprotocols).refuse_if(invalid)
    }

    /// Allows pages of other origins to connect, in addition to those of earlier calls. Default: only pages
    /// of the same origin (RFC 6455 10.2).
    ///
    /// A page is of the same origin if its host and port equal those of the request's `Host` header. Clients
    /// other than browsers send no `Origin` header and may always connect.
    ///
    /// | pattern | matches |
    /// |---|---|
    /// | `example.com` | this host with every scheme, at the default port of the scheme |
    /// | `*.example.com` | all hosts below this domain |
    /// | `https://example.com` | this host with this scheme |
    /// | `*.example.com:8443` | all hosts below this domain, at this port |
    /// | `*` | everything, `null` too |
    /// | `null` | `Origin: null` |
    ///
    /// Browsers send `Origin: null` for pages without an origin of their own, such as those from `file:` and
    /// `data:` URLs and in sandboxed frames. Anybody can make such a page, so `null` opens the server to all
    /// sites, as `*` does.
    ///
    /// A page of the same host must have been loaded over `http` or `https`; other schemes, such as those of
    /// browser extensions, need a pattern. The page must have been loaded over `https` if the head's
    /// extensions contain a `TlsInfo`, as under [`Server::tls`](crate::Server::tls), or if the request's URL
    /// has the scheme `https`, as in HTTP/2. Otherwise `http` and `https` are both accepted, because a proxy
    /// may have terminated TLS.
    ///
    /// The client chooses the `Host` header. The owner of a site can point its name at 127.0.0.1 or a private
    /// address (DNS rebinding). Pages of the site are then of the same origin as their requests. A server
    /// that relies on being reachable only from its own machine or network must compare `Host` with its own
    /// names, in [`Server::on_request`](crate::Server::on_request).
    ///
    /// ```
    /// use bowline::Acceptor;
    ///
    /// let acceptor = Acceptor::new().allow_origin("https://*.example.com").allow_origin("localhost:3000");
    /// ```
    pub fn allow_origin(self, pattern: impl AsRef<str>) -> Self {
        let text = pattern.as_ref();
        match Pattern::parse(text) {
            Some(pattern) => self.with(|settings| settings.terms.origins.allow(pattern)),
            None => self.refuse_if(Some(format!(
                "the origin pattern {text:?} is not of the form `[scheme://][*.]host[:port]`, `*` or `null`"
            ))),
        }
    }

    /// Sets a function that decides about origins that are not allowed otherwise. Default: they are rejected.
    ///
    /// `check` receives the value of the `Origin` header and all headers of the request. The value may also
    /// be `null`, or text that is not an origin.
    ///
    /// ```
    /// let acceptor = bowline::Acceptor::new().check_origin(|origin, _headers| origin.starts_with("app://"));
    /// ```
    pub fn check_origin(self, check: impl Fn(&str, &HeaderMap) -> bool + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.terms.origins.allow_if(check))
    }

    /// Sets the limits of the handshake and of the connection. Default: [`Limits::default`].
    ///
    /// In another HTTP server, that server limits the head of the request.
    ///
    /// ```
    /// use bowline::{Acceptor, Limits};
    ///
    /// let acceptor = Acceptor::new().limits(Limits::default().message_size(64 * 1024));
    /// ```
    pub fn limits(self, limits: Limits) -> Self {
        let invalid = limits.invalid();
        self.with(|settings| settings.terms.config.limits = limits).refuse_if(invalid)
    }

    /// Sets the keepalive interval. Default: 20 s. `None` switches the keepalive off.
    ///
    /// A ping is sent after one to two intervals in which one side was silent. The server's own silence
    /// counts too, because many clients and balancers close a connection on which the server sends nothing,
    /// often after a minute.
    ///
    /// The connection ends with [`ErrorKind::Timeout`] in two cases:
    ///
    /// - The peer was silent, and sends nothing within one interval of the ping.
    /// - The transport accepts no byte for one interval while bytes wait to be written. Bytes in a buffer of
    ///   the stream's own, such as that of TLS, count as accepted once the stream is flushed.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let acceptor = bowline::Acceptor::new().keepalive(Duration::from_secs(60));
    /// ```
    pub fn keepalive(self, interval: impl Into<Option<Duration>>) -> Self {
        let interval = interval.into();
        let invalid = (interval == Some(Duration::ZERO)).then(|| {
            "the keepalive interval is zero: to switch the keepalive off, pass None to Acceptor::keepalive"
                .to_owned()
        });
        self.with(|settings| settings.terms.config.keepalive = interval).refuse_if(invalid)
    }

    /// Sets the registry of the WebSockets that this acceptor opens, by which they are closed at the shutdown
    /// of the application. Default: none.
    ///
    /// Once the shutdown has begun, handshakes are rejected with 503. A [`Server`](crate::Server) alone needs
    /// no such registry, as it has a [shutdown](crate::Server::shutdown) of its own.
    ///
    /// ```
    /// use bowline::{Acceptor, Connections};
    ///
    /// let connections = Connections::new();
    /// let acceptor = Acceptor::new().connections(&connections);
    /// ```
    pub fn connections(self, connections: &Connections) -> Self {
        self.with(|settings| settings.terms.connections = Some(connections.clone()))
    }

    /// Checks an opening handshake, and returns the response to send and the connection to come.
    ///
    /// Return the response from your HTTP service, and await the [`Upgrade`] in a task of its own. The
    /// connection opens after the response was sent. Extensions that the client offers are declined, except
    /// compression if that is on.
    ///
    /// Over HTTP/2, a WebSocket is opened by an extended CONNECT (RFC 8441), which the feature `http2`
    /// recognises. Your server must advertise extended CONNECT (`enable_connect_protocol` of hyper's
    /// builder), and its router must let CONNECT through. A WebSocket that is dropped without a Close frame
    /// then ends as hyper ends a stream, and [`flush`](WebSocket::flush) waits until hyper has the bytes.
    /// [`Server`](crate::Server) speaks HTTP/2 without hyper.
    ///
    /// ```
    /// use bowline::Acceptor;
    /// use http::{Request, Response};
    ///
    /// fn answer<A>(acceptor: &Acceptor, mut request: Request<A>) -> Response<String> {
    ///     match acceptor.accept(&mut request) {
    ///         Ok((response, upgrade)) => {
    ///             tokio::spawn(async move { upgrade.await?.send("welcome").await });
    ///             response
    ///         }
    ///         Err(rejection) => rejection.into_response(),
    ///     }
    /// }
    /// ```
    ///
    /// # Settings for one request
    ///
    /// A clone of the acceptor may have other settings. A change copies the settings, which takes a few small
    /// allocations at most:
    ///
    /// ```
    /// use bowline::{Acceptor, Limits, Rejection, Upgrade};
    /// use http::{Request, Response};
    ///
    /// fn answer<A>(
    ///     acceptor: &Acceptor,
    ///     request: &mut Request<A>,
    /// ) -> Result<(Response<String>, Upgrade), Rejection> {
    ///     let acceptor = match request.uri().path() {
    ///         "/upload" => acceptor.clone().limits(Limits::default().message_size(16 * 1024 * 1024)),
    ///         "/admin" => acceptor.clone().subprotocols(["admin.v1"]),
    ///         _ => acceptor.clone(),
    ///     };
    ///     let (mut response, upgrade) = acceptor.accept(request)?;
    ///     response.headers_mut().insert("set-cookie", "session=1234; HttpOnly".parse().unwrap());
    ///     Ok((response, upgrade))
    /// }
    /// ```
    ///
    /// The [`SocketAddr`](std::net::SocketAddr) in the extensions of the request, if there is one, becomes
    /// the address that [`WebSocket::peer_addr`] and the events return. Insert it where HTTP hides the
    /// stream, such as over HTTP/2, and where a proxy has told the client's address.
    ///
    /// # Errors
    ///
    /// Returns the response to send instead if the request is not an acceptable handshake (RFC 6455 4.2):
    ///
    /// | status | reason |
    /// |---|---|
    /// | 405 | the method is not GET; over HTTP/2, not CONNECT |
    /// | 426 | the request is of HTTP/1.0, or asks for no upgrade to `websocket` |
    /// | 501 | over HTTP/2, the `:protocol` is not `websocket` |
    /// | 400 | the version is not 13; the key is missing, repeated or malformed |
    /// | 400 | a header is not a valid list; the request has no Host, or has a body |
    /// | 403 | a foreign origin, which the source names: see [`allow_origin`](Self::allow_origin) |
    /// | 503 | the [`connections`](Self::connections) shut down |
    /// | 500 | hyper's upgrade is not in the request, or an option of this acceptor is invalid |
    pub fn accept<A, B: Default>(
        &self,
        request: &mut Request<A>,
    ) -> Result<(Response<B>, Upgrade), Rejection> {
        let agreed = self.agree(&*request).and_then(|agreement| {
            let on_upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or_else(|| {
                internal_error(
                    "hyper's upgrade is not in the request: the connection is served without upgrades, or a \
                     middleware took the upgrade",
                )
            })?;
            Ok((on_upgrade, agreement))
        });
        let (on_upgrade, agreement) = announced(agreed, request, |(_, agreement)| agreement)?;
        let response = agreement.response();
        let handshake = ServerHandshake::new(agreement).of_request(request);
        Ok((response, Upgrade::of_hyper(on_upgrade, request.version(), handshake)))
    }

    /// Checks an opening handshake for any HTTP library. Returns the response to send, and the handshake that
    /// opens the connection after that.
    ///
    /// For hyper and what is built on it, [`accept`](Self::accept) does more. Other HTTP libraries, over
    /// HTTP/1.1, HTTP/2 or HTTP/3, need only the types of the crate [`http`]. Over HTTP/2 and HTTP/3, a
    /// WebSocket is opened by an extended CONNECT: see [`ConnectProtocol`](crate::ConnectProtocol). Timeouts
    /// and the limits of the head are up to the library. As in [`accept`](Self::accept), a
    /// [`SocketAddr`](std::net::SocketAddr) in the extensions of the request is the client's address.
    ///
    /// ```
    /// use bowline::Acceptor;
    /// use http::Request;
    ///
    /// let request = Request::get("/chat")
    ///     .header("host", "example.com")
    ///     .header("upgrade", "websocket")
    ///     .header("connection", "Upgrade")
    ///     .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    ///     .header("sec-websocket-version", "13")
    ///     .body(())
    ///     .unwrap();
    /// let (response, _handshake) = Acceptor::new().respond(&request).unwrap();
    /// assert_eq!(response.status(), 101);
    /// // Send the response, then: handshake.finish(stream, leftover), or handshake.upgrade(stream)
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the response to send instead if the request is not an acceptable handshake: see
    /// [`accept`](Self::accept).
    pub fn respond<A>(&self, request: &Request<A>) -> Result<(Response<()>, ServerHandshake), Rejection> {
        let agreement = announced(self.agree(request), request, |agreement| agreement)?;
        let mut response = agreement.response();
        *response.version_mut() = request.version();
        Ok((response, ServerHandshake::new(agreement).of_request(request)))
    }

    /// Checks an opening handshake without taking anything from the request.
    pub(crate) fn agree<'a>(&self, request: impl Into<RequestHead<'a>>) -> Result<Agreement, Rejection> {
        self.validate().map_err(|error| internal_error(&format!("this server is misconfigured: {error}")))?;
        self.0.terms.check(request)
    }

    /// Returns the subprotocol for a client that sends these headers, if any.
    #[cfg(feature = "axum")]
    pub(crate) fn choose_subprotocol(&self, headers: &HeaderMap) -> Option<&str> {
        self.0.terms.choose_subprotocol(headers).ok().flatten()
    }

    /// Performs the server's side of an opening handshake on a stream, without another HTTP library. Returns
    /// a future of the connection and of the head of the request.
    ///
    /// The stream is a [`TcpStream`](tokio::net::TcpStream) or any other stream. A request that is not an
    /// acceptable handshake receives the response that [`accept`](Self::accept) documents, and the stream is
    /// closed. [`AcceptStream::on_request`] sets a function that looks at the request before the response.
    ///
    /// The extensions of the head contain the client's [`SocketAddr`](std::net::SocketAddr) if the stream is
    /// a `TcpStream`, or TLS by tokio-rustls over one. Over TLS, they also contain the client's `TlsInfo`.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    /// let (stream, _) = listener.accept().await?;
    /// let (mut socket, head) = bowline::Acceptor::new().accept_stream(stream).await?;
    /// println!("{} says {:?}", head.uri, socket.recv().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The future returns the errors that [`AcceptStream`] documents.
    ///
    /// # Cancel safety
    ///
    /// The future is cancel safe. Dropping it ends the handshake and drops the stream.
    pub fn accept_stream<S>(&self, stream: S) -> AcceptStream<S>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        AcceptStream::new(Arc::clone(&self.0), stream)
    }

    /// Creates a server [`WebSocket`] from a stream whose handshake is already complete.
    ///
    /// ```
    /// use bowline::{Acceptor, Adoption};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bowline::Error> {
    /// let (stream, _client) = tokio::io::duplex(1024);
    /// let socket = Acceptor::new().adopt(stream, Adoption::new().subprotocol("chat.v1"))?;
    /// assert_eq!(socket.subprotocol(), Some("chat.v1"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if an option of this acceptor or of `adoption` is invalid.
    /// - Returns [`ErrorKind::Closed`] if the [`connections`](Self::connections) shut down.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime, and in a runtime without its time driver.
    pub fn adopt<S>(&self, stream: S, adoption: Adoption) -> Result<WebSocket, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.validate()?;
        adoption.validate()?;
        let Terms { config, connections, .. } = self.terms();
        let registration = connections.as_ref().map(Connections::register).transpose()?;
        let socket = adoption.open(stream, Role::Server, config);
        if let Some(registration) = registration {
            registration.attach_to(&socket);
        }
        Ok(socket)
    }

    /// Returns the error of the first invalid setting, if there is one.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        self.0.validate()
    }

    /// Returns the terms of a handshake.
    pub(crate) fn terms(&self) -> &Terms {
        &self.0.terms
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Keeps the error of an invalid setting, unless there was one before.
    fn refuse_if(self, invalid: Option<String>) -> Self {
        let Some(text) = invalid else { return self };
        self.with(|settings| {
            settings.invalid.get_or_insert_with(|| Error::new(ErrorKind::InvalidInput, text));
        })
    }
}

#[cfg(feature = "deflate")]
impl Acceptor {
    /// Sets the compression of messages (RFC 7692). Default: [`Compression::Off`](crate::Compression::Off).
    /// Available with the feature `deflate`.
    ///
    /// The argument is a [`Compression`](crate::Compression), or its [options](crate::CompressionOptions).
    ///
    /// ```
    /// use bowline::{Acceptor, Compression};
    ///
    /// let acceptor = Acceptor::new().compression(Compression::NoContextTakeover);
    /// ```
    pub fn compression(self, options: impl Into<crate::CompressionOptions>) -> Self {
        let compression = options.into();
        let invalid = compression.invalid();
        self.with(|settings| {
            settings.terms.config.compression = compression;
        })
        .refuse_if(invalid)
    }
}

/// Reports the outcome of a handshake to `tracing`.
fn announced<T, A>(
    outcome: Result<T, Rejection>,
    request: &Request<A>,
    agreement: impl FnOnce(&T) -> &Agreement,
) -> Result<T, Rejection> {
    let subject = HandshakeSubject::of_server(request.extensions().get(), request.uri());
    match &outcome {
        Ok(accepted) => agreement(accepted).agreed.announce(subject),
        Err(rejection) => events::handshake_rejected(subject, rejection.status(), rejection),
    }
    outcome
}

fn internal_error(text: &str) -> Rejection {
    Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, text)
}
