//! Code that the programs of this package share.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use bowline::rustls::pki_types::pem::PemObject;
use bowline::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use bowline::rustls::{ClientConfig, RootCertStore, ServerConfig};
use clap::ValueEnum;
use rcgen::PublicKeyData;

/// The choice of compression, and whether messages may refer to earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// Neither offers nor accepts compression.
    #[default]
    Off,
    /// Compresses each message by itself.
    NoTakeover,
    /// Lets messages refer to earlier ones.
    Takeover,
}

impl From<Compression> for bowline::CompressionOptions {
    fn from(compression: Compression) -> Self {
        let compression = match compression {
            Compression::Off => bowline::Compression::Off,
            Compression::NoTakeover => bowline::Compression::NoContextTakeover,
            Compression::Takeover => bowline::Compression::ContextTakeover,
        };
        // Compress short messages as well, since most checks send short ones.
        compression.options().threshold(0)
    }
}

/// Creates a TLS configuration with a new self-signed certificate for localhost and 127.0.0.1.
pub fn self_signed() -> Result<ServerConfig, Box<dyn Error + Send + Sync>> {
    self_signed_with_public_key().map(|(config, _)| config)
}

/// Does the same, and returns the public key, as the `SubjectPublicKeyInfo` of X.509.
pub fn self_signed_with_public_key() -> Result<(ServerConfig, Vec<u8>), Box<dyn Error + Send + Sync>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let config = ServerConfig::builder_with_provider(bowline::crypto_provider()?)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok((config, made.signing_key.subject_public_key_info()))
}

/// Creates a TLS configuration that trusts the certificate in a file (PEM).
pub fn trusting(file: &Path) -> Result<Arc<ClientConfig>, Box<dyn Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file)?)?;
    let config = ClientConfig::builder_with_provider(bowline::crypto_provider()?)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The examples of the pages, which need features and crates that a test of `bowline` alone doesn't have.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    mod readme {}

    #[doc = include_str!("../../bowline/guide/browser.md")]
    mod browser {}

    #[doc = include_str!("../../bowline/guide/deploying.md")]
    mod deploying {}

    #[doc = include_str!("../../bowline/guide/migrating-from-coder-websocket.md")]
    mod migrating_from_coder_websocket {}

    #[doc = include_str!("../../bowline/guide/migrating-from-tokio-tungstenite.md")]
    mod migrating_from_tokio_tungstenite {}

    #[doc = include_str!("../../bowline/guide/tls.md")]
    mod tls {}
}
