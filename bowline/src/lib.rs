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
//! [`Connector`], [`Server`] and [`Acceptor`] have the options; [`pair`] makes two connected WebSockets in memory, for your
//! tests. It needs a tokio runtime with its I/O and time drivers on: each connection has one small task there.
//!
//! # Life and end of a connection
//!
//! [`recv`](WebSocket::recv) gives messages, then `Ok(None)` after a normal end (the peer closed with 1000, 1001 or no code;
//! or we closed first) or an [`Error`] after every other; and the same again if it is called again.
//!
//! [`close`](WebSocket::close) does the whole closing handshake, and never takes longer than
//! [`Limits::close_timeout`]. Under [`serve`] and in axum, the end of the handler closes: `Ok` with 1000, an error or a
//! panic with 1011. Anywhere else, a [`WebSocket`] that is only dropped ends without a Close frame, which the peer takes
//! for a lost connection; what was sent still goes out.
//!
//! ```
//! use bowline::{CloseCode, ErrorKind};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), bowline::Error> {
//! let (mut client, server) = bowline::pair();
//! tokio::spawn(async move { server.close(CloseCode(4001), "logged out").await });
//! let error = client.recv().await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Closed);
//! assert_eq!(error.close_frame().unwrap().code(), CloseCode(4001));
//! # Ok(())
//! # }
//! ```
//!
//! Control frames are the library's business, in `recv` and also when nobody reads: pings are answered, a Close frame is
//! echoed, dead peers are found out. Only a message that the application has not asked for stops that, because memory is
//! bounded.
//!
//! # Cancelling
//!
//! Any future may be dropped at any point: `recv` keeps what it has read, and a [`send`](WebSocket::send) that is dropped
//! before it is ready sent nothing. So timeouts and `select!` are safe; each async function says under "Cancel safety"
//! what exactly holds.
//!
//! ```
//! use bowline::{Error, WebSocket};
//! use tokio::sync::mpsc;
//!
//! async fn relay(mut socket: WebSocket, mut news: mpsc::Receiver<String>) -> Result<(), Error> {
//!     loop {
//!         tokio::select! {
//!             message = socket.recv() => match message? {
//!                 Some(message) => println!("{message:?}"),
//!                 None => return Ok(()),
//!             },
//!             Some(news) = news.recv() => socket.send(news).await?,
//!         }
//!     }
//! }
//! ```
//!
//! # Sharing
//!
//! Reading takes `&mut self`, all else `&self`: any number of tasks send, ping and close at once, through clones of a
//! [`Sender`]. Messages never interleave, and those of one task keep their order.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), bowline::Error> {
//! let (client, mut server) = bowline::pair();
//! for number in 0..3 {
//!     let sender = client.sender();
//!     tokio::spawn(async move { sender.send(format!("from task {number}")).await });
//! }
//! for _ in 0..3 {
//!     println!("{:?}", server.recv().await?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Back-pressure
//!
//! What was sent goes out by itself, without any flush. While [`Limits::write_buffer`] is full, `send` waits, in order of
//! arrival; [`try_send`](Sender::try_send) hands the message back instead. A message for many is [`Prepared`], where there
//! is also what to do about slow ones.
//!
//! ```
//! use bowline::TrySendError;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let (_client, server) = bowline::pair();
//! let message = vec![0; 10_000];
//! while server.try_send(&message).is_ok() {}
//! assert_eq!(server.try_send("more"), Err(TrySendError::Full("more")));
//! # }
//! ```
//!
//! Messages that are too large to be held come and go in pieces, by [`reader`](WebSocket::reader) and
//! [`writer`](WebSocket::writer).
//!
//! # Limits
//!
//! All that a peer decides is limited, by default: see [`Limits`], which the builders of both sides take. They also have
//! the keepalive, and the server's has the origins whose pages may connect.
//!
//! ```
//! use std::time::Duration;
//!
//! use bowline::{Acceptor, Limits, Server};
//!
//! let limits = Limits::default().message_size(16 * 1024 * 1024).close_timeout(Duration::from_secs(1));
//! let acceptor = Acceptor::new().limits(limits).keepalive(Duration::from_secs(60)).allow_origin("*.example.com");
//! let server = Server::new().acceptor(acceptor);
//! ```
//!
//! # Errors
//!
//! There is one [`Error`]. Its [`kind`](Error::kind) says whose fault it is, and its text what to do about it;
//! [`close_frame`](Error::close_frame) and [`response`](Error::response) have what the peer said.
//!
//! ```
//! # async fn example() {
//! use bowline::ErrorKind;
//!
//! match bowline::connect("wss://example.com/feed").await {
//!     Ok(_socket) => println!("connected"),
//!     Err(error) if error.kind() == ErrorKind::Handshake => {
//!         println!("{error}: {:?}", error.response().map(|response| response.status()));
//!     }
//!     Err(error) => println!("{error}"),
//! }
//! # }
//! ```
//!
//! Nothing reconnects by itself, as only the application knows what it has missed: the example `reconnect` has the loop.
//!
//! # Who is there, and what they share
//!
//! [`Server::on_request`] sees the head of each request before it is accepted, and may reject it or add to its extensions; a
//! handler that takes the head finds it there. (Pages in browsers can't set headers: they have cookies and subprotocols, or
//! send a first message.) What all connections share, the handler's closure holds.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicUsize, Ordering};
//!
//! use bowline::{Rejection, Server, WebSocket};
//! use http::StatusCode;
//! use http::request::Parts;
//!
//! #[derive(Clone)]
//! struct User(String);
//!
//! async fn authenticate(mut head: Parts) -> Result<Parts, Rejection> {
//!     match head.headers.get("authorization").and_then(|value| value.to_str().ok()) {
//!         Some("Bearer 1234") => head.extensions.insert(User("Ann".to_owned())),
//!         _ => return Err(StatusCode::UNAUTHORIZED.into()),
//!     };
//!     Ok(head)
//! }
//!
//! # async fn example(listener: tokio::net::TcpListener) -> std::io::Result<()> {
//! let visits = Arc::new(AtomicUsize::new(0));
//! let greet = move |mut head: Parts, socket: WebSocket| {
//!     let visit = visits.fetch_add(1, Ordering::Relaxed);
//!     async move {
//!         let User(name) = head.extensions.remove().ok_or("nobody is there")?;
//!         socket.send(format!("welcome, {name}, you are visitor {visit}")).await?;
//!         Ok(())
//!     }
//! };
//! Server::new().on_request(authenticate).serve(listener, greet).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! `client`, `server` and `tls` are on by default; `deflate` adds compression, `http2` WebSockets over HTTP/2 (RFC 8441),
//! `axum` an extractor. Features only add: none changes the behaviour of code that compiles without it.
//!
//! - `futures`: `WebSocket` is a `Stream`; `WebSocket::into_stream_sink` and `Sender::into_sink` are sinks, too.
//! - `json`: `send_json` and `recv_json`, by serde.
//! - `protobuf`: `send_protobuf` and `recv_protobuf`, by prost.
//! - `tracing`: events, as follows.
//!
//! # Events
//!
//! With the feature `tracing`, events have the target `bowline` and these names and fields. No message makes one, and
//! none has anything in it that was sent but a close code, a subprotocol, and the status of a response and where it redirects
//! to (without its query), or what a [`Rejection`] of yours says.
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

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "client")]
mod client;
#[cfg_attr(
    not(all(feature = "deflate", any(feature = "client", feature = "server"))),
    allow(dead_code, unreachable_pub, reason = "the public part of it is compiled only with them")
)]
mod compression;
mod connection;
mod error;
mod events;
mod handshake;
mod limits;
mod message;
mod random;
#[cfg(feature = "server")]
mod server;
mod socket;
mod sync;
mod transport;

#[cfg(feature = "deflate")]
pub use bowline_proto::DeflateParameters;
pub use bowline_proto::{CloseCode, CloseFrame, MessageKind, Role};
#[cfg(feature = "client")]
pub use client::{ClientHandshake, Connector, Proxy, connect};
#[cfg(all(feature = "client", feature = "http2"))]
pub use client::{Http2Connection, HttpVersion};
#[cfg(feature = "deflate")]
pub use compression::{Compression, CompressionOptions};
pub use error::{Error, ErrorKind, TrySendError};
pub use limits::Limits;
pub use message::{Message, Payload, Prepared, Utf8Bytes};
#[cfg(feature = "server")]
pub use server::{Acceptor, Handler, Rejection, Server, ShutdownSummary, Upgrade, accept, serve};
pub use socket::{MessageReader, MessageWriter, Sender, WebSocket, WebSocketIo, pair};
#[cfg(feature = "futures")]
pub use socket::{SenderSink, WebSocketStreamSink};
