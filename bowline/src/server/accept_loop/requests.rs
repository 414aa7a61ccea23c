//! The requests that another HTTP stack receives for a server.

use std::fmt;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tokio::time::sleep;

use crate::error::Error;
use crate::handshake::deadline::{FAR, require_timers};
use crate::limits::Limits;
use crate::server::Server;
use crate::server::accept_loop::ServerRun;
use crate::server::check::fallback::AfterPage;
use crate::server::connection_task::exchange::{AnyExchange, Exchange, ReceivedRequest, SharedConnection};
use crate::server::connection_task::{ServerOptions, ServerState, serve_connection};
use crate::server::handler::Handler;
use crate::server::registry::{LentPermit, Permit, Registration, Registry, ShutdownSummary};
use crate::server::server_error::ServerError;
use crate::transport::Addresses;

/// The shortest period for which a connection without WebSockets is kept.
const SHORTEST_PERIOD: Duration = Duration::from_millis(1);

impl Server {
    /// Serves the requests that another HTTP stack receives, such as one for HTTP/3, until the server shuts
    /// down.
    ///
    /// All options of the server apply to these requests as to those of [`serve`](Self::serve): the
    /// [`acceptor`](Self::acceptor), [`on_request`](Self::on_request), the [`fallback`](Self::fallback), the
    /// limits on the load, [`on_error`](Self::on_error) and [`shutdown`](Self::shutdown). A clone may serve a
    /// listener at the same time. The stack itself does TLS.
    ///
    /// `receive` is called with the [`Requests`] of this call. Its future accepts the stack's connections.
    /// The future is dropped when the shutdown begins; the connections that it has begun go on to their ends.
    ///
    /// ```no_run
    /// use std::io;
    /// use std::net::SocketAddr;
    ///
    /// use bowline::{Error, Exchange, Server, ShutdownSummary, WebSocket};
    /// use http::Request;
    ///
    /// # struct Stack;
    /// # struct Connection { peer: SocketAddr }
    /// # impl Stack { async fn accept(&self) -> io::Result<Connection> { unimplemented!() } }
    /// # impl Connection {
    /// #     async fn next_request(&mut self) -> Option<Incoming> { None }
    /// #     fn stop_requests(&mut self) {}
    /// # }
    /// # struct Incoming;
    /// # impl Incoming {
    /// #     async fn receive(self) -> Result<(Request<()>, MyExchange), Error> { unimplemented!() }
    /// # }
    /// # struct MyExchange;
    /// # impl Exchange for MyExchange {
    /// #     type Stream = tokio::io::DuplexStream;
    /// #     fn poll_abandoned(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Error> {
    /// #         std::task::Poll::Pending
    /// #     }
    /// #     async fn open(self, _: http::Response<()>) -> io::Result<Self::Stream> { unimplemented!() }
    /// #     async fn respond(self, _: http::Response<bytes::Bytes>) -> io::Result<()> { Ok(()) }
    /// # }
    /// // `Stack`, `Connection` and `Incoming` stand for the HTTP stack, which also implements `Exchange`.
    /// async fn serve(server: Server, stack: Stack) -> io::Result<ShutdownSummary> {
    ///     let echo = |mut socket: WebSocket| async move {
    ///         while let Some(message) = socket.recv().await? {
    ///             socket.send(message).await?;
    ///         }
    ///         Ok(())
    ///     };
    ///     server
    ///         .serve_requests(echo, |requests| async move {
    ///             loop {
    ///                 requests.ready().await;
    ///                 let mut connection = stack.accept().await?;
    ///                 requests.begin(connection.peer, |served| async move {
    ///                     let stopped = served.clone();
    ///                     let mut stopped = std::pin::pin!(stopped.stopped());
    ///                     loop {
    ///                         tokio::select! {
    ///                             request = connection.next_request() => match request {
    ///                                 Some(request) => served.serve(request.receive()),
    ///                                 None => return Ok(()),
    ///                             },
    ///                             () = &mut stopped => {
    ///                                 connection.stop_requests();
    ///                                 return Ok(());
    ///                             }
    ///                         }
    ///                     }
    ///                 });
    ///             }
    ///         })
    ///         .await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`InvalidInput`](io::ErrorKind::InvalidInput) at once if an option is invalid. Returns an
    /// error of `receive`, after which all connections are ended without Close frames.
    ///
    /// # Panics
    ///
    /// The future panics at once outside of a tokio runtime, and in a runtime without timers.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future ends all connections without Close frames.
    pub async fn serve_requests<H, M, F, Fut>(self, handler: H, receive: F) -> io::Result<ShutdownSummary>
    where
        H: Handler<M>,
        M: 'static,
        F: FnOnce(Requests) -> Fut,
        Fut: Future<Output = io::Result<()>>,
    {
        require_timers();
        self.options.validate()?;
        let run = ServerRun::new(self.options, self.load, handler);
        let server = Handled { state: Arc::clone(&run.state), arguments: PhantomData };
        let receiving = receive(Requests(Arc::new(server)));
        let until_all_ended = async {
            receiving.await?;
            run.state.registry.all_ended().await;
            Ok(())
        };
        // This drops `receiving` when the signal completes.
        if let Some(Err(error)) = run.unless_signalled(until_all_ended).await {
            return Err(error);
        }
        Ok(run.shut_down().await)
    }

