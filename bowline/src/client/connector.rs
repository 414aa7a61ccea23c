//! Connecting to servers.

use std::time::Duration;

use bowline_proto::Role;
use bytes::Bytes;
use http::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client::dial::{dial, dial_through, dial_through_tls};
use crate::client::handshake::ClientHandshake;
use crate::client::http1;
use crate::client::http2::{Http2Connection, HttpVersion};
use crate::client::proxy::Proxy;
use crate::client::request::{Attempt, Offer};
use crate::client::url::{Scheme, Url};
use crate::error::{Error, ErrorKind};
use crate::handshake::negotiated::Agreed;
use crate::limits::Limits;
use crate::socket::WebSocket;
use crate::transport::alpn::Alpn;
use crate::transport::from_hyper::from_stream;
use crate::transport::tls::{self, ClientTls};
use crate::transport::{Addresses, IoStream};

/// Connects to a WebSocket server: with the defaults of [`Connector`], see [`Connector::connect`].
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
/// See [`Connector::connect`].
///
/// # Cancel safety
///
/// Dropping it ends the attempt.
pub async fn connect(url: impl AsRef<str>) -> Result<WebSocket, Error> {
    let (socket, _) = Connector::new().connect(url).await?;
    Ok(socket)
}

/// Connects to WebSocket servers: the options of a client.
///
/// An argument that makes no sense is remembered, and returned as an error by what uses the connector; nothing is
/// sent then.
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
    offer: Offer,
    proxy: Proxy,
    tls: Option<ClientTls>,
    version: HttpVersion,
}

impl Connector {
    /// A connector with the defaults: no headers, no subprotocols, the proxy that the environment names, the roots that
    /// the operating system trusts, the default [`Limits`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header to the request; repeated calls add all.
    ///
    /// The headers of the handshake itself are refused: Host, Origin and Sec-WebSocket-Protocol have methods of their
    /// own, the others are set by the library. A value can't have line breaks.
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

    /// The Host header. Default: the host and port of the URL.
    pub fn host<V>(mut self, value: V) -> Self
    where
        V: TryInto<HeaderValue>,
        V::Error: Into<http::Error>,
    {
        self.offer.set_header(HOST, value);
        self
    }

    /// The Origin header. Default: none, as for all clients that are no browsers (RFC 6455 4.1).
    pub fn origin<V>(mut self, value: V) -> Self
    where
        V: TryInto<HeaderValue>,
        V::Error: Into<http::Error>,
    {
        self.offer.set_header(ORIGIN, value);
        self
    }

    /// The subprotocols to offer, the preferred one first (RFC 6455 1.9). Default: none.
    ///
    /// Each has to be a token (RFC 9110 5.6.2), and none may be there twice. Which the server chose, if any, says
    /// [`WebSocket::subprotocol`].
    pub fn subprotocols<S: Into<String>>(mut self, subprotocols: impl IntoIterator<Item = S>) -> Self {
        self.offer.set_subprotocols(subprotocols.into_iter().map(Into::into).collect());
        self
    }

