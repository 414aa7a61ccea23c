//! tokio-tungstenite: `next` and `send`, as in its example `echo-server`.

use anyhow::Result;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};

use super::{MESSAGE_SIZE, Side, sockets};

pub async fn echo(side: Side, stream: TcpStream) -> Result<()> {
    sockets::echo(Box::pin(open(side, stream)).await?, reply).await
}

pub async fn echo_batches(side: Side, stream: TcpStream) -> Result<()> {
    sockets::echo_batches(Box::pin(open(side, stream)).await?, reply).await
}

async fn open(side: Side, stream: TcpStream) -> Result<WebSocketStream<TcpStream>> {
    let config = WebSocketConfig::default()
        // The library zeroes this buffer before each read. With the default of 128 KiB, small messages would
        // cost three times as much.
        .read_buffer_size(16 * 1024)
        .max_message_size(Some(MESSAGE_SIZE))
        .max_frame_size(Some(MESSAGE_SIZE));
    Ok(match side {
        Side::Server | Side::CompressingServer { .. } => {
            accept_async_with_config(stream, Some(config)).await?
        }
        Side::Client => client_async_with_config("ws://localhost/", stream, Some(config)).await?.0,
    })
}

fn reply(message: Result<Message, Error>) -> Result<Option<Message>, Error> {
    Ok(Some(message?).filter(|message| message.is_text() || message.is_binary()))
}
