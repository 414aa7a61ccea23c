//! The builder of client options, and the way from a URL to a connection.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bowline_proto::Role;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, ORIGIN};
use http::{Request, Response, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client::dial::{dial, dial_through};
use crate::client::handshake::ClientHandshake;
use crate::client::http1;
use crate::client::http2::{Http2Connection, HttpVersion};
use crate::client::proxy::Proxy;
use crate::client::request::{Attempt, Offer};
use crate::client::times::{Resolution, Steps};
use crate::client::url::{Scheme, Url};
use crate::connection::outbound::control::{ControlFrame, ControlHook};
use crate::error::{Error, ErrorKind};
use crate::handshake::headers::is_of_handshake;
use crate::limits::Limits;
use crate::socket::{Adoption, WebSocket};
use crate::transport::alpn::Alpn;
use crate::transport::byte_stream::ByteStream;
use crate::transport::tls::{self, ClientTls};
use crate::transport::{Addresses, limit_unsent, send_at_once};

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
/// # Panics
///
/// The future panics in a runtime without timers or I/O.
///
/// # Cancel safety
///
/// This function is cancel safe. Dropping the future ends the attempt and closes its connection.
pub async fn connect(url: impl Display) -> Result<WebSocket, Error> {
    let (socket, _) = Connector::new().connect(url).await?;
    Ok(socket)
}

/// A configurable client that opens WebSocket connections.
///
/// The methods that set options never fail. An invalid setting is kept, and the methods that connect return
/// it as [`ErrorKind::InvalidInput`] before anything is sent.
///
/// ```no_run
/// use bowline::{Connector, Limits};
///
/// # async fn example() -> Result<(), bowline::Error> {
/// let connector = Connector::new()
///     .header("authorization", "Bearer 1234")
///     .subprotocols(["chat.v2", "chat.v1"])
///     .limits(Limits::default().message_size(16 * 1024 * 1024));
/// let (socket, response) = connector.connect("wss://example.com/chat").await?;
/// println!("{:?} by {:?}", socket.subprotocol(), response.headers().get("server"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Connector {
    pub(crate) offer: Offer,
    proxy: Proxy,
    tls: Option<ClientTls>,
    pub(crate) version: HttpVersion,
    /// The number of redirects that are followed.
    redirects: u32,
}

impl Connector {
    /// Returns a connector with the default options.
    ///
    /// By default there are no additional headers and no subprotocols. The proxy comes from the environment,
    /// and the root certificates from the operating system. The limits are [`Limits::default`].
    ///
    /// ```
    /// let connector = bowline::Connector::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header to the request. Repeated calls add further headers, also of the same name. Default:
    /// none.
    ///
    /// The headers of the handshake itself are invalid here. `Host`, `Origin` and `Sec-WebSocket-Protocol`
    /// have methods of their own, and the library sets the others. A value can't contain line breaks.
    ///
    /// ```
    /// let connector = bowline::Connector::new().header("authorization", "Bearer 1234");
    /// ```
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: Into<http::Error>,
        V: TryInto<HeaderValue>,
        V::Error: Into<http::Error>,
    {
        self.offer.add_header(name, value);
        self
    }

    /// Adds all headers of a map to the request, as repeated calls of [`header`](Self::header) do. Default:
    /// none.
    ///
    /// ```
    /// use bowline::Connector;
    /// use bowline::http::HeaderMap;
    ///
    /// fn forward(incoming: &HeaderMap) -> Connector {
    ///     let mut headers = HeaderMap::new();
    ///     headers.extend(incoming.get("cookie").map(|cookie| (http::header::COOKIE, cookie.clone())));
    ///     Connector::new().headers(headers)
    /// }
    /// ```
    pub fn headers(mut self, headers: HeaderMap) -> Self {
        let mut name = None;
        for (next, value) in headers {
            // The iterator omits the name of each further value of one header.
            name = next.or(name);
            if let Some(name) = name.clone() {
                self.offer.add_header(name, value);
            }
        }
        self
    }

    /// Sets the `Host` header. Default: the host and port of the URL (RFC 6455 4.1).
    ///
    /// ```
    /// let connector = bowline::Connector::new().host("internal.example.com");
    /// ```
    pub fn host<V>(mut self, value: V) -> Self
    where
        V: TryInto<HeaderValue>,
        V::Error: Into<http::Error>,
    {
        self.offer.set_header(HOST, value);
        self
    }

