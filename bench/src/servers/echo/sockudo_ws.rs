//! sockudo-ws: `next` and `send`, with the library's own handshake, as in its example `simple_echo`.

use anyhow::Result;
use sockudo_ws::handshake::{client_handshake, server_handshake};
use sockudo_ws::protocol::Message;
use sockudo_ws::{CompressedWebSocketStream, Config, DeflateConfig, Error, Role, WebSocketStream};
use tokio::net::TcpStream;

use super::{MESSAGE_SIZE, Side, sockets};

pub async fn echo(side: Side, mut stream: TcpStream) -> Result<()> {
    if let Side::CompressingServer { level } = side {
        side.shake_hands(&mut stream).await?;
        let deflate = DeflateConfig {
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            compression_level: level.into(),
            ..DeflateConfig::default()
        };
        let socket = Box::new(CompressedWebSocketStream::server(stream, config(), deflate));
        return sockets::echo(socket, reply).await;
    }
    sockets::echo(Box::pin(open(side, stream)).await?, reply).await
}

pub async fn echo_batches(side: Side, stream: TcpStream) -> Result<()> {
    sockets::echo_batches(Box::pin(open(side, stream)).await?, reply).await
}

async fn open(side: Side, mut stream: TcpStream) -> Result<WebSocketStream<TcpStream>> {
    let config = config();
    Ok(match side {
        Side::Server | Side::CompressingServer { .. } => {
            server_handshake(&mut stream).await?;
            WebSocketStream::server(stream, config)
        }
        Side::Client => {
            let done = client_handshake(&mut stream, "localhost", "/", None).await?;
            WebSocketStream::from_raw_with_leftover(stream, Role::Client, config, done.leftover)
        }
    })
}

fn config() -> Config {
    Config::builder().max_payload_length(MESSAGE_SIZE).build()
}

fn reply(message: Result<Message, Error>) -> Result<Option<Message>, Error> {
    Ok(Some(message?).filter(|message| matches!(message, Message::Text(_) | Message::Binary(_))))
}
