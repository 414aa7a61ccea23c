//! The time between the response to a handshake and the connection, and the task of its handler.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bowline_proto::CloseCode;
use bytes::Bytes;
use http::{Method, Uri, Version};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{Error, ErrorKind};
use crate::events::{HandlerSpan, HandshakeSubject};
use crate::handshake::deadline::{Deadline, require_timers};
use crate::server::catch_panic::{CatchPanic, catch};
use crate::server::handshake::ServerHandshake;
use crate::server::registry::Registration;
use crate::server::server_error::{RequestLine, ServerError};
use crate::socket::WebSocket;
use crate::transport::from_hyper::from_upgraded;
use crate::transport::hyper_http2::tunnel;

/// A future of the [`WebSocket`] that opens after the response was sent.
///
/// [`Acceptor::accept`](crate::Acceptor::accept) returns it for hyper, and [`ServerHandshake::upgrade`] for
/// other HTTP libraries. Return the response from the HTTP service, and meanwhile await the future in a task
/// of its own, or [`spawn`](Self::spawn) a handler.
///
/// ```
/// use bowline::Upgrade;
///
/// async fn greet(upgrade: Upgrade) -> Result<(), bowline::Error> {
///     let socket = upgrade.await?;
///     socket.send("welcome").await
/// }
/// ```
///
/// # Errors
///
/// - Returns [`ErrorKind::Timeout`] if the response is not sent within
///   [`Limits::handshake_timeout`](crate::Limits::handshake_timeout) after the request was accepted.
/// - Returns [`ErrorKind::Handshake`] if the response will never be sent, or if the connection broke before.
///
/// # Panics
///
/// Panics when it is polled outside of a tokio runtime, or in a runtime without timers.
///
/// # Cancel safety
///
/// The future may be polled again after a timeout or a `select!` has dropped a borrow of it. Dropping the
/// future itself ends the connection.
#[must_use = "the connection opens only when this is awaited"]
pub struct Upgrade {
    opening: Pin<Box<dyn Future<Output = Result<WebSocket, Error>> + Send>>,
    details: Box<UpgradeDetails>,
}

struct UpgradeDetails {
    subprotocol: Option<Box<str>>,
    /// The registration of the connection, if there are `Connections`.
    registration: Option<Registration>,
    method: Method,
    uri: Uri,
    peer: Option<SocketAddr>,
    on_error: OnError,
}

/// The closure that is called with an error of a connection.
#[derive(Default)]
pub(crate) struct OnError(Option<Box<dyn FnOnce(ServerError) + Send>>);

impl OnError {
    pub(crate) fn new(on_error: impl FnOnce(ServerError) + Send + 'static) -> Self {
        Self(Some(Box::new(on_error)))
    }

    pub(crate) fn report(self, error: impl FnOnce() -> ServerError) {
        if let Some(on_error) = self.0 {
            let error = error();
            // A panic of the closure can't be reported.
            let _ = catch(|| on_error(error));
        }
    }
}

impl Upgrade {
    /// Waits for the upgrade of a request in `version`.
    pub(crate) fn of_hyper(on_upgrade: OnUpgrade, version: Version, handshake: ServerHandshake) -> Self {
        let upgraded = async { on_upgrade.await.map_err(upgrade_error) };
        Self::new(handshake, upgraded, move |handshake, upgraded| {
            let (transport, leftover) = if version == Version::HTTP_2 {
                (tunnel(upgraded), Bytes::new())
            } else {
                from_upgraded(upgraded)
            };
            handshake.open(transport, &leftover)
        })
    }

