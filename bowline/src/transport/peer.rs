//! The client of a server's connection.

use std::any::Any;
use std::net::SocketAddr;

use http::Extensions;

use crate::transport::Addresses;
use crate::transport::tls::TlsInfo;

/// The client of a connection, as far as the server knows it below HTTP.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) addresses: Addresses,
    pub(crate) tls: Option<TlsInfo>,
}

impl Peer {
    /// Returns what `stream` itself knows about its peer.
    pub(crate) fn of_any<S: Any>(stream: &S) -> Self {
        Self { addresses: Addresses::of_any(stream), tls: TlsInfo::of_any(stream) }
    }

    /// Returns what the listener and the stream that it has accepted know about the client.
    pub(crate) fn of_accepted<S: Any>(stream: &S, peer: Option<SocketAddr>) -> Self {
        Self { addresses: Addresses::of_accepted(stream, peer), tls: TlsInfo::of_any(stream) }
    }

    /// Inserts what is known into the extensions of a request, where applications find it.
    pub(crate) fn describe(&self, extensions: &mut Extensions) {
        if let Some(address) = self.addresses.peer {
            extensions.insert(address);
        }
        if let Some(tls) = &self.tls {
            tls.describe(extensions);
        }
    }
}