    /// Returns the configuration that [`tls`](Self::tls) has set, for a transport that does TLS by itself,
    /// such as QUIC. Available with the feature `tls`.
    ///
    /// ```
    /// assert!(bowline::Server::new().tls_config().is_none());
    /// ```
    #[cfg(feature = "tls")]
    pub fn tls_config(&self) -> Option<&Arc<rustls::ServerConfig>> {
        self.options.tls.as_ref().map(|tls| &tls.0)
    }

    /// Returns the limits of the [`acceptor`](Self::acceptor), of which an HTTP stack keeps those of the
    /// handshake and of its streams.
    ///
    /// ```
    /// let server = bowline::Server::new();
    /// assert_eq!(server.limits().max_streams, 100);
    /// ```
    pub fn limits(&self) -> &Limits {
        &self.options.acceptor.terms().config.limits
    }
}

/// The server of requests that another HTTP stack receives.
///
/// [`Server::serve_requests`] passes it to the function that accepts the stack's connections. Clones are the
/// same server.
#[derive(Clone)]
pub struct Requests(Arc<dyn ServeRequests>);

/// A server, without the type of its handler.
trait ServeRequests: Send + Sync {
    fn options(&self) -> &ServerOptions;

    fn registry(&self) -> &Arc<Registry>;

    /// Decides about a connection that was just accepted, as [`ServerState::admit`] does. A refusal is
    /// reported.
    fn admit(&self, peer: Option<SocketAddr>) -> Result<Option<Permit>, Refused>;

    fn share(&self, registration: &Registration, addresses: Addresses) -> SharedConnection;

    fn report_ended(&self, peer: Option<SocketAddr>, error: Error);

    fn report_accept_failed(&self, error: io::Error);

    /// Spawns the task of a request.
    fn spawn(&self, connection: Arc<SharedConnection>, receiving: ReceivedRequest);
}

/// The refusal of a connection, which was reported.
struct Refused;

struct Handled<H, M> {
    state: Arc<ServerState<H>>,
    arguments: PhantomData<fn(M)>,
}

impl<H: Handler<M>, M: 'static> ServeRequests for Handled<H, M> {
    fn options(&self) -> &ServerOptions {
        &self.state.options
    }

    fn registry(&self) -> &Arc<Registry> {
        &self.state.registry
    }

    fn admit(&self, peer: Option<SocketAddr>) -> Result<Option<Permit>, Refused> {
        self.state.admit(peer).map_err(|reason| {
            self.state.refuse(reason, peer, None);
            Refused
        })
    }

    fn share(&self, registration: &Registration, addresses: Addresses) -> SharedConnection {
        self.state.share(registration, addresses)
    }

    fn report_ended(&self, peer: Option<SocketAddr>, error: Error) {
        self.state.report_opening(peer, error);
    }

    fn report_accept_failed(&self, error: io::Error) {
        self.state.registry.load.counters.accept_failed();
        self.state.report(|| ServerError::of_accepting(error));
    }

    fn spawn(&self, connection: Arc<SharedConnection>, receiving: ReceivedRequest) {
        let permit = connection.permit.as_ref().and_then(LentPermit::lend);
        self.state.registry.spawn(permit, |registration| {
            let establish = move |state: Arc<_>| {
                ServerState::establish_by_exchange(state, registration, connection, receiving)
            };
            serve_connection(Arc::clone(&self.state), Box::new(establish))
        });
    }
}

