//! `Server::fallback` over HTTP/1.1: requests that ask for no WebSocket.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use bowline::{Acceptor, Limits, Role, Server};
use http::request::Parts;
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use crate::support::frames::Frame;
use crate::support::http::{Head, echo, exchange, listen, read_head, soon, start};
use crate::support::settle;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Answers with the method and the path, apart from the paths below.
async fn page(head: Parts) -> Response<String> {
    match head.uri.path() {
        "/panics" => panic!("the template is gone"),
        "/hangs" => pending().await,
        "/switches" => response(101, ""),
        "/continues" => response(100, ""),
        "/empty" => response(204, ""),
        "/closes" => {
            let mut response = response(200, "bye");
            response.headers_mut().insert("connection", "close".parse().unwrap());
            response
        }
        "/lies" => {
            let mut response = response(200, "eleven byte");
            response.headers_mut().insert("content-length", "3".parse().unwrap());
            response
        }
        "/huge" => response(200, &"x".repeat(64 * 1024 * 1024)),
        path => response(200, &format!("{} {path}", head.method)),
    }
}

fn response(status: u16, body: &str) -> Response<String> {
    Response::builder().status(status).body(body.to_owned()).unwrap()
}

/// Returns a server of pages, and what it reports.
fn server() -> (Server, mpsc::UnboundedReceiver<String>) {
    let (sender, errors) = mpsc::unbounded_channel();
    let server = Server::new().fallback(page).on_error(move |error| {
        // The test may be over.
        let _ = sender.send(error.to_string());
    });
    (server, errors)
}

/// Starts a server of pages and of an echo, and returns what it reports, too.
async fn serve() -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (server, errors) = server();
    (start(server, echo).await, errors)
}

/// Connects to such a server in memory, where a paused clock is exact.
fn connect(server: &Server) -> DuplexStream {
    let (near, far) = duplex(64 * 1024);
    tokio::spawn(server.serve_connection(far, None, echo));
    near
}

fn get(path: &str) -> Head {
    Head::from([&format!("GET {path} HTTP/1.1"), "Host: example.com"])
}

/// Sends a request, and reads its whole answer from a connection that stays.
async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &Head) -> (Head, String) {
    stream.write_all(request.text().as_bytes()).await.unwrap();
    read_answer(stream).await
}

async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> (Head, String) {
    let head = read_head(stream).await;
    let length = head.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    soon(stream.read_exact(&mut body)).await.expect("a whole body");
    (head, String::from_utf8(body).unwrap())
}

/// Opens a WebSocket on a stream, and exchanges a message.
async fn assert_echoes(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let frame = Frame::text("hello").encode(Role::Client);
    stream.write_all(&[Head::request().text().as_bytes(), &frame].concat()).await.unwrap();
    assert_eq!(read_head(stream).await.status(), 101);
    let mut reply = [0; 7];
    soon(stream.read_exact(&mut reply)).await.unwrap();
    assert_eq!(reply, Frame::text("hello").encode(Role::Server)[..]);
}

/// Pages of all kinds, and then a WebSocket, on one connection.
async fn assert_serves_pages_and_a_websocket(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    for path in ["/", "/healthz", "/?query=1"] {
        let (head, body) = ask(stream, &get(path)).await;
        assert_eq!((head.status(), head.get("connection")), (200, None));
        assert_eq!(body, format!("GET {}", path.split('?').next().unwrap()));
    }
    stream.write_all(get("/page").first_line("HEAD /page HTTP/1.1").text().as_bytes()).await.unwrap();
    let head = read_head(stream).await;
    assert_eq!((head.status(), head.get("content-length").as_deref()), (200, Some("10")));
    let (head, _) = ask(stream, &get("/empty")).await;
    assert_eq!((head.status(), head.get("content-length")), (204, None));
    // A body that arrives with its head is discarded.
    let post = get("/").first_line("POST /form HTTP/1.1").with("Content-Length: 5").text() + "a=1&b";
    stream.write_all(post.as_bytes()).await.unwrap();
    assert_eq!(read_answer(stream).await.1, "POST /form");
    // Requests that arrive together are answered in order.
    stream.write_all((get("/1").text() + &get("/2").text()).as_bytes()).await.unwrap();
    assert_eq!(read_answer(stream).await.1, "GET /1");
    assert_eq!(read_answer(stream).await.1, "GET /2");
    assert_echoes(stream).await;
}

