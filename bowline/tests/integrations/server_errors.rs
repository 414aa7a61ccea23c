//! `Server::on_error`: what the application learns of an error, and which errors are noise.

use std::error::Error as StdError;
use std::fmt;
use std::future::pending;
use std::net::SocketAddr;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

use bowline::{
    Acceptor, CloseCode, Connector, Error, ErrorKind, Limits, Rejection, Server, ServerError, WebSocket,
};
use http::request::Parts;
use http::{Method, StatusCode};
#[cfg(feature = "tls")]
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::{Reports, clients, serves_both};
use crate::support::http::{HandlerResult, Head, echo, exchange, soon, start, upgrade};
#[cfg(feature = "tls")]
use crate::support::tls::configs;

/// Returns a client for each version of HTTP, with its method.
fn clients_and_methods() -> impl Iterator<Item = (Connector, Method)> {
    clients().into_iter().zip([Method::GET, Method::CONNECT])
}

async fn connect(client: &Connector, address: SocketAddr) -> Result<WebSocket, Error> {
    let connecting = client.connect(format!("ws://{address}/chat?token=secret"));
    soon(connecting).await.map(|(socket, _)| socket)
}

/// Returns the line that an error of this client begins with.
fn subject(report: &ServerError, method: &Method) -> String {
    let peer = report.peer_addr().expect("a client has an address");
    assert!(peer.ip().is_loopback(), "{peer}");
    format!("{peer} {method} /chat: ")
}

#[tokio::test]
async fn a_rejection_names_the_client_the_path_and_the_cause_and_has_the_head() {
    let server = Server::new()
        .on_request(|_| async { Err::<http::request::Parts, _>(StatusCode::UNAUTHORIZED.into()) });
    let (server, mut reports) = Reports::of(serves_both(server));
    let address = start(server, echo).await;
    for (client, method) in clients_and_methods() {
        connect(&client.header("x-request-id", "12"), address).await.unwrap_err();
        let report = reports.next().await;
        let expected = "the client's request was rejected: 401 Unauthorized";
        assert_eq!(report.to_string(), subject(&report, &method) + expected);
        assert!(!format!("{report:?}").contains("secret"), "{report:?}");
        assert_eq!(report.kind(), Some(ErrorKind::Handshake));
        assert_eq!(report.status(), Some(StatusCode::UNAUTHORIZED));
        assert_eq!(report.method(), Some(&method));
        assert_eq!(report.uri().and_then(http::Uri::query), Some("token=secret"));
        assert_eq!(report.head().expect("the request's head").headers["x-request-id"], "12");
        assert!(report.source().and_then(StdError::source).is_some_and(<dyn StdError>::is::<Rejection>));
        assert!(!report.is_noise());
    }
}

/// An error of a handler, which has a cause.
#[derive(Debug)]
struct Told(fmt::Error);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("line 1\nline 2")
    }
}

impl StdError for Told {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test]
async fn an_error_and_a_panic_of_a_handler_name_the_client_and_the_path() {
    let (server, mut reports) = Reports::of(serves_both(Server::new()));
    let address = start(server, |head: Parts, _: WebSocket| async move {
        assert!(!head.headers.contains_key("x-panic"), "no luck");
        Err(Told(fmt::Error).into())
    })
    .await;
    for (client, method) in clients_and_methods() {
        drop(connect(&client, address).await.unwrap());
        let report = reports.next().await;
        let cause = fmt::Error.to_string();
        assert_eq!(report.to_string(), format!("{}line 1\\nline 2: {cause}", subject(&report, &method)));
        assert_eq!((report.kind(), report.status()), (None, None));
        assert_eq!(report.method(), Some(&method));
        assert_eq!(report.uri().and_then(http::Uri::query), Some("token=secret"));
        assert!(report.head().is_none());
        assert!(report.error().is::<Told>() && report.into_error().is::<Told>());

        drop(connect(&client.header("x-panic", "yes"), address).await.unwrap());
        let report = reports.next().await;
        assert_eq!(report.to_string(), subject(&report, &method) + "the handler panicked: no luck");
        assert!(!report.is_noise());
    }
}