    /// Waits for `stream`, on which `open` then opens the connection.
    fn new<S>(
        mut handshake: ServerHandshake,
        stream: impl Future<Output = Result<S, Error>> + Send + 'static,
        open: impl FnOnce(ServerHandshake, S) -> WebSocket + Send + 'static,
    ) -> Self {
        let deadline = Deadline::after(handshake.limits().handshake_timeout);
        let (method, uri) = handshake.take_line();
        let details = Box::new(UpgradeDetails {
            subprotocol: handshake.subprotocol().map(Into::into),
            registration: handshake.take_registration(),
            method,
            uri,
            peer: handshake.peer(),
            on_error: OnError::default(),
        });
        let opening = Box::pin(async move {
            let stream = deadline.bound("waiting for the response to be sent", stream).await?;
            Ok(open(handshake, stream))
        });
        Self { opening, details }
    }

    /// Sets a function that is called if the upgrade or the handler of [`spawn`](Self::spawn) fails, or if
    /// the handler panics. Default: the error is discarded.
    ///
    /// If the `Upgrade` is awaited instead, the caller receives the error, and the function is not called. It
    /// is not called either if [`Connections::shutdown`](crate::Connections::shutdown) aborts the task.
    ///
    /// Errors that say only that a client is gone can be told apart: see [`ServerError::is_noise`]. The
    /// function must not block.
    ///
    /// ```
    /// fn greet(upgrade: bowline::Upgrade) {
    ///     let upgrade = upgrade.on_error(|error| eprintln!("{error}"));
    ///     upgrade.spawn(|socket| async move { Ok(socket.send("welcome").await?) });
    /// }
    /// ```
    pub fn on_error(self, on_error: impl FnOnce(ServerError) + Send + 'static) -> Self {
        self.report_to(OnError::new(on_error))
    }

    pub(crate) fn report_to(mut self, on_error: OnError) -> Self {
        self.details.on_error = on_error;
        self
    }

    /// Spawns a task that waits for the connection, and calls `handler` with it.
    ///
    /// When the handler returns, the connection is closed as under [`Server::serve`](crate::Server::serve):
    /// with 1000 after `Ok`, with 1011 after an error or a panic. A connection that was closed before stays
    /// as it is. [`Connections::shutdown`](crate::Connections::shutdown) waits for the handler.
    ///
    /// A function that returns another error is passed as
    /// `|socket| async move { Ok(function(socket).await?) }`.
    ///
    /// ```
    /// use bowline::{Rejection, Upgrade};
    /// use http::{Request, Response};
    ///
    /// fn greet<A>(mut request: Request<A>) -> Result<Response<String>, Rejection> {
    ///     let (response, upgrade) = bowline::accept(&mut request)?;
    ///     upgrade.on_error(|error| eprintln!("{error}")).spawn(|socket| async move {
    ///         socket.send("welcome").await?;
    ///         Ok(())
    ///     });
    ///     Ok(response)
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// Panics at once outside of a tokio runtime, and in a runtime without timers.
    pub fn spawn<F, Fut>(self, handler: F)
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Box<dyn StdError + Send + Sync>>> + Send + 'static,
    {
        require_timers();
        let place = self.details.registration.as_ref().map(Registration::place).cloned();
        // The span belongs to that of the request.
        let span =
            HandlerSpan::new(HandshakeSubject::of_server(self.details.peer.as_ref(), &self.details.uri));
        let task = tokio::spawn(run(self, span, handler));
        if let Some(place) = place {
            place.set_task(task.abort_handle());
        }
    }

    /// Returns the subprotocol that was chosen, if any (RFC 6455 1.9).
    ///
    /// ```
    /// async fn join(upgrade: bowline::Upgrade) -> Result<(), bowline::Error> {
    ///     let room = upgrade.subprotocol().unwrap_or("chat.v1").to_owned();
    ///     upgrade.await?.send(room).await
    /// }
    /// ```
    pub fn subprotocol(&self) -> Option<&str> {
        self.details.subprotocol.as_deref()
    }
}

impl Future for Upgrade {
    type Output = Result<WebSocket, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let opened = ready!(self.opening.as_mut().poll(cx));
        let registration = self.details.registration.take();
        Poll::Ready(opened.inspect(|socket| {
            if let Some(registration) = registration {
                registration.attach_to(socket);
            }
        }))
    }
}

