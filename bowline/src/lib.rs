#![cfg_attr(
    all(target_family = "wasm", target_os = "unknown"),
    doc = "**These pages describe the library in browsers.** The [guide](guide::browser) says what is there. \
           The text below is that of the native library.\n\n"
)]
//! WebSockets (RFC 6455) for tokio and hyper.
//!
//! - [`connect`] opens a connection as a client.
//! - [`serve`] runs a server; [`accept`] adds WebSockets to an existing hyper, axum or tower server.
//! - [`WebSocket`] is the connection in both roles. [`Sender`] is a handle for sending from other tasks.
//! - The [guide] has pages on web frameworks and HTTP clients, deploying, TLS and migrating from other
//!   libraries.
//! - On `wasm32-unknown-unknown`, a part of these items works on the WebSocket of the
//!   [browser](guide::browser).
//!
//! A server that returns each message, and a client that talks to it:
//!
//! ```
//! use bowline::{CloseCode, WebSocket};
//! use tokio::net::TcpListener;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let listener = TcpListener::bind("127.0.0.1:0").await?;
//!     let url = format!("ws://{}", listener.local_addr()?);
//!     tokio::spawn(bowline::serve(listener, |mut socket: WebSocket| async move {
//!         while let Some(message) = socket.recv().await? {
//!             socket.send(message).await?;
//!         }
//!         Ok(())
//!     }));
//!
//!     let mut socket = bowline::connect(url).await?;
//!     socket.send("hello").await?;
//!     assert_eq!(socket.recv().await?, Some("hello".into()));
//!     socket.close(CloseCode::NORMAL, "done").await?;
//!     Ok(())
//! }
//! ```
//!
//! [`Connector`] is the builder of clients, and [`Server`] and [`Acceptor`] are the builders of servers.
//! [`pair`] creates two connected WebSockets in memory, for tests. [`Connector::pair`] does so with options.
//!
//! The library needs a tokio runtime with I/O and timers, such as that of `#[tokio::main]`. Each connection
//! has one small task on it. In a runtime without them, connecting, accepting and serving panic in the words
//! of tokio, which name [`enable_time`](tokio::runtime::Builder::enable_time) or
//! [`enable_io`](tokio::runtime::Builder::enable_io). The panic is always the caller's, and never that of a
//! task of the library.
//!
//! # Receiving, and the end of a connection
//!
//! [`recv`](WebSocket::recv) returns messages, and then `Ok(None)` after a normal end or an [`Error`] after
//! any other. A connection ends normally if the peer closes it with 1000, 1001 or no code, or if this side
//! closed it first. After the end, `recv` keeps returning the same result.
//!
//! [`close`](WebSocket::close) performs the closing handshake, within [`Limits::close_timeout`]. Under
//! [`serve`] and in axum, the end of the handler closes the connection: with 1000 after `Ok`, and with 1011
//! after an error or a panic. Everywhere else, dropping a [`WebSocket`] ends the connection without a Close
//! frame, which the peer reports as a lost connection. In all cases, messages that were sent before are still
//! written.
//!
//! ```
//! use bowline::{CloseCode, ErrorKind};
//!
//! #[tokio::main]
//! async fn main() {
//!     let (mut client, server) = bowline::pair();
//!     tokio::spawn(async move { server.close(CloseCode(4001), "logged out").await });
//!
//!     let error = client.recv().await.unwrap_err();
//!     assert_eq!(error.kind(), ErrorKind::Closed);
//!     assert_eq!(error.close_frame().unwrap().code(), CloseCode(4001));
//! }
//! ```
//!
//! The library handles control frames, even while the application does not read: it answers pings, echoes
//! Close frames, and detects dead peers with keepalive pings. Only an unread data message stops this, because
//! memory is bounded. A client can look at the control frames of its server: see
//! [`Connector::on_control`].
//!
//! # Cancellation
//!
//! All futures but one may be dropped at any await point. A dropped [`recv`](WebSocket::recv) keeps the bytes
//! that it has read, and a dropped [`send`](WebSocket::send) has sent its message either whole or not at all.
//! Timeouts and `select!` are therefore safe. The exception is [`MessageWriter::finish`]: if its future is
//! dropped before it is ready, the connection may be closed. The section "Cancel safety" of each async
//! function states the details.
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
//! # Concurrency
//!
//! Reading takes `&mut self`; everything else takes `&self`. Any number of tasks send, ping and close at the
//! same time, through clones of a [`Sender`]. Messages never interleave, and the messages of one task keep
//! their order.
//!
//! ```
//! #[tokio::main]
//! async fn main() -> Result<(), bowline::Error> {
//!     let (client, mut server) = bowline::pair();
//!     for number in 0..3 {
//!         let sender = client.sender();
//!         tokio::spawn(async move { sender.send(format!("from task {number}")).await });
//!     }
//!     for _ in 0..3 {
//!         println!("{:?}", server.recv().await?);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! A [`Sender`] writes each message at once. A burst of messages is cheaper with [`Sender::batch`], a guard
//! that writes all of them when it is dropped.
//!
//! # Back-pressure
//!
//! Sent messages are written without any flush. While [`Limits::write_buffer`] is reached, `send` waits in
//! order of arrival, and [`try_send`](Sender::try_send) returns the message instead. [`Prepared`] is a
//! message for many connections; its page also shows how to deal with slow ones. [`Limits::unsent`] bounds
//! the bytes in front of the write buffer, which the operating system holds.
//!
//! ```
//! use bowline::TrySendError;
//!
//! #[tokio::main]
//! async fn main() {
//!     let (_client, server) = bowline::pair();
//!     let message = vec![0; 10_000];
//!     while server.try_send(&message).is_ok() {}
//!     assert_eq!(server.try_send("more"), Err(TrySendError::Full("more")));
//! }
//! ```
//!
//! Messages that are too large for memory are read and written piece by piece, with
//! [`reader`](WebSocket::reader) and [`writer`](WebSocket::writer).
//!
//! # Limits
//!
//! Everything that a peer decides is limited by default: see [`Limits`]. The builders of both sides override
//! the limits and the keepalive interval. The builder of servers also has the origins whose pages may
//! connect.
//!
//! ```
//! use std::time::Duration;
//!
//! use bowline::{Acceptor, Limits, Server};
//!
//! let limits = Limits::default().message_size(16 * 1024 * 1024).close_timeout(Duration::from_secs(1));
//! let acceptor = Acceptor::new()
//!     .limits(limits)
//!     .keepalive(Duration::from_secs(60))
//!     .allow_origin("*.example.com");
//! let server = Server::new().acceptor(acceptor);
//! ```
//!
//! An invalid setting is reported when the builder is used, as an error of the kind
//! [`ErrorKind::InvalidInput`] that names the setting.
//!
//! # Errors
//!
//! All operations return the same [`Error`]. Its [`kind`](Error::kind) classifies the failure, and its text
//! says what to do. [`close_frame`](Error::close_frame) and [`response`](Error::response) return what the
//! peer sent.
//!
//! ```no_run
//! use bowline::ErrorKind;
//!
//! #[tokio::main]
//! async fn main() {
//!     match bowline::connect("wss://example.com/feed").await {
//!         Ok(_socket) => println!("connected"),
//!         Err(error) if error.kind() == ErrorKind::Handshake => {
//!             println!("{error}: {:?}", error.response().map(|response| response.status()));
//!         }
//!         Err(error) => println!("{error}"),
//!     }
//! }
//! ```
//!
//! On a server, [`Server::on_error`] receives a [`ServerError`] for each connection that never opened, and
//! for each handler that failed. Its text names the client and the request. [`ServerError::is_noise`] tells
//! apart what health checks and closed tabs produce.
//!
//! [`Connector::reconnecting`] returns a client that connects again after a lost connection, with pauses that
//! spare the server. Only the application knows which messages it has missed meanwhile.
//!
//! # Authentication and shared state
//!
//! [`Server::on_request`] receives the head of each request before it is accepted. It may reject the request,
//! or add to the extensions of the head, where a handler that takes the head finds them. (Pages in browsers
//! can't set headers. They have cookies and subprotocols, or send a first message.) State that all
//! connections share belongs to the closure of the handler. An [`Acceptance`] adds headers to the response,
//! such as cookies, and has settings for one connection.
//!
//! [`Server::fallback`] answers the requests that ask for no WebSocket: pages and health checks. In other
//! HTTP servers, [`accept`] checks the requests of hyper, and [`Acceptor::respond`] those of any library.
//! There, [`Connections`] closes all WebSockets when the application shuts down.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicUsize, Ordering};
//!
//! use bowline::http::StatusCode;
//! use bowline::http::request::Parts;
//! use bowline::{Rejection, Server, WebSocket};
//! use tokio::net::TcpListener;
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
//! #[tokio::main]
//! async fn main() -> std::io::Result<()> {
//!     let visits = Arc::new(AtomicUsize::new(0));
//!     let greet = move |mut head: Parts, socket: WebSocket| {
//!         let visit = visits.fetch_add(1, Ordering::Relaxed);
//!         async move {
//!             let User(name) = head.extensions.remove().ok_or("the request has no user")?;
//!             socket.send(format!("welcome, {name}, you are visitor {visit}")).await?;
//!             Ok(())
//!         }
//!     };
//!     let listener = TcpListener::bind("127.0.0.1:8080").await?;
//!     Server::new().on_request(authenticate).serve(listener, greet).await?;
//!     Ok(())
//! }
//! ```
//!
//! # Operating a server
//!
//! - A [`Listener`] is the source of connections: a TCP or Unix socket, or a type of your own, for the PROXY
//!   protocol and the like. [`Server::serve_connection`] serves a connection that you have accepted yourself.
//!   Clones of a [`Server`] listen at several places.
//! - [`Server::connections`], [`Server::connections_per_address`] and [`Server::handshakes_per_second`] limit
//!   the load. There are no such limits by default.
//! - [`Server::stats`] returns the numbers of WebSockets that are open, accepted and rejected.
//! - [`Server::shutdown`] closes all connections, at once or evenly over a given time. Clients then don't all
//!   connect again at the same moment.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use bowline::{CloseCode, Server, ShutdownOptions, WebSocket};
//! use tokio::net::TcpListener;
//!
//! #[tokio::main]
//! async fn main() -> std::io::Result<()> {
//!     let ctrl_c = async { tokio::signal::ctrl_c().await.unwrap_or(()) };
//!     let restart = ShutdownOptions::new(Duration::from_secs(30))
//!         .spread(Duration::from_secs(20))
//!         .close_frame(CloseCode::SERVICE_RESTART, "please connect again");
//!     let server = Server::new()
//!         .connections(50_000)
//!         .handshakes_per_second(500)
//!         .on_error(|error| eprintln!("{error}"))
//!         .shutdown(ctrl_c, restart);
//!     let ipv4 = TcpListener::bind("0.0.0.0:8080").await?;
//!     let ipv6 = TcpListener::bind("[::1]:8080").await?;
//!     let greet = |socket: WebSocket| async move { Ok(socket.send("welcome").await?) };
//!     tokio::try_join!(server.clone().serve(ipv4, greet), server.clone().serve(ipv6, greet))?;
//!     println!("{} connections in all", server.stats().accepted());
//!     Ok(())
//! }
//! ```
//!
//! # TLS
//!
//! `wss://` URLs need no settings: clients trust the root certificates of the operating system. Anything else
//! is a configuration of rustls, which this crate re-exports. See `Connector::tls` and `Server::tls`. Streams
//! of other TLS libraries are accepted, too: see `ConnectOver::already_tls`.
//!
//! rustls needs a provider of cryptography. The library uses the default of the process if the application
//! has installed one, and otherwise the provider of its own feature, `ring` or `aws-lc-rs`. The function
//! `crypto_provider` returns this provider. Configurations that are built with it work whichever features of
//! rustls the other crates in the program enable.
//!
//! # Features
//!
//! `client`, `server`, `tls` and `ring` are enabled by default. Features only add: no feature changes the
//! behaviour of code that compiles without it. The features `ring` and `aws-lc-rs` also enable that provider
//! in rustls, which all crates in the program share.
//!
//! | feature | what it adds |
//! |---|---|
//! | `client` | [`connect`], [`Connector`] |
//! | `server` | [`serve`], [`Server`], [`accept`], [`Acceptor`] |
//! | `tls` | `wss://` URLs, `Server::tls`; needs one of the next two, or an installed provider |
//! | `ring` | `tls`, with cryptography by `ring` |
//! | `aws-lc-rs` | `tls`, with cryptography by `aws-lc-rs`; with both, the library uses `ring` |
//! | `deflate` | compression (RFC 7692): `Compression` |
//! | `http2` | WebSockets over HTTP/2 (RFC 8441): `Server::http2`, `Connector::connect_http2` |
//! | `axum` | an extractor for axum: `bowline::extract` |
//! | `blocking` | use without an async runtime: `bowline::blocking` |
//! | `futures` | `Stream` for [`WebSocket`]; `WebSocket::into_stream_sink`, `Sender::into_sink` |
//! | `json` | `send_json` and `recv_json`, with serde |
//! | `protobuf` | `send_protobuf` and `recv_protobuf`, with prost |
//! | `websocket-stream` | in pages of Chromium, servers wait for a slow page: see the guide on browsers |
//! | `tracing` | events for `tracing`, listed below |
//!
//! The crates [`bytes`], [`http`] and `rustls`, whose types this API uses, are re-exported, and so is the
//! protocol without I/O as [`proto`].
//!
//! # Events
//!
//! With the feature `tracing`, the library emits events with the target `bowline`. No event is about a
//! message. Of what the peers send, events contain only close codes, subprotocols, the path of a request
//! (without its query), the Origin and the Host of a rejected one, the status of a response, and the URL that
//! the response redirects to (without its query). Rejections by the application appear with their text and
//! [cause](Rejection::with_source).
//!
//! | name | level | fields |
//! |---|---|---|
//! | `handshake_accepted` | debug | `role` (`client` or `server`), `peer`, `path`, `subprotocol`, `deflate` |
//! | `handshake_rejected` | info | `role`, `peer`, `path`, `status`, `reason` |
//! | `connection_opened` | debug | `role`, `peer` |
//! | `connection_closed` | debug | `by` (the side that closed first: `us` or `peer`), `code`, `peer` |
//! | `connection_failed` | info | `code`, `error` (the violation or the limit), `peer` |
//! | `connection_lost` | info | `error` (the transport ended, or the peer did not end it in time), `peer` |
//! | `keepalive_lost` | info | `error`, `peer` |
//!
//! The code of a Close frame without a code is 1005. The event of a [`WebSocket`] that was dropped has none.
//!
//! The field `peer` is the address of the peer, where the address is known. In `handshake_accepted` and
//! `handshake_rejected`, which only servers emit with `peer` and `path`, the address comes from a
//! [`SocketAddr`](std::net::SocketAddr) in the extensions of the request; [`Server`] puts it there. An open
//! connection does not keep its path: to find the path of a `connection_lost`, look for the
//! `handshake_accepted` with the same `peer`.
//!
//! The handler of each connection of a [`Server`] and of the extractor for axum runs in a span `websocket` of
//! the level info, with the fields `peer` and `path`. The span is a child of the one in which the request was
//! accepted, such as that of tower-http's `TraceLayer`, so the handler's own events belong to the request.

