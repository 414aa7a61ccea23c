//! `--tls`: the certificate of the server.

use std::path::PathBuf;

use bowline::crypto_provider;
use bowline::rustls::ServerConfig;
use bowline::rustls::pki_types::pem::PemObject;
use bowline::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use clap::Args;

use super::log::Log;
use crate::connect::UsageError;
use crate::connect::tls::certificates;

/// The options of TLS.
#[derive(Args, Clone, Debug)]
pub(crate) struct CertificateArguments {
    /// Serve wss://. Without --cert, with a new certificate for localhost that no client trusts
    #[arg(long, help_heading = "Server")]
    tls: bool,
    /// Certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "key", help_heading = "Server")]
    cert: Option<PathBuf>,
    /// Key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Server")]
    key: Option<PathBuf>,
}

impl CertificateArguments {
    /// Uses TLS, whether or not an option asks for it.
    pub(crate) fn require(&mut self) {
        self.tls = true;
    }

    /// Returns `true` if the server uses TLS.
    pub(crate) fn is_used(&self) -> bool {
        self.tls || self.cert.is_some()
    }

    /// The configuration that the options ask for.
    pub(crate) fn config(&self, log: Log) -> Result<Option<ServerConfig>, UsageError> {
        if !self.is_used() {
            return Ok(None);
        }
        let (chain, key) = if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| UsageError(format!("--key {}: {error}", key.display())))?;
            (certificates("--cert", cert)?, key)
        } else {
            log.note("the certificate is new and self-signed; clients need -k");
            self_signed()?
        };
        let unusable = |error: bowline::rustls::Error| UsageError(format!("--cert: {error}"));
        let provider = crypto_provider().map_err(|error| UsageError(error.to_string()))?;
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map(Some)
            .map_err(unusable)
    }
}

fn self_signed() -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), UsageError> {
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| UsageError(format!("--tls: making a certificate failed: {error}")))?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
        .map_err(|error| UsageError(format!("--tls: {error}")))?;
    Ok((vec![made.cert.der().clone()], key))
}
