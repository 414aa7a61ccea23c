//! Opening handshakes over wss://.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bowline::{Acceptor, CloseCode, Connector, ErrorKind, Limits, Proxy, Server, ServerError, WebSocket};
use http::request::Parts;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::http::{echo, listen, soon, start};
use crate::support::tls::{OverTls, configs};

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

/// Does a TLS handshake. Returns the client's stream, and the head of the request to come.
async fn connect_tls() -> (TlsStream<DuplexStream>, JoinHandle<Parts>) {
    let (server, client) = configs();
    let (near, far) = duplex(64 * 1024);
    let serving = tokio::spawn(async move {
        let stream = TlsAcceptor::from(server).accept(far).await.unwrap();
        let (socket, head) = Acceptor::new().accept_stream(stream).await.unwrap();
        echo(socket).await.unwrap();
        head
    });
    let name = "localhost".try_into().unwrap();
    (soon(TlsConnector::from(client).connect(name, near)).await.unwrap(), serving)
}

#[tokio::test]
async fn a_stream_that_is_tls_already() {
    let (stream, serving) = connect_tls().await;
    let connecting = Connector::new().connect_over("wss://localhost:443/feed", stream).already_tls();
    let (mut socket, _) = soon(connecting).await.unwrap();
    assert_echo(&mut socket).await;
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
    let head = soon(serving).await.unwrap();
    // The default port is that of wss.
    assert_eq!(head.headers["host"], "localhost");
    assert_eq!(head.uri, "/feed");
}

#[tokio::test]
async fn a_client_that_reconnects_may_leave_tls_to_its_streams() {
    let (stream, serving) = connect_tls().await;
    let mut stream = Some(stream);
    let mut client =
        Connector::new().reconnecting("wss://localhost:443/feed").already_tls().attempts(1).dial(move || {
            std::future::ready(stream.take().ok_or_else(|| std::io::Error::other("dialled twice")))
        });
    let (mut socket, _) = soon(client.connect()).await.unwrap();
    assert_echo(&mut socket).await;
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
    assert_eq!(soon(serving).await.unwrap().headers["host"], "localhost");
}

#[tokio::test]
async fn tls_in_tls_is_an_error_that_says_how_to_avoid_it() {
    let (stream, serving) = connect_tls().await;
    let (_, config) = configs();
    let error = soon(connector(config).connect_over("wss://localhost/", stream)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("ConnectOver::already_tls"), "{error}");
    assert!(soon(serving).await.is_err(), "the server has taken a ClientHello for a request");
}

#[tokio::test]
async fn a_server_without_tls_is_an_error_that_names_the_scheme() {
    let address = start(Server::new(), echo).await;
    let (_, config) = configs();
    let connector = connector(config);
    let error = soon(connector.connect(format!("wss://localhost:{}/", address.port()))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("the server answers without TLS: use ws://"), "{error}");
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
