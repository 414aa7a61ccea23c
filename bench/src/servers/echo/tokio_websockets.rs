//! tokio-websockets: `next` and `send`, as in its example `echo_server`.

use anyhow::Result;
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, Config, Error, Limits, Message, ServerBuilder, WebSocketStream};

use super::{MESSAGE_SIZE, Side, sockets};

pub async fn echo(side: Side, stream: TcpStream) -> Result<()> {
    sockets::echo(Box::pin(open(side, stream)).await?, reply).await
}

pub async fn echo_batches(side: Side, stream: TcpStream) -> Result<()> {
    sockets::echo_batches(Box::pin(open(side, stream)).await?, reply).await
}

async fn open(side: Side, stream: TcpStream) -> Result<WebSocketStream<TcpStream>> {
    let limits = Limits::default().max_payload_len(Some(MESSAGE_SIZE));
    let config = Config::default().flush_threshold(64 * 1024);
    Ok(match side {
        Side::Server | Side::CompressingServer { .. } => {
            ServerBuilder::new().config(config).limits(limits).accept(stream).await?.1
        }
        Side::Client => {
            ClientBuilder::new()
                .uri("ws://localhost/")?
                .config(config)
                .limits(limits)
                .connect_on(stream)
                .await?
                .0
        }
    })
}

fn reply(message: Result<Message, Error>) -> Result<Option<Message>, Error> {
    Ok(Some(message?).filter(|message| message.is_text() || message.is_binary()))
}
