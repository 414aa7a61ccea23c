//! The opening handshake over a stream of the application's.

use std::fmt::{self, Display};
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use http::Response;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::client::connector::{BoxFuture, Connector};
use crate::client::url::Url;
use crate::error::Error;
use crate::socket::WebSocket;
use crate::transport::byte_stream::ByteStream;
use crate::transport::limit_unsent;

impl Connector {
    /// Performs the handshake over a stream of your own, such as a Unix socket or a pipe. Returns a future of
    /// the connection, and of the head of the server's response.
    ///
    /// TLS is used if the URL says so. A stream that is TLS already, by another library, needs
    /// [`ConnectOver::already_tls`]. The host of the URL is sent to the server, but its name is not resolved,
    /// and no proxy is used.
    ///
    /// ```no_run
    /// # #[cfg(unix)]
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let stream = tokio::net::UnixStream::connect("/run/feed.sock").await?;
    /// let (mut socket, _) = bowline::Connector::new().connect_over("ws://localhost/feed", stream).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The future returns the errors that [`connect`](Self::connect) returns, except those of name
    /// resolution, dialling and proxies.
    ///
    /// # Cancel safety
    ///
    /// The future is cancel safe. Dropping it ends the attempt and drops the stream.
    pub fn connect_over<S>(&self, url: impl Display, stream: S) -> ConnectOver<S>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let url = Url::parse(&url.to_string());
        ConnectOver { connector: self.clone(), url, stream, security: Security::Ours }
    }
}

/// An opening handshake over a stream of your own, which begins when it is awaited.
///
/// [`Connector::connect_over`] returns the handshake. Its result is the [`WebSocket`] and the head of the
/// server's response.
///
/// ```no_run
/// use bowline::{Connector, WebSocket};
/// # use tokio::io::DuplexStream;
/// # async fn connect_tls(_: &str) -> DuplexStream { unimplemented!() }
///
/// # async fn example() -> Result<(), bowline::Error> {
/// // `connect_tls` stands for a TLS library other than rustls, such as `native-tls` or `openssl`.
/// let stream = connect_tls("example.com").await;
/// let connecting = Connector::new().connect_over("wss://example.com/feed", stream);
/// let (socket, _) = connecting.already_tls().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Returns the errors that [`Connector::connect`] returns, except those of name resolution, dialling and
/// proxies.
///
/// # Panics
///
/// The future panics in a runtime without timers.
///
/// # Cancel safety
///
/// The future is cancel safe. Dropping it ends the attempt and drops the stream.
#[must_use = "the handshake begins only when this is awaited"]
pub struct ConnectOver<S> {
    connector: Connector,
    url: Result<Url, Error>,
    stream: S,
    security: Security,
}

/// The side that does the TLS of a wss:// URL.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Security {
    /// The library, on top of the stream.
    Ours,
    /// The stream itself.
    OfStream,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> ConnectOver<S> {
    /// Leaves the TLS of a wss:// URL to the stream, which has done its TLS handshake. Default: the library
    /// does TLS on top of the stream.
    ///
    /// The library can't see whether the stream is encrypted, and whether the certificate of the URL's host
    /// was checked. The application must ensure both. A ws:// URL never uses TLS, so this method has no
    /// effect on one. `Connector::tls` and the feature `tls` are not needed.
    ///
    /// The library speaks HTTP/2 if `Connector::http_version` allows nothing else, and otherwise HTTP/1.1.
    /// The protocol that the stream has agreed on by ALPN must be the same.
    ///
    /// ```no_run
    /// # async fn example(stream: tokio::io::DuplexStream) -> Result<(), bowline::Error> {
    /// let connecting = bowline::Connector::new().connect_over("wss://example.com/feed", stream);
    /// let (socket, _) = connecting.already_tls().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn already_tls(self) -> Self {
        self.with_security(Security::OfStream)
    }

    pub(crate) fn with_security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }
}

impl ConnectOver<ByteStream> {
    fn open(self) -> BoxFuture<'static, Result<(WebSocket, Response<()>), Error>> {
        Box::pin(self.connect())
    }

    async fn connect(self) -> Result<(WebSocket, Response<()>), Error> {
        let Self { connector, url, stream, security } = self;
        let attempt = connector.offer.prepare(url?)?;
        let reached = match security {
            Security::Ours => connector.secure(attempt, connector.version, stream).await?,
            Security::OfStream => {
                let addresses = stream.addresses();
                limit_unsent(stream.tcp(), connector.offer.config.limits.unsent);
                connector.exchange(attempt, connector.version, stream, addresses).await?
            }
        };
        connector.finish(reached).await
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> IntoFuture for ConnectOver<S> {
    type Output = Result<(WebSocket, Response<()>), Error>;
    /// A box, which keeps the caller's future small for the rest of the connection's life.
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { connector, url, stream, security } = self;
        ConnectOver { connector, url, stream: ByteStream::new(stream), security }.open()
    }
}

impl<S> fmt::Debug for ConnectOver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOver")
            .field("connector", &self.connector)
            .field("security", &self.security)
            .finish_non_exhaustive()
    }
}