    /// Sets the `Origin` header. Default: none, as usual for clients that are not browsers (RFC 6455 4.1).
    ///
    /// ```
    /// let connector = bowline::Connector::new().origin("https://example.com");
    /// ```
    pub fn origin<V>(mut self, value: V) -> Self
    where
        V: TryInto<HeaderValue>,
        V::Error: Into<http::Error>,
    {
        self.offer.set_header(ORIGIN, value);
        self
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
        self.offer.set_subprotocols(subprotocols.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the TLS configuration for servers and proxies. Available with the feature `tls`.
    ///
    /// Default: TLS 1.2 and 1.3 by rustls with the provider that
    /// [`crypto_provider`](crate::crypto_provider) returns, and the root certificates that the operating
    /// system trusts, by `rustls-platform-verifier`. The roots are loaded once, at the first connection.
    ///
    /// The ALPN protocols of the configuration are replaced. A server is offered those of
    /// `Connector::http_version`: `http/1.1`, `h2` or both. A proxy is offered `http/1.1`.
    ///
    /// A client that trusts a certificate authority of its own:
    ///
    /// ```no_run
    /// use std::sync::Arc;
    ///
    /// use bowline::Connector;
    /// use bowline::rustls::pki_types::CertificateDer;
    /// use bowline::rustls::pki_types::pem::PemObject;
    /// use bowline::rustls::{ClientConfig, RootCertStore};
    ///
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut roots = RootCertStore::empty();
    /// roots.add(CertificateDer::from_pem_file("ca.pem")?)?;
    /// let config = ClientConfig::builder_with_provider(bowline::crypto_provider()?)
    ///     .with_safe_default_protocol_versions()?
    ///     .with_root_certificates(roots)
    ///     .with_no_client_auth();
    /// let connector = Connector::new().tls(Arc::new(config));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The page on [TLS](crate::guide::tls) has more examples: client certificates, roots in addition to
    /// those of the system, FIPS.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, config: std::sync::Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(ClientTls(config));
        self
    }

    /// Sets the proxy to connect through. Default: [`Proxy::from_env`].
    ///
    /// ```
    /// use bowline::{Connector, Proxy};
    ///
    /// let connector = Connector::new().proxy(Proxy::none());
    /// ```
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
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
        if let Some(text) = limits.invalid() {
            self.offer.refuse(text);
        }
        self.offer.config.limits = limits;
        self
    }

    /// Sets the number of redirects that [`connect`](Self::connect) follows. Default: 0.
    ///
    /// The statuses are 301, 302, 303, 307 and 308 (RFC 9110 15.4). A redirect is followed only to the same
    /// host and port, since the request may contain credentials; a change from the default port of `ws` to
    /// that of `wss` is allowed, the reverse is not. Another redirect is returned as an error, as any is by
    /// default: [`Error::response`] has its `Location`. All redirects together have to be followed within
    /// [`Limits::handshake_timeout`].
    ///
    /// ```
    /// let connector = bowline::Connector::new().redirects(3);
    /// ```
    pub fn redirects(mut self, redirects: u32) -> Self {
        self.redirects = redirects;
        self
    }

    /// Sets the keepalive interval. Default: 20 s. `None` switches the keepalive off.
    ///
    /// A ping is sent after one to two intervals in which one side was silent. The client's own silence
    /// counts too, because many servers and balancers close a connection on which the client sends nothing,
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
    /// let connector = bowline::Connector::new().keepalive(Duration::from_secs(60));
    /// ```
    pub fn keepalive(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.offer.config.keepalive = interval.into();
        if self.offer.config.keepalive == Some(Duration::ZERO) {
            self.offer
                .refuse("the keepalive interval is zero: pass None to Connector::keepalive to switch it off");
        }
        self
    }

