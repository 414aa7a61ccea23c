//! wtx: `read_frame` and `write_frame` of the parts of `split_mut`, as in its example
//! `web-socket-server-echo`. The library's handshake needs a provider of cryptography, so the handshake is
//! the one by hand. The library gathers no replies.

use anyhow::Result;
use tokio::net::TcpStream;
use wtx::collection::Vector;
use wtx::rng::{Xorshift64, simple_seed};
use wtx::web_socket::{OpCode, WebSocket, WebSocketBuffer, WebSocketPayloadOrigin};

use super::{MESSAGE_SIZE, Side};

pub async fn echo(side: Side, mut stream: TcpStream) -> Result<()> {
    side.shake_hands(&mut stream).await?;
    match side {
        Side::Server | Side::CompressingServer { .. } => echo_on::<false>(stream).await,
        Side::Client => echo_on::<true>(stream).await,
    }
}

async fn echo_on<const IS_CLIENT: bool>(stream: TcpStream) -> Result<()> {
    let random = Xorshift64::from(simple_seed());
    let mut socket =
        WebSocket::<_, _, _, _, IS_CLIENT>::new((), false, random, stream, WebSocketBuffer::new());
    socket.set_max_payload_len(MESSAGE_SIZE);
    let mut buffer = Vector::new();
    let (mut common, mut reader, mut writer) = socket.split_mut();
    loop {
        let mut frame = reader.read_frame(&mut buffer, &mut common, WebSocketPayloadOrigin::Adaptive).await?;
        match frame.op_code() {
            OpCode::Text | OpCode::Binary => writer.write_frame(&mut common, &mut frame).await?,
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}
