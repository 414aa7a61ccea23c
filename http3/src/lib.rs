//! WebSockets over HTTP/3 (RFC 9220) for [bowline](https://docs.rs/bowline), on QUIC by quinn.
//!
//! A WebSocket over HTTP/3 is the stream of an extended CONNECT. Many of them share one QUIC connection, and
//! a packet that is lost delays only the WebSocket whose bytes it carried. The API is that of bowline: a
//! [`WebSocket`](bowline::WebSocket) does not tell what carries it.
//!
//! - [`connect`] opens one WebSocket.
//! - [`Http3Connection`] opens many on one connection, with the options of a
//!   [`Connector`](bowline::Connector), or a bare [`Http3Stream`] for other protocols.
//! - [`Http3Server`] serves a UDP socket with the options and handlers of a [`Server`](bowline::Server),
//!   beside that server's TCP listener or alone.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use bowline::{Server, WebSocket};
//! use bowline::rustls::ServerConfig;
//! use bowline_http3::Http3Server;
//! use tokio::net::UdpSocket;
//!
//! # async fn example(config: Arc<ServerConfig>) -> std::io::Result<()> {
//! let socket = UdpSocket::bind("[::]:443").await?;
//! Http3Server::new(Server::new().tls(config))
//!     .serve(socket, |mut socket: WebSocket| async move {
//!         while let Some(message) = socket.recv().await? {
//!             socket.send(message).await?;
//!         }
//!         Ok(())
//!     })
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Differences from TCP
//!
//! - HTTP/3 is always encrypted, by TLS 1.3. Early data (0-RTT) is off on both sides, as a handshake must not
//!   be replayed.
//! - A proxy on the way is an error, since no proxy carries HTTP/3. Some networks block UDP: applications
//!   fall back to TCP themselves.
//! - On a silent connection, QUIC sends a packet each 10 s, and a peer that answers nothing for 30 s is lost:
//!   the error is [`ErrorKind::Timeout`](bowline::ErrorKind::Timeout). The keepalive of each WebSocket tells
//!   as well if its peer's *application* is alive.
//! - A peer whose own idle timeout is at most 10 s ends silent connections, unless the peer itself keeps them
//!   alive (RFC 9000 10.1). quinn does not tell that timeout, so this side can't send packets more often.
//! - A WebSocket that ends without a Close frame ends its stream by FIN (RFC 9220 3). One that is aborted
//!   resets its stream with `H3_REQUEST_CANCELLED`.
//! - A runtime that is dropped loses bytes that the peer has not acknowledged, as nobody can repeat them.
//!
//! # HTTP/3
//!
//! The crate implements the part of HTTP/3 (RFC 9114) and QPACK (RFC 9204) that WebSockets need. Its QPACK
//! has no dynamic table, and it neither pushes nor allows pushes. QUIC's own part is quinn, which is not part
//! of the API.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `ring` | cryptography by `ring`; enabled by default |
//! | `aws-lc-rs` | cryptography by `aws-lc-rs` |
//!
//! QUIC needs one of the two, beside the provider of the TLS configuration.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
compile_error!("bowline-http3 needs the feature `ring` or `aws-lc-rs`");

// The examples of the README are tests, too.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
pub struct ReadmeDoctests;

mod client;
mod dial;
mod driver;
mod exchange;
mod head;
mod peer_streams;
mod qpack;
mod server;
mod session;
mod stream;
mod transport;
mod udp;
mod wire;

#[doc(no_inline)]
pub use bowline;

pub use client::{Http3Connection, connect};
pub use server::Http3Server;
pub use stream::Http3Stream;
