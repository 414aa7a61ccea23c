//! Accepting opening handshakes.

use std::sync::Arc;
use std::time::Duration;

use bowline_proto::Role;
use bowline_proto::header::is_token;
use bytes::Bytes;
use http::header::HeaderMap;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{Error, ErrorKind};
use crate::events;
use crate::handshake::deadline::Deadline;
use crate::handshake::negotiated::Agreed;
use crate::limits::Limits;
use crate::server::check::RequestCheck;
use crate::server::handshake::{Agreement, RequestHead, Terms};
use crate::server::http1;
use crate::server::origin::{Pattern, RequestScheme};
use crate::server::rejection::Rejection;
use crate::server::upgrade::Upgrade;
use crate::socket::WebSocket;
use crate::transport::Addresses;
use crate::transport::from_hyper::from_stream;
use crate::transport::rewind::Rewind;

/// Accepts an opening handshake inside a server of any HTTP library that uses [`http`]'s types and hyper: with the
/// defaults of [`Acceptor`], see [`Acceptor::accept`].
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
/// The response to send instead: see [`Acceptor::accept`].
pub fn accept<A, B: Default>(request: &mut Request<A>) -> Result<(Response<B>, Upgrade), Rejection> {
    Acceptor::default().accept(request)
}

/// Accepts opening handshakes: the options of a server.
///
/// A clone is cheap and shares the settings. An argument that makes no sense is remembered: every handshake is
/// answered with a 500 that names it, and [`Server::serve`](crate::Server::serve) fails at once.
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

#[derive(Clone, Debug, Default)]
struct Settings {
    terms: Terms,
    /// The first argument that made no sense.
    invalid: Option<Error>,
}

impl Acceptor {
    /// An acceptor with the defaults: no subprotocols, pages of the same origin only, the default [`Limits`].
    pub fn new() -> Self {
        Self::default()
    }

    /// The subprotocols that are spoken here, the preferred one first (RFC 6455 1.9). Default: none.
    ///
    /// The first that the client offers too is agreed on; if there is none, the connection has no subprotocol. Each
    /// has to be a token (RFC 9110 5.6.2).
    pub fn subprotocols<S: Into<String>>(self, subprotocols: impl IntoIterator<Item = S>) -> Self {
        let subprotocols: Vec<String> = subprotocols.into_iter().map(Into::into).collect();
        let invalid = subprotocols.iter().find(|subprotocol| !is_token(subprotocol));
        let invalid = invalid.map(|invalid| format!("the subprotocol {invalid:?} is not a token"));
        self.with(|settings| settings.terms.subprotocols = subprotocols).refuse_if(invalid)
    }

    /// Lets pages of other origins connect too; may be called repeatedly. Default: only pages of the same host and
    /// port as the request's Host header (RFC 6455 10.2). Clients that are no browsers send no origin, and may always
    /// connect.
    ///
    /// A pattern is a host, a host below a domain, or one of both with a scheme, a port or both: `example.com`,
    /// `*.example.com`, `https://example.com`, `*.example.com:8443`. Without a scheme, all match; without a port, the
    /// default port of the scheme. `*` matches everything, `null` too.
    ///
    /// `null` matches `Origin: null`, which browsers send for pages whose origin they don't tell: from `file:` and `data:`
    /// URLs, and in sandboxed frames. Anybody can make such a page, so it opens the server to all sites, as `*` does.
    ///
    /// Pages are loaded by `http` and `https`; other schemes, such as that of a browser's extension, need a pattern. Under
    /// [`Server::tls`](crate::Server::tls), and where the request's URL has the scheme `https` (as in HTTP/2), a page of
    /// the same host that was loaded by `http` is foreign too. Elsewhere both are accepted, because a proxy may have ended TLS.
    ///
    /// The Host header is named by the client. A site whose name its owner points at 127.0.0.1, or at a private address (DNS
    /// rebinding), is of the same origin as its requests: a server that relies on being reachable from there only has to
    /// compare Host with its own names, by [`Server::check`](crate::Server::check).
    pub fn allow_origin(self, pattern: impl AsRef<str>) -> Self {
        let text = pattern.as_ref();
        match Pattern::parse(text) {
            Some(pattern) => self.with(|settings| settings.terms.origins.allow(pattern)),
            None => self.refuse_if(Some(format!(
                "the origin pattern {text:?} is not of the form `[scheme://][*.]host[:port]`, `*` or `null`"
            ))),
        }
    }

