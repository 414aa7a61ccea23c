//! Opening handshakes over wss://.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bowline::{
    Acceptor, CloseCode, Connector, ErrorKind, Limits, Listener, Proxy, Server, ServerError, TlsInfo,
    WebSocket,
};
use http::request::Parts;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ProtocolVersion, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::http::{echo, listen, soon, start};
use crate::support::tls::{configs, mutual_configs};

fn connector(config: Arc<ClientConfig>) -> Connector {
    Connector::new().tls(config).proxy(Proxy::none())
}

async fn assert_echo(socket: &mut WebSocket) {
    let large = "x".repeat(300_000);
    for text in ["hello", &large] {
        socket.send(text).await.unwrap();
        assert_eq!(soon(socket.recv()).await.unwrap(), Some(text.into()));
    }
}

#[tokio::test]
async fn a_server_speaks_tls() {
    let (server, client) = configs();
    let address = start(Server::new().tls(server), echo).await;
    // By name and by address.
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("wss://{host}:{}/", address.port());
        let (mut socket, _) = soon(connector(Arc::clone(&client)).connect(url)).await.unwrap();
        assert_echo(&mut socket).await;
        assert_eq!(socket.peer_addr().unwrap().port(), address.port());
        assert!(!socket.is_tcp_fast_path());
        let answer = soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
        assert_eq!(answer.code(), CloseCode::NORMAL);
    }
}

/// Returns whether a page of this origin may connect.
async fn is_allowed(connector: &Connector, url: &str, origin: &str) -> bool {
    match soon(connector.clone().origin(origin).connect(url)).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.response().map(|response| response.status().as_u16()), Some(403), "{error}");
            false
        }
    }
}

#[tokio::test]
async fn rfc6455_10_2_pages_without_tls_are_foreign_to_a_server_with_it() {
    let (config, client) = configs();
    let connector = connector(client);
    let carriers = [
        (Server::new(), connector.clone()),
        #[cfg(feature = "http2")]
        (Server::new().http2(), connector.clone().http_version(bowline::HttpVersion::Http2)),
    ];
    for (server, connector) in carriers {
        let acceptor = Acceptor::new().allow_origin("http://allowed.example");
        let address = start(server.tls(Arc::clone(&config)).acceptor(acceptor), echo).await;
        let host = format!("localhost:{}", address.port());
        let url = format!("wss://{host}/");
        for (origin, expected) in [
            (format!("https://{host}"), true),
            (format!("http://{host}"), false),
            (format!("ws://{host}"), false),
            (format!("wss://{host}"), false),
            (format!("ftp://{host}"), false),
            ("null".to_owned(), false),
            ("http://allowed.example".to_owned(), true),
        ] {
            assert_eq!(is_allowed(&connector, &url, &origin).await, expected, "{origin} with {connector:?}");
        }
    }

    // TLS may also be done before bowline.
    let (listener, address) = listen().await;
    tokio::spawn(Server::new().serve(OverTls(listener, config.into()), echo));
    let host = format!("localhost:{}", address.port());
    for (scheme, expected) in [("https", true), ("http", false)] {
        let (url, origin) = (format!("wss://{host}/"), format!("{scheme}://{host}"));
        assert_eq!(is_allowed(&connector, &url, &origin).await, expected, "{origin} with {connector:?}");
    }

    let address = start(Server::new(), echo).await;
    for scheme in ["http", "https"] {
        // A proxy may have ended TLS.
        let (url, origin) = (format!("ws://{address}/"), format!("{scheme}://{address}"));
        assert!(is_allowed(&Connector::new().proxy(Proxy::none()), &url, &origin).await, "{origin}");
    }
}

