//! The loops of all libraries whose connections are a `Stream` and a `Sink`.

use anyhow::Result;
use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};

/// Sends and flushes each reply as soon as its message has arrived.
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

/// Feeds the replies to all available messages, and flushes once. The messages are received first: with some
/// libraries, trying to receive one more flushes the fed replies.
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
