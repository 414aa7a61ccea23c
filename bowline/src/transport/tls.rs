//! TLS, by rustls.

use tokio_rustls::rustls::CommonState;

use crate::transport::alpn::Alpn;

#[cfg(feature = "client")]
pub(crate) use client::{ClientTls, IS_SUPPORTED, TlsStream as ClientTlsStream, connect, server_name};
#[cfg(feature = "server")]
pub(crate) use server::ServerTls;

impl Alpn {
    /// The name of the protocol, as the TLS handshake has it.
    fn name(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }

    /// What a TLS handshake has agreed on: HTTP/1.1, if on nothing.
    fn of(tls: &CommonState) -> Self {
        if tls.alpn_protocol() == Some(Self::Http2.name()) { Self::Http2 } else { Self::Http1 }
    }
}

/// The protocols as a configuration of rustls has them.
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

    /// Does a client's TLS handshake; without a configuration, the operating system's roots are trusted.
    pub(crate) async fn connect<S: IoStream>(
        config: Option<ClientTls>,
        protocols: &[Alpn],
        server: ServerName<'static>,
        stream: S,
    ) -> Result<(TlsStream<S>, Alpn), Error> {
        let config = config.map_or_else(default_config, |config| Ok(config.0))?;
        let text = format!("the TLS handshake with {} failed", server.to_str());
        let connector = TlsConnector::from(config);
        // A configuration that offers others would have the server choose those.
        let connecting = connector.with_alpn(names(protocols)).connect(server, stream);
        let stream = connecting.await.map_err(|error| Error::with_source(ErrorKind::Io, text, error))?;
        let chosen = Alpn::of(stream.get_ref().1);
        Ok((stream, chosen))
    }

    /// Who has to be at the other end: a name, or an address without brackets.
    pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
        ServerName::try_from(host.to_owned()).map_err(|error| {
            let text = format!("the host {host:?} can't have a certificate, so it can't be reached by TLS");
            Error::with_source(ErrorKind::InvalidInput, text, error)
        })
    }

    fn default_config() -> Result<Arc<ClientConfig>, Error> {
        static DEFAULT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        if let Some(config) = DEFAULT.get() {
            return Ok(Arc::clone(config));
        }
        // The provider is named, so that no default of the process is needed or conflicts.
        let provider = Arc::new(ring::default_provider());
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
        /// Lets clients choose one of `protocols`, and none that the server does not speak.
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
