//! The echo loops: each library runs the loop of its documentation.

pub mod bowline;
mod fastwebsockets;
pub mod floor;
mod gathered;
mod limit;
mod ratchet;
mod sockets;
mod sockudo_ws;
mod soketto;
mod tokio_tungstenite;
mod tokio_websockets;
mod web_socket;
mod wtx;
mod yawc;

use std::future::Future;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::library::Library;
use crate::handshake;

/// The largest message that each library has to accept.
pub const MESSAGE_SIZE: usize = 16 * 1024 * 1024;

/// The measured end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Server,
    /// A server that has negotiated compression.
    CompressingServer {
        level: u8,
    },
    Client,
}

impl Side {
    /// Performs the opening handshake by hand, for libraries that leave the handshake to their users. The
    /// handshake is a boxed future, so that its buffer doesn't live as long as the connection.
    async fn shake_hands<S: AsyncRead + AsyncWrite + Unpin>(self, stream: &mut S) -> io::Result<()> {
        match self {
            Self::Server => Box::pin(handshake::shake_hands(stream, None)).await,
            Self::CompressingServer { .. } => {
                Box::pin(handshake::shake_hands(stream, Some(handshake::COMPRESSION))).await
            }
            Self::Client => Box::pin(handshake::ask(stream)).await,
        }
    }
}

/// Spawns a task that opens a connection and echoes on it.
///
/// # Panics
///
/// Panics for those that open their connections themselves, and for those that have rooms alone.
pub fn spawn_echo(library: Library, side: Side, stream: TcpStream) {
    match library {
        Library::Floor => spawn(floor::echo(side, stream)),
        Library::Limit => spawn(limit::echo(side, stream)),
        Library::Bowline => unreachable!("it opens its connections itself"),
        Library::BowlineHub | Library::BowlineUnprepared => unreachable!("they take part in rooms alone"),
        Library::Fastwebsockets => spawn(fastwebsockets::echo(side, stream)),
        Library::FastwebsocketsBatch => spawn(fastwebsockets::echo_batches(side, stream)),
        Library::TokioWebsockets => spawn(tokio_websockets::echo(side, stream)),
        Library::TokioWebsocketsBatch => spawn(tokio_websockets::echo_batches(side, stream)),
        Library::TokioTungstenite => spawn(tokio_tungstenite::echo(side, stream)),
        Library::TokioTungsteniteBatch => spawn(tokio_tungstenite::echo_batches(side, stream)),
        Library::Yawc => spawn(yawc::echo(side, stream)),
        Library::YawcBatch => spawn(yawc::echo_batches(side, stream)),
        Library::SockudoWs => spawn(sockudo_ws::echo(side, stream)),
        Library::SockudoWsBatch => spawn(sockudo_ws::echo_batches(side, stream)),
        Library::WebSocket => spawn(web_socket::echo(side, stream)),
        Library::WebSocketBatch => spawn(web_socket::echo_batches(side, stream)),
        Library::Soketto => spawn(soketto::echo(side, stream)),
        Library::SokettoBatch => spawn(soketto::echo_batches(side, stream)),
        Library::Wtx => spawn(wtx::echo(side, stream)),
        Library::Ratchet => spawn(ratchet::echo(side, stream)),
        #[cfg(feature = "frameworks")]
        Library::ActixWs | Library::Ntex => unreachable!("they bring their own runtimes"),
    }
}

pub fn spawn<E: Send + 'static>(echo: impl Future<Output = Result<(), E>> + Send + 'static) {
    tokio::spawn(echo);
}
