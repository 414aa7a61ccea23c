//! The adoption of a stream whose opening handshake is complete.

use std::fmt;
use std::net::SocketAddr;

use bowline_proto::Role;
use bowline_proto::header::is_token;
use bytes::Bytes;

use crate::connection::parts::{Config, ConnectionParts};
use crate::error::{Error, ErrorKind};
use crate::handshake::negotiated::Negotiated;
use crate::socket::websocket::WebSocket;
use crate::transport::from_hyper::from_stream;
use crate::transport::{Addresses, IoStream};

/// The facts about a stream whose opening handshake is complete.
///
/// `Acceptor::adopt` and `Connector::adopt` make a [`WebSocket`] of a stream that was upgraded elsewhere,
/// such as by another process.
///
/// ```
/// use bowline::{Acceptor, Adoption};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), bowline::Error> {
/// let (stream, _client) = tokio::io::duplex(1024);
/// let adoption = Adoption::new().subprotocol("chat.v1").peer_addr(([192, 0, 2, 1], 49152));
/// let socket = Acceptor::new().adopt(stream, adoption)?;
/// assert_eq!(socket.subprotocol(), Some("chat.v1"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Adoption {
    leftover: Bytes,
    negotiated: Negotiated,
    addresses: Addresses,
}

impl Adoption {
    /// Returns the facts about a plain stream. It has no subprotocol and no compression, and nothing was read
    /// ahead.
    ///
    /// ```
    /// let adoption = bowline::Adoption::new();
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the facts about a handshake of this process.
    pub(crate) fn after(negotiated: Negotiated, addresses: Addresses) -> Self {
        Self { leftover: Bytes::new(), negotiated, addresses }
    }

    /// Sets the bytes that were already read after the handshake. Default: none.
    ///
    /// ```
    /// let adoption = bowline::Adoption::new().leftover(&b"\x81\x02hi"[..]);
    /// ```
    pub fn leftover(mut self, bytes: impl Into<Bytes>) -> Self {
        self.leftover = bytes.into();
        self
    }

    /// Sets the negotiated subprotocol, a token (RFC 6455 1.9, RFC 9110 5.6.2). Default: none.
    ///
    /// ```
    /// let adoption = bowline::Adoption::new().subprotocol("chat.v1");
    /// ```
    pub fn subprotocol(mut self, subprotocol: impl Into<String>) -> Self {
        self.negotiated.subprotocol = Some(subprotocol.into().into());
        self
    }

    /// Sets the negotiated parameters of compression (RFC 7692). Default: messages are not compressed.
    /// Available with the feature `deflate`.
    ///
    /// The level and the threshold are those of the builder that adopts the stream. Both windows are from 8
    /// to 15 bits.
    ///
    /// ```
    /// use bowline::{Adoption, DeflateParameters};
    ///
    /// let adoption = Adoption::new().compression(DeflateParameters::default());
    /// ```
    #[cfg(feature = "deflate")]
    pub fn compression(mut self, parameters: bowline_proto::DeflateParameters) -> Self {
        self.negotiated.deflate = Some(parameters);
        self
    }

    /// Sets the address that [`WebSocket::peer_addr`] returns. Default: that of the stream, if the stream is
    /// a [`TcpStream`](tokio::net::TcpStream).
    ///
    /// ```
    /// let adoption = bowline::Adoption::new().peer_addr(([192, 0, 2, 1], 49152));
    /// ```
    pub fn peer_addr(mut self, address: impl Into<SocketAddr>) -> Self {
        self.addresses.peer = Some(address.into());
        self
    }

    /// Sets the address that [`WebSocket::local_addr`] returns. Default: that of the stream, if the stream is
    /// a [`TcpStream`](tokio::net::TcpStream).
    ///
    /// ```
    /// let adoption = bowline::Adoption::new().local_addr(([192, 0, 2, 2], 443));
    /// ```
    pub fn local_addr(mut self, address: impl Into<SocketAddr>) -> Self {
        self.addresses.local = Some(address.into());
        self
    }

    /// Returns an error if the facts can't be the result of a handshake.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let Negotiated { subprotocol, deflate } = &self.negotiated;
        if let Some(subprotocol) = subprotocol.as_deref().filter(|subprotocol| !is_token(subprotocol)) {
            let text = format!("Adoption::subprotocol is {subprotocol:?}, which is not a token");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let windows = deflate.map(|agreed| [agreed.server_max_window_bits, agreed.client_max_window_bits]);
        match windows {
            // RFC 7692 7.1.2: a window is from 8 to 15 bits.
            Some(windows) if !windows.iter().all(|bits| (8..=15).contains(bits)) => {
                let text = format!(
                    "Adoption::compression has windows of {windows:?} bits, but they have to be from 8 to 15"
                );
                Err(Error::new(ErrorKind::InvalidInput, text))
            }
            _ => Ok(()),
        }
    }

    /// Opens the connection on `stream`.
    pub(crate) fn open<S: IoStream>(self, stream: S, role: Role, config: &Config) -> WebSocket {
        let Self { leftover, negotiated, addresses: Addresses { local, peer } } = self;
        let (mut transport, leftover) = from_stream(stream, leftover);
        let known = transport.addresses;
        transport.addresses = Addresses { local: local.or(known.local), peer: peer.or(known.peer) };
        WebSocket::open(ConnectionParts { transport, role, leftover: &leftover, config, negotiated })
    }
}

impl fmt::Debug for Adoption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The bytes are the peer's, and the subprotocol may be a token.
        f.debug_struct("Adoption").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
