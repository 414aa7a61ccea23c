//! Certificates for one test.

use std::net::SocketAddr;
use std::sync::Arc;

use bowline::Listener;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Creates a server's configuration with a new certificate for localhost and 127.0.0.1, and a client's that
/// trusts it.
pub fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let identity = Identity::new(["localhost", "127.0.0.1"]);
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate.clone()], identity.key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusting(&identity.certificate))
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

/// Creates configurations as [`configs`] does, in which the server asks for a certificate, and the client has
/// one for `names`. Also returns that certificate.
pub fn mutual_configs<S: Into<String>>(
    names: impl IntoIterator<Item = S>,
) -> (Arc<ServerConfig>, Arc<ClientConfig>, CertificateDer<'static>) {
    let (of_server, of_client) = (Identity::new(["localhost"]), Identity::new(names));
    let roots = Arc::new(trusting(&of_client.certificate));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build().unwrap();
    let server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![of_server.certificate.clone()], of_server.key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusting(&of_server.certificate))
        .with_client_auth_cert(vec![of_client.certificate.clone()], of_client.key)
        .unwrap();
    (Arc::new(server), Arc::new(client), of_client.certificate)
}

/// A new self-signed certificate with its key.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn new<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        Self { certificate: made.cert.der().clone(), key }
    }
}

fn trusting(certificate: &CertificateDer<'static>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    roots
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A listener that does TLS itself, with one client at a time.
pub struct OverTls(pub TcpListener, pub TlsAcceptor);

impl Listener for OverTls {
    type Stream = TlsStream<TcpStream>;

    async fn accept(&mut self) -> std::io::Result<(Self::Stream, Option<SocketAddr>)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((self.1.accept(stream).await?, Some(peer)))
    }
}
