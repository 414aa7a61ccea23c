//! The other side of each program: a client, a server, certificates.

use std::error::Error;
use std::future::{Future, IntoFuture};
use std::sync::Arc;
use std::time::Duration;

use bowline::{CloseCode, Connector, Proxy, Server, WebSocket};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::time::timeout;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Waits for `future`, and panics if that takes longer than any of these programs should.
pub(crate) async fn soon<F: IntoFuture>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future).await.expect("this takes too long")
}

/// Starts a server of the page, which never returns. Returns the authority of its URL.
pub(crate) async fn start<F>(serve: impl FnOnce(TcpListener) -> F) -> String
where
    F: Future<Output: Send> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    tokio::spawn(serve(listener));
    authority
}

/// Starts a server of bowline. Returns the authority of its URL.
pub(crate) async fn start_bowline(server: Server) -> String {
    start(|listener| server.serve(listener, echo)).await
}

pub(crate) async fn echo(mut socket: WebSocket) -> Result<(), Failure> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

pub(crate) fn connector() -> Connector {
    Connector::new().proxy(Proxy::none())
}

/// Connects to a server of the page that returns each message, and closes the connection.
pub(crate) async fn expect_echo(url: &str) {
    let (socket, _) = soon(connector().connect(url)).await.unwrap();
    expect_echo_on(socket).await;
}

/// Checks that messages of all sizes return, and that the close code of the server is normal.
pub(crate) async fn expect_echo_on(mut socket: WebSocket) {
    let large = "ä".repeat(200_000);
    for text in ["hello", "", &large] {
        soon(socket.send(text)).await.unwrap();
        assert_eq!(soon(socket.recv()).await.unwrap(), Some(text.into()));
    }
    let frame = soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
    assert_eq!(frame.code(), CloseCode::NORMAL);
}

/// Checks that the server greets, and closes the connection as its handler says.
pub(crate) async fn expect_greeting(mut socket: WebSocket) {
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
    assert_eq!(soon(socket.recv()).await.unwrap(), None);
    assert_eq!(socket.close_frame().unwrap().code(), CloseCode::NORMAL);
}

/// Returns the status with which a server answers a handshake from a page of another origin.
pub(crate) async fn status_of_foreign_origin(url: &str) -> u16 {
    let error = soon(connector().origin("https://evil.example").connect(url)).await.unwrap_err();
    error.response().expect("the server answers").status().as_u16()
}

/// The configurations of a server and of its clients.
pub(crate) struct Certificates {
    pub(crate) server: ServerConfig,
    pub(crate) client: Arc<ClientConfig>,
    /// The certificate, in PEM.
    pub(crate) pem: String,
}

/// Creates a certificate of localhost.
pub(crate) fn certificates() -> Certificates {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = bowline::crypto_provider().unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Certificates { server, client: Arc::new(client), pem: made.cert.pem() }
}
