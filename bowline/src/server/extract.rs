//! WebSockets in an [axum](https://docs.rs/axum/0.8) router. Available with the feature `axum`.
//!
//! ```
//! use axum::Router;
//! use axum::response::Response;
//! use axum::routing::any;
//! use bowline::extract::WebSocketUpgrade;
//!
//! async fn echo(upgrade: WebSocketUpgrade) -> Response {
//!     upgrade.on_upgrade(|mut socket| async move {
//!         while let Some(message) = socket.recv().await? {
//!             socket.send(message).await?;
//!         }
//!         Ok(())
//!     })
//! }
//!
//! let router: Router = Router::new().route("/echo", any(echo));
//! ```
//!
//! Other extractors stand beside [`WebSocketUpgrade`], and the closure captures the values that it needs. So
//! authentication is an extractor like any other. An [`Acceptor`] has the options, here from the router's
//! state. [`WebSocketUpgrade::acceptor`] shows how all handlers of a router share one.
//!
//! ```
//! use axum::extract::{Path, State};
//! use axum::response::Response;
//! use bowline::extract::WebSocketUpgrade;
//! use bowline::{Acceptor, Limits};
//!
//! #[derive(Clone)]
//! struct Chat {
//!     acceptor: Acceptor,
//! }
//!
//! async fn join(State(chat): State<Chat>, Path(room): Path<String>, upgrade: WebSocketUpgrade) -> Response {
//!     let upgrade = upgrade.acceptor(chat.acceptor).on_error(|error| eprintln!("{error}"));
//!     upgrade.on_upgrade(move |socket| async move {
//!         socket.send(format!("welcome to {room}")).await?;
//!         Ok(())
//!     })
//! }
//!
//! let acceptor = Acceptor::new().subprotocols(["chat.v1"]).limits(Limits::default().message_size(4096));
//! let router: axum::Router =
//!     axum::Router::new().route("/{room}", axum::routing::any(join)).with_state(Chat { acceptor });
//! ```
//!
//! The response is the router's as any other. So the head of a 101 can carry headers, and a request can have
//! settings of its own:
//!
//! ```
//! use axum::extract::{OriginalUri, State};
//! use axum::response::IntoResponse;
//! use bowline::extract::WebSocketUpgrade;
//! use bowline::{Acceptor, Limits};
//!
//! async fn upload(
//!     State(acceptor): State<Acceptor>,
//!     OriginalUri(uri): OriginalUri,
//!     upgrade: WebSocketUpgrade,
//! ) -> impl IntoResponse {
//!     // This acceptor is a clone of the one in the state.
//!     let acceptor = match uri.path() {
//!         "/upload" => acceptor.limits(Limits::default().message_size(16 * 1024 * 1024)),
//!         _ => acceptor.subprotocols(["chat.v1"]),
//!     };
//!     let response = upgrade.acceptor(acceptor).on_upgrade(|mut socket| async move {
//!         while socket.recv().await?.is_some() {}
//!         Ok(())
//!     });
//!     ([("set-cookie", "session=1234; HttpOnly")], response)
//! }
//!
//! let router: axum::Router = axum::Router::new()
//!     .route("/upload", axum::routing::any(upload))
//!     .route("/chat", axum::routing::any(upload))
//!     .with_state(Acceptor::new());
//! ```
//!
//! With the feature `http2`, the extractor works over HTTP/2 too (RFC 8441), if axum's feature of that name
//! is on. The method is then CONNECT, so routes must be made by `any`.
//!
//! # Graceful shutdown
//!
//! Over HTTP/1.1, a graceful shutdown of axum's server does not wait for WebSockets, which have left HTTP.
//! Over HTTP/2 it waits for all of them, since they are streams of their connections. [`Connections`] closes
//! the WebSockets, and waits for their handlers:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use axum::Router;
//! use axum::extract::State;
//! use axum::response::Response;
//! use axum::routing::any;
//! use bowline::extract::WebSocketUpgrade;
//! use bowline::{Acceptor, Connections};
//!
//! async fn echo(State(acceptor): State<Acceptor>, upgrade: WebSocketUpgrade) -> Response {
//!     upgrade.acceptor(acceptor).on_upgrade(|mut socket| async move {
//!         while let Some(message) = socket.recv().await? {
//!             socket.send(message).await?;
//!         }
//!         Ok(())
//!     })
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let connections = Connections::new();
//! let acceptor = Acceptor::new().connections(&connections);
//! let router = Router::new().route("/echo", any(echo)).with_state(acceptor);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! axum::serve(listener, router)
//!     .with_graceful_shutdown(async move {
//!         let _ = tokio::signal::ctrl_c().await;
//!         let shutdown = connections.shutdown(Duration::from_secs(10)).await;
//!         println!("{shutdown:?}");
//!     })
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! Until all handlers have ended, axum still accepts requests, and handshakes are rejected with 503. axum
//! then waits for its other connections without a limit: a client over HTTP/2 that answers nothing holds it
//! up for ever. The example `chat` of the repository bounds that wait, too.
//!
//! # Rejections
//!
//! [`WebSocketUpgrade::on_error`] sets a function that is told of failures, also of the rejections that
//! depend on the options. A request that is no valid handshake is rejected before the options are known. The
//! extensions of all responses that reject a handshake contain the [`Rejection`], with the cause that the
//! client does not receive. So one middleware can log them:
//!
//! ```
//! use axum::Router;
//! use axum::extract::Request;
//! use axum::middleware::{Next, from_fn};
//! use axum::response::Response;
//! use bowline::Rejection;
//!
//! async fn log_rejections(request: Request, next: Next) -> Response {
//!     let path = request.uri().path().to_owned();
//!     let response = next.run(request).await;
//!     if let Some(rejection) = response.extensions().get::<Rejection>() {
//!         eprintln!("{path:?}: {rejection}");
//!     }
//!     response
//! }
//!
//! let router: Router = Router::new().layer(from_fn(log_rejections));
//! ```
//!
//! [`Connections`]: crate::Connections

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::Request;
use http::request::Parts;

