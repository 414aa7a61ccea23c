//! web-socket: `recv` and `send` over a `BufReader`, since the library reads headers in small pieces. The
//! library has no handshake, and doesn't assemble fragments, which are sent back one by one. The loop
//! validates text, since sending text takes a `&str`.
//! `&str`.

use anyhow::{Result, bail};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, BufWriter};
use tokio::net::TcpStream;
use web_socket::{DataType, Event, Frame, MessageType, Stream, WebSocket};

use super::{MESSAGE_SIZE, Side};

const SIZE: usize = 64 * 1024;

pub async fn echo(side: Side, mut stream: TcpStream) -> Result<()> {
    side.shake_hands(&mut stream).await?;
    let mut socket = open(side, BufReader::with_capacity(SIZE, stream));
    loop {
        reply(&mut socket).await?;
    }
}

/// Flushes when no unread bytes are left.
pub async fn echo_batches(side: Side, mut stream: TcpStream) -> Result<()> {
    side.shake_hands(&mut stream).await?;
    let stream = BufReader::with_capacity(SIZE, BufWriter::with_capacity(SIZE, stream));
    let mut socket = open(side, stream);
    loop {
        reply(&mut socket).await?;
        if socket.stream.buffer().is_empty() {
            socket.flash().await?;
        }
    }
}

fn open<S>(side: Side, stream: S) -> WebSocket<S> {
    let mut socket = match side {
        Side::Server | Side::CompressingServer { .. } => WebSocket::server(stream),
        Side::Client => WebSocket::client(stream),
    };
    socket.max_payload_len = MESSAGE_SIZE;
    socket
}

async fn reply<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocket<S>) -> Result<()> {
    match socket.recv().await? {
        Event::Data { ty: DataType::Complete(MessageType::Text), data } => {
            socket.send(std::str::from_utf8(&data)?).await?;
        }
        Event::Data { ty: DataType::Complete(MessageType::Binary), data } => socket.send(&*data).await?,
        Event::Data { ty: DataType::Stream(stream), data } => {
            let (fin, opcode) = match stream {
                Stream::Start(MessageType::Text) => (false, 1),
                Stream::Start(MessageType::Binary) => (false, 2),
                Stream::Next(_) => (false, 0),
                Stream::End(_) => (true, 0),
            };
            socket.send(Frame { fin, opcode, data: &data }).await?;
        }
        Event::Ping(data) => socket.send_pong(data).await?,
        Event::Pong(_) => {}
        Event::Error(error) => bail!(error),
        Event::Close { .. } => bail!("closed"),
    }
    Ok(())
}
