//! yawc: `next` and `send`; the buffers are those of its own benchmark. It takes a stream whose handshake is done.

use anyhow::Result;
use tokio::net::TcpStream;
use yawc::{Frame, OpCode, Options, Role, WebSocket, WebSocketError};

use super::{MESSAGE_SIZE, Side, sockets};

pub async fn echo(side: Side, stream: TcpStream) -> Result<()> {
    sockets::echo(Box::pin(open(side, stream)).await?, reply).await
}

pub async fn echo_batches(side: Side, stream: TcpStream) -> Result<()> {
    sockets::echo_batches(Box::pin(open(side, stream)).await?, reply).await
}

async fn open(side: Side, mut stream: TcpStream) -> Result<WebSocket<TcpStream>> {
    let options = Options::default()
        .without_compression()
        .with_utf8()
        .with_limits(MESSAGE_SIZE, 2 * MESSAGE_SIZE)
        .with_read_buffer_capacity(128 * 1024)
        .with_backpressure_boundary(64 * 1024);
    side.shake_hands(&mut stream).await?;
    let role = match side {
        Side::Server => Role::Server,
        Side::Client => Role::Client,
    };
    Ok(WebSocket::from_stream(stream, role, options)?)
}

fn reply(frame: Frame) -> Result<Option<Frame>, WebSocketError> {
    Ok(Some(frame).filter(|frame| matches!(frame.opcode(), OpCode::Text | OpCode::Binary)))
}