use crate::server::upgrade::OnError;
use crate::server::{Acceptor, Rejection, ServerError};
use crate::socket::WebSocket;

/// An extractor of opening handshakes.
///
/// The [module](self) shows how to use it. A request that is not a valid handshake is rejected with the
/// response that [`Acceptor::accept`] documents. To send another response, extract a
/// `Result<WebSocketUpgrade, Rejection>`. Checks that depend on the options, such as that of the origin, are
/// made by [`on_upgrade`](Self::on_upgrade).
#[must_use = "the connection opens only if the response of `on_upgrade` is returned"]
pub struct WebSocketUpgrade {
    request: Request<()>,
    acceptor: Acceptor,
    on_error: OnError,
}

impl WebSocketUpgrade {
    /// Sets the options of the handshake and of the connection. Default: the [`Acceptor`] in the extensions
    /// of the request, or else [`Acceptor::new`], which accepts pages of the same origin only.
    ///
    /// Clones are cheap: build one acceptor, and keep it in the router's state. For all handlers of a router,
    /// `axum::Extension` puts it into the extensions:
    ///
    /// ```
    /// use axum::response::Response;
    /// use axum::routing::any;
    /// use axum::{Extension, Router};
    /// use bowline::extract::WebSocketUpgrade;
    /// use bowline::{Acceptor, Limits};
    ///
    /// async fn greet(upgrade: WebSocketUpgrade) -> Response {
    ///     upgrade.on_upgrade(|socket| async move { Ok(socket.send("welcome").await?) })
    /// }
    ///
    /// let acceptor = Acceptor::new().limits(Limits::default().message_size(4096));
    /// let router: Router = Router::new().route("/greet", any(greet)).layer(Extension(acceptor));
    /// ```
    ///
    /// For one handler:
    ///
    /// ```
    /// use axum::response::Response;
    /// use bowline::Acceptor;
    /// use bowline::extract::WebSocketUpgrade;
    ///
    /// async fn chat(upgrade: WebSocketUpgrade) -> Response {
    ///     let acceptor = Acceptor::new().subprotocols(["chat.v1"]);
    ///     upgrade.acceptor(acceptor).on_upgrade(|socket| async move { Ok(socket.send("welcome").await?) })
    /// }
    /// ```
    pub fn acceptor(mut self, acceptor: Acceptor) -> Self {
        self.acceptor = acceptor;
        self
    }

    /// Returns the subprotocol that the [`acceptor`](Self::acceptor) chooses, if any (RFC 6455 1.9).
    ///
    /// ```
    /// use axum::response::Response;
    /// use bowline::extract::WebSocketUpgrade;
    ///
    /// async fn chat(upgrade: WebSocketUpgrade) -> Response {
    ///     println!("{:?}", upgrade.subprotocol());
    ///     upgrade.on_upgrade(|_socket| async { Ok(()) })
    /// }
    /// ```
    pub fn subprotocol(&self) -> Option<&str> {
        self.acceptor.choose_subprotocol(self.request.headers())
    }