/// Also an error that is wrapped in others.
#[tokio::test]
async fn the_kind_of_an_error_is_found_among_the_causes() {
    let (server, mut reports) = Reports::of(Server::new());
    let address = start(server, |mut socket: WebSocket| async move {
        let error = socket.recv().await.expect_err("the client is rude");
        Err(std::io::Error::other(std::io::Error::from(error)).into())
    })
    .await;
    let socket = connect(&Connector::new(), address).await.unwrap();
    soon(socket.close(CloseCode(4000), "")).await.unwrap();
    let report = reports.next().await;
    assert_eq!(report.kind(), Some(ErrorKind::Closed));
    assert!(!report.is_noise(), "an application chose that code");
}

#[tokio::test]
async fn an_error_before_a_request_names_the_client() {
    let (server, mut reports) = Reports::of(serves_both(Server::new()));
    let address = start(server, echo).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let peer = stream.local_addr().unwrap();
    drop(stream);
    let report = reports.next().await;
    assert_eq!(report.to_string(), format!("{peer}: the client closed the connection without a request"));
    assert!(report.method().is_none() && report.uri().is_none() && report.head().is_none());
}

#[tokio::test]
async fn text_of_a_client_is_escaped() {
    let (server, mut reports) = Reports::of(Server::new());
    let address = start(server, |mut socket: WebSocket| async move {
        let text = socket.recv().await?.ok_or("no message")?;
        HandlerResult::Err(format!("no such room: {}", text.as_text().unwrap_or_default()).into())
    })
    .await;
    let socket = connect(&Connector::new(), address).await.unwrap();
    socket.send("\u{1b}[31mred\r\n\u{202e}").await.unwrap();
    let line = reports.next().await.to_string();
    assert!(line.ends_with("no such room: \\u{1b}[31mred\\r\\n\\u{202e}"), "{line}");

    // A path with a character that a terminal might act on.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = Head::request().first_line("GET /a\u{9b}31m HTTP/1.1").without("upgrade");
    exchange(&mut stream, &head).await;
    drop(stream);
    let line = reports.next().await.to_string();
    assert!(line.contains(" GET /a\\u{9b}31m: the client's request was rejected: 426 "), "{line}");
}

#[tokio::test]
async fn the_cause_of_a_rejection_is_for_the_server_only() {
    let server = Server::new().on_request(|_| async {
        let rejection = Rejection::from(StatusCode::UNAUTHORIZED).with_source(Told(fmt::Error));
        Err::<Parts, _>(rejection)
    });
    let (server, mut reports) = Reports::of(serves_both(server));
    let address = start(server, echo).await;
    for (client, _) in clients_and_methods() {
        let error = connect(&client, address).await.unwrap_err();
        assert_eq!(error.response().unwrap().body(), "Unauthorized\n");
        let report = reports.next().await;
        let cause = fmt::Error.to_string();
        let expected = format!(" was rejected: 401 Unauthorized: line 1\\nline 2: {cause}");
        assert!(report.to_string().ends_with(&expected), "{report}");
        let rejection = report.error().source().expect("the rejection");
        assert!(rejection.source().is_some_and(<dyn StdError>::is::<Told>));
    }
}

/// Returns the part of the report about this origin that only the server receives.
async fn why_foreign(client: Connector, url: &str, reports: &mut Reports) -> String {
    let error = soon(client.connect(url)).await.unwrap_err();
    let told = error.response().expect("an answer").body();
    assert_eq!(told, "pages of this origin may not connect here\n");
    let report = reports.next().await;
    assert_eq!(report.status(), Some(StatusCode::FORBIDDEN));
    let line = report.to_string();
    let (_, why) = line.split_once("403 Forbidden: pages of this origin may not connect here: ").unwrap();
    why.to_owned()
}

