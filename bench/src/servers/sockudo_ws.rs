//! sockudo-ws: `next` and `send`, as in its example `simple_echo`, its own handshake among it.

use anyhow::Result;
use sockudo_ws::handshake::{client_handshake, server_handshake};
use sockudo_ws::protocol::Message;
use sockudo_ws::{Config, Error, Role, WebSocketStream};
use tokio::net::TcpStream;

use super::{MESSAGE_SIZE, Side, sockets};

pub async fn echo(side: Side, stream: TcpStream) -> Result<()> {
    sockets::echo(Box::pin(open(side, stream)).await?, reply).await
}

pub async fn echo_batches(side: Side, stream: TcpStream) -> Result<()> {
    sockets::echo_batches(Box::pin(open(side, stream)).await?, reply).await
}

async fn open(side: Side, mut stream: TcpStream) -> Result<WebSocketStream<TcpStream>> {
    let config = Config::builder().max_payload_length(MESSAGE_SIZE).build();
    Ok(match side {
        Side::Server => {
            server_handshake(&mut stream).await?;
            WebSocketStream::server(stream, config)
        }
        Side::Client => {
            let done = client_handshake(&mut stream, "localhost", "/", None).await?;
            WebSocketStream::from_raw_with_leftover(stream, Role::Client, config, done.leftover)
        }
    })
}

fn reply(message: Result<Message, Error>) -> Result<Option<Message>, Error> {
    Ok(Some(message?).filter(|message| matches!(message, Message::Text(_) | Message::Binary(_))))
}
