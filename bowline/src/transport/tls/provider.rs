//! The choice of the provider of cryptography, which rustls itself does not have.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use crate::error::{Error, ErrorKind};

/// Returns the provider of cryptography for rustls that this crate uses, for configurations of one's own.
///
/// The provider is the first of these that there is:
///
/// 1. the default of the process, if the application has
///    [installed](rustls::crypto::CryptoProvider::install_default) one;
/// 2. `ring`, if the feature `ring` of this crate is enabled;
/// 3. `aws-lc-rs`, if the feature `aws-lc-rs` of this crate is enabled.
///
/// The function never installs a default, and never panics.
/// [`ClientConfig::builder`](rustls::ClientConfig::builder) panics if no default is installed and the program
/// contains several providers, or none. Available with the feature `tls`.
///
/// ```
/// use bowline::rustls::ClientConfig;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = ClientConfig::builder_with_provider(bowline::crypto_provider()?)
///     .with_safe_default_protocol_versions()?;
/// # drop(builder);
/// # Ok(())
/// # }
/// ```
///
/// [`Connector::tls`](crate::Connector::tls) and [`Server::tls`](crate::Server::tls) have complete examples.
///
/// # Errors
///
/// Returns [`ErrorKind::InvalidInput`] if there is no provider. The text says how to choose one.
pub fn crypto_provider() -> Result<Arc<CryptoProvider>, Error> {
    CryptoProvider::get_default().map_or_else(provider_of_features, |installed| Ok(Arc::clone(installed)))
}

/// The constructor of the provider that this crate's features enable.
#[cfg(feature = "ring")]
const ENABLED: Option<fn() -> CryptoProvider> = Some(rustls::crypto::ring::default_provider);
#[cfg(all(feature = "aws-lc-rs", not(feature = "ring")))]
const ENABLED: Option<fn() -> CryptoProvider> = Some(rustls::crypto::aws_lc_rs::default_provider);
#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
const ENABLED: Option<fn() -> CryptoProvider> = None;

/// Returns the provider that this crate's features enable, whatever is installed.
pub(crate) fn provider_of_features() -> Result<Arc<CryptoProvider>, Error> {
    ENABLED.map(|create| Arc::new(create())).ok_or_else(|| {
        let text = "TLS has no provider of cryptography: enable the feature `ring` or `aws-lc-rs` of the \
                    crate bowline, or install a default with rustls::crypto::CryptoProvider::install_default";
        Error::new(ErrorKind::InvalidInput, text)
    })
}