    /// Sets the address of the client, for [`WebSocket::peer_addr`], errors and events. Default: the
    /// [`SocketAddr`] in the extensions of the request, or else the address of the TCP stream, which axum
    /// hides over HTTP/2.
    ///
    /// ```
    /// use std::net::SocketAddr;
    ///
    /// use axum::extract::ConnectInfo;
    /// use axum::response::Response;
    /// use bowline::extract::WebSocketUpgrade;
    ///
    /// // The router is served by `into_make_service_with_connect_info::<SocketAddr>`.
    /// async fn greet(ConnectInfo(peer): ConnectInfo<SocketAddr>, upgrade: WebSocketUpgrade) -> Response {
    ///     upgrade.peer_addr(peer).on_upgrade(|socket| async move {
    ///         socket.send(format!("welcome, {:?}", socket.peer_addr())).await?;
    ///         Ok(())
    ///     })
    /// }
    /// ```
    pub fn peer_addr(mut self, address: impl Into<SocketAddr>) -> Self {
        self.request.extensions_mut().insert::<SocketAddr>(address.into());
        self
    }

    /// Sets a function that is called if [`on_upgrade`](Self::on_upgrade) rejects the request, if the upgrade
    /// or the handler fails, or if the handler panics. Default: the error is discarded.
    ///
    /// Errors that say only that a client is gone can be told apart: see [`ServerError::is_noise`]. A
    /// rejection has the client's address only if [`peer_addr`](Self::peer_addr) has told it.
    ///
    /// ```
    /// use axum::response::Response;
    /// use bowline::extract::WebSocketUpgrade;
    ///
    /// async fn fail(upgrade: WebSocketUpgrade) -> Response {
    ///     let upgrade = upgrade.on_error(|error| eprintln!("{error}"));
    ///     upgrade.on_upgrade(|_socket| async { Err("not today".into()) })
    /// }
    /// ```
    pub fn on_error(mut self, on_error: impl FnOnce(ServerError) + Send + 'static) -> Self {
        self.on_error = OnError::new(on_error);
        self
    }

    /// Returns the response that accepts or rejects the handshake. After an acceptance was sent, `handler` is
    /// called in a task of its own.
    ///
    /// When the handler returns, the connection is closed as under [`Server::serve`](crate::Server::serve):
    /// with 1000 after `Ok`, with 1011 after an error or a panic. A connection that was closed before stays
    /// as it is. A function that returns another error is passed as
    /// `|socket| async move { Ok(function(socket).await?) }`.
    ///
    /// ```
    /// use axum::response::Response;
    /// use bowline::extract::WebSocketUpgrade;
    ///
    /// async fn greet(upgrade: WebSocketUpgrade) -> Response {
    ///     upgrade.on_upgrade(|socket| async move {
    ///         socket.send("welcome").await?;
    ///         Ok(())
    ///     })
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// Panics at once in a runtime without timers.
    #[must_use = "the connection opens only if the response is returned"]
    pub fn on_upgrade<F, Fut>(mut self, handler: F) -> Response
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Box<dyn StdError + Send + Sync>>> + Send + 'static,
    {
        match self.acceptor.accept(&mut self.request) {
            Ok((response, upgrade)) => {
                upgrade.report_to(self.on_error).spawn(handler);
                response
            }
            Err(rejection) => {
                self.on_error.report(|| {
                    let (head, ()) = self.request.into_parts();
                    let peer = head.extensions.get().copied();
                    ServerError::of_opening(peer, Some(Box::new(head)), rejection.clone().into_error())
                });
                IntoResponse::into_response(rejection)
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for WebSocketUpgrade {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Rejection> {
        let request = Request::from_parts(parts.clone(), ());
        // These checks do not depend on the options, which are not known yet. `on_upgrade` checks the rest:
        // the origin, whether the connections are being closed, and the options themselves.
        Acceptor::new().allow_origin("*").agree(&request)?;
        let acceptor = parts.extensions.get().cloned().unwrap_or_default();
        Ok(Self { request, acceptor, on_error: OnError::default() })
    }
}

impl IntoResponse for Rejection {
    /// Returns the response to send. Its extensions contain the rejection.
    fn into_response(self) -> Response {
        let mut response: Response = Rejection::into_response(self.clone());
        response.extensions_mut().insert(self);
        response
    }
}

impl fmt::Debug for WebSocketUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketUpgrade")
            // The query is omitted, as pages in browsers put tokens there.
            .field("path", &self.request.uri().path())
            .field("acceptor", &self.acceptor)
            .finish_non_exhaustive()
    }
}
