//! TLS, by rustls.
//!
//! ```text
//! client    the handshake as a client
//! server    the handshake as a server; info: what it has told about the client
//! provider  the choice of the cryptography
//! alert     the reasons that a peer tells for giving up
//! ```

#[cfg(any(feature = "client", feature = "server"))]
mod alert;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "server")]
mod info;
mod provider;
#[cfg(feature = "server")]
mod server;

use std::any::Any;

use rustls::CommonState;
use tokio::net::TcpStream;
use tokio_rustls::{client as tls_client, server as tls_server};

#[cfg(any(feature = "client", feature = "server"))]
use crate::transport::alpn::Alpn;
use crate::transport::byte_stream::ByteStream;

#[cfg(feature = "client")]
pub(crate) use alert::with_alert;
#[cfg(feature = "client")]
pub(crate) use client::{ClientTls, IS_SUPPORTED, check, config_or_default, connect, server_name};
#[cfg(feature = "server")]
pub use info::TlsInfo;
pub use provider::crypto_provider;
#[cfg(feature = "server")]
pub(crate) use server::ServerTls;

/// Returns the TCP stream in `stream`, if `stream` is TLS over TCP by tokio-rustls.
pub(crate) fn tcp_of_any(stream: &dyn Any) -> Option<&TcpStream> {
    over_tcp(stream).map(|(tcp, _)| tcp)
}

/// Returns the TCP stream in `stream`, if `stream` is TLS over TCP by tokio-rustls, and has returned
/// everything that it has read from TCP.
pub(crate) fn drained_tcp_of_any(stream: &dyn Any) -> Option<&TcpStream> {
    // rustls wants no further records while it has plaintext, and none after the peer's `close_notify`.
    over_tcp(stream).filter(|(_, session)| session.wants_read()).map(|(tcp, _)| tcp)
}

/// Returns the TCP stream in `stream` and the session, if `stream` is TLS over TCP by tokio-rustls.
fn over_tcp(stream: &dyn Any) -> Option<(&TcpStream, &CommonState)> {
    let of_client = || Some(of_client(stream.downcast_ref::<tls_client::TlsStream<TcpStream>>()?));
    let of_server = || Some(of_server(stream.downcast_ref::<tls_server::TlsStream<TcpStream>>()?));
    let of_either = || Some(stream.downcast_ref::<tokio_rustls::TlsStream<TcpStream>>()?.get_ref());
    let of_ours = || over_tcp_of_connector(stream).or_else(|| over_tcp_of_serve(stream));
    of_server().or_else(of_client).or_else(of_either).or_else(of_ours)
}

fn of_client<S>(stream: &tls_client::TlsStream<S>) -> (&S, &CommonState) {
    let (stream, session) = stream.get_ref();
    (stream, session)
}

fn of_server<S>(stream: &tls_server::TlsStream<S>) -> (&S, &CommonState) {
    let (stream, session) = stream.get_ref();
    (stream, session)
}

/// Does the same for TLS over TCP by `Connector`.
fn over_tcp_of_connector(stream: &dyn Any) -> Option<(&TcpStream, &CommonState)> {
    let (stream, session) = of_client(stream.downcast_ref::<tls_client::TlsStream<ByteStream>>()?);
    Some((stream.tcp()?, session))
}

/// Does the same for TLS over TCP by `Server`, which has looked at the first bytes.
#[cfg(feature = "server")]
fn over_tcp_of_serve(stream: &dyn Any) -> Option<(&TcpStream, &CommonState)> {
    use crate::transport::rewind::Rewind;

    let (stream, session) = of_server(stream.downcast_ref::<tls_server::TlsStream<Rewind<TcpStream>>>()?);
    Some((&stream.stream, session))
}

#[cfg(not(feature = "server"))]
fn over_tcp_of_serve(_: &dyn Any) -> Option<(&TcpStream, &CommonState)> {
    None
}

#[cfg(any(feature = "client", feature = "server"))]
impl Alpn {
    /// Returns the name of the protocol in the TLS handshake.
    fn name(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    /// Returns the protocol on which a TLS handshake has agreed: HTTP/1.1 if it agreed on none.
    fn of(tls: &rustls::CommonState) -> Self {
        if tls.alpn_protocol() == Some(Self::Http2.name()) { Self::Http2 } else { Self::Http1 }
    }
}

/// Returns the names of `protocols`, as a configuration of rustls wants them.
#[cfg(any(feature = "client", feature = "server"))]
fn names(protocols: &[Alpn]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.name().to_vec()).collect()
}
