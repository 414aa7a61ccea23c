//! TLS, by rustls.

use std::sync::Arc;

use tokio_rustls::rustls;

use crate::error::{Error, ErrorKind};
use crate::transport::Stream;

/// The names of what is spoken behind TLS, as ALPN has them (RFC 7301).
pub(crate) const HTTP_1_1: &[u8] = b"http/1.1";
#[cfg(feature = "http2")]
pub(crate) const HTTP_2: &[u8] = b"h2";

#[cfg(feature = "client")]
pub(crate) use client::{connect, server_name};
#[cfg(feature = "server")]
pub(crate) use server::{accept, with_protocols};

#[cfg(feature = "client")]
mod client {
    use std::sync::OnceLock;

    use rustls::ClientConfig;
    use rustls::pki_types::ServerName;
    use rustls_platform_verifier::BuilderVerifierExt;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    use super::{Arc, Error, ErrorKind, Stream, rustls};

    /// Who has to be at the other end: a name, or an address without brackets.
    pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
        ServerName::try_from(host.to_owned()).map_err(|error| {
            let text = format!("the host {host:?} can't have a certificate, so it can't be reached by TLS");
            Error::with_source(ErrorKind::InvalidInput, text, error)
        })
    }

    /// Does a client's TLS handshake; without a configuration, the operating system's roots are trusted.
    pub(crate) async fn connect<S: Stream>(
        config: Option<Arc<ClientConfig>>,
        protocols: &[&[u8]],
        server: ServerName<'static>,
        stream: S,
    ) -> Result<TlsStream<S>, Error> {
        let config = config.map_or_else(default_config, Ok)?;
        let text = format!("the TLS handshake with {} failed", server.to_str());
        let connector = TlsConnector::from(config);
        // A configuration that offers others would have the server choose those.
        let protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let connecting = connector.with_alpn(protocols).connect(server, stream);
        connecting.await.map_err(|error| Error::with_source(ErrorKind::Io, text, error))
    }

    fn default_config() -> Result<Arc<ClientConfig>, Error> {
        static DEFAULT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        if let Some(config) = DEFAULT.get() {
            return Ok(Arc::clone(config));
        }
        // The provider is named, so that no default of the process is needed or conflicts.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(BuilderVerifierExt::with_platform_verifier)
            .map_err(|error| {
                let text = "the certificates that the operating system trusts can't be loaded: install them, or give \
                            others with Connector::tls";
                Error::with_source(ErrorKind::Io, text, error)
            })?
            .with_no_client_auth();
        Ok(Arc::clone(DEFAULT.get_or_init(|| Arc::new(config))))
    }
}

#[cfg(feature = "server")]
mod server {
    use rustls::ServerConfig;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::server::TlsStream;

    use super::{Arc, Error, ErrorKind, Stream, rustls};

    /// A configuration that lets clients choose one of `protocols`, and none that we do not speak.
    pub(crate) fn with_protocols(mut config: Arc<ServerConfig>, protocols: &[&[u8]]) -> Arc<ServerConfig> {
        if config.alpn_protocols != protocols {
            let protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::make_mut(&mut config).alpn_protocols = protocols;
        }
        config
    }

    /// Does a server's TLS handshake.
    pub(crate) async fn accept<S: Stream>(
        config: Arc<ServerConfig>,
        stream: S,
    ) -> Result<TlsStream<S>, Error> {
        TlsAcceptor::from(config)
            .accept(stream)
            .await
            .map_err(|error| Error::with_source(ErrorKind::Io, "a client's TLS handshake failed", error))
    }
}