impl Requests {
    /// Waits until another connection may begin, under
    /// [`Server::handshakes_per_second`](Server::handshakes_per_second). Call this before each connection is
    /// accepted.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future may use up a connection's turn.
    pub async fn ready(&self) {
        // The patience has no end, so there is no refusal.
        let _ = self.0.registry().load.next_handshake(&self.0.options().load, FAR).await;
    }

    /// Returns `true` if the server has a limit on its load: [`Server::connections`], or one of its siblings.
    ///
    /// A transport without a handshake of its own, such as QUIC, should then let clients prove their
    /// addresses before [`begin`](Self::begin), so that forged packets use up no limit.
    pub fn limits_load(&self) -> bool {
        self.0.options().load.any()
    }

    /// Begins to serve a connection, in a task of its own. Returns `false` if the limits on the load refuse
    /// the connection; in that case, `serve` is not called.
    ///
    /// `serve` is called with the server of the connection's requests. Its future lives as long as the
    /// connection, and is dropped when the server ends the connection. An error of the future is passed to
    /// [`Server::on_error`]: return one only if the connection has failed before its first request.
    ///
    /// `peer` is the address of the client, or `None` if it has no address.
    pub fn begin<F, Fut>(&self, peer: impl Into<Option<SocketAddr>>, serve: F) -> bool
    where
        F: FnOnce(RequestConnection) -> Fut,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let peer = peer.into();
        let Ok(permit) = self.0.admit(peer) else { return false };
        self.0.registry().spawn(permit, |registration| {
            let addresses = Addresses { peer, local: None };
            let shared = Arc::new(self.0.share(&registration, addresses));
            let serving = serve(RequestConnection { requests: self.clone(), shared });
            let requests = self.clone();
            async move {
                if let Err(error) = serving.await {
                    requests.0.report_ended(peer, error);
                }
                drop(registration);
            }
        });
        true
    }

    /// Reports that the operating system failed to accept a connection, as [`Server::on_error`] documents.
    pub fn report(&self, error: io::Error) {
        self.0.report_accept_failed(error);
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

/// The server of the requests of one connection, which another HTTP stack receives.
///
/// [`Requests::begin`] creates it. Clones belong to the same connection.
#[derive(Clone)]
pub struct RequestConnection {
    requests: Requests,
    shared: Arc<SharedConnection>,
}

impl RequestConnection {
    /// Serves a request, in a task of its own.
    ///
    /// `receive` receives the head of the request, whose [`Exchange`] then carries the answer. The request is
    /// one of HTTP/1.1, or an extended CONNECT with a [`ConnectProtocol`](crate::ConnectProtocol). A request
    /// that asks for no WebSocket is answered by [`Server::fallback`] or rejected. The address of the client
    /// is added to the extensions.
    ///
    /// [`Limits::handshake_timeout`] begins with this call. Beyond [`Limits::max_streams`], requests wait
    /// before `receive` is polled. An error of `receive` is passed to [`Server::on_error`].
    pub fn serve<R, E>(&self, receive: R)
    where
        R: Future<Output = Result<(Request<()>, E), Error>> + Send + 'static,
        E: Exchange,
    {
        let receiving = async move {
            let (request, exchange) = receive.await?;
            Ok((request, Box::new(exchange) as Box<dyn AnyExchange>))
        };
        self.requests.0.spawn(Arc::clone(&self.shared), Box::pin(receiving));
    }

    /// Returns `true` if the limits on the load have room for the connection: [`Server::connections`] and
    /// [`Server::connections_per_address`].
    ///
    /// Otherwise, the connection was only begun to answer its requests, and ends soon. A transport should not
    /// wait for a slow client then.
    pub fn is_kept(&self) -> bool {
        self.shared.after_page == AfterPage::Keep
    }

    /// Waits until the server shuts down. From then on, requests are dropped.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future changes nothing.
    pub async fn stopped(&self) {
        self.requests.0.registry().stopped().await;
    }

    /// Waits until the client has made no use of the connection for [`Limits::handshake_timeout`]: no
    /// WebSocket was open, and no page of the fallback was sent. Another call waits for as long again.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. Dropping the future restarts the time.
    pub async fn unused(&self) {
        let limits = &self.requests.0.options().acceptor.terms().config.limits;
        let period = limits.handshake_timeout.clamp(SHORTEST_PERIOD, FAR);
        loop {
            sleep(period).await;
            if !self.shared.usage.was_used() {
                return;
            }
        }
    }
}

impl fmt::Debug for RequestConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.shared.peer.addresses.peer;
        f.debug_struct("RequestConnection").field("peer", &peer).finish_non_exhaustive()
    }
}
