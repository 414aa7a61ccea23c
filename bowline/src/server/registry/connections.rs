//! The registry of an application that runs another HTTP server.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use http::header::RETRY_AFTER;

use crate::error::{Error, ErrorKind};
use crate::server::registry::{ClosingPlan, Place, Registration, Registry, ShutdownOptions, ShutdownSummary};
use crate::server::rejection::{RETRY_SECONDS, Rejection, RejectionReason};
use crate::socket::WebSocket;

/// The WebSockets of an application on axum, hyper or any other HTTP server, to be closed at its shutdown.
///
/// [`Acceptor::connections`](crate::Acceptor::connections) registers the WebSockets that an acceptor opens.
/// [`shutdown`](Self::shutdown) then does what [`Server::shutdown`](crate::Server::shutdown) does for a
/// [`Server`](crate::Server): it closes all of them, and waits for their handlers.
///
/// Clones are cheap, and are the same registry. Dropping all of them closes no WebSocket.
///
/// ```
/// use std::time::Duration;
///
/// use bowline::{Acceptor, Connections};
/// use http::{Request, Response};
///
/// fn answer<A>(acceptor: &Acceptor, mut request: Request<A>) -> Response<String> {
///     let (response, upgrade) = match acceptor.accept(&mut request) {
///         Ok(accepted) => accepted,
///         Err(rejection) => return rejection.into_response(),
///     };
///     upgrade.spawn(|mut socket| async move {
///         while let Some(message) = socket.recv().await? {
///             socket.send(message).await?;
///         }
///         Ok(())
///     });
///     response
/// }
///
/// # async fn serve(_: Acceptor) {}
/// # async fn example() -> Result<(), bowline::Error> {
/// let connections = Connections::new();
/// tokio::spawn(serve(Acceptor::new().connections(&connections)));
/// let _ = tokio::signal::ctrl_c().await;
/// connections.shutdown(Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
///
/// The module `bowline::extract` has an example with axum. A [`Server`](crate::Server) may have the acceptor,
/// too: its WebSockets are then closed together with those of the other HTTP server, and the server goes on.
///
/// # Lives of connections
///
/// - The handlers of `WebSocketUpgrade::on_upgrade` and of [`Upgrade::spawn`](crate::Upgrade::spawn) are
///   registered until they have returned, and their connections have ended.
/// - A [`WebSocket`] that the application receives is registered until it was dropped, and its connection has
///   ended. That is the result of [`Upgrade`](crate::Upgrade),
///   [`ServerHandshake::finish`](crate::ServerHandshake::finish),
///   [`Acceptor::accept_stream`](crate::Acceptor::accept_stream) and
///   [`Acceptor::adopt`](crate::Acceptor::adopt). Work after the drop is not waited for.
///
/// An accepted handshake is registered, too, until its [`Upgrade`](crate::Upgrade) or
/// [`ServerHandshake`](crate::ServerHandshake) is dropped. So no connection escapes a shutdown.
///
/// A registered WebSocket takes about 200 bytes more than another one, and nothing per message.
#[derive(Clone, Default)]
pub struct Connections {
    registry: Arc<Registry>,
}

impl Connections {
    /// Returns a registry without connections.
    ///
    /// ```
    /// let connections = bowline::Connections::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Closes all connections, and waits until they and their handlers have ended, or until the deadline.
    ///
    /// - From now on, handshakes are rejected with 503 and `Retry-After: 5`. A connection whose handshake was
    ///   accepted before opens, and is closed at once.
    /// - The connections are closed with 1001 (RFC 6455 7.4.1), or as [`ShutdownOptions`] say. `recv` then
    ///   returns the messages that have arrived, and `None`.
    /// - At the deadline, the transports of the remaining connections are closed, and the tasks of
    ///   `on_upgrade` and [`Upgrade::spawn`](crate::Upgrade::spawn) are aborted. The application's own tasks
    ///   receive an error from `recv` and `send`.
    ///
    /// A handler that awaits the shutdown waits for itself, until the deadline. A command of a client that
    /// shuts the application down has to wake another task.
    ///
    /// A shutdown is final: the registry accepts no connection after it. A second call waits as the first one
    /// does, and has a deadline of its own. So a second signal can end the connections sooner. The summaries
    /// count all connections since the first call.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use bowline::{CloseCode, Connections, ShutdownOptions};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bowline::Error> {
    /// let connections = Connections::new();
    /// let options = ShutdownOptions::new(Duration::from_secs(30))
    ///     .spread(Duration::from_secs(20))
    ///     .close_frame(CloseCode::SERVICE_RESTART, "please connect again");
    /// let shutdown = connections.shutdown(options).await?;
    /// println!("{} connections closed, {} were ended", shutdown.closed(), shutdown.ended());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidInput`] if the options are invalid. In that case nothing was closed.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime, and in a runtime without timers.
    ///
    /// # Cancel safety
    ///
    /// This method is cancel safe. If the future is dropped, the connections that it has closed go on to
    /// their ends, the others stay open, and handshakes are still rejected. Another call continues.
    pub async fn shutdown(&self, options: impl Into<ShutdownOptions>) -> Result<ShutdownSummary, Error> {
        let options = options.into();
        options.validate()?;
        Ok(self.registry.shut_down(&Arc::new(ClosingPlan::new(options))).await)
    }

    /// Registers a handshake that is about to be accepted.
    pub(crate) fn register(&self) -> Result<Registration, Stopped> {
        let number = self.registry.state().register_if_open().ok_or(Stopped)?;
        Ok(Registration { place: Place { registry: Arc::clone(&self.registry), number } })
    }
}

impl Registration {
    /// Registers the connection of a handshake until `socket` was dropped and the transport is closed.
    pub(crate) fn attach_to(self, socket: &WebSocket) {
        socket.attach(self.complete(socket.sender(), None));
    }
}

/// The refusal of a registry that shuts down.
pub(crate) struct Stopped;

impl From<Stopped> for Rejection {
    fn from(_: Stopped) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down")
            .with_header(RETRY_AFTER, RETRY_SECONDS)
            .because_of(RejectionReason::Shutdown)
    }
}

impl From<Stopped> for Error {
    fn from(_: Stopped) -> Self {
        Self::new(ErrorKind::Closed, "the server is shutting down (Connections::shutdown)")
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}