    /// Lets `check` decide about origins that are not allowed otherwise: it gets the value of the Origin header and
    /// all headers of the request.
    ///
    /// It is also asked about `null` and other values that name no origin.
    pub fn check_origin(self, check: impl Fn(&str, &HeaderMap) -> bool + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.terms.origins.allow_if(check))
    }

    /// What a client may cost: see [`Limits`] for the defaults.
    ///
    /// Under an HTTP server of your own, the head of the request is limited there.
    pub fn limits(self, limits: Limits) -> Self {
        self.with(|settings| settings.terms.config.limits = limits)
    }

    /// After how much silence a ping is sent: at least this long, at most twice as long. Default: 20 s; `None` turns
    /// it off.
    ///
    /// The silence of either side counts. Many servers and balancers close a connection on which they hear nothing, often after a
    /// minute, even if they send all the time.
    ///
    /// If nothing at all arrives for as long again, the connection is dead and ends with
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout).
    ///
    /// It is dead as well if the transport takes no byte for that long though some wait. What a stream like TLS takes
    /// into a buffer of its own counts when that is flushed.
    pub fn keepalive(self, interval: impl Into<Option<Duration>>) -> Self {
        let interval = interval.into();
        let invalid = (interval == Some(Duration::ZERO)).then(|| "the keepalive interval is zero".to_owned());
        self.with(|settings| settings.terms.config.keepalive = interval).refuse_if(invalid)
    }

    /// Checks an opening handshake. Return the response from your HTTP service, and await the [`Upgrade`] in a task of
    /// its own: the connection opens when the response has been sent.
    ///
    /// Extensions that the client offers are declined, but for compression if it is on.
    ///
    /// Over HTTP/2, a WebSocket is opened by an extended CONNECT (RFC 8441), which is recognised with the feature `http2`: your
    /// server has to advertise it (`enable_connect_protocol` of hyper's builder), and its router to let CONNECT through.
    /// There, what is dropped without a Close frame ends as hyper ends it, and [`flush`](WebSocket::flush) waits until hyper
    /// has the bytes. [`Server`](crate::Server) knows HTTP/2 by itself.
    ///
    /// # Errors
    ///
    /// The response to send instead (RFC 6455 4.2):
    ///
    /// | status | reason |
    /// |---|---|
    /// | 405 | not GET; over HTTP/2, not CONNECT |
    /// | 426 | HTTP/1.0, or no upgrade to `websocket` asked for |
    /// | 501 | over HTTP/2, another `:protocol` than `websocket` |
    /// | 400 | version other than 13; a key that is missing, repeated or malformed; no Host; malformed lists; a body |
    /// | 403 | a page of a foreign origin: see [`allow_origin`](Self::allow_origin) |
    /// | 500 | hyper's upgrade is not in the request; or an option of this acceptor makes no sense |
    pub fn accept<A, B: Default>(
        &self,
        request: &mut Request<A>,
    ) -> Result<(Response<B>, Upgrade), Rejection> {
        self.try_accept(request)
            .inspect(|(_, upgrade)| events::handshake_accepted(Role::Server, upgrade.agreed()))
            .inspect_err(|rejection| {
                events::handshake_rejected(Role::Server, rejection.status(), rejection);
            })
    }

    fn try_accept<A, B: Default>(
        &self,
        request: &mut Request<A>,
    ) -> Result<(Response<B>, Upgrade), Rejection> {
        let version = request.version();
        let agreement = self.agree(&*request)?;
        let on_upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or_else(|| {
            internal_error(
                "hyper's upgrade is not in the request: the connection is served without upgrades, or a middleware \
                 took it",
            )
        })?;
        let response = agreement.response();
        Ok((response, Upgrade::new(on_upgrade, version, agreement.agreed, self.0.terms.config.clone())))
    }

    /// Checks an opening handshake, and takes nothing from it yet.
    pub(crate) fn agree<'a>(&self, request: impl Into<RequestHead<'a>>) -> Result<Agreement, Rejection> {
        self.validate().map_err(|error| internal_error(&format!("this server is misconfigured: {error}")))?;
        self.0.terms.check(request)
    }

    /// The subprotocol that is agreed on with a client that sends these headers, if any.
    #[cfg(feature = "axum")]
    pub(crate) fn choose_subprotocol(&self, headers: &HeaderMap) -> Option<&str> {
        self.0.terms.choose_subprotocol(headers).ok().flatten()
    }

    /// Does the whole server's side of an opening handshake on a stream, for servers without an HTTP stack; gives the
    /// connection and the head of the request.
    ///
    /// The stream is a [`TcpStream`](tokio::net::TcpStream), or any other. A request that is no acceptable handshake is
    /// answered with what [`accept`](Self::accept) documents, and the stream is closed.
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
    /// [`ErrorKind::Handshake`] if the request was rejected (the [`Rejection`] is the
    /// [source](std::error::Error::source)) or is not HTTP, [`ErrorKind::Limit`] if its head is too large,
    /// [`ErrorKind::Timeout`] after [`Limits::handshake_timeout`], [`ErrorKind::Disconnected`] and [`ErrorKind::Io`]
    /// if the connection ended before; [`ErrorKind::InvalidInput`] if an option of this acceptor makes no sense.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the stream.
    pub async fn accept_stream<S>(&self, stream: S) -> Result<(WebSocket, Parts), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.validate()?;
        let terms = &self.0.terms;
        let deadline = Deadline::after(terms.config.limits.handshake_timeout);
        let addresses = Addresses::of_any(&stream);
        let check = RequestCheck::default();
        // In a box, so that the caller's future is not larger for all of the connection's life.
        Box::pin(http1::exchange(Rewind::new(stream), addresses, terms, &check, deadline)).await
    }

    /// Takes a stream whose handshake was done elsewhere, as the server of the connection.
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
        WebSocket::open(transport, Role::Server, &leftover, &self.0.terms.config, agreed)
    }

    /// The first argument that made no sense, if there is one.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        self.0.invalid.clone().map_or(Ok(()), Err)
    }

    /// The same for requests that come over TLS.
    pub(crate) fn over_tls(self) -> Self {
        self.with(|settings| settings.terms.origins.set_arrival(RequestScheme::OverTls))
    }

    /// What is asked of a handshake.
    pub(crate) fn terms(&self) -> &Terms {
        &self.0.terms
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Remembers what is wrong, unless something was before.
    fn refuse_if(self, invalid: Option<String>) -> Self {
        let Some(text) = invalid else { return self };
        self.with(|settings| {
            settings.invalid.get_or_insert_with(|| Error::new(ErrorKind::InvalidInput, text));
        })
    }
}

#[cfg(feature = "deflate")]
impl Acceptor {
    /// Whether and how messages are compressed. Default: [`Compression::Off`](crate::Compression::Off).
    ///
    /// A [`Compression`](crate::Compression), or its [options](crate::CompressionOptions).
    pub fn compression(self, options: impl Into<crate::CompressionOptions>) -> Self {
        let compression = options.into();
        let invalid = compression.invalid();
        self.with(|settings| {
            settings.terms.config.compression = compression;
        })
        .refuse_if(invalid)
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
        self.0.terms.config.compression.assert_fits(parameters);
        let agreed = Agreed { deflate: Some(parameters), ..Agreed::on_subprotocol(subprotocol) };
        self.adopt_as(stream, leftover.into(), agreed)
    }
}

fn internal_error(text: &str) -> Rejection {
    Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, text)
}
