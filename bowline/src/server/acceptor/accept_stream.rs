//! The server's side of an opening handshake on any stream.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use http::request::Parts;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{Error, ErrorKind};
use crate::handshake::deadline::Deadline;
use crate::server::acceptor::settings::Settings;
use crate::server::check::RequestHooks;
use crate::server::check::acceptance::{Acceptance, RequestCheck};
use crate::server::http1;
use crate::server::rejection::Rejection;
use crate::server::server_error::HeadCopy;
use crate::socket::WebSocket;
use crate::transport::peer::Peer;
use crate::transport::rewind::Rewind;

/// An opening handshake on a stream, which begins when it is awaited.
///
/// [`Acceptor::accept_stream`](crate::Acceptor::accept_stream) returns the handshake. Its result is the
/// [`WebSocket`] and the head of the request.
///
/// ```no_run
/// use bowline::{Acceptor, Rejection};
/// use http::StatusCode;
/// use http::request::Parts;
///
/// # async fn example(stream: tokio::net::TcpStream) -> Result<(), bowline::Error> {
/// let (socket, head) = Acceptor::new()
///     .accept_stream(stream)
///     .on_request(|head: Parts| async move {
///         match head.headers.get("authorization") {
///             Some(token) if token == "Bearer 1234" => Ok(head),
///             _ => Err(Rejection::from(StatusCode::UNAUTHORIZED)),
///         }
///     })
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// - Returns [`ErrorKind::Handshake`] if the request was rejected or is not HTTP. The [`Rejection`] is the
///   [source](std::error::Error::source).
/// - Returns [`ErrorKind::Limit`] if the head of the request is too large.
/// - Returns [`ErrorKind::Timeout`] if the handshake takes longer than
///   [`Limits::handshake_timeout`](crate::Limits::handshake_timeout).
/// - Returns [`ErrorKind::Disconnected`] or [`ErrorKind::Io`] if the stream ends or breaks before the
///   handshake completes.
/// - Returns [`ErrorKind::InvalidInput`] if an option of the acceptor is invalid.
///
/// # Panics
///
/// The future panics in a runtime without timers.
///
/// # Cancel safety
///
/// The future is cancel safe. Dropping it ends the handshake and drops the stream.
#[must_use = "the handshake begins only when this is awaited"]
pub struct AcceptStream<S> {
    settings: Arc<Settings>,
    stream: S,
    hooks: RequestHooks,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> AcceptStream<S> {
    pub(crate) fn new(settings: Arc<Settings>, stream: S) -> Self {
        Self { settings, stream, hooks: RequestHooks::default() }
    }

    /// Sets a function that accepts or rejects the handshake before the response is sent, such as by
    /// authentication. Default: a valid handshake is accepted.
    ///
    /// The function is that of [`Server::on_request`](crate::Server::on_request): it receives the head of the
    /// request, and returns the head, an [`Acceptance`] or a [`Rejection`]. Its time is part of
    /// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout). If the function panics, the client
    /// receives a 500.
    ///
    /// ```no_run
    /// use bowline::{Acceptance, Acceptor};
    /// use http::request::Parts;
    ///
    /// # async fn example(stream: tokio::net::TcpStream) -> Result<(), bowline::Error> {
    /// let (socket, head) = Acceptor::new()
    ///     .accept_stream(stream)
    ///     .on_request(|head: Parts| async { Ok(Acceptance::from(head).header("x-request-id", "f00d")) })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_request<F, Fut, T>(mut self, check: F) -> Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, Rejection>> + Send + 'static,
        T: Into<Acceptance>,
    {
        self.hooks.check = RequestCheck::new(check);
        self
    }

    async fn accept(self) -> Result<(WebSocket, Parts), Error> {
        let Self { settings, stream, hooks } = self;
        settings.validate()?;
        let terms = &settings.terms;
        let deadline = Deadline::after(terms.config.limits.handshake_timeout);
        let peer = Peer::of_any(&stream);
        let copy = HeadCopy::Unwanted;
        let opened = http1::exchange(Rewind::new(stream), peer, terms, &hooks, deadline, &copy).await?;
        // Without a fallback, there is a WebSocket or an error.
        opened.ok_or_else(|| Error::new(ErrorKind::Disconnected, "the client opened no WebSocket"))
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> IntoFuture for AcceptStream<S> {
    type Output = Result<(WebSocket, Parts), Error>;
    /// A box, which keeps the caller's future small for the rest of the connection's life.
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.accept())
    }
}

impl<S> fmt::Debug for AcceptStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { settings, hooks, .. } = self;
        let mut debug = f.debug_struct("AcceptStream");
        debug.field("settings", settings).field("check", &hooks.check).finish_non_exhaustive()
    }
}
