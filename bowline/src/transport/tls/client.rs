//! TLS as a client.

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, Error as TlsError, InvalidMessage};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_rustls::TlsConnector;

use crate::error::{Error, ErrorKind, find_cause};
use crate::transport::alpn::Alpn;
use crate::transport::byte_stream::ByteStream;
use crate::transport::tls::alert::with_alert;
use crate::transport::tls::names;
use crate::transport::tls::provider::provider_of_features;

pub(crate) const IS_SUPPORTED: bool = true;

/// A client's configuration of TLS.
#[derive(Clone, Debug)]
pub(crate) struct ClientTls(pub(crate) Arc<ClientConfig>);

/// Does a client's TLS handshake. Without a configuration, the roots of the operating system are trusted.
pub(crate) async fn connect(
    config: Option<ClientTls>,
    protocols: &[Alpn],
    server: ServerName<'static>,
    stream: ByteStream,
) -> Result<(ByteStream, Alpn), Error> {
    let config = config_or_default(config)?;
    let text = format!("the TLS handshake with {} failed", server.to_str());
    let connector = TlsConnector::from(config);
    // If the configuration offered other protocols, the server could choose one of them.
    let connecting = connector.with_alpn(names(protocols)).connect(server, stream);
    let stream = connecting.await.map_err(|error| {
        let text = match find_cause(&error) {
            Some(TlsError::InvalidMessage(InvalidMessage::InvalidContentType)) => format!(
                "{text}: the server answers without TLS: use ws:// for such a server, and \
                 ConnectOver::already_tls for a stream that is TLS already"
            ),
            _ => with_alert(&text, &error),
        };
        Error::with_source(ErrorKind::Io, text, error)
    })?;
    let chosen = Alpn::of(stream.get_ref().1);
    Ok((ByteStream::Boxed(Box::new(stream)), chosen))
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

/// Returns an error if `config` is none, and there can't be a default.
pub(crate) fn check(config: Option<&ClientTls>) -> Result<(), Error> {
    config.map_or_else(|| default_config().map(drop), |_| Ok(()))
}

/// Returns `config`, or the configuration of connectors without one of their own.
pub(crate) fn config_or_default(config: Option<ClientTls>) -> Result<Arc<ClientConfig>, Error> {
    config.map_or_else(default_config, |config| Ok(config.0))
}

/// Returns the configuration of connectors without one of their own.
///
/// The process may install its default provider after the first connection, but only once. So there are at
/// most two configurations, each of which is made once.
fn default_config() -> Result<Arc<ClientConfig>, Error> {
    static OF_INSTALLED: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    static OF_FEATURES: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    match CryptoProvider::get_default() {
        Some(installed) => made_once(&OF_INSTALLED, || Ok(Arc::clone(installed))),
        None => made_once(&OF_FEATURES, provider_of_features),
    }
}

/// Returns the configuration in `place`, where the first call puts it.
fn made_once(
    place: &OnceLock<Arc<ClientConfig>>,
    provider: impl FnOnce() -> Result<Arc<CryptoProvider>, Error>,
) -> Result<Arc<ClientConfig>, Error> {
    if let Some(config) = place.get() {
        return Ok(Arc::clone(config));
    }
    let config = ClientConfig::builder_with_provider(provider()?)
        .with_safe_default_protocol_versions()
        .map_err(|error| {
            let text = "the installed provider of cryptography supports neither TLS 1.2 nor TLS 1.3: install \
                        another, or set a configuration with Connector::tls";
            Error::with_source(ErrorKind::InvalidInput, text, error)
        })?
        .with_platform_verifier()
        .map_err(|error| {
            let text = "loading the operating system's root certificates failed: install some, or set others \
                        with Connector::tls";
            Error::with_source(ErrorKind::Io, text, error)
        })?
        .with_no_client_auth();
    Ok(Arc::clone(place.get_or_init(|| Arc::new(config))))
}
