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

use tokio::net::TcpStream;

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
    let of_client = || stream.downcast_ref().map(|tls: &tokio_rustls::client::TlsStream<_>| tls.get_ref().0);
    let of_server = || stream.downcast_ref().map(|tls: &tokio_rustls::server::TlsStream<_>| tls.get_ref().0);
    let of_either = || stream.downcast_ref().map(|tls: &tokio_rustls::TlsStream<_>| tls.get_ref().0);
    let of_ours = || tcp_of_connector(stream).or_else(|| tcp_of_serve(stream));
    of_server().or_else(of_client).or_else(of_either).or_else(of_ours)
}

/// Returns the TCP stream in `stream`, if `stream` is TLS over TCP by `Connector`.
fn tcp_of_connector(stream: &dyn Any) -> Option<&TcpStream> {
    let tls: &tokio_rustls::client::TlsStream<ByteStream> = stream.downcast_ref()?;
    tls.get_ref().0.tcp()
}

/// Returns the TCP stream in `stream`, if `stream` is TLS over TCP by `Server`, which has looked at the first
/// bytes.
#[cfg(feature = "server")]
fn tcp_of_serve(stream: &dyn Any) -> Option<&TcpStream> {
    use crate::transport::rewind::Rewind;

    let tls: &tokio_rustls::server::TlsStream<Rewind<TcpStream>> = stream.downcast_ref()?;
    Some(&tls.get_ref().0.stream)
}

#[cfg(not(feature = "server"))]
fn tcp_of_serve(_: &dyn Any) -> Option<&TcpStream> {
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
