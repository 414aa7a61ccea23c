//! WebSockets in an [axum](https://docs.rs/axum/0.8) router.
//!
//! ```
//! use axum::Router;
//! use axum::response::Response;
//! use axum::routing::any;
//! use bowline::axum::WebSocketUpgrade;
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
//! Other extractors go beside it, and the closure takes what it needs of them; so authentication is an extractor like any
//! other. Options are those of an [`Acceptor`]:
//!
//! ```
//! use axum::extract::{Path, State};
//! use axum::response::Response;
//! use bowline::axum::WebSocketUpgrade;
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
//! With the feature `http2`, it works over HTTP/2 too (RFC 8441), if axum's feature of that name is on; the method is
//! CONNECT there, which is why routes are made by `any`.
//!
//! A graceful shutdown of axum's server does not wait for WebSockets, which have left HTTP: close them through their
//! [`Sender`](crate::Sender)s.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use bowline_proto::CloseCode;
use http::Request;
use http::request::Parts;

use crate::server::catch_panic::{CatchPanic, catch};
use crate::server::{Acceptor, Rejection, Upgrade};
use crate::socket::WebSocket;

/// An extractor of opening handshakes: see the [module](self).
///
/// A request that is none, or a malformed one, is rejected with the response that [`Acceptor::accept`] documents; to
/// answer otherwise, extract a `Result<WebSocketUpgrade, Rejection>`. What depends on the options, such as the origin,
/// is checked by [`on_upgrade`](Self::on_upgrade).
#[must_use = "the connection opens only if the response of `on_upgrade` is returned"]
pub struct WebSocketUpgrade {
    request: Request<()>,
    acceptor: Acceptor,
    on_error: OnError,
}

/// What hears of an error.
struct OnError(Box<dyn FnOnce(Box<dyn StdError + Send + Sync>) + Send>);

impl WebSocketUpgrade {
    /// Which handshakes are accepted, and with what limits. Default: [`Acceptor::new`], so pages of the same origin only.
    ///
    /// It is cheap to clone: build it once, and keep it in the router's state.
    pub fn acceptor(mut self, acceptor: Acceptor) -> Self {
        self.acceptor = acceptor;
        self
    }

    /// The subprotocol that will be agreed on with this [`acceptor`](Self::acceptor), if any (RFC 6455 1.9).
    pub fn subprotocol(&self) -> Option<&str> {
        self.acceptor.choose_subprotocol(self.request.headers())
    }

    /// Calls `on_error` if the upgrade fails, or if the handler fails or panics. Default: nobody hears of it.
    pub fn on_error(
        mut self,
        on_error: impl FnOnce(Box<dyn StdError + Send + Sync>) + Send + 'static,
    ) -> Self {
        self.on_error = OnError(Box::new(on_error));
        self
    }

    /// The response that accepts the handshake; when it has been sent, `handler` is called in a task of its own. Or the
    /// response that rejects it.
    ///
    /// As under [`Server::serve`](crate::Server::serve), the end of the handler is the end of the connection: with `Ok` it
    /// is closed with 1000, with an error or a panic with 1011; unless it was closed before.
    #[must_use = "the connection opens only if the response is returned"]
    pub fn on_upgrade<F, Fut>(mut self, handler: F) -> Response
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Box<dyn StdError + Send + Sync>>> + Send + 'static,
    {
        match self.acceptor.accept(&mut self.request) {
            Ok((response, upgrade)) => {
                tokio::spawn(run(upgrade, handler, self.on_error));
                response
            }
            Err(rejection) => rejection.into_response(),
        }
    }
}

/// The task of a connection.
async fn run<F, Fut>(upgrade: Upgrade, handler: F, on_error: OnError)
where
    F: FnOnce(WebSocket) -> Fut,
    Fut: Future<Output = Result<(), Box<dyn StdError + Send + Sync>>>,
{
    let mut socket = match upgrade.await {
        Ok(socket) => socket,
        Err(error) => return on_error.0(error.into()),
    };
    let sender = socket.supervise();
    let code = match CatchPanic::call(|| handler(socket)).await {
        Ok(Ok(())) => CloseCode::NORMAL,
        Ok(Err(error)) => {
            let _ = catch(|| on_error.0(error));
            CloseCode::INTERNAL_ERROR
        }
        Err(panic) => {
            let _ = catch(|| on_error.0(format!("the handler {panic}").into()));
            CloseCode::INTERNAL_ERROR
        }
    };
    // How the peer takes it is of no interest to anyone.
    let _ = sender.close(code, "").await;
}

impl<S: Send + Sync> FromRequestParts<S> for WebSocketUpgrade {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Rejection> {
        let request = Request::from_parts(parts.clone(), ());
        // What holds for all options. They are not known yet: of these, only the origin's may reject a request.
        Acceptor::new().allow_origin("*").agree(&request)?;
        Ok(Self { request, acceptor: Acceptor::new(), on_error: OnError(Box::new(drop)) })
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        Rejection::into_response(self)
    }
}

impl fmt::Debug for WebSocketUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketUpgrade")
            // Without the query, where pages in browsers put tokens.
            .field("path", &self.request.uri().path())
            .field("acceptor", &self.acceptor)
            .finish_non_exhaustive()
    }
}