#![cfg_attr(docsrs, feature(doc_cfg))]
// The architecture is no feature that an item needs.
#![cfg_attr(docsrs, doc(auto_cfg(hide(target_family = "wasm", target_os = "unknown"))))]
// The page above is that of the native library.
#![cfg_attr(all(target_family = "wasm", target_os = "unknown"), allow(rustdoc::broken_intra_doc_links))]

// There are two libraries of the same names: the native one, on tokio and hyper, and the one in `browser`, on
// the WebSocket of the browser. The choice between them is made here alone. WASI is native.
#[cfg(all(feature = "blocking", not(all(target_family = "wasm", target_os = "unknown"))))]
pub mod blocking;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
#[cfg_attr(not(feature = "client"), allow(dead_code, reason = "only clients open connections"))]
mod browser;
#[cfg(all(feature = "client", not(all(target_family = "wasm", target_os = "unknown"))))]
mod client;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod connection;
#[cfg_attr(
    all(target_family = "wasm", target_os = "unknown"),
    allow(dead_code, reason = "no bytes of frames and HTTP are seen")
)]
mod error;
#[cfg_attr(
    all(target_family = "wasm", target_os = "unknown"),
    allow(dead_code, reason = "servers and keepalives have events of their own")
)]
mod events;
// Not for doctests: the examples need other crates.
#[cfg(all(doc, not(doctest)))]
#[path = "../guide/pages.rs"]
pub mod guide;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod handshake;
#[cfg_attr(all(target_family = "wasm", target_os = "unknown"), path = "browser/limits.rs")]
mod limits;
#[cfg_attr(
    all(target_family = "wasm", target_os = "unknown"),
    allow(dead_code, unused_imports, reason = "the browser encodes")
)]
mod message;
#[cfg(all(feature = "server", not(all(target_family = "wasm", target_os = "unknown"))))]
mod server;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod socket;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod sync;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod transport;