#[tokio::test]
async fn pages_and_a_websocket_on_one_connection() {
    let (address, mut errors) = serve().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    assert_serves_pages_and_a_websocket(&mut stream).await;
    assert!(errors.try_recv().is_err(), "nothing went wrong");
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn pages_and_a_websocket_over_tls() {
    let (server, client) = crate::support::tls::configs();
    let address = start(Server::new().tls(server).fallback(page), echo).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(client).connect(name, stream).await.unwrap();
    assert_serves_pages_and_a_websocket(&mut stream).await;
}

#[tokio::test]
async fn the_head_of_a_page_knows_the_client() {
    let server = Server::new().fallback(async |head: Parts| {
        let peer = head.extensions.get::<SocketAddr>().map(SocketAddr::ip);
        Response::new(format!("{peer:?}"))
    });
    let mut stream = TcpStream::connect(start(server, echo).await).await.unwrap();
    assert_eq!(ask(&mut stream, &get("/")).await.1, "Some(127.0.0.1)");
}

/// A handshake that is broken is rejected, so that its client learns why.
#[tokio::test]
async fn broken_handshakes_are_rejected_as_without_a_fallback() {
    let (address, mut errors) = serve().await;
    for (request, status) in [
        (Head::request().replace("Sec-WebSocket-Version: 12"), 400),
        (Head::request().without("sec-websocket-key"), 400),
        (Head::request().replace("Sec-WebSocket-Key: short"), 400),
        (Head::request().with("Origin: https://evil.example"), 403),
        (Head::request().first_line("POST / HTTP/1.1"), 405),
        (Head::request().without("connection"), 426),
        // A proxy has removed these headers.
        (Head::request().without("connection").without("upgrade"), 426),
        (get("/").first_line("CONNECT example.com:443 HTTP/1.1"), 405),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (head, body) = exchange(&mut stream, &request).await;
        assert_eq!(head.status(), status, "{request:?} {body}");
        drop(stream);
        assert!(soon(errors.recv()).await.unwrap().contains(&status.to_string()), "{request:?}");
    }
    // What asks for another protocol, or for nothing, receives a page.
    for request in [
        get("/").with("Connection: Upgrade, HTTP2-Settings").with("Upgrade: h2c").with("HTTP2-Settings: AA"),
        get("/").with("Sec-WebSocket-Version: 13"),
        get("/").with("Origin: https://evil.example"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(&mut stream, &request).await.0.status(), 200, "{request:?}");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (head, _) = exchange(&mut stream, &get("/").first_line("GET / HTTP/1.0")).await;
    assert_eq!((head.status(), head.get("content-length").as_deref()), (200, Some("5")));
}

#[tokio::test]
async fn a_fallback_that_fails_is_a_500() {
    let (server, mut errors) = server();
    let address = start(server.clone(), echo).await;
    for (path, error) in [
        ("/panics", "the fallback panicked: the template is gone"),
        ("/switches", "Server::fallback returned 101 Switching Protocols"),
        ("/continues", "Server::fallback returned 100 Continue"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A page that was served before makes no difference.
        ask(&mut stream, &get("/")).await;
        let (head, body) = exchange(&mut stream, &get(path)).await;
        assert_eq!((head.status(), &*body), (500, "Internal Server Error\n"), "{path}");
        assert_eq!(head.get("connection").as_deref(), Some("close"));
        drop(stream);
        let report = soon(errors.recv()).await.unwrap();
        assert!(report.contains(error), "{report}");
    }
    let counted: Vec<_> = server.stats().rejections().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counted, [(bowline::RejectionReason::Fallback, 3)]);
}

#[tokio::test]
async fn a_page_has_the_length_that_it_has() {
    let (address, _errors) = serve().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (head, body) = ask(&mut stream, &get("/lies")).await;
    assert_eq!((head.get("content-length").as_deref(), &*body), (Some("11"), "eleven byte"));
    let (head, body) = exchange(&mut stream, &get("/closes")).await;
    assert_eq!((head.status(), &*body), (200, "bye"));
}

/// The body is not read, but no reset overtakes the response either.
#[tokio::test]
async fn a_large_body_of_a_request_is_discarded() {
    let (address, mut errors) = serve().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = vec![b'x'; 16 * 1024 * 1024];
    let head = get("/").first_line("POST / HTTP/1.1").with(&format!("Content-Length: {}", body.len()));
    stream.write_all(head.text().as_bytes()).await.unwrap();
    soon(stream.write_all(&body)).await.expect("the server takes the body");
    assert_eq!(read_answer(&mut stream).await.1, "POST /");
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0, "the connection is closed");
    drop(stream);
    settle().await;
    assert!(errors.try_recv().is_err());
}

/// Without a fallback, all such requests are rejected.
#[tokio::test]
async fn without_a_fallback_there_is_no_page() {
    let mut stream = TcpStream::connect(start(Server::new(), echo).await).await.unwrap();
    assert_eq!(exchange(&mut stream, &get("/")).await.0.status(), 426);
}

/// An error is that of its own request: a page before it is over.
#[tokio::test]
async fn an_error_after_a_page_is_not_that_of_the_page() {
    let (sender, mut errors) = mpsc::unbounded_channel();
    let server = Server::new().fallback(page).on_error(move |error| {
        let _ = sender.send(error);
    });
    let address = start(server, echo).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, &get("/page")).await;
    assert_eq!(exchange(&mut stream, &Head::from(["not HTTP"])).await.0.status(), 400);
    drop(stream);
    assert_eq!(soon(errors.recv()).await.unwrap().uri(), None);

    let mut stream = TcpStream::connect(address).await.unwrap();
    ask(&mut stream, &get("/page")).await;
    exchange(&mut stream, &get("/panics")).await;
    drop(stream);
    let error = soon(errors.recv()).await.unwrap();
    assert_eq!(error.uri().unwrap(), "/panics");
    assert!(error.to_string().contains("GET /panics: the fallback panicked"), "{error}");
}