    /// How TLS is done, for servers and for proxies. Default: rustls with its provider `ring`, TLS 1.2 and 1.3, and the
    /// roots that the operating system trusts, by `rustls-platform-verifier`.
    ///
    /// The ALPN protocols of the configuration are replaced by those of `Connector::http_version`: `http/1.1`, `h2`, or both;
    /// for a proxy by `http/1.1`.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, config: std::sync::Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(ClientTls(config));
        self
    }

    /// The proxy to go through. Default: [`Proxy::environment`].
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }

    /// What a server may cost: see [`Limits`] for the defaults.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.offer.config.limits = limits;
        self
    }

    /// After how much silence a ping is sent: at least this long, at most twice as long. Default: 20 s; `None` turns
    /// it off.
    ///
    /// The silence of either side counts. Many servers and balancers close a connection on which they hear nothing, often after a
    /// minute, even if they send all the time.
    ///
    /// If nothing at all arrives for as long again, the connection is dead and ends with [`ErrorKind::Timeout`].
    ///
    /// It is dead as well if the transport takes no byte for that long though some wait. What a stream like TLS takes
    /// into a buffer of its own counts when that is flushed.
    pub fn keepalive(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.offer.config.keepalive = interval.into();
        if self.offer.config.keepalive == Some(Duration::ZERO) {
            self.offer.refuse("the keepalive interval is zero");
        }
        self
    }

    /// Connects to a server, and gives the connection and the response of the handshake, with its headers.
    ///
    /// The URL's scheme is `ws`, `wss`, `http` or `https`. A user name and a password in it are sent as basic
    /// authentication, unless there is an Authorization [`header`](Self::header). Redirects are not followed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the URL or an option makes no sense; then nothing was sent.
    /// [`ErrorKind::Timeout`] after [`Limits::handshake_timeout`], name resolution and TLS included.
    /// [`ErrorKind::Io`] if the name can't be resolved, the server or the proxy can't be reached, or TLS fails.
    /// [`ErrorKind::Handshake`] if the server does not accept: [`Error::response`] has what it answered instead, if
    /// that is HTTP. [`ErrorKind::Limit`] if the head of its response is too large.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the attempt.
    pub async fn connect(&self, url: impl AsRef<str>) -> Result<(WebSocket, Response<()>), Error> {
        let attempt = self.offer.prepare(Url::parse(url.as_ref())?)?;
        // In boxes, so that the caller's future is not larger for all of the connection's life.
        Box::pin(self.connect_to(attempt)).await
    }

    /// Does the handshake over a stream of your own, such as a Unix socket or a pipe; with TLS, if the URL says so.
    ///
    /// The host of the URL is what the server is asked for; no name is resolved and no proxy used.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), but for what has to do with reaching the server.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the stream.
    pub async fn connect_over<S>(
        &self,
        url: impl AsRef<str>,
        stream: S,
    ) -> Result<(WebSocket, Response<()>), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let attempt = self.offer.prepare(Url::parse(url.as_ref())?)?;
        Box::pin(async { self.finish(self.secure(attempt, self.version, stream).await?).await }).await
    }

    /// The request of a handshake, for an HTTP client of your own, and what takes its response and the upgraded stream.
    ///
    /// The request is one of HTTP/1.1, to an http or https URL; a client that might choose HTTP/2 has to be kept from
    /// that. The proxy, TLS and the timeout are that client's. The examples `reqwest_client` and `hyper_client` show all
    /// of it.
    ///
    /// ```
    /// # fn example() -> Result<(), bowline::Error> {
    /// use bowline::Connector;
    ///
    /// let (request, handshake) = Connector::new().request("wss://example.com/feed")?;
    /// assert_eq!(request.uri(), "https://example.com/feed");
    /// // Send the request, then: handshake.finish(&response, upgraded)
    /// # Ok(())
    /// # }
    /// # example().unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the URL or an option makes no sense.
    pub fn request(&self, url: impl AsRef<str>) -> Result<(Request<()>, ClientHandshake), Error> {
        let Attempt { url, mut request, handshake, .. } = self.offer.prepare(Url::parse(url.as_ref())?)?;
        *request.uri_mut() = url.http_uri();
        Ok((request, handshake))
    }

    /// Takes a stream whose handshake was done elsewhere, as the client of the connection.
    ///
    /// `leftover` is what was already read behind the handshake.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, or in one without its time driver.
    pub fn adopt<S>(&self, stream: S, leftover: impl Into<Bytes>, subprotocol: Option<&str>) -> WebSocket
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.adopt_as(stream, leftover.into(), Agreed::on_subprotocol(subprotocol))
    }

    fn adopt_as<S>(&self, stream: S, leftover: Bytes, agreed: Agreed) -> WebSocket
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (transport, leftover) = from_stream(stream, leftover);
        WebSocket::open(transport, Role::Client, &leftover, &self.offer.config, agreed)
    }

    async fn connect_to(&self, attempt: Attempt) -> Result<(WebSocket, Response<()>), Error> {
        let reached = self.reach(attempt, self.version).await?;
        if let Reached::Http2(connection, attempt) = reached {
            if self.version.falls_back() && !connection.accepts_websockets() {
                drop(connection);
                return self.finish(self.reach(*attempt, HttpVersion::Http1).await?).await;
            }
            return self.finish(Reached::Http2(connection, attempt)).await;
        }
        self.finish(reached).await
    }

    async fn finish(&self, reached: Reached) -> Result<(WebSocket, Response<()>), Error> {
        match reached {
            Reached::WebSocket(opened) => Ok(opened),
            Reached::Http2(connection, attempt) => {
                connection.check_settings()?;
                connection.exchange(*attempt).await
            }
        }
    }

    async fn reach(&self, attempt: Attempt, version: HttpVersion) -> Result<Reached, Error> {
        let target = attempt.url.dial_uri();
        let doing = format!("connecting to {}", attempt.url.address());
        let deadline = attempt.deadline;
        let Some(proxy) = self.proxy.on_the_way_to(&target)? else {
            let stream = deadline.bound(&doing, dial(target)).await?;
            return Box::pin(self.secure(attempt, version, stream)).await;
        };
        let doing = doing + " through a proxy";
        if proxy.uri().scheme_str() == Some("https") {
            let dialling = dial_through_tls(&proxy, target, self.tls.clone());
            let stream = deadline.bound(&doing, dialling).await?;
            return Box::pin(self.secure(attempt, version, stream)).await;
        }
        let stream = deadline.bound(&doing, dial_through(&proxy, target)).await?;
        Box::pin(self.secure(attempt, version, stream)).await
    }

    async fn secure<S: IoStream>(
        &self,
        attempt: Attempt,
        version: HttpVersion,
        stream: S,
    ) -> Result<Reached, Error> {
        let addresses = Addresses::of_any(&stream);
        if attempt.url.scheme() == Scheme::Wss {
            let server = tls::server_name(attempt.url.host())?;
            let connecting = tls::connect(self.tls.clone(), version.offered(), server, stream);
            let (stream, chosen) = attempt.deadline.bound("doing the TLS handshake", connecting).await?;
            if chosen == Alpn::Http2 {
                return self.start_http2(attempt, stream, addresses).await;
            } else if version.is_only_http2() {
                let text = "the server does not speak HTTP/2: it did not choose it by ALPN";
                return Err(Error::new(ErrorKind::Handshake, text));
            }
            return http1::exchange(stream, addresses, attempt).await.map(Reached::WebSocket);
        }
        if version.is_only_http2() {
            return self.start_http2(attempt, stream, addresses).await;
        }
        http1::exchange(stream, addresses, attempt).await.map(Reached::WebSocket)
    }

    async fn start_http2<S: IoStream>(
        &self,
        attempt: Attempt,
        stream: S,
        addresses: Addresses,
    ) -> Result<Reached, Error> {
        let (url, deadline) = (attempt.url.clone(), attempt.deadline);
        let connection =
            Http2Connection::handshake(self.offer.clone(), url, stream, addresses, deadline).await?;
        Ok(Reached::Http2(connection, Box::new(attempt)))
    }
}

