//! `Server::on_error`: what the application learns of an error, and which errors are noise.

use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;

use bowline::{CloseCode, Connector, Error, ErrorKind, Rejection, Server, ServerError, WebSocket};
use http::request::Parts;
use http::{Method, StatusCode};
use tokio::net::TcpStream;

use crate::server::{Reports, clients, serves_both};
use crate::support::http::{HandlerResult, Head, echo, exchange, soon, start};

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
        let expected = "the client's request was rejected: 401 Unauthorized: Unauthorized";
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
    let line = reports.next().await.to_string();
    assert!(line.contains(" GET /a\\u{9b}31m: the client's request was rejected: 426 "), "{line}");
}
