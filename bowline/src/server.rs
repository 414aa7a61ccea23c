//! The server: from an accepted connection to a handler.
//!
//! ```text
//! acceptor         the options of a handshake, and the handshake in other people's servers
//! accept_loop      accepts connections from a listener, until the server shuts down
//! connection_task  one connection: TLS, the handshake, the handler, the close
//! http1            one request and its response, then the stream is the WebSocket's
//! http2            many requests, each of which becomes a stream and a task of its own
//! handshake        the checks of the request, for both; origin: one of them
//! check            the application's answer to the request, for both; rejection: a negative one
//! registry         all connections of a server, to close them at its end
//! handler          the application's closure; catch_panic: its panics
//! server_error     what the application learns of an error
//! extract          the extractor for axum
//! upgrade          the wait for the response, in other people's servers
//! ```
//!
//! Without the feature `http2`, `absent/http2.rs` takes the place of `http2.rs`.

mod accept_loop;
mod acceptor;
pub(crate) mod catch_panic;
mod check;
mod connection_task;
#[cfg(feature = "axum")]
pub mod extract;
mod handler;
mod handshake;
mod http1;
#[cfg_attr(not(feature = "http2"), path = "server/absent/http2.rs")]
mod http2;
mod registry;
mod rejection;
pub(crate) mod server_error;
mod upgrade;

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http::request::Parts;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::handshake::deadline::require_timers;
use crate::server::accept_loop::ServerRun;
use crate::server::check::acceptance::RequestCheck;
use crate::server::check::fallback::Fallback;
use crate::server::connection_task::ServerOptions;
use crate::server::registry::{Load, Shutdown};

pub use accept_loop::{Listener, RequestConnection, Requests};
pub use acceptor::accept_stream::AcceptStream;
pub use acceptor::{Acceptor, accept};
pub use check::acceptance::Acceptance;
pub use connection_task::exchange::Exchange;
pub use handler::Handler;
pub use handshake::ServerHandshake;
pub use registry::{Connections, ServerStats, ShutdownOptions, ShutdownSummary};
pub use rejection::{Rejection, RejectionReason};
pub use server_error::ServerError;
pub use upgrade::Upgrade;

/// Serves WebSocket connections with the default options: each connection is passed to one call of `handler`.
///
/// See [`Server`] for the options, and [`Server::serve`] for the handler.
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
/// Never returns an error with the default options. [`Server::serve`] lists the errors of other options.
///
/// # Panics
///
/// The future panics at once outside of a tokio runtime, and in a runtime without timers
/// ([`enable_time`](tokio::runtime::Builder::enable_time)).
///
/// # Cancel safety
///
/// This function is cancel safe. Dropping the future ends all connections without Close frames.
pub async fn serve<L: Listener, H: Handler<M>, M: 'static>(
    listener: L,
    handler: H,
) -> io::Result<ShutdownSummary> {
    Server::new().serve(listener, handler).await
}

/// A configurable server of WebSocket connections, and of small pages beside them.
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
///     .on_request(|head: Parts| async move {
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
///
/// The page on [deploying](crate::guide::deploying) has a whole program with health checks, and settings for
/// proxies, systemd and Kubernetes.
///
/// # Clones
///
/// Clones are cheap. A clone has the same options and the same signal to [shut down](Self::shutdown). So a
/// server can listen at several places:
///
/// ```no_run
/// use std::time::Duration;
///
/// use bowline::{Server, WebSocket};
/// use tokio::net::TcpListener;
///
/// async fn echo(mut socket: WebSocket) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     while let Some(message) = socket.recv().await? {
///         socket.send(message).await?;
///     }
///     Ok(())
/// }
///
/// # #[tokio::main]
/// # async fn main() -> std::io::Result<()> {
/// let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
/// let server = Server::new().shutdown(ctrl_c, Duration::from_secs(10));
/// let ipv4 = TcpListener::bind("0.0.0.0:8080").await?;
/// let ipv6 = TcpListener::bind("[::1]:8080").await?;
/// tokio::try_join!(server.clone().serve(ipv4, echo), server.serve(ipv6, echo))?;
/// # Ok(())
/// # }
/// ```
///
/// Clones also share the numbers of [`stats`](Self::stats), and the counts that the limits of
/// [`connections`](Self::connections), [`connections_per_address`](Self::connections_per_address) and
/// [`handshakes_per_second`](Self::handshakes_per_second) are compared with. Options that are set on a clone
/// later apply to that clone only.
#[derive(Clone, Default)]
pub struct Server {
    options: Arc<ServerOptions>,
    load: Arc<Load>,
}

