//! The accept loop of servers that have none of their own.

use std::future::Future;

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};

/// Accepts connections, and spawns a task for each.
pub async fn each<F, E>(listener: TcpListener, serve: impl Fn(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream));
    }
}
