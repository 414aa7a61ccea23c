//! A server of its own.

mod accept_loop;
mod acceptor;
pub(crate) mod catch_panic;
mod check;
mod connection_task;
mod handler;
mod handshake;
mod http1;
#[cfg_attr(not(feature = "http2"), path = "server/absent/http2.rs")]
mod http2;
mod origin;
mod registry;
mod rejection;
mod upgrade;

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::time::Duration;

use http::request::Parts;
use tokio::net::TcpListener;

use crate::server::accept_loop::AcceptLoop;
use crate::server::check::RequestCheck;
use crate::server::connection_task::ServerOptions;

pub use acceptor::{Acceptor, accept};
pub use handler::Handler;
pub use registry::Shutdown;
pub use rejection::Rejection;
pub use upgrade::Upgrade;

/// Serves WebSocket connections, each by a call of `handler`: with the defaults of [`Server`], see [`Server::serve`].
///
/// ```no_run
/// use bowline::WebSocket;
/// use tokio::net::TcpListener;
///
/// # #[tokio::main]
/// # async fn main() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:8080").await?;
/// bowline::serve(listener, |mut socket: WebSocket| async move {
///     while let Some(message) = socket.recv().await? {
///         socket.send(message).await?;
///     }
///     Ok(())
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// None with the defaults; see [`Server::serve`].
///
/// # Cancel safety
///
/// Dropping it ends all connections.
pub async fn serve<H: Handler<M>, M: 'static>(listener: TcpListener, handler: H) -> io::Result<Shutdown> {
    Server::new().serve(listener, handler).await
}

/// A server of WebSocket connections, and of nothing else.
///
/// ```no_run
/// use std::time::Duration;
///
/// use bowline::{Acceptor, Rejection, Server, WebSocket};
/// use http::StatusCode;
/// use http::request::Parts;
///
/// # async fn example(listener: tokio::net::TcpListener) -> std::io::Result<()> {
/// let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
/// let shutdown = Server::new()
///     .acceptor(Acceptor::new().allow_origin("https://example.com"))
///     .check(|head: Parts| async move {
///         match head.headers.get("authorization") {
///             Some(token) if token == "Bearer 1234" => Ok(head),
///             _ => Err(Rejection::from(StatusCode::UNAUTHORIZED)),
///         }
///     })
///     .on_error(|error| eprintln!("{error}"))
///     .shutdown(ctrl_c, Duration::from_secs(10))
///     .serve(listener, |mut socket: WebSocket| async move {
///         while let Some(message) = socket.recv().await? {
///             socket.send(message).await?;
///         }
///         Ok(())
///     })
///     .await?;
/// println!("{} connections closed, {} were ended", shutdown.closed(), shutdown.ended());
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Server {
    options: ServerOptions,
    /// When to shut down; never, if there is none.
    signal: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// How long that may take.
    deadline: Duration,
}

impl Server {
    /// A server with the defaults: without TLS, open to all clients, silent about errors, never shut down.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which handshakes are accepted, and with what limits. Default: [`Acceptor::new`].
    pub fn acceptor(mut self, acceptor: Acceptor) -> Self {
        self.options.acceptor = acceptor;
        self
    }

    /// Serves wss:// instead of ws://.
    ///
    /// The ALPN protocols of the configuration are replaced by what the server speaks: `http/1.1`, and `h2` if
    /// `Server::http2` is called. Of pages, only those that were loaded over TLS are of the same origin then: see
    /// [`Acceptor::allow_origin`].
    #[cfg(feature = "tls")]
    pub fn tls(mut self, config: std::sync::Arc<rustls::ServerConfig>) -> Self {
        self.options.tls = Some(crate::transport::tls::ServerTls(config));
        self
    }