impl Server {
    /// Serves connections: each is passed to one call of `handler`, in a task of its own.
    ///
    /// When the handler returns, its connection is closed: with 1000 after `Ok`, with 1011 after an error or
    /// a panic, which is passed to [`on_error`](Self::on_error). A connection that was closed before stays as
    /// it is. A request that is not an acceptable handshake receives the response that [`Acceptor::accept`]
    /// documents, and its TCP connection is closed. A [`fallback`](Self::fallback) answers the requests that
    /// ask for no WebSocket.
    ///
    /// Errors in accepting connections, such as too many open files, never end the server. It continues after
    /// 100 ms.
    ///
    /// ```no_run
    /// use bowline::{Server, WebSocket};
    ///
    /// # async fn example(listener: tokio::net::TcpListener) -> std::io::Result<()> {
    /// Server::new()
    ///     .serve(listener, |mut socket: WebSocket| async move {
    ///         while let Some(message) = socket.recv().await? {
    ///             socket.send(message).await?;
    ///         }
    ///         Ok(())
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) at once if an option is invalid.
    ///
    /// # Panics
    ///
    /// The future panics at once outside of a tokio runtime, and in a runtime without timers
    /// ([`enable_time`](tokio::runtime::Builder::enable_time)).
    /// A listener that accepts sockets needs I/O, too ([`enable_io`](tokio::runtime::Builder::enable_io)).
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future ends all connections without Close frames; see
    /// [`shutdown`](Self::shutdown) for a graceful end.
    pub async fn serve<L: Listener, H: Handler<M>, M: 'static>(
        self,
        listener: L,
        handler: H,
    ) -> io::Result<ShutdownSummary> {
        require_timers();
        self.options.validate()?;
        Ok(ServerRun::new(self.options, self.load, handler).serve(listener).await)
    }

    /// Serves one connection that the application has accepted itself.
    ///
    /// The connection is served as by [`serve`](Self::serve), with the same options, over HTTP/1.1 or HTTP/2,
    /// and with TLS if that is set. `stream` is a [`TcpStream`](tokio::net::TcpStream) or any other stream.
    /// `peer` is the address of the client, or `None` if it has no address.
    ///
    /// The future completes when the connection has ended, its handler included. Errors of the connection are
    /// passed to [`on_error`](Self::on_error). The signal of [`shutdown`](Self::shutdown) closes the
    /// connection as it closes those of `serve`; after the signal, a connection is dropped at once.
    ///
    /// The handler runs in a task of its own, so that its panic does not reach the caller. A loop that
    /// accepts connections as a [`Listener`] needs about 1.2 KiB less for each.
    ///
    /// ```no_run
    /// use bowline::{Server, WebSocket};
    /// use tokio::net::TcpListener;
    ///
    /// async fn greet(socket: WebSocket) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    ///     socket.send("welcome").await?;
    ///     Ok(())
    /// }
    ///
    /// # #[tokio::main]
    /// # async fn main() -> std::io::Result<()> {
    /// let server = Server::new();
    /// let listener = TcpListener::bind("127.0.0.1:8080").await?;
    /// loop {
    ///     let (stream, peer) = listener.accept().await?;
    ///     if peer.ip().is_loopback() {
    ///         tokio::spawn(server.serve_connection(stream, peer, greet));
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) at once if an option is invalid.
    ///
    /// # Panics
    ///
    /// The future panics at once outside of a tokio runtime, and in a runtime without timers.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future ends the connection without a Close frame.
    pub fn serve_connection<S, P, H, M>(
        &self,
        stream: S,
        peer: P,
        handler: H,
    ) -> impl Future<Output = io::Result<()>> + Send + use<S, P, H, M>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        P: Into<Option<SocketAddr>>,
        H: Handler<M>,
        M: 'static,
    {
        let (valid, peer) = (self.options.validate(), peer.into());
        let run = ServerRun::new(Arc::clone(&self.options), Arc::clone(&self.load), handler);
        async move {
            require_timers();
            valid?;
            run.serve_one(stream, peer).await;
            Ok(())
        }
    }

    /// Returns a server with the default options.
    ///
    /// By default a server has no TLS, speaks HTTP/1.1, accepts all clients that [`Acceptor::new`] accepts,
    /// reports no errors, and never shuts down.
    ///
    /// ```
    /// let server = bowline::Server::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the options of handshakes and connections. Default: [`Acceptor::new`].
    ///
    /// ```
    /// use bowline::{Acceptor, Server};
    ///
    /// let server = Server::new().acceptor(Acceptor::new().subprotocols(["chat.v1"]));
    /// ```
    pub fn acceptor(self, acceptor: Acceptor) -> Self {
        self.with(|options| options.acceptor = acceptor)
    }

    /// Serves wss:// instead of ws://. Default: ws://. Available with the feature `tls`.
    ///
    /// The ALPN protocols of the configuration are replaced by those that the server speaks: `http/1.1`, and
    /// `h2` if `Server::http2` is called. Only pages that were loaded over TLS are then of the same origin:
    /// see [`Acceptor::allow_origin`].
    ///
    /// The extensions of each request's head contain a [`TlsInfo`](crate::TlsInfo): the client's
    /// certificates, and the server name that it asked for.
    ///
    /// ```no_run
    /// use std::sync::Arc;
    ///
    /// use bowline::Server;
    /// use bowline::rustls::ServerConfig;
    /// use bowline::rustls::pki_types::pem::PemObject;
    /// use bowline::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    ///
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let chain = CertificateDer::pem_file_iter("fullchain.pem")?.collect::<Result<Vec<_>, _>>()?;
    /// let key = PrivateKeyDer::from_pem_file("privkey.pem")?;
    /// let config = ServerConfig::builder_with_provider(bowline::crypto_provider()?)
    ///     .with_safe_default_protocol_versions()?
    ///     .with_no_client_auth()
    ///     .with_single_cert(chain, key)?;
    /// let server = Server::new().tls(Arc::new(config));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The page on [TLS](crate::guide::tls) has more examples: client certificates, and new certificates
    /// without a restart.
    #[cfg(feature = "tls")]
    pub fn tls(self, config: std::sync::Arc<rustls::ServerConfig>) -> Self {
        self.with(|options| options.tls = Some(crate::transport::tls::ServerTls(config)))
    }

    /// Serves HTTP/2 (RFC 8441) in addition to HTTP/1.1. Default: HTTP/1.1 only. Available with the feature
    /// `http2`.
    ///
    /// Clients choose HTTP/2 over TLS by ALPN. In clear text, clients with prior knowledge begin with HTTP/2.
    ///
    /// Each WebSocket is a stream of its client's connection, and otherwise behaves as over HTTP/1.1. A
    /// connection may have [`Limits::max_streams`](crate::Limits::max_streams) streams. A connection without
    /// a WebSocket, and without an answer of the [`fallback`](Self::fallback), is shut down gracefully after
    /// one to two [handshake timeouts](crate::Limits::handshake_timeout), and closed after one more.
    ///
    /// Browsers open WebSockets over HTTP/2 only to a server with which they already have an HTTP/2
    /// connection. If another server serves their pages, they use HTTP/1.1.
    ///
    /// ```
    /// let server = bowline::Server::new().http2();
    /// ```
    #[cfg(feature = "http2")]
    pub fn http2(self) -> Self {
        self.with(|options| options.http2 = Some(http2::Http2Server))
    }

    /// Sets a function that accepts or rejects each valid handshake, such as by authentication. Default: all
    /// valid handshakes are accepted.
    ///
    /// `check` receives the head of the request, whose extensions contain the client's
    /// [`SocketAddr`](std::net::SocketAddr) and, over TLS, its `TlsInfo`. It returns one of these:
    ///
    /// - the head for the handler, possibly with further extensions
    /// - an [`Acceptance`] that is made from the head, with headers for the response, or with settings for
    ///   this connection
    /// - the response to send instead, as an error, with a status of 300 or above
    ///
    /// The time of `check` is part of [`Limits::handshake_timeout`](crate::Limits::handshake_timeout). The
    /// future is dropped if the client ends its connection or, over HTTP/2, resets the stream.
    ///
    /// ```
    /// use bowline::{Acceptance, Rejection, Server};
    /// use http::StatusCode;
    /// use http::request::Parts;
    ///
    /// let server = Server::new().on_request(|head: Parts| async move {
    ///     match head.headers.get("authorization") {
    ///         Some(token) if token == "Bearer 1234" => Ok(head),
    ///         _ => Err(Rejection::from(StatusCode::UNAUTHORIZED)),
    ///     }
    /// });
    /// let server = Server::new().on_request(|head: Parts| async move {
    ///     Ok(Acceptance::from(head).header("set-cookie", "session=1234; HttpOnly; SameSite=Lax"))
    /// });
    /// ```
    ///
    /// A closure that only rejects must name the type of its success: `Err::<Parts, _>(rejection)`.
    pub fn on_request<F, Fut, T>(self, check: F) -> Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, Rejection>> + Send + 'static,
        T: Into<Acceptance>,
    {
        self.with(|options| options.hooks.check = RequestCheck::new(check))
    }

    /// Sets a function that answers the requests that ask for no WebSocket, such as those for a page or a
    /// health check. Default: such requests are rejected.
    ///
    /// `fallback` receives the head of the request, whose extensions are those of
    /// [`on_request`](Self::on_request), and returns the response. The body of the response is a `String`, a
    /// `&'static str`, `Vec<u8>` or anything else that converts into [`Bytes`]. The server sets
    /// `Content-Length`, and omits the body of a response to HEAD.
    ///
    /// # Requests
    ///
    /// A request asks for a WebSocket if one of the following holds. A request that asks in vain, such as one
    /// with a wrong version or a foreign origin, is rejected as without a fallback.
    ///
    /// - Over HTTP/1.1, `Upgrade` names `websocket`, or there is a `Sec-WebSocket-Key`. (The key alone is
    ///   what some proxies leave of a handshake.)
    /// - The method is CONNECT, which is how WebSockets are opened over HTTP/2.
    ///
    /// A request of HTTP/1.1 that has no Host, and any that has two, is rejected with 400 (RFC 9112 3.2).
    ///
    /// Bodies of requests are discarded. Over HTTP/1.1, the connection is closed after the response unless
    /// the body has arrived together with the head. The head has the limits of a handshake:
    /// [`Limits::head_size`] and [`Limits::max_headers`]. Over HTTP/2, a request counts towards
    /// [`Limits::max_streams`] until it is answered.
    ///
    /// # Times
    ///
    /// [`Limits::handshake_timeout`] bounds the time from the beginning of the connection until `fallback`
    /// returns. The client then has as much time to receive the response, to send its next request, and to
    /// have that answered. The next request may be a handshake. Connections over HTTP/1.1 are closed after
    /// that time. Over HTTP/2, the times of a request begin when it arrives, and a response that was sent
    /// counts as use of the connection: see [`http2`](Self#method.http2).
    ///
    /// The future of `fallback` is dropped if the client ends its connection or, over HTTP/2, resets the
    /// stream, and when the server shuts down. If the function panics or returns a status below 200, the
    /// client receives a 500, and [`on_error`](Self::on_error) an error.
    ///
    /// ```
    /// use bowline::Server;
    /// use http::request::Parts;
    /// use http::{Response, StatusCode};
    ///
    /// let server = Server::new().fallback(|head: Parts| async move {
    ///     match head.uri.path() {
    ///         "/healthz" => Response::new("ok"),
    ///         _ => {
    ///             let mut response = Response::new("not found");
    ///             *response.status_mut() = StatusCode::NOT_FOUND;
    ///             response
    ///         }
    ///     }
    /// });
    /// ```
    ///
    /// [`Bytes`]: bytes::Bytes
    /// [`Limits::handshake_timeout`]: crate::Limits::handshake_timeout
    /// [`Limits::head_size`]: crate::Limits::head_size
    /// [`Limits::max_headers`]: crate::Limits::max_headers
    /// [`Limits::max_streams`]: crate::Limits#method.max_streams
    pub fn fallback<F, Fut, B>(self, fallback: F) -> Self
    where
        F: Fn(Parts) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Response<B>> + Send + 'static,
        B: Into<Bytes>,
    {
        self.with(|options| options.hooks.fallback = Some(Fallback::new(fallback)))
    }

    /// Sets a function that is called with each error. Default: errors are discarded.
    ///
    /// A [`ServerError`] names the client and its request. There is one for:
    ///
    /// - each error that a handler returns, and each of its panics;
    /// - each connection that never became a WebSocket: rejected, timed out, broken, or closed before a
    ///   request. An [`on_request`](Self::on_request) that panics rejects with 500. A connection that carried
    ///   only answers of the [`fallback`](Self::fallback) is none of these.
    /// - each panic of the fallback, and each of its requests that was not answered in time;
    /// - each failure of the operating system to accept a connection.
    ///
    /// Many of these say only that a client is gone: [`is_noise`](ServerError::is_noise) tells them apart.
    ///
    /// Calls for one connection are sequential; calls for different connections may be concurrent. The
    /// function must not block. If it panics, the panic is discarded, and the server continues.
    ///
    /// With this function, each open connection keeps the method and the URI of its request, in one block of
    /// their size. The other parts of the head are not kept.
    ///
    /// ```
    /// let server = bowline::Server::new().on_error(|error| {
    ///     if !error.is_noise() {
    ///         eprintln!("{error}");
    ///     }
    /// });
    /// ```
    pub fn on_error(self, on_error: impl Fn(ServerError) + Send + Sync + 'static) -> Self {
        self.with(|options| options.on_error = Some(Arc::new(on_error)))
    }

    /// Sets the largest number of connections. Default: no limit; at least 1.
    ///
    /// WebSockets count, and connections that are on the way to one or to an answer of
    /// [`fallback`](Self::fallback). An HTTP/2 connection counts as its WebSockets, or as one more.
    ///
    /// Beyond the limit, a request for a WebSocket is refused with 503 and `Retry-After: 5`, before
    /// [`on_request`](Self::on_request) is called. At most 100 refused connections a second are answered,
    /// which bounds the TLS handshakes that a flood costs. Others are closed as soon as they are accepted. A
    /// connection that is answered may also ask for a page of `fallback`, so health checks go on. Pages don't
    /// prolong its life: it ends after one page over HTTP/1.1, and like an unused one over HTTP/2.
    ///
    /// A client that connects and sends nothing holds a place until
    /// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout). Use `connections_per_address` against
    /// such clients.
    ///
    /// [`stats`](Self::stats) counts all refusals. [`on_error`](Self::on_error) receives at most one a
    /// second, with the number of the others.
    ///
    /// ```
    /// let server = bowline::Server::new().connections(50_000);
    /// ```
    pub fn connections(self, max: usize) -> Self {
        self.with(|options| options.load.connections = Some(max))
    }

    /// Sets the largest number of connections of one client's address. Default: no limit; at least 1.
    ///
    /// All addresses of an IPv6 network of 64 bits count as one. Connections are counted and refused as by
    /// [`connections`](Self::connections), but with the status 429 (RFC 6585 4). Connections without an
    /// address, such as those of Unix sockets, are not limited.
    ///
    /// Behind a proxy, all clients have the proxy's address, unless a [`Listener`] finds out theirs. Many
    /// clients may also share an address, such as those in one office or one mobile network.
    ///
    /// The server keeps one entry for each address that has connections.
    ///
    /// ```
    /// let server = bowline::Server::new().connections_per_address(100);
    /// ```
    pub fn connections_per_address(self, max: usize) -> Self {
        self.with(|options| options.load.connections_per_address = Some(max))
    }

    /// Sets the largest number of handshakes within a second. Default: no limit; 1 to 1,000,000.
    ///
    /// A handshake costs much more than an open connection: TLS, and the application's
    /// [`on_request`](Self::on_request). After a restart, all clients come at once.
    ///
    /// - Connections beyond the limit are accepted later, in their order. Meanwhile, they wait in the
    ///   operating system's queue, whose length the listener sets.
    /// - Connections for [`serve_connection`](Self::serve_connection) wait in its future, for at most
    ///   [`Limits::handshake_timeout`](crate::Limits::handshake_timeout). If that does not suffice, they are
    ///   dropped at once.
    /// - Requests on an HTTP/2 connection count, too. Beyond the limit, they are refused with 503 and
    ///   `Retry-After: 5`.
    ///
    /// Unused handshakes of the last tenth of a second are saved up.
    ///
    /// ```
    /// let server = bowline::Server::new().handshakes_per_second(500);
    /// ```
    pub fn handshakes_per_second(self, rate: u32) -> Self {
        self.with(|options| options.load.handshakes_per_second = Some(rate))
    }

    /// Returns the numbers of this server and its clones, such as those of WebSockets that are open, accepted
    /// and rejected.
    ///
    /// [`serve`](Self::serve) consumes a server, so keep a clone:
    ///
    /// ```no_run
    /// use bowline::{Server, WebSocket};
    ///
    /// # async fn example(listener: tokio::net::TcpListener) -> std::io::Result<()> {
    /// let server = Server::new();
    /// let serving = server.clone().serve(listener, |_: WebSocket| async { Ok(()) });
    /// tokio::spawn(serving);
    ///
    /// let stats = server.stats();
    /// println!("{} open, {} accepted", stats.open(), stats.accepted());
    /// for (reason, count) in stats.rejections() {
    ///     println!("{count} rejected because of {reason}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The numbers cost two or three additions to shared counters for each connection, and none for a
    /// message. The call takes no lock.
    pub fn stats(&self) -> ServerStats {
        self.load.counters.snapshot()
    }

    /// Shuts the server down when `signal` completes. Default: the server never shuts down.
    ///
    /// The server stops accepting connections, drops handshakes in progress, and closes all connections with
    /// 1001 (RFC 6455 7.4.1). [`serve`](Self::serve) returns when all connections have ended. After the
    /// deadline, the transports of the remaining connections are closed.
    ///
    /// All calls of `serve` and [`serve_connection`](Self::serve_connection) wait for `signal`, also those of
    /// clones. A signal that wakes its task every second therefore wakes all of them.
    ///
    /// `options` is the deadline, as a `Duration`. [`ShutdownOptions`] can also choose the code, and close
    /// the connections evenly over a given time, so that they don't all connect elsewhere at once.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bowline::Server;
    ///
    /// let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
    /// let server = Server::new().shutdown(ctrl_c, Duration::from_secs(10));
    /// ```
    pub fn shutdown(
        self,
        signal: impl Future<Output = ()> + Send + 'static,
        options: impl Into<ShutdownOptions>,
    ) -> Self {
        let shutdown = Shutdown::new(signal, options.into());
        self.with(|options| options.shutdown = Some(shutdown))
    }

    fn with(mut self, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let options = Arc::make_mut(&mut self.options);
        change(options);
        options.fit();
        self
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServerOptions { acceptor, hooks, .. } = &*self.options;
        let mut debug = f.debug_struct("Server");
        debug.field("acceptor", acceptor).field("check", &hooks.check).finish_non_exhaustive()
    }
}