/// A client that leaves while its page is made is reported, as one that leaves during a check is.
#[tokio::test]
async fn a_client_that_leaves_before_its_page() {
    let (address, mut errors) = serve().await;
    for before in [false, true] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if before {
            ask(&mut stream, &get("/page")).await;
        }
        stream.write_all(get("/hangs").text().as_bytes()).await.unwrap();
        settle().await;
        drop(stream);
        let error = soon(errors.recv()).await.unwrap();
        assert!(error.contains("GET /hangs"), "{error}");
    }
}

// ---- times

/// Each page gives the client another handshake timeout for the next request.
#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_for_a_time_after_each_page() {
    let (server, mut errors) = server();
    let mut stream = connect(&server);
    for _ in 0..5 {
        sleep(TIMEOUT * 3 / 4).await;
        assert_eq!(ask(&mut stream, &get("/")).await.0.status(), 200);
    }
    let begun = Instant::now();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(begun.elapsed().as_secs(), TIMEOUT.as_secs());
    // A WebSocket may follow at the last moment.
    let mut stream = connect(&server);
    ask(&mut stream, &get("/")).await;
    sleep(TIMEOUT * 99 / 100).await;
    assert_echoes(&mut stream).await;
    // An end that is usual is no error.
    let mut stream = connect(&server);
    ask(&mut stream, &get("/")).await;
    drop(stream);
    settle().await;
    assert_eq!(errors.try_recv().ok(), None);
}