    /// Sets a function that is called with each control frame of the server: for displays of latency,
    /// debuggers and tests. Default: none.
    ///
    /// The library handles control frames by itself, so the function has only to look. The calls come from
    /// the task that reads, once the frame was handled, and so the function must not block. A frame after an
    /// unread data message is not seen before that message is received. A panic of the function is caught.
    ///
    /// All connections of this connector share the function. To tell connections apart, set another function
    /// on a clone of the connector.
    ///
    /// ```
    /// use bowline::{Connector, ControlFrame};
    ///
    /// let connector = Connector::new().on_control(|frame| match frame {
    ///     ControlFrame::Ping(payload) => println!("pinged with {payload:?}"),
    ///     ControlFrame::Pong(payload) => println!("a pong with {payload:?}"),
    ///     ControlFrame::Close(frame) => println!("closed with {frame}"),
    /// });
    /// ```
    pub fn on_control(mut self, function: impl Fn(ControlFrame) + Send + Sync + 'static) -> Self {
        self.offer.config.control_hook = Some(ControlHook::new(function));
        self
    }

    /// Connects to a server. Returns the connection, and the head of the server's response.
    ///
    /// The URL is a `&str`, a `String`, an [`http::Uri`], a `Url` of the crate `url`, or any other value that
    /// is displayed as a URL. Its scheme is `ws`, `wss`, `http` or `https`. A user name and a password in the
    /// URL are sent as basic authentication, unless an `Authorization` [`header`](Self::header) is set.
    /// Redirects are not followed unless [`redirects`](Self::redirects) allows it. The extensions of the
    /// response contain the [`HandshakeTimes`](crate::HandshakeTimes).
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), bowline::Error> {
    /// let (mut socket, response) = bowline::Connector::new().connect("wss://example.com/feed").await?;
    /// println!("{:?} says {:?}", response.headers().get("server"), socket.recv().await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::InvalidInput`] if the URL or an option is invalid, or if a wss:// URL needs TLS
    ///   and there is no provider of cryptography (see `crypto_provider`). In that case nothing was sent.
    /// - Returns [`ErrorKind::Timeout`] if the handshake takes longer than [`Limits::handshake_timeout`],
    ///   name resolution and TLS included.
    /// - Returns [`ErrorKind::Io`] if the name can't be resolved, the server or the proxy can't be reached,
    ///   or TLS fails.
    /// - Returns [`ErrorKind::Handshake`] if the server does not accept the handshake. [`Error::response`]
    ///   returns the response that the server sent instead, if it sent one.
    /// - Returns [`ErrorKind::Limit`] if the head of the response is too large.
    ///
    /// # Panics
    ///
    /// The future panics in a runtime without timers or I/O.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future ends the attempt and closes its connection.
    pub async fn connect(&self, url: impl Display) -> Result<(WebSocket, Response<()>), Error> {
        self.open(url.to_string()).await
    }

    /// Returns the request of a handshake for an HTTP client of your own, and the handshake that verifies its
    /// response.
    ///
    /// The request is for HTTP/1.1, and its URL has the scheme `http` or `https`. A client that also speaks
    /// HTTP/2 must be told not to choose it. Proxies, TLS and timeouts are up to that client. The examples
    /// `reqwest_client` and `hyper_client` are whole programs.
    ///
    /// Over HTTP/2 and HTTP/3, the request is an extended CONNECT (RFC 8441 5): its method is CONNECT, its
    /// `:protocol` is `websocket`, and it has no `Upgrade`, `Connection`, `Host` and `Sec-WebSocket-Key`. The
    /// version of the response tells [`verify`](ClientHandshake::verify) to expect a 200.
    ///
    /// ```
    /// # fn example() -> Result<(), bowline::Error> {
    /// use bowline::Connector;
    ///
    /// let (request, handshake) = Connector::new().request("wss://example.com/feed")?;
    /// assert_eq!(request.uri(), "https://example.com/feed");
    /// // Send the request, then: handshake.verify(&response)?.finish(upgraded, leftover)
    /// # Ok(())
    /// # }
    /// # example().unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`] if the URL or an option is invalid.
    pub fn request(&self, url: impl Display) -> Result<(Request<()>, ClientHandshake), Error> {
        let Attempt { url, mut request, handshake, .. } =
            self.offer.prepare(Url::parse(&url.to_string())?)?;
        *request.uri_mut() = url.http_uri();
        Ok((request, handshake))
    }

    /// Makes a request of your own the request of a handshake, as [`request`](Self::request) returns one.
    ///
    /// The URI of the request is that of the server, with one of the schemes `ws`, `wss`, `http` and `https`;
    /// it then has the scheme `http` or `https`. The method becomes GET, and the version HTTP/1.1. Headers
    /// and extensions of the request are kept, except for the headers of the handshake itself and of a body.
    /// The body has to be empty, as that of any handshake. A header that is also set in this connector has
    /// the connector's values; `Host` and `Authorization` of the request come before those of the URI.
    ///
    /// ```
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use bowline::Connector;
    /// use http::Request;
    ///
    /// let mut request = Request::get("wss://example.com/feed").header("traceparent", "00-1234").body(())?;
    /// let handshake = Connector::new().prepare(&mut request)?;
    /// assert_eq!(request.uri(), "https://example.com/feed");
    /// assert_eq!(request.headers()["upgrade"], "websocket");
    /// // Send the request, then: handshake.verify(&response)?.finish(upgraded, leftover)
    /// # Ok(())
    /// # }
    /// # example().unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`] if the URI or an option is invalid. In that case the request is
    /// unchanged.
    pub fn prepare<B>(&self, request: &mut Request<B>) -> Result<ClientHandshake, Error> {
        let (mut own, handshake) = self.request(request.uri())?;
        for name in [HOST, AUTHORIZATION] {
            if request.headers().contains_key(&name) && !self.offer.has_header(&name) {
                own.headers_mut().remove(name);
            }
        }
        let headers = request.headers_mut();
        let of_handshake: Vec<_> = headers.keys().filter(|name| is_of_handshake(name)).cloned().collect();
        for name in of_handshake {
            headers.remove(name);
        }
        *request.method_mut() = own.method().clone();
        *request.version_mut() = own.version();
        *request.uri_mut() = std::mem::take(own.uri_mut());
        // `extend` replaces headers of the same name, and keeps all lines of one name that it adds.
        request.headers_mut().extend(std::mem::take(own.headers_mut()));
        Ok(handshake)
    }

    /// Returns the TLS configuration of connections to servers, for a transport that does TLS by itself, such
    /// as QUIC. Available with the feature `tls`.
    ///
    /// The configuration is that of [`tls`](Self::tls), or the default.
    ///
    /// ```
    /// # fn example() -> Result<(), bowline::Error> {
    /// let mut config = (*bowline::Connector::new().tls_config()?).clone();
    /// config.alpn_protocols = vec![b"h3".to_vec()];
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`] if there is no provider of cryptography, and [`ErrorKind::Io`] if
    /// the root certificates of the operating system can't be loaded.
    #[cfg(feature = "tls")]
    pub fn tls_config(&self) -> Result<std::sync::Arc<rustls::ClientConfig>, Error> {
        tls::config_or_default(self.tls.clone())
    }

    /// Returns the URI of the proxy through which a server is reached, or `None` if there is none on the way.
    /// The URI has no credentials.
    ///
    /// A transport that can't pass the proxy must not connect around it: the proxy may be there for the
    /// user's safety.
    ///
    /// ```
    /// use bowline::{Connector, Proxy};
    ///
    /// # fn example() -> Result<(), bowline::Error> {
    /// let connector = Connector::new().proxy(Proxy::new("http://user:password@proxy.example.com:3128")?);
    /// let proxy = connector.proxy_to("wss://example.com/feed")?.unwrap();
    /// assert_eq!(proxy, "http://proxy.example.com:3128");
    /// # Ok(())
    /// # }
    /// # example().unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`] if the URL is invalid, or that of the proxy in the environment.
    pub fn proxy_to(&self, url: impl Display) -> Result<Option<Uri>, Error> {
        let target = Url::parse(&url.to_string())?.dial_uri();
        let proxy = self.proxy.on_the_way_to(&target)?;
        Ok(proxy.map(|proxy| proxy.uri().clone()))
    }

    /// Creates a client [`WebSocket`] from a stream whose handshake is already complete.
    ///
    /// ```
    /// use bowline::{Adoption, Connector};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bowline::Error> {
    /// let (stream, _server) = tokio::io::duplex(1024);
    /// let socket = Connector::new().adopt(stream, Adoption::new().subprotocol("chat.v1"))?;
    /// assert_eq!(socket.subprotocol(), Some("chat.v1"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`] if an option of this connector or of `adoption` is invalid.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime, and in a runtime without its time driver.
    pub fn adopt<S>(&self, stream: S, adoption: Adoption) -> Result<WebSocket, Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.offer.validate()?;
        adoption.validate()?;
        Ok(adoption.open(stream, Role::Client, &self.offer.config))
    }

    fn open(&self, url: String) -> BoxFuture<'_, Result<(WebSocket, Response<()>), Error>> {
        Box::pin(async move {
            let attempt = self.offer.prepare(Url::parse(&url)?)?;
            self.connect_redirected(attempt).await
        })
    }

    /// Connects, and follows as many redirects as the options allow. The deadline covers all of it.
    async fn connect_redirected(&self, mut attempt: Attempt) -> Result<(WebSocket, Response<()>), Error> {
        for _ in 0..self.redirects {
            let (url, deadline, start) = (attempt.url.clone(), attempt.deadline, attempt.steps.start());
            let opened = self.connect_to(attempt).await;
            let Some(next) = opened.as_ref().err().and_then(|error| redirect_of(error, &url)) else {
                return opened;
            };
            attempt = Attempt { deadline, steps: Steps::since(start), ..self.offer.prepare(next)? };
        }
        self.connect_to(attempt).await
    }

    async fn connect_to(&self, attempt: Attempt) -> Result<(WebSocket, Response<()>), Error> {
        let reached = self.reach(attempt, self.version).await?;
        if let Reached::Http2(connection, attempt) = reached {
            if self.version.falls_back() && !connection.accepts_websockets() {
                #[allow(
                    clippy::drop_non_drop,
                    reason = "without the feature `http2`, there is nothing to drop"
                )]
                drop(connection);
                return self.finish(self.reach(*attempt, HttpVersion::Http1).await?).await;
            }
            return self.finish(Reached::Http2(connection, attempt)).await;
        }
        self.finish(reached).await
    }

    pub(crate) async fn finish(&self, reached: Reached) -> Result<(WebSocket, Response<()>), Error> {
        match reached {
            Reached::WebSocket(opened) => Ok(opened),
            Reached::Http2(connection, attempt) => {
                connection.check_settings()?;
                connection.exchange(*attempt).await
            }
        }
    }

    async fn reach(&self, mut attempt: Attempt, version: HttpVersion) -> Result<Reached, Error> {
        let target = attempt.url.dial_uri();
        let doing = format!("connecting to {}", attempt.url.address());
        let deadline = attempt.deadline;
        let resolution = Resolution::default();
        if attempt.url.scheme() == Scheme::Wss {
            tls::check(self.tls.as_ref())?;
        }
        let stream = if let Some(proxy) = self.proxy.on_the_way_to(&target)? {
            if proxy.uri().scheme_str() == Some("https") {
                tls::check(self.tls.as_ref())?;
            }
            let dialling = dial_through(&proxy, target, self.tls.clone(), &resolution);
            deadline.bound(&(doing + " through a proxy"), dialling).await?
        } else {
            deadline.bound(&doing, dial(target, &resolution)).await?
        };
        attempt.steps.connected(&resolution);
        Box::pin(self.secure(attempt, version, stream)).await
    }

    /// The time for an opening handshake.
    pub(crate) fn handshake_timeout(&self) -> Duration {
        self.offer.config.limits.handshake_timeout
    }

    /// Does TLS if the URL says so, and goes on above it.
    pub(crate) async fn secure(
        &self,
        mut attempt: Attempt,
        version: HttpVersion,
        stream: ByteStream,
    ) -> Result<Reached, Error> {
        let addresses = stream.addresses();
        limit_unsent(stream.tcp(), self.offer.config.limits.unsent);
        if attempt.url.scheme() == Scheme::Wss {
            let server = tls::server_name(attempt.url.host())?;
            let connecting = tls::connect(self.tls.clone(), version.offered(), server, stream);
            let (stream, chosen) = attempt.deadline.bound("doing the TLS handshake", connecting).await?;
            attempt.steps.secured();
            if chosen == Alpn::Http2 {
                return self.start_http2(attempt, stream, addresses).await;
            } else if version.is_only_http2() {
                let text = "the server does not speak HTTP/2, as it did not choose h2 by ALPN: set another \
                            version with Connector::http_version";
                return Err(Error::new(ErrorKind::Handshake, text));
            }
            return http1::exchange(stream, addresses, attempt).await.map(Reached::WebSocket);
        }
        self.exchange(attempt, version, stream, addresses).await
    }

    /// Goes on above TCP or TLS. Without ALPN, HTTP/2 is spoken only if nothing else is allowed.
    pub(crate) async fn exchange(
        &self,
        attempt: Attempt,
        version: HttpVersion,
        stream: ByteStream,
        addresses: Addresses,
    ) -> Result<Reached, Error> {
        if version.is_only_http2() {
            return self.start_http2(attempt, stream, addresses).await;
        }
        http1::exchange(stream, addresses, attempt).await.map(Reached::WebSocket)
    }

    async fn start_http2(
        &self,
        attempt: Attempt,
        stream: ByteStream,
        addresses: Addresses,
    ) -> Result<Reached, Error> {
        let (url, deadline) = (attempt.url.clone(), attempt.deadline);
        // The stream may be one of the application's.
        send_at_once(stream.tcp());
        let connection =
            Http2Connection::handshake(self.offer.clone(), url, stream, addresses, deadline).await?;
        Ok(Reached::Http2(connection, Box::new(attempt)))
    }
}