impl ServerHandshake {
    /// Returns a future of the connection, after a future of its stream.
    ///
    /// The [`Upgrade`] is that of [`accept`](crate::accept), for libraries other than hyper:
    /// [`Upgrade::spawn`] runs a handler whose result closes the connection. The stream must return the bytes
    /// that were already read after the request. For a library that keeps them beside the stream, there is
    /// [`finish`](Self::finish).
    ///
    /// ```no_run
    /// use std::io;
    ///
    /// use bowline::{Acceptor, Rejection};
    /// use http::{Request, Response};
    /// # use tokio::io::DuplexStream;
    /// # async fn upgraded() -> io::Result<DuplexStream> { unimplemented!() }
    ///
    /// fn greet(request: &Request<()>) -> Result<Response<()>, Rejection> {
    ///     let (response, handshake) = Acceptor::new().respond(request)?;
    ///     // `upgraded` stands for the HTTP library: its result is the stream, after the response was sent.
    ///     let upgrade = handshake.upgrade(upgraded());
    ///     upgrade.spawn(|socket| async move { Ok(socket.send("welcome").await?) });
    ///     Ok(response)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The [`Upgrade`] returns its usual errors. An error of `stream` is the [source](StdError::source) of an
    /// [`ErrorKind::Handshake`].
    pub fn upgrade<S, E>(self, stream: impl Future<Output = Result<S, E>> + Send + 'static) -> Upgrade
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let stream = async {
            stream.await.map_err(|error| {
                let text = "the upgrade failed: the HTTP library did not hand over the stream";
                Error::with_source(ErrorKind::Handshake, text, error)
            })
        };
        Upgrade::new(self, stream, |handshake, stream| handshake.finish(stream, Bytes::new()))
    }
}

/// Runs the task of a connection.
async fn run<F, Fut>(upgrade: Upgrade, span: HandlerSpan, handler: F)
where
    F: FnOnce(WebSocket) -> Fut,
    Fut: Future<Output = Result<(), Box<dyn StdError + Send + Sync>>>,
{
    let Upgrade { opening, details } = upgrade;
    let opened = opening.await;
    let UpgradeDetails { registration, method, uri, peer, on_error, .. } = *details;
    let request = on_error.0.as_ref().map(|_| RequestLine::new(&method, &uri));
    drop((method, uri));
    let mut socket = match opened {
        Ok(socket) => socket,
        Err(error) => return on_error.report(|| ServerError::of_upgrade(peer, request, error)),
    };
    let sender = socket.supervise();
    let registration = registration.map(|registration| Box::new(registration.complete(sender.clone(), None)));
    let result = CatchPanic::call(|| span.run(handler(socket))).await;
    let result = result.unwrap_or_else(|panic| Err(format!("the handler {panic}").into()));
    let code = if result.is_ok() { CloseCode::NORMAL } else { CloseCode::INTERNAL_ERROR };
    if let Err(error) = result {
        on_error.report(|| ServerError::of_handler(&sender, request, error));
    }
    // The result is discarded: the handler has returned, and its error was reported.
    let _ = sender.close(code, "").await;
    drop(registration);
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The subprotocol may be a token of the client's.
        f.debug_struct("Upgrade").finish_non_exhaustive()
    }
}

/// Names the cause of an upgrade that failed.
fn upgrade_error(error: hyper::Error) -> Error {
    // hyper blames the user only if a connection was served to its end without upgrades.
    let text = if error.is_user() {
        "the upgrade failed: the connection is served without upgrades: call `with_upgrades` on hyper's \
         connection, or `serve_connection_with_upgrades` of hyper-util"
    } else {
        "the upgrade failed: the response was not sent, or the connection broke before"
    };
    Error::with_source(ErrorKind::Handshake, text, error)
}
