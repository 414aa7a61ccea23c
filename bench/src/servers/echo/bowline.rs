//! bowline: the loop of the README.

use std::net::SocketAddr;

use bowline::{Acceptor, Compression, Connector, Limits, Server, WebSocket};
use tokio::net::TcpListener;

use super::MESSAGE_SIZE;

type Error = Box<dyn std::error::Error + Send + Sync>;

pub async fn serve(listener: TcpListener, compress: Option<u8>) -> std::io::Result<()> {
    let compression = match compress {
        Some(level) => Compression::NoContextTakeover.options().level(level),
        None => Compression::Off.options(),
    };
    let acceptor = Acceptor::new().limits(limits()).compression(compression);
    echo(Server::new().acceptor(acceptor), listener).await
}

/// Returns a server with the limits that the cases need.
pub fn server() -> Server {
    Server::new().acceptor(Acceptor::new().limits(limits()))
}

fn limits() -> Limits {
    // The default is too low for 4 MiB in fragments of 64 bytes.
    Limits::default().message_size(MESSAGE_SIZE).frames_per_message(1 << 20)
}

pub async fn echo(server: Server, listener: TcpListener) -> std::io::Result<()> {
    server.serve(listener, reply).await?;
    Ok(())
}

pub async fn connect(address: SocketAddr) -> Result<(), Error> {
    let limits = limits();
    let connecting = async move { Connector::new().limits(limits).connect(format!("ws://{address}/")).await };
    let (socket, _) = Box::pin(connecting).await?;
    reply(socket).await
}

pub async fn reply(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}
