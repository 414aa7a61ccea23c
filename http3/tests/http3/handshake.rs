//! Opening handshakes, and the options of server and client that decide on them.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::rustls::version::TLS12;
use bowline::rustls::{ClientConfig, RootCertStore, ServerConfig};
use bowline::{
    Acceptance, Acceptor, Connector, ErrorKind, HandshakeTimes, Limits, Proxy, Rejection, RejectionReason,
    Server, TlsInfo, WebSocket,
};
use bowline_http3::{Http3Connection, Http3Server};
use http::request::Parts;
use http::{Response, StatusCode, Version};
use tokio::net::{TcpListener, UdpSocket};

use crate::raw::{RawClient, request, soon};
use crate::support::{HandlerResult, Running, Tls, echo, serve, serve_echo};

async fn describe(head: Parts, socket: WebSocket) -> HandlerResult {
    let tls = head.extensions.get::<TlsInfo>().expect("HTTP/3 is always over TLS");
    assert_eq!(head.extensions.get(), socket.peer_addr().as_ref());
    let Parts { method, uri, version, .. } = &head;
    socket.send(format!("{method} {uri} {version:?} {:?}", tls.protocol_version())).await?;
    Ok(())
}

#[tokio::test]
async fn rfc_9220_3_the_request_is_an_extended_connect() {
    let running = serve(Server::new(), describe).await;
    let (mut socket, response) = running.connect().await.connect("/chat?room=1").await.unwrap();
    let expected = format!("CONNECT https://{}/chat?room=1 {:?} TLSv1_3", running.address, Version::HTTP_3);
    assert_eq!(socket.recv().await.unwrap().unwrap().into_text().unwrap(), expected);
    assert_eq!(response.version(), Version::HTTP_3);
    // RFC 8441 5: the headers of an upgrade are not there.
    assert!(response.headers().is_empty());
}

