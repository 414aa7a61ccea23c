//! TLS, by rustls.

use tokio_rustls::rustls::CommonState;

use crate::transport::alpn::Alpn;

#[cfg(feature = "client")]
pub(crate) use client::{ClientTls, IS_SUPPORTED, TlsStream as ClientTlsStream, connect, server_name};
#[cfg(feature = "server")]
pub(crate) use server::ServerTls;

impl Alpn {
    /// Returns the name of the protocol in the TLS handshake.
    fn name(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    /// Returns the protocol on which a TLS handshake has agreed: HTTP/1.1 if it agreed on none.
    fn of(tls: &CommonState) -> Self {
        if tls.alpn_protocol() == Some(Self::Http2.name()) { Self::Http2 } else { Self::Http1 }
    }
}

/// Returns the names of `protocols`, as a configuration of rustls wants them.
fn names(protocols: &[Alpn]) -> Vec<Vec<u8>> {
    protocols.iter().map(|protocol| protocol.name().to_vec()).collect()
}

#[cfg(feature = "client")]
mod client {
    use std::sync::{Arc, OnceLock};

    use rustls_platform_verifier::BuilderVerifierExt;
    use tokio_rustls::TlsConnector;
    pub(crate) use tokio_rustls::client::TlsStream;
    use tokio_rustls::rustls::ClientConfig;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::ServerName;

    use super::names;
    use crate::error::{Error, ErrorKind};
    use crate::transport::IoStream;
    use crate::transport::alpn::Alpn;

    pub(crate) const IS_SUPPORTED: bool = true;

    /// A client's configuration of TLS.
    #[derive(Clone, Debug)]
    pub(crate) struct ClientTls(pub(crate) Arc<ClientConfig>);

    /// Does a client's TLS handshake. Without a configuration, the roots of the operating system are trusted.
    pub(crate) async fn connect<S: IoStream>(
        config: Option<ClientTls>,
        protocols: &[Alpn],
        server: ServerName<'static>,
        stream: S,
    ) -> Result<(TlsStream<S>, Alpn), Error> {
        let config = config.map_or_else(default_config, |config| Ok(config.0))?;
        let text = format!("the TLS handshake with {} failed", server.to_str());
        let connector = TlsConnector::from(config);
        // If the configuration offered other protocols, the server could choose one of them.
        let connecting = connector.with_alpn(names(protocols)).connect(server, stream);
        let stream = connecting.await.map_err(|error| Error::with_source(ErrorKind::Io, text, error))?;
        let chosen = Alpn::of(stream.get_ref().1);
        Ok((stream, chosen))
    }

    /// Parses the name that the server's certificate must have: a host name, or an address without brackets.
    pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
        ServerName::try_from(host.to_owned()).map_err(|error| {
            let text = format!(
                "the host {host:?} is neither a DNS name nor an IP address, so TLS can't verify its \
                 certificate"
            );
            Error::with_source(ErrorKind::InvalidInput, text, error)
        })
    }

    fn default_config() -> Result<Arc<ClientConfig>, Error> {
        static DEFAULT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        if let Some(config) = DEFAULT.get() {
            return Ok(Arc::clone(config));
        }
        // An explicit provider neither needs nor conflicts with a default of the process.
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(BuilderVerifierExt::with_platform_verifier)
            .map_err(|error| {
                let text = "loading the operating system's root certificates failed: install some, or set \
                            others with Connector::tls";
                Error::with_source(ErrorKind::Io, text, error)
            })?
            .with_no_client_auth();
        Ok(Arc::clone(DEFAULT.get_or_init(|| Arc::new(config))))
    }
}

#[cfg(feature = "server")]
mod server {
    use std::sync::Arc;

    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::server::TlsStream;

    use super::names;
    use crate::error::{Error, ErrorKind};
    use crate::transport::IoStream;
    use crate::transport::alpn::Alpn;

    /// A server's configuration of TLS.
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

        /// Does a server's TLS handshake.
        pub(crate) async fn accept<S: IoStream>(&self, stream: S) -> Result<(TlsStream<S>, Alpn), Error> {
            let stream = TlsAcceptor::from(Arc::clone(&self.0)).accept(stream).await.map_err(|error| {
                Error::with_source(ErrorKind::Io, "a client's TLS handshake failed", error)
            })?;
            let chosen = Alpn::of(stream.get_ref().1);
            Ok((stream, chosen))
        }
    }
}
