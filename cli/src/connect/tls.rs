//! The options of TLS, with curl's names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bowline::crypto_provider;
use bowline::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use bowline::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use bowline::rustls::pki_types::pem::PemObject;
use bowline::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use bowline::rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use clap::Args;

use super::UsageError;

/// The options of TLS.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TlsArguments {
    /// Accept any certificate of the server
    #[arg(short = 'k', long, help_heading = "TLS")]
    insecure: bool,
    /// Trust the certificate authorities in this file (PEM), and no others
    #[arg(long, value_name = "FILE", conflicts_with = "insecure", help_heading = "TLS")]
    cacert: Option<PathBuf>,
    /// Client certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "key", help_heading = "TLS")]
    cert: Option<PathBuf>,
    /// Key of the client certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "TLS")]
    key: Option<PathBuf>,
}

impl TlsArguments {
    /// The configuration that the options ask for, or `None` for the library's default.
    pub(super) fn config(&self) -> Result<Option<Arc<ClientConfig>>, UsageError> {
        if !self.insecure && self.cacert.is_none() && self.cert.is_none() {
            return Ok(None);
        }
        self.build().map(Some)
    }

    /// The configuration that the options ask for. Without any, the roots of the system are trusted.
    pub(super) fn build(&self) -> Result<Arc<ClientConfig>, UsageError> {
        let provider = crypto_provider().map_err(|error| UsageError(error.to_string()))?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| UsageError(format!("TLS: {error}")))?;
        let builder = match (&self.cacert, self.insecure) {
            (_, true) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AcceptAll(Arc::clone(&provider)))),
            (Some(file), _) => builder.with_root_certificates(roots(file)?),
            (None, false) => {
                let verifier = rustls_platform_verifier::Verifier::new(provider)
                    .map_err(|error| UsageError(format!("the certificates of the system: {error}")))?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| UsageError(format!("--key {}: {error}", key.display())))?;
                builder
                    .with_client_auth_cert(certificates("--cert", cert)?, key)
                    .map_err(|error| UsageError(format!("--cert {}: {error}", cert.display())))?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }
}

fn roots(file: &Path) -> Result<RootCertStore, UsageError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("--cacert", file)? {
        roots
            .add(certificate)
            .map_err(|error| UsageError(format!("--cacert {}: {error}", file.display())))?;
    }
    Ok(roots)
}

/// Reads the certificates of a PEM file, of which there is at least one.
pub(crate) fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, UsageError> {
    let unusable = |why: String| UsageError(format!("{option} {}: {why}", file.display()));
    let found: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(error.to_string()))?;
    if found.is_empty() {
        return Err(unusable("the file contains no certificate in PEM".into()));
    }
    Ok(found)
}

/// A verifier that accepts every certificate, but checks that the server has its key.
#[derive(Debug)]
struct AcceptAll(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, bowline::rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, bowline::rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, bowline::rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
