//! TLS as a server.

use std::io;
use std::sync::Arc;

use rustls::{Error as TlsError, ServerConfig};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::{Error, ErrorKind, find_cause};
use crate::transport::IoStream;
use crate::transport::alpn::Alpn;
use crate::transport::tls::alert::with_alert;
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
        let accepting = TlsAcceptor::from(Arc::clone(&self.0)).accept(stream);
        let stream = accepting.await.map_err(failed)?;
        let connection = stream.get_ref().1;
        let (chosen, info) = (Alpn::of(connection), TlsInfo::of(connection));
        Ok((stream, chosen, info))
    }
}

/// Creates the error of a handshake that has failed.
fn failed(error: io::Error) -> Error {
    let text = "a client's TLS handshake failed";
    match find_cause(&error) {
        // The first bytes are no record, or no ClientHello.
        Some(TlsError::InvalidMessage(_) | TlsError::InappropriateMessage { .. }) => {
            Error::with_source(ErrorKind::Handshake, "a client does not speak TLS", error)
        }
        Some(_) => Error::with_source(ErrorKind::Io, with_alert(text, &error), error),
        None => Error::of_transport(text, error),
    }
}