#[cfg(feature = "deflate")]
impl Connector {
    /// Whether and how messages are compressed. Default: [`Compression::Off`](crate::Compression::Off).
    ///
    /// A [`Compression`](crate::Compression), or its [options](crate::CompressionOptions).
    pub fn compression(mut self, options: impl Into<crate::CompressionOptions>) -> Self {
        self.offer.config.compression = options.into();
        if let Some(text) = self.offer.config.compression.invalid() {
            self.offer.refuse(text);
        }
        self
    }

    /// The same for a connection whose handshake has agreed on compression; the level and the threshold are those of
    /// [`compression`](Self::compression).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, or in one without its time driver; if a window in `parameters` has not 8 to 15 bits, or
    /// an option of the compression makes no sense.
    pub fn adopt_compressed<S>(
        &self,
        stream: S,
        leftover: impl Into<Bytes>,
        subprotocol: Option<&str>,
        parameters: bowline_proto::DeflateParameters,
    ) -> WebSocket
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.offer.config.compression.assert_fits(parameters);
        let agreed = Agreed { deflate: Some(parameters), ..Agreed::on_subprotocol(subprotocol) };
        self.adopt_as(stream, leftover.into(), agreed)
    }
}

#[cfg(feature = "http2")]
impl Connector {
    /// The version of HTTP. Default: [`HttpVersion::Http1`].
    ///
    /// For many WebSockets over one connection, see [`connect_http2`](Self::connect_http2).
    pub fn http_version(mut self, version: HttpVersion) -> Self {
        self.version = version;
        self
    }

    /// Opens an HTTP/2 connection, and waits for the server's settings: for many WebSockets over one connection (RFC
    /// 8441). The path of the URL does not matter.
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
    /// As [`connect`](Self::connect); [`ErrorKind::Handshake`] if the server does not speak HTTP/2, or accepts no
    /// WebSockets over it.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the attempt.
    pub async fn connect_http2(&self, url: impl AsRef<str>) -> Result<Http2Connection, Error> {
        let attempt = self.offer.prepare(Url::parse(url.as_ref())?)?;
        match Box::pin(self.reach(attempt, HttpVersion::Http2)).await? {
            Reached::Http2(connection, _) => connection.check_settings().map(|()| connection),
            Reached::WebSocket(..) => unreachable!("only HTTP/2 was asked for"),
        }
    }
}

/// What there is once the server is reached.
enum Reached {
    WebSocket((WebSocket, Response<()>)),
    Http2(Http2Connection, Box<Attempt>),
}
