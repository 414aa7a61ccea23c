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
//! - `futures`: `WebSocket` is a `Stream`; `WebSocket::into_futures` and `Sender::into_sink` are sinks, too.
//! - `json`: `send_json` and `recv_json`, by serde.
//! - `protobuf`: `send_protobuf` and `recv_protobuf`, by prost.
//! - `tracing`: events, as follows.
//!
//! # Events
//!
//! With the feature `tracing`, events have the target `bowline` and these names and fields. No message makes one, and
//! none has anything in it that was sent but a close code, a subprotocol and the status of a response, or what a
//! [`Rejection`] of yours says.
//!
//! | name | level | fields |
//! |---|---|---|
//! | `handshake_accepted` | debug | `role` (`client` or `server`: ours), `subprotocol`, `deflate` |
//! | `handshake_rejected` | info | `role`, `status`, `reason` |
//! | `connection_opened` | debug | `role`, `peer` (its address) |
//! | `connection_closed` | debug | `by` (`us` or `peer`: who was first), `code`, `peer` |
//! | `connection_failed` | info | `code`, `error` (the violation, or the limit), `peer` |
//! | `connection_lost` | info | `error` (the transport ended, or the peer did not end it in time), `peer` |
//! | `keepalive_lost` | info | `error`, `peer` |
//!
//! It needs a tokio runtime with its I/O and time drivers on: each connection has one small task there.

#[cfg(feature = "server")]
mod acceptor;
mod agreed;
mod assembly;
mod attendant;
#[cfg(any(feature = "client", feature = "server"))]
mod authority;
mod byte_stream;
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
#[cfg(any(feature = "json", feature = "protobuf"))]
mod encoded;
mod error;
mod events;
mod fragment;
#[cfg(feature = "futures")]
mod futures;
#[cfg(feature = "server")]
mod handler;
#[cfg(any(feature = "client", feature = "server"))]
mod header_lines;
mod inflation;
#[cfg(feature = "json")]
mod json;
mod limits;
mod locked;
mod message;
mod moment;
#[cfg(feature = "server")]
mod origin;
mod outgoing;
mod pair;
#[cfg(feature = "protobuf")]
mod protobuf;
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
pub use byte_stream::ByteStream;
#[cfg(feature = "client")]
pub use client_handshake::ClientHandshake;
#[cfg(feature = "deflate")]
pub use compression::{Compression, CompressionOptions};
#[cfg(feature = "server")]
pub use connections::Shutdown;
#[cfg(feature = "client")]
pub use connector::{Connector, connect};
pub use error::{Error, ErrorKind, TrySendError};
#[cfg(feature = "futures")]
pub use futures::{FuturesSocket, SenderSink};
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
