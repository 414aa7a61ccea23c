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
/// The type of the result is fixed, so that `?` and `Ok(())` in a closure need no annotation. A function that
/// returns another error, such as [`Error`](crate::Error) or `anyhow::Error`, becomes a handler by one line:
///
/// ```
/// use bowline::WebSocket;
///
/// async fn echo(mut socket: WebSocket) -> Result<(), bowline::Error> {
///     while let Some(message) = socket.recv().await? {
///         socket.send(message).await?;
///     }
///     Ok(())
/// }
/// # fn takes<M>(_: impl bowline::Handler<M>) {}
/// # takes(
/// |socket: WebSocket| async move { Ok(echo(socket).await?) }
/// # );
/// ```
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
    label = "must be async, take `WebSocket` or `Parts, WebSocket`, and return \
             `Result<(), Box<dyn Error + Send + Sync>>`",
    note = "a closure has the type of its argument: `|socket: WebSocket| async move {{ ... Ok(()) }}`",
    note = "a handler with another error, such as `bowline::Error` or `anyhow::Error`, is passed as \
            `|socket: WebSocket| async move {{ Ok(handler(socket).await?) }}`",
    note = "a handler without a result ends with `Ok(())`",
    note = "the handler is `Send + Sync + 'static`, and its future is `Send`"
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
