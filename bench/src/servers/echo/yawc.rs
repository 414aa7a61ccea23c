//! yawc: `next` and `send`, with the buffer sizes of its own benchmark. The library expects a stream whose
//! handshake is complete.

use anyhow::Result;
use tokio::net::TcpStream;
use yawc::{CompressionLevel, Frame, OpCode, Options, Role, WebSocket, WebSocketError};

use super::{MESSAGE_SIZE, Side, sockets};
use crate::handshake::COMPRESSION;

pub async fn echo(side: Side, stream: TcpStream) -> Result<()> {
    sockets::echo(Box::pin(open(side, stream)).await?, reply).await
}

pub async fn echo_batches(side: Side, stream: TcpStream) -> Result<()> {
    sockets::echo_batches(Box::pin(open(side, stream)).await?, reply).await
}

async fn open(side: Side, mut stream: TcpStream) -> Result<WebSocket<TcpStream>> {
    let options = match side {
        Side::CompressingServer { level } => Options::default()
            .with_compression_level(CompressionLevel::new(level.into()))
            .server_no_context_takeover()
            .client_no_context_takeover(),
        Side::Server | Side::Client => Options::default().without_compression(),
    };
    let options = options
        .with_utf8()
        .with_limits(MESSAGE_SIZE, 2 * MESSAGE_SIZE)
        .with_read_buffer_capacity(128 * 1024)
        .with_backpressure_boundary(64 * 1024);
    side.shake_hands(&mut stream).await?;
    let role = match side {
        Side::Server | Side::CompressingServer { .. } => Role::Server,
        Side::Client => Role::Client,
    };
    let extensions = matches!(side, Side::CompressingServer { .. }).then_some(COMPRESSION);
    Ok(WebSocket::from_stream_with_extensions(stream, role, extensions, options)?)
}

fn reply(frame: Frame) -> Result<Option<Frame>, WebSocketError> {
    Ok(Some(frame).filter(|frame| matches!(frame.opcode(), OpCode::Text | OpCode::Binary)))
}
