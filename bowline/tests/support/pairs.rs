//! Connected streams: in memory, TCP, TLS over TCP.

use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// What carries the bytes.
#[derive(Clone, Copy, Debug)]
pub enum Carrier {
    Memory,
    Tcp,
    Tls,
}

pub const CARRIERS: [Carrier; 3] = [Carrier::Memory, Carrier::Tcp, Carrier::Tls];

/// The client's end and the server's.
pub async fn connected(carrier: Carrier) -> (Box<dyn Stream>, Box<dyn Stream>) {
    match carrier {
        Carrier::Memory => {
            let (client, server) = tokio::io::duplex(64 * 1024);
            (Box::new(client), Box::new(server))
        }
        Carrier::Tcp => {
            let (client, server) = tcp().await;
            (Box::new(client), Box::new(server))
        }
        Carrier::Tls => {
            let (client, server) = tcp().await;
            let (connector, acceptor) = tls();
            let name = ServerName::try_from("localhost").unwrap();
            let (client, server) = tokio::join!(connector.connect(name, client), acceptor.accept(server));
            (Box::new(client.unwrap()), Box::new(server.unwrap()))
        }
    }
}

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

fn tls() -> (TlsConnector, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (TlsConnector::from(Arc::new(client)), TlsAcceptor::from(Arc::new(server)))
}
