//! Certificates of both sides, and what a server knows about its clients.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bowline::{Acceptor, Connector, ErrorKind, Proxy, Server, TlsInfo, WebSocket};
use http::request::Parts;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ProtocolVersion, ServerConfig, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::support::http::{echo, listen, soon, start};
use crate::support::tls::{OverTls, configs, mutual_configs};

fn connector(config: Arc<ClientConfig>) -> Connector {
    Connector::new().tls(config).proxy(Proxy::none())
}

/// Returns a server whose `on_request` shows what the head says about the client.
fn telling(sender: mpsc::UnboundedSender<(Option<TlsInfo>, Option<SocketAddr>)>) -> Server {
    Server::new().on_request(move |head: Parts| {
        let sender = sender.clone();
        async move {
            sender.send((head.extensions.get().cloned(), head.extensions.get().copied())).unwrap();
            Ok(head)
        }
    })
}

/// Sends what the head says about the client to the client.
async fn tell(head: Parts, socket: WebSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    let tls: &TlsInfo = head.extensions.get().ok_or("not over TLS")?;
    socket.send(tls.server_name().unwrap_or("no name")).await?;
    for certificate in tls.peer_certificates() {
        socket.send(certificate.to_vec()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_server_knows_its_client_by_certificate_and_name() {
    let (config, client, certificate) = mutual_configs(["device-7"]);
    let (sender, mut told) = mpsc::unbounded_channel();
    let connector = connector(client);
    let carriers = [
        (telling(sender.clone()), connector.clone()),
        #[cfg(feature = "http2")]
        (telling(sender).http2(), connector.http_version(bowline::HttpVersion::Http2)),
    ];
    for (server, connector) in carriers {
        let address = start(server.tls(Arc::clone(&config)), tell).await;
        let url = format!("wss://LOCALHOST:{}/", address.port());
        let (mut socket, _) = soon(connector.connect(url)).await.unwrap();
        assert_eq!(soon(socket.recv()).await.unwrap(), Some("localhost".into()));
        assert_eq!(soon(socket.recv()).await.unwrap(), Some(certificate.to_vec().into()));
        assert_eq!(soon(socket.recv()).await.unwrap(), None);

        let (tls, peer) = soon(told.recv()).await.unwrap();
        assert_eq!(peer, socket.local_addr());
        let tls = tls.unwrap();
        assert_eq!(tls.protocol_version(), ProtocolVersion::TLSv1_3);
        let expected =
            r#"TlsInfo { server_name: Some("localhost"), peer_certificates: 1, protocol_version: TLSv1_3 }"#;
        assert_eq!(format!("{tls:?}"), expected);
    }
}

#[tokio::test]
async fn a_server_knows_that_its_client_has_no_certificate_and_asked_for_no_name() {
    let (config, client) = configs();
    let address = start(Server::new().tls(config), tell).await;
    let url = format!("wss://127.0.0.1:{}/", address.port());
    let (mut socket, _) = soon(connector(client).connect(url)).await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("no name".into()));
    assert_eq!(soon(socket.recv()).await.unwrap(), None);

    let (sender, mut told) = mpsc::unbounded_channel();
    let address = start(telling(sender), echo).await;
    let (_socket, _) = soon(Connector::new().connect(format!("ws://{address}/"))).await.unwrap();
    let (tls, _) = soon(told.recv()).await.unwrap();
    assert!(tls.is_none());
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_before_its_request() {
    let (config, with_certificate, _) = mutual_configs(["device-7"]);
    let (sender, mut told) = mpsc::unbounded_channel();
    let (errors, mut reported) = mpsc::unbounded_channel();
    let server = telling(sender).on_error(move |error| errors.send(error).unwrap()).tls(config);
    let address = start(server, tell).await;
    let url = format!("wss://localhost:{}/", address.port());
    let mut without = ClientConfig::clone(&with_certificate);
    without.client_auth_cert_resolver = Arc::new(NoCertificate);
    let error = soon(connector(Arc::new(without)).connect(&url)).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Io | ErrorKind::Disconnected), "{error:?}");
    let error = soon(reported.recv()).await.unwrap();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn a_server_knows_the_client_of_a_listener_that_does_tls() {
    let (config, client, certificate) = mutual_configs(["device-7"]);
    let (listener, address) = listen().await;
    tokio::spawn(Server::new().serve(OverTls(listener, config.into()), tell));
    let url = format!("wss://localhost:{}/", address.port());
    let (mut socket, _) = soon(connector(client).connect(url)).await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("localhost".into()));
    assert_eq!(soon(socket.recv()).await.unwrap(), Some(certificate.to_vec().into()));
}

/// Connects to an [`Acceptor`] over TLS, and returns the head of the request and the server's socket. `wrap`
/// is applied to the server's stream of TLS.
async fn accept_over_tls<S, W, T>(client_end: S, server_end: S, wrap: W) -> (Parts, WebSocket)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    W: FnOnce(tokio_rustls::server::TlsStream<S>) -> T,
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (server, client, _) = mutual_configs(["device-7"]);
    let connector = connector(client);
    let connecting = connector.connect_over("wss://localhost/", client_end);
    let accepting = async {
        let stream = TlsAcceptor::from(server).accept(server_end).await.unwrap();
        Acceptor::new().accept_stream(wrap(stream)).await.unwrap()
    };
    let (connected, (socket, head)) = soon(async { tokio::join!(connecting, accepting) }).await;
    connected.unwrap();
    (head, socket)
}

