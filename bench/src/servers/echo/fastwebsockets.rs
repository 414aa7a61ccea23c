//! fastwebsockets: `read_frame` and `write_frame` of a `FragmentCollector`, as in its example `echo_server`,
//! but without hyper around the stream, which would be slower. The batch form runs over a stream that
//! gathers.

use anyhow::Result;
use fastwebsockets::{FragmentCollector, OpCode, Role, WebSocket};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::gathered::Gathered;
use super::{MESSAGE_SIZE, Side};

pub async fn echo(side: Side, mut stream: TcpStream) -> Result<()> {
    side.shake_hands(&mut stream).await?;
    echo_on(side, stream).await
}

pub async fn echo_batches(side: Side, mut stream: TcpStream) -> Result<()> {
    side.shake_hands(&mut stream).await?;
    echo_on(side, Gathered::from(stream)).await
}

async fn echo_on(side: Side, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let role = match side {
        Side::Server | Side::CompressingServer { .. } => Role::Server,
        Side::Client => Role::Client,
    };
    let mut socket = WebSocket::after_handshake(stream, role);
    socket.set_max_message_size(MESSAGE_SIZE);
    let mut socket = FragmentCollector::new(socket);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}