// The crates whose types are part of this API, so that an application can name the types in the right
// version.
#[doc(no_inline)]
pub use bowline_proto as proto;
#[doc(no_inline)]
pub use bytes;
#[doc(no_inline)]
pub use http;

pub use bowline_proto::{CloseCode, CloseFrame, MessageKind, Misuse, Role};
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub use browser::*;
pub use error::{Error, ErrorKind, TrySendError};
pub use limits::Limits;
pub use message::{Message, Payload, Prepared, Utf8Bytes};
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub use native::*;

/// The items that only the native library has, and those that it has in its own way.
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
mod native {
    #[cfg(feature = "tls")]
    #[doc(no_inline)]
    pub use rustls;

    #[cfg(feature = "client")]
    pub use crate::client::{
        ClientHandshake, ConnectOver, Connector, HandshakeTimes, Proxy, Reconnecting, Retry,
        VerifiedHandshake, connect,
    };
    #[cfg(all(feature = "client", feature = "http2"))]
    pub use crate::client::{Http2Connection, HttpVersion};
    #[cfg(feature = "client")]
    pub use crate::connection::outbound::control::ControlFrame;
    #[cfg(feature = "server")]
    pub use crate::handshake::protocol::ConnectProtocol;
    #[cfg(feature = "deflate")]
    pub use crate::message::compression::{Compression, CompressionOptions};
    #[cfg(feature = "axum")]
    pub use crate::server::extract;
    #[cfg(feature = "server")]
    pub use crate::server::{
        AcceptStream, Acceptance, Acceptor, Connections, Exchange, Handler, Listener, Rejection,
        RejectionReason, RequestConnection, Requests, Server, ServerError, ServerHandshake, ServerStats,
        ShutdownOptions, ShutdownSummary, Upgrade, accept, serve,
    };
    #[cfg(any(feature = "client", feature = "server"))]
    pub use crate::socket::Adoption;
    pub use crate::socket::{
        ConnectionStats, MessageReader, MessageWriter, Ping, SendBatch, Sender, WebSocket, WebSocketIo, pair,
    };
    #[cfg(feature = "futures")]
    pub use crate::socket::{SenderSink, WebSocketStreamSink};
    #[cfg(all(feature = "server", feature = "tls"))]
    pub use crate::transport::tls::TlsInfo;
    #[cfg(feature = "tls")]
    pub use crate::transport::tls::crypto_provider;
    #[cfg(feature = "deflate")]
    pub use bowline_proto::DeflateParameters;
}