#[tokio::test]
async fn an_acceptor_knows_the_client_of_a_stream_of_tokio_rustls() {
    let assert_known = |head: &Parts| {
        let tls: &TlsInfo = head.extensions.get().unwrap();
        assert_eq!((tls.server_name(), tls.peer_certificates().len()), (Some("localhost"), 1));
    };
    for wrapped in [false, true] {
        let (listener, address) = listen().await;
        let client_end = TcpStream::connect(address).await.unwrap();
        let (server_end, peer) = listener.accept().await.unwrap();
        let (head, socket) = if wrapped {
            accept_over_tls(client_end, server_end, tokio_rustls::TlsStream::Server).await
        } else {
            accept_over_tls(client_end, server_end, |stream| stream).await
        };
        assert_known(&head);
        assert_eq!((head.extensions.get(), socket.peer_addr()), (Some(&peer), Some(peer)));
        assert_eq!(socket.local_addr(), Some(address));
    }

    #[cfg(unix)]
    {
        let (client_end, server_end) = tokio::net::UnixStream::pair().unwrap();
        let (head, _) = accept_over_tls(client_end, server_end, |stream| stream).await;
        assert_known(&head);
    }

    // Any other stream is served as well.
    let (client_end, server_end) = duplex(64 * 1024);
    let (head, _) = accept_over_tls(client_end, server_end, |stream| stream).await;
    assert!(head.extensions.get::<TlsInfo>().is_none());
}

/// The certificate of the newest configuration.
#[derive(Debug)]
struct Newest(Mutex<Arc<ServerConfig>>);

impl ResolvesServerCert for Newest {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let config = Arc::clone(&self.0.lock().unwrap());
        config.cert_resolver.resolve(hello)
    }
}

#[tokio::test]
async fn a_server_changes_its_certificate_without_a_restart() {
    let ((first, trusts_first), (second, trusts_second)) = (configs(), configs());
    let newest = Arc::new(Newest(Mutex::new(Arc::clone(&first))));
    let mut config = ServerConfig::clone(&first);
    config.cert_resolver = Arc::clone(&newest) as _;
    let address = start(Server::new().tls(Arc::new(config)), echo).await;
    let url = format!("wss://localhost:{}/", address.port());
    let (mut open, _) = soon(connector(Arc::clone(&trusts_first)).connect(&url)).await.unwrap();

    *newest.0.lock().unwrap() = second;
    let (_socket, _) = soon(connector(trusts_second).connect(&url)).await.unwrap();
    let mut forgetful = ClientConfig::clone(&trusts_first);
    forgetful.resumption = rustls::client::Resumption::disabled();
    let error = soon(connector(Arc::new(forgetful)).connect(&url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);

    // The connection that is open goes on.
    open.send("hello").await.unwrap();
    assert_eq!(soon(open.recv()).await.unwrap(), Some("hello".into()));
}
