//! TLS, by rustls.

use std::sync::Arc;

use bowline_hub::EngineError;
use rustls_native_certs::load_native_certs;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::transport::Transport;

/// Secures a stream to the server with a name.
///
/// # Errors
///
/// Returns an error if the process has no provider of cryptography, or if the server can't prove its name to
/// the roots of the operating system.
pub(crate) async fn secure(stream: TcpStream, name: &str) -> Result<Transport, EngineError> {
    // Without this look, rustls panics.
    let Some(provider) = CryptoProvider::get_default() else {
        return Err(EngineError::new(
            "the process has no provider of cryptography: call \
             rustls::crypto::ring::default_provider().install_default()",
        ));
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::clone(provider));
    let config = config.with_safe_default_protocol_versions().map_err(EngineError::new)?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).map_err(EngineError::new)?;
    let secured = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    Ok(Box::new(secured.map_err(EngineError::new)?))
}
