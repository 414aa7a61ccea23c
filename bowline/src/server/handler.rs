//! The application's closure that a server calls with each connection.

use std::error::Error;
use std::future::Future;

use http::request::Parts;

use crate::socket::WebSocket;

/// A handler of connections: an async function or closure.
///
/// Its arguments are a [`WebSocket`], or the head of the request and a [`WebSocket`]. It returns
/// `Result<(), Box<dyn Error + Send + Sync>>`. The argument types of a closure must be written.
///
/// All suitable functions and closures implement the trait, and there is no need to implement it for other
/// types. `M` tells the two kinds of arguments apart, and is always inferred.
///
/// The head shares memory with the buffer into which the request was read. While the connection is open, keep
/// only the parts that you need.
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
    label = "must be `Fn(WebSocket)` or `Fn(Parts, WebSocket)`, async, and `Send + Sync + 'static`",
    note = "write the argument's type, `|socket: WebSocket| async move {{ ... }}`",
    note = "the result is `Result<(), Box<dyn Error + Send + Sync>>`, and the future is `Send`"
)]
pub trait Handler<M>: Send + Sync + 'static {
    /// Handles one connection, which is closed when the future completes.
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
