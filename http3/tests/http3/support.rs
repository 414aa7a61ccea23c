//! Servers, certificates and clients for the tests.

#[path = "../../../bowline/tests/support/allocations.rs"]
#[allow(unreachable_pub, reason = "a file of another crate")]
pub(crate) mod allocations;

#[allow(dead_code, unreachable_pub, reason = "a file of another crate")]
#[path = "../../../bowline/tests/support/frames.rs"]
pub(crate) mod frames;

pub(crate) mod slow;

#[allow(unreachable_pub, reason = "a file of another crate")]
#[path = "../../../bowline/tests/support/options.rs"]
pub(crate) mod options;

#[allow(dead_code, unreachable_pub, reason = "a file of another crate")]
#[path = "../../../bowline/tests/support/polls.rs"]
mod polls;

#[allow(dead_code, unreachable_pub, reason = "a file of another crate")]
#[path = "../../../bowline/tests/support/wire.rs"]
pub(crate) mod wire;

pub(crate) use self::polls::poll_times;
pub(crate) use crate::pairs;

use std::net::SocketAddr;
use std::sync::Arc;

use bowline::rustls::pki_types::PrivateKeyDer;
use bowline::rustls::{ClientConfig, RootCertStore, ServerConfig};
use bowline::{Connector, Proxy, Server, WebSocket};
use bowline_http3::{Http3Connection, Http3Server};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

pub(crate) type HandlerResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A certificate for `localhost` and 127.0.0.1, and the configurations that use it.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

impl Tls {
    pub(crate) fn new() -> Self {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(bowline::crypto_provider().unwrap())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(bowline::crypto_provider().unwrap())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { server: Arc::new(server), client: Arc::new(client) }
    }

    pub(crate) fn connector(&self) -> Connector {
        Connector::new().tls(Arc::clone(&self.client)).proxy(Proxy::none())
    }
}

/// A server that is running.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Tls,
    pub(crate) task: JoinHandle<std::io::Result<bowline::ShutdownSummary>>,
}

impl Running {
    /// Returns a connection to the server.
    pub(crate) async fn connect(&self) -> Http3Connection {
        Http3Connection::open(&self.tls.connector(), self.url()).await.unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("wss://{}/", self.address)
    }
}

/// Runs `server` with this handler.
pub(crate) async fn serve<H: bowline::Handler<M>, M: 'static>(server: Server, handler: H) -> Running {
    let tls = Tls::new();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let server = Http3Server::new(server.tls(Arc::clone(&tls.server)));
    let task = tokio::spawn(server.serve(socket, handler));
    Running { address, tls, task }
}

/// Runs an echo with these options.
pub(crate) async fn serve_echo(server: Server) -> Running {
    serve(server, echo).await
}

pub(crate) async fn echo(mut socket: WebSocket) -> HandlerResult {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// Returns the role of the other side.
pub(crate) fn peer_of(role: bowline::Role) -> bowline::Role {
    match role {
        bowline::Role::Client => bowline::Role::Server,
        bowline::Role::Server => bowline::Role::Client,
    }
}
