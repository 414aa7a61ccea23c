//! The servers that are compared: each with the echo loop that its documentation shows.

mod bowline;
mod fastwebsockets;
pub mod floor;
mod gathered;
mod limit;
mod sockets;
mod sockudo_ws;
mod soketto;
mod stream;
mod tls;
mod tokio_tungstenite;
mod tokio_websockets;
mod web_socket;
mod yawc;

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::control::{answer_in_background, say};
use crate::handshake;

/// The largest message that each has to take.
pub const MESSAGE_SIZE: usize = 16 * 1024 * 1024;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Library {
    Floor,
    Limit,
    Bowline,
    Fastwebsockets,
    FastwebsocketsBatch,
    TokioWebsockets,
    TokioWebsocketsBatch,
    TokioTungstenite,
    TokioTungsteniteBatch,
    Yawc,
    YawcBatch,
    SockudoWs,
    SockudoWsBatch,
    WebSocket,
    WebSocketBatch,
    Soketto,
    SokettoBatch,
}

/// What the server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// Sends back what it gets.
    Echo,
    /// The same, piece by piece.
    Stream,
    /// Gives to all a message of its own, when it is asked for one.
    FanOut,
    /// Gives each message to all.
    Chat,
}

#[derive(clap::Args, Clone, Debug)]
pub struct Serve {
    #[arg(long)]
    pub library: Library,
    #[arg(long, default_value = "echo")]
    pub workload: Workload,
    #[arg(long)]
    pub tls: bool,
    /// Compress at this level, without context takeover.
    #[arg(long)]
    pub compress: Option<u8>,
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    #[arg(long)]
    pub count_allocations: bool,
}

pub fn run(options: &Serve) -> Result<()> {
    if options.count_allocations {
        crate::allocations::start();
    }
    let mut builder = match options.threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if options.threads > 1 {
        builder.worker_threads(options.threads);
    }
    builder.enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        say(listener.local_addr()?);
        answer_in_background();
        match options.workload {
            Workload::Echo if options.tls => return tls::serve(options.library, listener).await,
            Workload::Echo => {}
            Workload::Stream => return stream::serve(options.library, listener).await,
            Workload::FanOut | Workload::Chat => {
                return crate::rooms::serve(options.library, options.workload, listener).await;
            }
        }
        match options.library {
            Library::Bowline => Ok(bowline::serve(listener, options.compress).await?),
            library => loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let side = options.compress.map_or(Side::Server, |level| Side::CompressingServer { level });
                spawn_echo(library, side, stream);
            },
        }
    })
}

/// Which end of a connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Server,
    /// A server that has agreed on compression.
    CompressingServer {
        level: u8,
    },
    Client,
}

impl Side {
    /// By hand, for libraries that leave it to their users. In a future of its own, so that its buffer is not there for
    /// all of the connection's life.
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

/// Opens a connection and echoes on it, in a task of its own.
///
/// # Panics
///
/// bowline opens its connections itself.
fn spawn_echo(library: Library, side: Side, stream: TcpStream) {
    match library {
        Library::Floor => spawn(floor::echo(side, stream)),
        Library::Limit => spawn(limit::echo(side, stream)),
        Library::Bowline => unreachable!("it opens its connections itself"),
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
    }
}

fn spawn<E: Send + 'static>(echo: impl Future<Output = Result<(), E>> + Send + 'static) {
    tokio::spawn(echo);
}

/// Clients, which send back what they get, as the servers do.
#[derive(clap::Args, Clone, Debug)]
pub struct Connect {
    #[arg(long)]
    pub library: Library,
    #[arg(long)]
    pub address: SocketAddr,
    #[arg(long)]
    pub connections: usize,
    #[arg(long)]
    pub count_allocations: bool,
}

pub fn connect(options: &Connect) -> Result<()> {
    if options.count_allocations {
        crate::allocations::start();
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        answer_in_background();
        for _ in 0..options.connections {
            if options.library == Library::Bowline {
                spawn(bowline::connect(options.address));
                continue;
            }
            let stream = TcpStream::connect(options.address).await?;
            stream.set_nodelay(true)?;
            spawn_echo(options.library, Side::Client, stream);
        }
        std::future::pending().await
    })
}

/// Accepts, and gives each connection a task.
pub async fn each<F, E>(listener: TcpListener, serve: impl Fn(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream));
    }
}