#[tokio::test]
async fn the_application_accepts_with_headers_and_rejects_with_a_response() {
    let server = Server::new().on_request(|head: Parts| async move {
        match head.headers.get("authorization") {
            Some(token) if token == "Bearer 1234" => {
                Ok(Acceptance::from(head).header("set-cookie", "session=1").subprotocol("v2"))
            }
            _ => Err(Rejection::from(unauthorized())),
        }
    });
    let running = serve_echo(server).await;
    let connector = running.tls.connector().subprotocols(["v1", "v2"]);
    let connection = Http3Connection::open(&connector, running.url()).await.unwrap();
    let error = connection.connect("/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake);
    let response = error.response().unwrap();
    assert_eq!((response.status(), &response.body()[..]), (StatusCode::UNAUTHORIZED, &b"who are you?"[..]));

    let connector = connector.header("authorization", "Bearer 1234");
    let connection = Http3Connection::open(&connector, running.url()).await.unwrap();
    let (socket, response) = connection.connect("/").await.unwrap();
    assert_eq!(socket.subprotocol(), Some("v2"));
    assert_eq!(response.headers()["set-cookie"], "session=1");
}

/// The server beside it over TCP tells of HTTP/3 when it rejects a request, if the application wants so.
#[tokio::test]
async fn a_rejection_over_tcp_tells_of_http3() {
    let server = Server::new().on_request(|_: Parts| async {
        let mut response = unauthorized();
        response.headers_mut().insert("alt-svc", "h3=\":443\"".parse().unwrap());
        Result::<Acceptance, _>::Err(Rejection::from(response))
    });
    let tls = Tls::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://{}/", listener.local_addr().unwrap());
    tokio::spawn(server.tls(tls.server.clone()).serve(listener, echo));
    let error = tls.connector().connect(url).await.unwrap_err();
    assert_eq!(error.response().unwrap().headers()["alt-svc"], "h3=\":443\"");
}

#[tokio::test]
async fn rejections_and_errors_are_counted_and_reported() {
    let (reports, server) = (Arc::new(Mutex::new(Vec::new())), Server::new());
    let reported = Arc::clone(&reports);
    let server = server.on_error(move |error| reported.lock().unwrap().push(error.to_string()));
    let stats = server.clone();
    let running = serve(server, |_: WebSocket| async { Err("out of paper".into()) }).await;
    let connector = running.tls.connector().origin("https://elsewhere.example");
    let foreign = Http3Connection::open(&connector, running.url()).await.unwrap();
    let error = foreign.connect("/").await.unwrap_err();
    assert_eq!(error.response().unwrap().status(), StatusCode::FORBIDDEN);

    let (mut socket, _) = running.connect().await.connect("/print").await.unwrap();
    let error = socket.recv().await.unwrap_err();
    assert_eq!(error.close_frame().unwrap().code(), bowline::CloseCode::INTERNAL_ERROR);
    let stats = stats.stats();
    assert_eq!((stats.accepted(), stats.handlers_failed()), (1, 1));
    assert!(stats.rejections().any(|(reason, count)| (reason, count) == (RejectionReason::Origin, 1)));
    let reports = reports.lock().unwrap();
    assert!(reports[0].contains("CONNECT /: ") && reports[0].contains("elsewhere.example"), "{reports:?}");
    assert!(reports[1].contains("CONNECT /print: out of paper"), "{reports:?}");
}

#[tokio::test]
async fn a_head_over_the_limits_is_answered_with_431() {
    let limits = Limits::default().head_size(8192).max_headers(10);
    let running = serve_echo(Server::new().acceptor(Acceptor::new().limits(limits))).await;
    let many = (0..20)
        .fold(running.tls.connector(), |connector, index| connector.header(format!("x-{index}"), "value"));
    let error = refusal(&running, many).await;
    assert_eq!(error.response().unwrap().status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    // Together over the limit, which counts 32 bytes for each header, though the encoded head is below.
    let wide = (0..8).fold(running.tls.connector(), |connector, index| {
        connector.header(format!("x-{index}"), "1".repeat(1000))
    });
    let error = refusal(&running, wide).await;
    assert_eq!(error.response().unwrap().status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    // The client knows the limit of the server, and does not send more.
    let error = refusal(&running, running.tls.connector().header("x", "y".repeat(10_000))).await;
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("SETTINGS_MAX_FIELD_SECTION_SIZE"), "{error}");
}

fn unauthorized() -> Response<String> {
    let mut response = Response::new("who are you?".to_owned());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}

async fn refusal(running: &Running, connector: Connector) -> bowline::Error {
    let connection = Http3Connection::open(&connector, running.url()).await.unwrap();
    connection.connect("/").await.unwrap_err()
}

#[tokio::test]
async fn a_response_over_the_limits_of_the_client_is_an_error() {
    let server = Server::new().on_request(|head: Parts| async move {
        let wide = head.uri.path() == "/wide";
        let headers = if wide { 0..8 } else { 0..20 };
        let value = if wide { "1".repeat(1000) } else { "value".to_owned() };
        Ok(headers.fold(Acceptance::from(head), |acceptance, index| {
            acceptance.header(format!("x-{index}"), value.clone())
        }))
    });
    let running = serve_echo(server).await;
    let connector = running.tls.connector().limits(Limits::default().head_size(8192).max_headers(10));
    let connection = Http3Connection::open(&connector, running.url()).await.unwrap();
    for (path, setting) in [("/many", "Limits::max_headers"), ("/wide", "Limits::head_size")] {
        let error = connection.connect(path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(error.to_string().contains(setting), "{error}");
    }
    // The connection goes on.
    assert!(!connection.is_closed());
}

#[tokio::test]
async fn a_handshake_has_a_time_limit() {
    let server = Server::new().on_request(|_: Parts| std::future::pending::<Result<Parts, Rejection>>());
    let running = serve_echo(server).await;
    let connector =
        running.tls.connector().limits(Limits::default().handshake_timeout(Duration::from_secs(2)));
    let connection = Http3Connection::open(&connector, running.url()).await.unwrap();
    let error = connection.connect("/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("Limits::handshake_timeout"), "{error}");
}

#[tokio::test]
async fn the_check_of_a_request_that_is_given_up_is_dropped() {
    struct OnDrop(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (begun, mut has_begun) = tokio::sync::mpsc::unbounded_channel();
    let (dropped, mut was_dropped) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::new().on_request(move |_: Parts| {
        let guard = OnDrop(dropped.clone());
        let _ = begun.send(());
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            Err::<Parts, _>(Rejection::from(StatusCode::NOT_FOUND))
        }
    });
    // The end of the time for a handshake would drop the check, too.
    let limits = Limits::default().handshake_timeout(Duration::from_secs(10_000));
    let running = serve_echo(server.acceptor(Acceptor::new().limits(limits))).await;
    let connection = running.connect().await;
    let attempt = tokio::spawn({
        let connection = connection.clone();
        async move { connection.connect("/").await.map(drop) }
    });
    has_begun.recv().await.unwrap();
    attempt.abort();
    was_dropped.recv().await.unwrap();
    assert!(!connection.is_closed());
    // A client that has sent its whole request has nothing to reset.
    let client = RawClient::connect(&running).await;
    let (mut send, mut receive) = client.request(&request()).await;
    send.finish().unwrap();
    has_begun.recv().await.unwrap();
    receive.stop(0x10c_u32.into()).unwrap();
    soon(was_dropped.recv()).await.unwrap();
    assert!(client.quic.close_reason().is_none());
}

#[tokio::test]
async fn urls_without_tls_paths_without_a_slash_and_proxies_are_invalid() {
    let running = serve_echo(Server::new()).await;
    let connector = running.tls.connector();
    let refused = |connector: Connector, url: String| async move {
        let error = Http3Connection::open(&connector, url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.to_string()
    };
    let text = refused(connector.clone(), format!("ws://{}/", running.address)).await;
    assert!(text.contains("always encrypted"), "{text}");
    let proxied = connector.clone().proxy(Proxy::new("http://user:secret@proxy.example.com:3128").unwrap());
    let text = refused(proxied, running.url()).await;
    assert!(text.contains("http://proxy.example.com:3128") && text.contains("Proxy::none()"), "{text}");
    assert!(!text.contains("secret"), "{text}");
    let connection = running.connect().await;
    for path in [".evil.example", "@evil.example/", ":1/"] {
        assert_eq!(connection.connect(path).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[tokio::test]
async fn tls_1_3_and_a_configuration_are_needed() {
    let tls = Tls::new();
    let provider = bowline::crypto_provider().unwrap();
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let connector = tls.connector().tls(Arc::new(client));
    let error = Http3Connection::open(&connector, "wss://127.0.0.1:9").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("TLS 1.3"), "{error}");

    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&tls.server.cert_resolver));
    for (server, text) in [(Server::new(), "Server::tls"), (Server::new().tls(Arc::new(server)), "TLS 1.3")] {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let error = Http3Server::new(server).serve(socket, echo).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_an_error_that_says_so() {
    let running = serve_echo(Server::new()).await;
    let other = Tls::new();
    let error = Http3Connection::open(&other.connector(), running.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn invalid_options_are_errors_at_once() {
    let tls = Tls::new();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let acceptor = Acceptor::new().limits(Limits::default().write_buffer(0));
    let server = Server::new().tls(Arc::clone(&tls.server)).acceptor(acceptor);
    let error = Http3Server::new(server).serve(socket, echo).await.unwrap_err();
    assert!(error.to_string().contains("Limits::write_buffer"), "{error}");
    let connector = tls.connector().header("bad name", "");
    let error = Http3Connection::open(&connector, "wss://127.0.0.1:9").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn given_addresses_replace_those_of_the_host() {
    let running = serve_echo(Server::new()).await;
    let (connector, port) = (running.tls.connector(), running.address.port());
    // The certificate is one for localhost, so this also proves that the host of the URL is verified.
    let url = format!("wss://localhost:{port}/");
    let closed = SocketAddr::from(([127, 0, 0, 1], 1));
    let connection = Http3Connection::open_at(&connector, &url, [closed, running.address]).await.unwrap();
    let (mut socket, _) = connection.connect("/").await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(socket.recv().await.unwrap().unwrap().into_text().unwrap(), "hello");
    assert_eq!(socket.peer_addr(), Some(running.address));
    let foreign = format!("wss://elsewhere.example:{port}/");
    let error = Http3Connection::open_at(&connector, foreign, [running.address]).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let error = Http3Connection::open_at(&connector, &url, []).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn the_steps_of_a_handshake_are_measured() {
    let running = serve_echo(Server::new()).await;
    let connection = running.connect().await;
    let opening = connection.times();
    assert_eq!(opening.resolved(), None, "the URL has an address");
    assert!(opening.connected().is_some() && opening.connected() == opening.secured());
    assert!(opening.connected().unwrap() <= opening.upgraded());
    let (_socket, response) = connection.connect("/").await.unwrap();
    let own: &HandshakeTimes = response.extensions().get().expect("each handshake has them");
    assert_eq!((own.resolved(), own.connected(), own.secured()), (None, None, None));
    let named = format!("wss://localhost:{}/", running.address.port());
    let connection = Http3Connection::open(&running.tls.connector(), named).await.unwrap();
    assert!(connection.times().resolved().unwrap() <= connection.times().connected().unwrap());
}

#[tokio::test]
async fn a_quic_server_without_http3_is_told_apart() {
    let tls = Tls::new();
    let mut config = ServerConfig::clone(&tls.server);
    config.alpn_protocols = vec![b"other".to_vec()];
    let config = quinn::crypto::rustls::QuicServerConfig::try_from(config).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(config));
    let server = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("wss://{}/", server.local_addr().unwrap());
    let serving = tokio::spawn(async move { server.accept().await.unwrap().await.is_err() });
    let error = Http3Connection::open(&tls.connector(), url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handshake);
    assert!(error.to_string().contains("does not offer HTTP/3 (ALPN h3)"), "{error}");
    assert!(serving.await.unwrap());
}