#[cfg(feature = "deflate")]
impl Connector {
    /// Sets the compression of messages (RFC 7692). Default: [`Compression::Off`](crate::Compression::Off).
    /// Available with the feature `deflate`.
    ///
    /// The argument is a [`Compression`](crate::Compression), or its [options](crate::CompressionOptions).
    ///
    /// ```
    /// use bowline::{Compression, Connector};
    ///
    /// let connector = Connector::new().compression(Compression::NoContextTakeover);
    /// ```
    pub fn compression(mut self, options: impl Into<crate::CompressionOptions>) -> Self {
        self.offer.config.compression = options.into();
        if let Some(text) = self.offer.config.compression.invalid() {
            self.offer.refuse(text);
        }
        self
    }
}

#[cfg(feature = "http2")]
impl Connector {
    /// Sets the version of HTTP. Default: [`HttpVersion::Http1`]. Available with the feature `http2`.
    ///
    /// For many WebSockets over one connection, see [`connect_http2`](Self::connect_http2).
    ///
    /// ```
    /// use bowline::{Connector, HttpVersion};
    ///
    /// let connector = Connector::new().http_version(HttpVersion::Automatic);
    /// ```
    pub fn http_version(mut self, version: HttpVersion) -> Self {
        self.version = version;
        self
    }