/// A byte a second does not prolong the time.
#[tokio::test(start_paused = true)]
async fn a_request_after_a_page_that_never_arrives_whole() {
    let (server, _errors) = server();
    let mut stream = connect(&server);
    ask(&mut stream, &get("/")).await;
    let begun = Instant::now();
    while stream.write_all(b"x").await.is_ok() {
        sleep(Duration::from_secs(1)).await;
        assert!(begun.elapsed() < TIMEOUT * 2);
    }
    assert!(begun.elapsed() >= TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_never_returns_ends_at_the_deadline() {
    let (server, mut errors) = server();
    for before in ["", "/page"] {
        let mut stream = connect(&server);
        if !before.is_empty() {
            ask(&mut stream, &get(before)).await;
        }
        let begun = Instant::now();
        stream.write_all(get("/hangs").text().as_bytes()).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(begun.elapsed().as_secs(), TIMEOUT.as_secs());
        let report = errors.recv().await.unwrap();
        assert!(report.contains("Limits::handshake_timeout"), "{report}");
    }
}

/// Nothing is kept for a client that does not receive its page, or receives a byte of it at a time.
#[tokio::test(start_paused = true)]
async fn a_page_that_nobody_receives_is_given_up() {
    let (server, _errors) = server();
    for reads in [false, true] {
        let (mut stream, far) = duplex(64 * 1024);
        let serving = tokio::spawn(server.serve_connection(far, None, echo));
        stream.write_all(get("/huge").text().as_bytes()).await.unwrap();
        let begun = Instant::now();
        while reads && begun.elapsed() < TIMEOUT * 2 {
            let _ = stream.read(&mut [0]).await;
            sleep(Duration::from_secs(1)).await;
        }
        serving.await.unwrap().unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() <= 64 * 1024, "{}", rest.len());
        assert!(begun.elapsed() <= TIMEOUT * 2);
    }
}

#[tokio::test]
async fn the_future_of_a_page_ends_with_its_connection() {
    let (begun, mut events) = mpsc::unbounded_channel();
    let server = Server::new().fallback(move |_: Parts| {
        let begun = begun.clone();
        async move {
            begun.send("begun").unwrap();
            let _ended = Ended(begun);
            pending::<Response<String>>().await
        }
    });
    let mut stream = TcpStream::connect(start(server, echo).await).await.unwrap();
    stream.write_all(get("/").text().as_bytes()).await.unwrap();
    assert_eq!(soon(events.recv()).await, Some("begun"));
    drop(stream);
    assert_eq!(soon(events.recv()).await, Some("ended"));
}

struct Ended(mpsc::UnboundedSender<&'static str>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.send("ended");
    }
}

#[tokio::test]
async fn a_shutdown_waits_for_no_page() {
    let (stop, stopped) = oneshot::channel::<()>();
    let (listener, address) = listen().await;
    let hour = Duration::from_secs(3600);
    let server = Server::new().fallback(page).shutdown(async { stopped.await.unwrap() }, hour);
    let serving = tokio::spawn(server.serve(listener, echo));
    let mut idle = TcpStream::connect(address).await.unwrap();
    ask(&mut idle, &get("/")).await;
    let mut hanging = TcpStream::connect(address).await.unwrap();
    hanging.write_all(get("/hangs").text().as_bytes()).await.unwrap();
    settle().await;
    stop.send(()).unwrap();
    assert_eq!(soon(serving).await.unwrap().unwrap(), bowline::ShutdownSummary::default());
    for mut stream in [idle, hanging] {
        assert_eq!(soon(stream.read(&mut [0])).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn a_head_over_the_limits_is_a_431() {
    let acceptor = Acceptor::new().limits(Limits::default().head_size(8192));
    let address = start(Server::new().acceptor(acceptor).fallback(page), echo).await;
    for before in [false, true] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if before {
            ask(&mut stream, &get("/")).await;
        }
        let large = get("/").with(&format!("X-Large: {}", "x".repeat(10_000)));
        let (head, _) = exchange(&mut stream, &large).await;
        assert_eq!(head.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16());
    }
}

/// Bodies of all documented types.
#[tokio::test]
async fn a_page_may_have_a_body_of_several_types() {
    let text = Server::new().fallback(async |_: Parts| Response::new("page"));
    let bytes = Server::new().fallback(async |_: Parts| Response::new(b"page".to_vec()));
    let shared = Server::new().fallback(async |_: Parts| Response::new(bytes::Bytes::from("page")));
    for server in [text, bytes, shared] {
        let mut stream = TcpStream::connect(start(server, echo).await).await.unwrap();
        assert_eq!(ask(&mut stream, &get("/")).await.1, "page");
    }
}
