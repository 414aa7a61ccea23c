//! WebSockets (RFC 6455) for tokio and hyper.
//!
//! There are three verbs, [`connect`], [`accept`] and [`serve`]; one connection, [`WebSocket`]; and one handle to send
//! from other tasks, [`Sender`].
//!
//! ```
//! use bowline::{CloseCode, WebSocket};
//! use tokio::net::TcpListener;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let url = format!("ws://{}", listener.local_addr()?);
//! tokio::spawn(bowline::serve(listener, |mut socket: WebSocket| async move {
//!     while let Some(message) = socket.recv().await? {
//!         socket.send(message).await?;
//!     }
//!     Ok(())
//! }));
//!
//! let mut socket = bowline::connect(url).await?;
//! socket.send("hello").await?;
//! assert_eq!(socket.recv().await?, Some("hello".into()));
//! socket.close(CloseCode::NORMAL, "done").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What holds everywhere
//!
//! - **Cancelling.** Any future may be dropped at any point. [`recv`](WebSocket::recv) keeps what it has read; a
//!   [`send`](WebSocket::send) that is dropped before it is ready sent nothing. Each async function says under
//!   "Cancel safety" what exactly holds.
//! - **Sharing.** Reading takes `&mut self`, all else `&self`: any number of tasks may send, ping and close at once.
//! - **Control frames** are handled by the library, in `recv` and also when nobody reads: pings are answered, a Close
//!   frame is echoed, dead peers are found out. Only a message that the application has not asked for stops that,
//!   because memory is bounded.
//! - **The end.** [`recv`](WebSocket::recv) gives `Ok(None)` after a normal end, and an [`Error`] after every other;
//!   the same answer again if it is called again. [`close`](WebSocket::close) never hangs.
//! - **Limits** are on: [`Limits`] lists them all.
//!
//! # Features
//!
//! `client`, `server` and `tls` are on by default; `deflate` adds compression. Features only add: none changes the
//! behaviour of code that compiles without it.
//!
//! It needs a tokio runtime with its I/O and time drivers on: each connection has one small task there.

#[cfg(feature = "server")]
mod acceptor;
mod agreed;
mod assembly;
mod attendant;
#[cfg(any(feature = "client", feature = "server"))]
mod authority;
#[cfg(feature = "server")]
mod catch_panic;
#[cfg(feature = "client")]
mod client_exchange;
#[cfg(feature = "client")]
mod client_handshake;
mod codec;
#[cfg_attr(
    not(all(feature = "deflate", any(feature = "client", feature = "server"))),
    allow(dead_code, unreachable_pub, reason = "the public part of it is compiled only with them")
)]
mod compression;
mod connection;
#[cfg(feature = "server")]
mod connections;
#[cfg(feature = "client")]
mod connector;
#[cfg(any(feature = "client", feature = "server"))]
mod deadline;
mod deflation;
#[cfg(feature = "client")]
mod dial;
mod error;
mod fragment;
#[cfg(feature = "server")]
mod handler;
#[cfg(any(feature = "client", feature = "server"))]
mod header_lines;
mod inflation;
mod limits;
mod locked;
mod message;
mod moment;
#[cfg(feature = "server")]
mod origin;
mod pair;
#[cfg(feature = "client")]
mod proxy;
mod random;
mod read_buffer;
mod reader;
mod receive;
#[cfg(feature = "server")]
mod rejection;
mod sender;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod server_exchange;
#[cfg(feature = "server")]
mod server_handshake;
#[cfg(feature = "server")]
mod service;
mod signals;
mod sync;
#[cfg(all(feature = "tls", any(feature = "client", feature = "server")))]
mod tls;
mod transmit;
mod transport;
#[cfg(feature = "server")]
mod upgrade;
#[cfg(any(feature = "client", feature = "server"))]
mod upgraded;
#[cfg(feature = "client")]
mod url;
mod utf8_bytes;
mod wait;
mod websocket;
mod write_queue;
mod writer;

#[cfg(feature = "server")]
pub use acceptor::{Acceptor, accept};
#[cfg(feature = "deflate")]
pub use bowline_proto::DeflateParameters;
pub use bowline_proto::{CloseCode, CloseFrame, MessageKind, Role};
#[cfg(feature = "client")]
pub use client_handshake::ClientHandshake;
#[cfg(feature = "deflate")]
pub use compression::{Compression, CompressionOptions};
#[cfg(feature = "server")]
pub use connections::Shutdown;
#[cfg(feature = "client")]
pub use connector::{Connector, connect};
pub use error::{Error, ErrorKind, TrySendError};
#[cfg(feature = "server")]
pub use handler::Handler;
pub use limits::Limits;
pub use message::{Message, Payload, Prepared};
pub use pair::pair;
#[cfg(feature = "client")]
pub use proxy::Proxy;
pub use reader::MessageReader;
#[cfg(feature = "server")]
pub use rejection::Rejection;
pub use sender::Sender;
#[cfg(feature = "server")]
pub use server::{Server, serve};
#[cfg(feature = "server")]
pub use upgrade::Upgrade;
pub use utf8_bytes::Utf8Bytes;
pub use websocket::WebSocket;
pub use writer::MessageWriter;

#[cfg(all(doctest, feature = "deflate"))]
#[doc = include_str!("../../README.md")]
mod readme {}