    /// Opens an HTTP/2 connection for many WebSockets (RFC 8441), and waits for the server's settings.
    /// Available with the feature `http2`.
    ///
    /// The path of the URL is ignored.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), bowline::Error> {
    /// let connection = bowline::Connector::new().connect_http2("wss://example.com").await?;
    /// let (news, _) = connection.connect("/news").await?;
    /// let (chat, _) = connection.connect("/chat?room=1").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors that [`connect`](Self::connect) returns, and [`ErrorKind::Handshake`] if the server
    /// does not speak HTTP/2 or does not accept WebSockets over HTTP/2.
    ///
    /// # Panics
    ///
    /// The future panics in a runtime without timers or I/O.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future ends the attempt and closes its connection.
    pub async fn connect_http2(&self, url: impl Display) -> Result<Http2Connection, Error> {
        self.open_http2(url.to_string()).await
    }

    fn open_http2(&self, url: String) -> BoxFuture<'_, Result<Http2Connection, Error>> {
        Box::pin(async move {
            let attempt = self.offer.prepare(Url::parse(&url)?)?;
            match self.reach(attempt, HttpVersion::Http2).await? {
                Reached::Http2(connection, _) => connection.check_settings().map(|()| connection),
                Reached::WebSocket(..) => unreachable!("only HTTP/2 was asked for"),
            }
        })
    }
}

/// A future in a box, without its type.
///
/// The box keeps the caller's future small for the rest of the connection's life. With its type, the future
/// would be compiled in the application, and all of the client with it.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The result of reaching a server.
pub(crate) enum Reached {
    WebSocket((WebSocket, Response<()>)),
    Http2(Http2Connection, Box<Attempt>),
}

/// Returns the URL to go on with after an error, if the server has redirected to one that may be followed.
fn redirect_of(error: &Error, url: &Url) -> Option<Url> {
    let response = error.response()?;
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    url.redirected(response.headers().get(LOCATION)?.to_str().ok()?)
}
