//! What a server does with a connection.

use std::error::Error;
use std::future::Future;

use http::request::Parts;

use crate::socket::WebSocket;

/// An async function or closure of a [`WebSocket`], or of the head of the request and a [`WebSocket`], that returns
/// `Result<(), Box<dyn Error + Send + Sync>>`.
///
/// It need not be implemented for other types: closures are all that [`serve`](crate::serve) is made for. `M` tells the
/// two apart, and is always inferred. The type of a closure's argument has to be written.
///
/// The head shares memory with the buffer that the request was read into: for as long as the connection is open, keep
/// only what you need of it.
///
/// ```
/// use bowline::WebSocket;
/// use http::request::Parts;
///
/// # fn takes<M>(_: impl bowline::Handler<M>) {}
/// # takes(
/// |mut socket: WebSocket| async move {
///     while let Some(message) = socket.recv().await? {
///         socket.send(message).await?;
///     }
///     Ok(())
/// }
/// # );
///
/// async fn greet(head: Parts, socket: WebSocket) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
///     socket.send(format!("you asked for {}", head.uri.path())).await?;
///     Ok(())
/// }
/// # takes(greet);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of WebSocket connections",
    label = "has to be `Fn(WebSocket)` or `Fn(http::request::Parts, WebSocket)`, async, and `Send + Sync + 'static`",
    note = "write the argument's type, `|socket: WebSocket| async move {{ ... }}`",
    note = "the result is `Result<(), Box<dyn Error + Send + Sync>>`, and the future is `Send`"
)]
pub trait Handler<M>: Send + Sync + 'static {
    /// Uses the connection, until it returns.
    fn handle(
        &self,
        head: Parts,
        socket: WebSocket,
    ) -> impl Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send;
}

impl<F, Fut> Handler<(WebSocket,)> for F
where
    F: Fn(WebSocket) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send,
{
    fn handle(&self, _head: Parts, socket: WebSocket) -> impl Future<Output = Fut::Output> + Send {
        self(socket)
    }
}

impl<F, Fut> Handler<(Parts, WebSocket)> for F
where
    F: Fn(Parts, WebSocket) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), Box<dyn Error + Send + Sync>>> + Send,
{
    fn handle(&self, head: Parts, socket: WebSocket) -> impl Future<Output = Fut::Output> + Send {
        self(head, socket)
    }
}
