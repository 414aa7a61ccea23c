//! The loops of all libraries whose sockets are a `Stream` and a `Sink`.

use anyhow::Result;
use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};

/// Sends each reply when its message has come, and flushes it.
pub async fn echo<S, M, E>(mut socket: S, reply: impl Fn(S::Item) -> Result<Option<M>, E>) -> Result<()>
where
    S: Stream + Sink<M, Error = E> + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    while let Some(message) = socket.next().await {
        if let Some(reply) = reply(message)? {
            socket.send(reply).await?;
        }
    }
    Ok(())
}

/// Feeds the replies to all messages that are there, and flushes once. They are taken first: for some sockets, trying to
/// take one more flushes what was fed.
pub async fn echo_batches<S, M, E>(
    mut socket: S,
    reply: impl Fn(S::Item) -> Result<Option<M>, E>,
) -> Result<()>
where
    S: Stream + Sink<M, Error = E> + Unpin,
    E: std::error::Error + Send + Sync + 'static,
{
    let mut replies = Vec::new();
    while let Some(message) = socket.next().await {
        replies.extend(reply(message)?);
        while let Some(message) = socket.next().now_or_never().flatten() {
            replies.extend(reply(message)?);
        }
        for reply in replies.drain(..) {
            socket.feed(reply).await?;
        }
        socket.flush().await?;
    }
    Ok(())
}
