//! Servers that send back a message as it arrives.

use std::error::Error;

use anyhow::{Result, bail};
use bowline::{Acceptor, Limits, Server, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::accept::each;
use super::echo::{Side, floor};
use super::library::Library;

/// The largest streamed message.
const MESSAGE_SIZE: usize = 64 * 1024 * 1024;

pub async fn serve(library: Library, listener: TcpListener) -> Result<()> {
    match library {
        // The floor always streams.
        Library::Floor => each(listener, |stream| floor::echo(Side::Server, stream)).await,
        Library::Bowline => {
            Server::new()
                .acceptor(Acceptor::new().limits(Limits::default().message_size(MESSAGE_SIZE)))
                .serve(listener, echo)
                .await?;
            Ok(())
        }
        #[allow(unreachable_patterns, reason = "there may be no other libraries")]
        other => bail!("{other:?} does not stream"),
    }
}

async fn echo(mut socket: WebSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    let sender = socket.sender();
    let mut piece = vec![0; 64 * 1024];
    while let Some(mut reader) = socket.reader().await? {
        let mut writer = sender.writer(reader.kind()).await?;
        loop {
            let count = reader.read(&mut piece).await?;
            if count == 0 {
                break;
            }
            writer.write_all(&piece[..count]).await?;
        }
        writer.finish().await?;
    }
    Ok(())
}
