//! Connected streams: in memory, TCP, TLS over TCP.

use std::sync::Arc;

use bowline::{Adoption, Connector, Role, WebSocket};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::options::Options;

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// The transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Memory,
    Tcp,
    Tls,
    /// A stream of HTTP/2; the client's from the library, the server's from hyper.
    #[cfg(feature = "http2")]
    Http2,
}

impl Carrier {
    /// Returns `true` if the drop of a `WebSocket` ends its connection. Under a server, the handler's result
    /// does.
    #[expect(clippy::unused_self, reason = "another crate's carrier has another answer")]
    pub fn ends_on_drop(self, _: Role) -> bool {
        true
    }
}

pub const CARRIERS: &[Carrier] = &[
    Carrier::Memory,
    Carrier::Tcp,
    Carrier::Tls,
    #[cfg(feature = "http2")]
    Carrier::Http2,
];

/// The transports in which only the test's own tasks take time.
pub const CARRIERS_IN_MEMORY: &[Carrier] = &[
    Carrier::Memory,
    #[cfg(feature = "http2")]
    Carrier::Http2,
];

/// Creates a connection of the library as `role`, and the other end by hand.
pub async fn with_raw_peer(
    role: Role,
    carrier: Carrier,
    options: impl Into<Options>,
) -> (WebSocket, Box<dyn Stream>) {
    let options = options.into();
    #[cfg(feature = "http2")]
    if let Carrier::Http2 = carrier {
        let (socket, peer) = match role {
            Role::Client => super::http2::client(&options).await,
            Role::Server => super::http2::server(&options).await,
        };
        return (socket, Box::new(peer));
    }
    let (client, server) = connected(carrier).await;
    match role {
        Role::Client => (adopt(role, client, &options), server),
        Role::Server => (adopt(role, server, &options), client),
    }
}

/// Creates two connections of the library, the client's and the server's.
pub async fn both(carrier: Carrier) -> (WebSocket, WebSocket) {
    let (client, server) = match carrier {
        #[cfg(feature = "http2")]
        Carrier::Http2 => {
            let (socket, peer) = super::http2::client(&Options::default()).await;
            return (socket, adopt(Role::Server, Box::new(peer), &Options::default()));
        }
        _ => connected(carrier).await,
    };
    let adopt = |role, stream| adopt(role, stream, &Options::default());
    (adopt(Role::Client, client), adopt(Role::Server, server))
}

fn adopt(role: Role, stream: Box<dyn Stream>, options: &Options) -> WebSocket {
    match role {
        Role::Client => options.connector(Connector::new()).adopt(stream, Adoption::new()).unwrap(),
        Role::Server => options.acceptor().adopt(stream, Adoption::new()).unwrap(),
    }
}

/// Returns the client's end and the server's.
async fn connected(carrier: Carrier) -> (Box<dyn Stream>, Box<dyn Stream>) {
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
        #[cfg(feature = "http2")]
        Carrier::Http2 => unreachable!("its handshake makes a WebSocket of it at once"),
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