    /// Serves HTTP/2 (RFC 8441) beside HTTP/1.1: over TLS to clients that choose it by ALPN, in clear text to those that
    /// begin with it (prior knowledge).
    ///
    /// Each WebSocket is then a stream of its client's connection, and all else holds for it as for one over HTTP/1.1. A
    /// connection may have [`Limits::streams`](crate::Limits::streams) of them. Without any, it ends gracefully after one to
    /// two times [`Limits::handshake_timeout`](crate::Limits::handshake_timeout), and is cut off after another.
    ///
    /// Browsers open all WebSockets of an origin over the HTTP/2 connection they have there: it has to be this server
    /// that serves their pages, or they come over HTTP/1.1.
    #[cfg(feature = "http2")]
    pub fn http2(mut self) -> Self {
        self.options.http2 = Some(http2::Http2Server);
        self
    }

    /// Lets `check` decide about each request that is a valid handshake, before it is accepted: authentication.
    ///
    /// It gets the head of the request, and returns it for the handler, maybe with more in its extensions; or the
    /// response to send instead. The extensions hold the client's [`SocketAddr`](std::net::SocketAddr). The time that
    /// it takes is part of [`Limits::handshake_timeout`](crate::Limits::handshake_timeout).
    ///
    /// The future is dropped when the client gives up: when it ends its connection or, over HTTP/2, resets the stream.
    pub fn check<F, Fut>(mut self, check: F) -> Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Parts, Rejection>> + Send + 'static,
    {
        self.options.check = RequestCheck::new(check);
        self
    }

    /// Hears of all that goes wrong, one error at a time per connection, and maybe of several connections at once:
    ///
    /// - errors that a handler returned, and its panics;
    /// - an [`Error`](crate::Error) for each connection that never became a WebSocket: rejected, timed out, broken, or closed before
    ///   it asked for anything. A [`check`](Self::check) that panics rejects with 500;
    /// - [`std::io::Error`] when the operating system refused to accept a connection.
    ///
    /// It must not block. A panic of its own ends nothing, and nobody hears of it.
    pub fn on_error(
        mut self,
        hear: impl Fn(Box<dyn StdError + Send + Sync>) + Send + Sync + 'static,
    ) -> Self {
        self.options.on_error = Some(Box::new(hear));
        self
    }

    /// Shuts the server down when `signal` is ready.
    ///
    /// No more connections are accepted then, handshakes under way are dropped, and all connections are closed with
    /// 1001. [`serve`](Self::serve) returns when all of them have ended, and after `deadline` at the latest; what is
    /// left then is ended without further ado.
    pub fn shutdown(mut self, signal: impl Future<Output = ()> + Send + 'static, deadline: Duration) -> Self {
        self.signal = Some(Box::pin(signal));
        self.deadline = deadline;
        self
    }

    /// Serves connections, each by a call of `handler` in a task of its own.
    ///
    /// The end of the handler is the end of the connection: with `Ok` it is closed with 1000, with an error or a panic
    /// with 1011 and [`on_error`](Self::on_error) hears of it; unless it was closed before. A request that is no
    /// acceptable handshake gets the response that [`Acceptor::accept`] documents, and the connection is closed.
    ///
    /// Errors in accepting connections, such as too many open files, never end the server: it goes on after 100 ms.
    ///
    /// It has to be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) at once if an option of the [`Acceptor`] makes no sense.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends all connections, without Close frames: see [`shutdown`](Self::shutdown) for the gentle way.
    pub async fn serve<H: Handler<M>, M: 'static>(
        self,
        listener: TcpListener,
        handler: H,
    ) -> io::Result<Shutdown> {
        let Self { options, signal, deadline } = self;
        let options = match &options.tls {
            Some(_) => ServerOptions { acceptor: options.acceptor.over_tls(), ..options },
            None => options,
        };
        options.acceptor.validate().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let signal = signal.unwrap_or_else(|| Box::pin(pending()));
        // Unless it listens on all addresses, this is what each connection would say.
        let local = listener.local_addr().ok().filter(|address| !address.ip().is_unspecified());
        let accept_loop = AcceptLoop::new(options, handler, local);
        accept_loop.accept_until(signal, listener).await;
        Ok(accept_loop.shut_down(deadline).await)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServerOptions { acceptor, check, .. } = &self.options;
        f.debug_struct("Server").field("acceptor", acceptor).field("check", check).finish_non_exhaustive()
    }
}
