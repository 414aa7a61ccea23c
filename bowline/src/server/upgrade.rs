//! The time between the response to a handshake and the connection.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Version;
use hyper::upgrade::OnUpgrade;

use crate::error::{Error, ErrorKind};
use crate::handshake::deadline::Deadline;
use crate::server::handshake::ServerHandshake;
use crate::socket::WebSocket;
use crate::transport::from_hyper::from_upgraded;
use crate::transport::hyper_http2::tunnel;

/// A future of the [`WebSocket`] that opens after the response was sent.
///
/// Spawn a task that awaits it, and return the response meanwhile.
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
/// # Cancel safety
///
/// The future may be polled again after a timeout or a `select!` has dropped a borrow of it. Dropping the
/// future itself ends the connection.
#[must_use = "the connection opens only when this is awaited"]
pub struct Upgrade {
    opening: Pin<Box<dyn Future<Output = Result<WebSocket, Error>> + Send>>,
    subprotocol: Option<Box<str>>,
}

impl Upgrade {
    /// Waits for the upgrade of a request in `version`.
    pub(crate) fn new(on_upgrade: OnUpgrade, version: Version, handshake: ServerHandshake) -> Self {
        let deadline = Deadline::after(handshake.limits().handshake_timeout);
        let subprotocol = handshake.subprotocol().map(Into::into);
        let opening = Box::pin(async move {
            let upgraded = deadline
                .bound("waiting for the response to be sent", async {
                    on_upgrade.await.map_err(upgrade_error)
                })
                .await?;
            let (transport, leftover) = if version == Version::HTTP_2 {
                (tunnel(upgraded), Bytes::new())
            } else {
                from_upgraded(upgraded)
            };
            Ok(handshake.complete(transport, &leftover))
        });
        Self { opening, subprotocol }
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
        self.subprotocol.as_deref()
    }
}

impl Future for Upgrade {
    type Output = Result<WebSocket, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.opening.as_mut().poll(cx)
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade").field("subprotocol", &self.subprotocol()).finish_non_exhaustive()
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