#[tokio::test]
async fn rfc6455_10_2_a_foreign_origin_is_reported_with_the_host_and_the_setting() {
    let (server, mut reports) = Reports::of(serves_both(Server::new()));
    let address = start(server, echo).await;
    let url = format!("ws://{address}/");
    for (client, _) in clients_and_methods() {
        for (origin, expected) in [
            (
                "https://evil.example",
                format!(
                    "the origin \"https://evil.example\" does not fit the host of the request, \
                     \"{address}\": Acceptor::allow_origin(\"https://evil.example\") allows it"
                ),
            ),
            (
                "null",
                "the page has no origin of its own (Origin: null), and Acceptor::allow_origin(\"null\") \
                 allows such pages"
                    .to_owned(),
            ),
            (
                "evil.example",
                "the Origin \"evil.example\" is no origin, and Acceptor::check_origin may allow it"
                    .to_owned(),
            ),
        ] {
            let why = why_foreign(client.clone().origin(origin), &url, &mut reports).await;
            assert_eq!(why, expected);
        }
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn rfc6454_5_a_foreign_scheme_is_reported_as_such() {
    let (config, client) = configs();
    let (server, mut reports) = Reports::of(Server::new().tls(config));
    let address = start(server, echo).await;
    let client = Connector::new().tls(client).proxy(bowline::Proxy::none());
    let host = format!("localhost:{}", address.port());
    let (url, origin) = (format!("wss://{host}/"), format!("http://{host}"));
    let why = why_foreign(client.origin(&*origin), &url, &mut reports).await;
    let expected = format!(
        "the origin \"{origin}\" has the host of the request, \"{host}\", but not its scheme, https: \
         Acceptor::allow_origin(\"{origin}\") allows it"
    );
    assert_eq!(why, expected);
}

// ---- noise

const SHORT: Duration = Duration::from_millis(100);

/// A server whose handshakes have little time.
fn hasty() -> Server {
    serves_both(Server::new().acceptor(Acceptor::new().limits(Limits::default().handshake_timeout(SHORT))))
}

/// Opens a TCP connection, writes `bytes`, and returns the stream.
async fn write_first(address: SocketAddr, bytes: impl AsRef<[u8]>) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_ref()).await.unwrap();
    stream
}

/// Ends a connection with a TCP reset.
fn reset(stream: &TcpStream) {
    #[expect(deprecated, reason = "the linger time is zero, so the close does not block")]
    stream.set_linger(Some(Duration::ZERO)).unwrap();
}

fn half_a_request() -> String {
    let request = Head::request().text();
    request[..request.len() / 2].to_owned()
}

async fn assert_noise(reports: &mut Reports, kind: ErrorKind) {
    let report = reports.next().await;
    assert!(report.is_noise(), "{report:?}");
    assert_eq!(report.kind(), Some(kind), "{report}");
}

async fn assert_no_noise(reports: &mut Reports, kind: Option<ErrorKind>) {
    let report = reports.next().await;
    assert!(!report.is_noise(), "{report:?}");
    assert_eq!(report.kind(), kind, "{report}");
}

/// Health checks and port scanners.
#[tokio::test]
async fn a_client_that_is_gone_before_its_request_is_noise() {
    let (server, mut reports) = Reports::of(serves_both(Server::new()));
    let address = start(server, echo).await;
    for bytes in ["", "P", "GET", &half_a_request(), "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        drop(write_first(address, bytes).await);
        assert_noise(&mut reports, ErrorKind::Disconnected).await;
        let stream = write_first(address, bytes).await;
        reset(&stream);
        drop(stream);
        assert_noise(&mut reports, ErrorKind::Disconnected).await;
    }
}

#[tokio::test]
async fn a_client_that_sends_too_little_in_time_is_noise() {
    let (server, mut reports) = Reports::of(hasty());
    let address = start(server, echo).await;
    for bytes in ["", "P", &half_a_request(), "PRI * HTTP/2.0\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let _stream = write_first(address, bytes).await;
        assert_noise(&mut reports, ErrorKind::Timeout).await;
    }
}

