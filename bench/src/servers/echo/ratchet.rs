//! ratchet: `read` and `write`, as in the documentation of the crate. The loop validates text, which the
//! library leaves to its users.

use anyhow::Result;
use bytes::BytesMut;
use ratchet_rs::{
    Message, NoExt, NoExtProvider, PayloadType, SubprotocolRegistry, WebSocket, WebSocketConfig, accept_with,
    subscribe_with,
};
use tokio::net::TcpStream;

use super::{MESSAGE_SIZE, Side};

pub async fn echo(side: Side, stream: TcpStream) -> Result<()> {
    let mut socket = Box::pin(open(side, stream)).await?;
    let mut buffer = BytesMut::new();
    loop {
        match socket.read(&mut buffer).await? {
            Message::Text => socket.write(std::str::from_utf8(&buffer)?, PayloadType::Text).await?,
            Message::Binary => socket.write(&buffer, PayloadType::Binary).await?,
            Message::Close(_) => return Ok(()),
            Message::Ping(_) | Message::Pong(_) => continue,
        }
        socket.flush().await?;
        buffer.clear();
    }
}

async fn open(side: Side, stream: TcpStream) -> Result<WebSocket<TcpStream, NoExt>> {
    let config = WebSocketConfig { max_message_size: MESSAGE_SIZE };
    let subprotocols = SubprotocolRegistry::default();
    Ok(match side {
        Side::Server | Side::CompressingServer { .. } => {
            accept_with(stream, config, NoExtProvider, subprotocols).await?.upgrade().await?.websocket
        }
        Side::Client => {
            subscribe_with(config, stream, "ws://localhost/", NoExtProvider, subprotocols).await?.websocket
        }
    })
}
