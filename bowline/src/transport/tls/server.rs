//! TLS as a server.

use std::sync::Arc;

use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::{Error, ErrorKind};
use crate::transport::IoStream;
use crate::transport::alpn::Alpn;
use crate::transport::tls::info::TlsInfo;
use crate::transport::tls::names;

/// A server's configuration of TLS.
#[derive(Clone)]
pub(crate) struct ServerTls(pub(crate) Arc<ServerConfig>);

impl ServerTls {
    /// Replaces the protocols that clients can choose (ALPN).
    pub(crate) fn with_protocols(mut self, protocols: &[Alpn]) -> Self {
        let names = names(protocols);
        if self.0.alpn_protocols != names {
            Arc::make_mut(&mut self.0).alpn_protocols = names;
        }
        self
    }

    /// Does a server's TLS handshake. Returns the encrypted stream, the protocol for it, and what the
    /// handshake has told about the client.
    pub(crate) async fn accept<S: IoStream>(
        &self,
        stream: S,
    ) -> Result<(TlsStream<S>, Alpn, Option<TlsInfo>), Error> {
        let stream = TlsAcceptor::from(Arc::clone(&self.0))
            .accept(stream)
            .await
            .map_err(|error| Error::with_source(ErrorKind::Io, "a client's TLS handshake failed", error))?;
        let connection = stream.get_ref().1;
        let (chosen, info) = (Alpn::of(connection), TlsInfo::of(connection));
        Ok((stream, chosen, info))
    }
}