#[tokio::test]
async fn bytes_that_are_not_http_are_noise() {
    let (server, mut reports) = Reports::of(hasty());
    let address = start(server, echo).await;
    // The start of a ClientHello, of SSH, of a remote desktop; and garbage after the preface of HTTP/2.
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"SSH-2.0-Go\r\n", b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0"]
    {
        let _stream = write_first(address, [bytes, b"\r\n\r\n"].concat()).await;
        assert_noise(&mut reports, ErrorKind::Handshake).await;
    }
    let garbage = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &b"garbage!"[..], &[b'x'; 100]].concat();
    let _stream = write_first(address, garbage).await;
    assert_noise(&mut reports, ErrorKind::Handshake).await;
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn garbage_is_noise_to_a_server_with_tls_but_a_refused_certificate_is_not() {
    let (config, client) = configs();
    let (server, mut reports) = Reports::of(serves_both(Server::new().tls(config)));
    let address = start(server, echo).await;
    for bytes in
        [b"GET / HTTP/1.1\r\n\r\n", &b"\x16\x03\x01\x00\x05hello"[..], b"\x80\x2e\x01\x03\x01\x00\x15"]
    {
        let _stream = write_first(address, bytes).await;
        let report = reports.next().await;
        assert!(report.is_noise(), "{report}");
        assert!(report.to_string().contains(": a client does not speak TLS: "), "{report}");
    }
    drop(write_first(address, b"\x16\x03\x01\x02\x00\x01\x00").await);
    assert_noise(&mut reports, ErrorKind::Disconnected).await;

    let trusts_nobody = ClientConfig::builder_with_provider(Arc::clone(client.crypto_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let connector = Connector::new().tls(Arc::new(trusts_nobody)).proxy(bowline::Proxy::none());
    soon(connector.connect(format!("wss://localhost:{}/", address.port()))).await.unwrap_err();
    let report = reports.next().await;
    assert!(!report.is_noise(), "{report}");
    assert_eq!(report.kind(), Some(ErrorKind::Io));
    let expected = "a client's TLS handshake failed: the peer does not trust the authority that issued our \
                    certificate: received fatal alert: UnknownCA";
    assert!(report.to_string().ends_with(expected), "{report}");
}

/// A page that is reloaded while its user is looked up.
#[tokio::test]
async fn a_client_that_is_gone_before_the_answer_is_noise() {
    let server = serves_both(Server::new()).on_request(|_| pending::<Result<Parts, Rejection>>());
    let (server, mut reports) = Reports::of(server);
    let address = start(server, echo).await;
    drop(write_first(address, Head::request().text()).await);
    let report = reports.next().await;
    assert!(report.is_noise(), "{report}");
    let expected = " GET /chat: the client closed the connection before its request was answered";
    assert!(report.to_string().ends_with(expected), "{report}");
    assert_eq!(report.head().unwrap().headers["host"], "example.com");
    for (client, method) in clients_and_methods() {
        let connecting = timeout(SHORT, connect(&client, address));
        connecting.await.expect_err("the check never ends");
        let report = reports.next().await;
        assert!(report.is_noise() && report.method() == Some(&method), "{report}");
    }
}

#[tokio::test]
async fn a_slow_check_of_a_request_is_no_noise() {
    let (server, mut reports) = Reports::of(hasty().on_request(|_| pending::<Result<Parts, Rejection>>()));
    let address = start(server, echo).await;
    for (client, method) in clients_and_methods() {
        connect(&client, address).await.unwrap_err();
        let report = reports.next().await;
        assert!(!report.is_noise() && report.kind() == Some(ErrorKind::Timeout), "{report:?}");
        let line = report.to_string();
        assert!(line.starts_with(&subject(&report, &method)), "{line}");
        assert!(line.ends_with("(Limits::handshake_timeout) while checking the request"), "{line}");
    }
}

/// An error that hides another, as `anyhow::Error` does.
#[derive(Debug)]
struct Opaque(Error);

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Opaque {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// Sends until the client is gone. The form of the error depends on the path.
async fn send_on(head: Parts, socket: WebSocket) -> HandlerResult {
    loop {
        let Err(error) = socket.send("tick").await else {
            tokio::task::yield_now().await;
            continue;
        };
        return Err(match head.uri.path() {
            "/opaque" => Opaque(error).into(),
            "/wrapped" => std::io::Error::other(std::io::Error::from(error)).into(),
            "/other" => format!("it could not be sent: {error}").into(),
            _ => error.into(),
        });
    }
}

#[tokio::test]
async fn a_tab_that_is_closed_while_a_handler_runs_is_noise() {
    let (server, mut reports) = Reports::of(serves_both(Server::new()));
    let address = start(server, send_on).await;
    for (client, _) in clients_and_methods() {
        for path in ["/", "/opaque", "/wrapped"] {
            let url = format!("ws://{address}{path}");
            // The browser is closed: a Close frame with 1001.
            let (mut socket, _) = soon(client.connect(&url)).await.unwrap();
            soon(socket.recv()).await.unwrap();
            soon(socket.close(CloseCode::GOING_AWAY, "")).await.unwrap();
            assert!(reports.next().await.is_noise(), "{path}");
            // The network is gone.
            let (mut socket, _) = soon(client.connect(&url)).await.unwrap();
            soon(socket.recv()).await.unwrap();
            drop(socket);
            let report = reports.next().await;
            assert!(report.is_noise(), "{report:?}");
        }
        let (socket, _) = soon(client.connect(format!("ws://{address}/other"))).await.unwrap();
        drop(socket);
        assert_no_noise(&mut reports, None).await;
    }
    // The handler receives.
    let (server, mut reports) = Reports::of(Server::new());
    let address = start(server, echo).await;
    drop(connect(&Connector::new(), address).await.unwrap());
    assert_noise(&mut reports, ErrorKind::Disconnected).await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_noise() {
    let (server, mut reports) = Reports::of(Server::new().acceptor(Acceptor::new().keepalive(SHORT / 2)));
    let address = start(server, echo).await;
    let (_stream, _) = upgrade(address, &Head::request()).await;
    assert_noise(&mut reports, ErrorKind::Timeout).await;
}

#[tokio::test]
async fn a_violation_and_a_close_with_a_complaint_are_no_noise() {
    let (server, mut reports) = Reports::of(Server::new());
    let address = start(server, echo).await;
    let (mut stream, _) = upgrade(address, &Head::request()).await;
    stream.write_all(b"\xFF\xFF").await.unwrap();
    assert_no_noise(&mut reports, Some(ErrorKind::Protocol)).await;

    let socket = connect(&Connector::new(), address).await.unwrap();
    soon(socket.close(CloseCode::INVALID_DATA, "that was no UTF-8")).await.unwrap();
    assert_no_noise(&mut reports, Some(ErrorKind::Closed)).await;

    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = Head::request().with(&format!("X-Long: {}", "x".repeat(20_000)));
    assert_eq!(exchange(&mut stream, &head).await.0.status(), 431);
    drop(stream);
    assert_no_noise(&mut reports, Some(ErrorKind::Limit)).await;
}

/// The connection of a proxy to its upstream server is another connection.
#[tokio::test]
async fn the_loss_of_an_upstream_connection_is_no_noise() {
    let (server, mut reports) = Reports::of(Server::new());
    let address = start(server, |head: Parts, mut socket: WebSocket| async move {
        let (mut upstream, gone) = bowline::pair();
        drop(gone);
        if head.uri.path() == "/closed" {
            socket.recv().await?;
        }
        upstream.recv().await?;
        Ok(())
    })
    .await;
    let mut socket = connect(&Connector::new(), address).await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_no_noise(&mut reports, Some(ErrorKind::Disconnected)).await;
    // The client's connection has ended, too, but in another way.
    let (socket, _) = soon(Connector::new().connect(format!("ws://{address}/closed"))).await.unwrap();
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
    assert_no_noise(&mut reports, Some(ErrorKind::Disconnected)).await;
}