#[tokio::test]
async fn the_handler_knows_the_address_behind_tls() {
    let (server, client) = configs();
    let address = start(Server::new().tls(server), |socket: WebSocket| async move {
        let peer = socket.peer_addr().ok_or("no address")?;
        socket.send(peer.to_string()).await?;
        Ok(())
    })
    .await;
    let url = format!("wss://localhost:{}/", address.port());
    let (mut socket, _) = soon(connector(client).connect(url)).await.unwrap();
    let told = soon(socket.recv()).await.unwrap().unwrap();
    let told: SocketAddr = told.as_text().unwrap().parse().unwrap();
    assert_eq!(Some(told), socket.local_addr());
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

/// A listener that does TLS itself, with one client at a time.
struct OverTls(TcpListener, TlsAcceptor);

impl Listener for OverTls {
    type Stream = tokio_rustls::server::TlsStream<TcpStream>;

    async fn accept(&mut self) -> std::io::Result<(Self::Stream, Option<SocketAddr>)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((self.1.accept(stream).await?, Some(peer)))
    }
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

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_an_io_error() {
    let (server, _) = configs();
    let (_, other) = configs();
    let address = start(Server::new().tls(server), echo).await;
    let url = format!("wss://localhost:{}/", address.port());
    let error = soon(connector(other).connect(&url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("localhost"), "{error}");
    assert!(error.source().unwrap().to_string().contains("certificate"), "{:?}", error.source());

    // The roots of the operating system don't contain it either. If there are none, that is also an error.
    let error = soon(Connector::new().proxy(Proxy::none()).connect(&url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_an_io_error() {
    let (server, client) = configs();
    let (stream, other_end) = duplex(64 * 1024);
    let accepting = TlsAcceptor::from(server).accept(other_end);
    let connector = connector(client);
    let connecting = connector.connect_over("wss://example.com/", stream);
    let (result, _) = soon(async { tokio::join!(connecting, accepting) }).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Io);
}

#[tokio::test]
async fn rfc6455_4_1_a_client_says_which_server_it_wants() {
    let (server, client) = configs();
    let (stream, other_end) = duplex(64 * 1024);
    let connector = connector(client);
    let accepting = async {
        let stream = TlsAcceptor::from(server).accept(other_end).await.unwrap();
        stream.get_ref().1.server_name().map(str::to_owned)
    };
    let connecting = connector.connect_over("wss://localhost/", stream);
    let (_, name) = soon(async { tokio::join!(connecting, accepting) }).await;
    assert_eq!(name.as_deref(), Some("localhost"));
}

#[tokio::test]
async fn tls_over_a_stream_of_the_users_own() {
    let (server, client) = configs();
    let (stream, other_end) = duplex(64 * 1024);
    let serving = tokio::spawn(async move {
        let stream = TlsAcceptor::from(server).accept(other_end).await.unwrap();
        let (socket, _) = Acceptor::new().accept_stream(stream).await.unwrap();
        echo(socket).await
    });
    let (mut socket, _) = soon(connector(client).connect_over("wss://localhost/", stream)).await.unwrap();
    assert_echo(&mut socket).await;
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
    soon(serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn configurations_that_offer_http2_speak_http1() {
    let (mut server, mut client) = configs();
    let protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::make_mut(&mut server).alpn_protocols.clone_from(&protocols);
    Arc::make_mut(&mut client).alpn_protocols = protocols;
    let address = start(Server::new().tls(Arc::clone(&server)), echo).await;
    let url = format!("wss://localhost:{}/", address.port());
    let (mut socket, _) = soon(connector(Arc::clone(&client)).connect(url)).await.unwrap();
    assert_echo(&mut socket).await;

    // Of a client's offer, only HTTP/1.1 is accepted.
    let stream = TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = soon(TlsConnector::from(Arc::clone(&client)).connect(name, stream)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));

    // To a server that prefers HTTP/2, only HTTP/1.1 is offered.
    let (stream, other_end) = duplex(64 * 1024);
    let accepting = tokio::spawn(TlsAcceptor::from(server).accept(other_end));
    let connecting =
        tokio::spawn(async move { connector(client).connect_over("wss://localhost/", stream).await });
    let stream = soon(accepting).await.unwrap().unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    connecting.abort();
}

#[tokio::test]
async fn a_client_that_does_not_speak_tls_is_reported_and_times_out() {
    let (server, _) = configs();
    let (sender, mut errors) = mpsc::unbounded_channel();
    let limits = Limits::default().handshake_timeout(Duration::from_millis(200));
    let server = Server::new()
        .tls(server)
        .acceptor(Acceptor::new().limits(limits))
        .on_error(move |error| sender.send(error).unwrap());
    let address = start(server, echo).await;
    let mut kind = async || {
        let error: ServerError = soon(errors.recv()).await.unwrap();
        error.kind().unwrap()
    };

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(kind().await, ErrorKind::Handshake);

    let mut silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(soon(silent.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(kind().await, ErrorKind::Timeout);
}

#[tokio::test]
async fn a_server_that_never_does_tls_times_out() {
    let (_, client) = configs();
    let (listener, address) = listen().await;
    let limits = Limits::default().handshake_timeout(Duration::from_millis(200));
    let url = format!("wss://localhost:{}/", address.port());
    let error = soon(connector(client).limits(limits).connect(url)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("TLS"), "{error}");
    drop(listener);
}
