//! `serve` and `Server`: handlers, errors, checks, deadlines, and the end.

mod runtime;

use std::cell::RefCell;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::{
    Acceptor, CloseCode, CloseFrame, Connector, ErrorKind, Limits, Rejection, Role, Server, ServerError,
    ShutdownSummary, WebSocket,
};
use http::request::Parts;
use http::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::support::frames::{Frame, take_frames};
use crate::support::http::{HandlerResult, Head, echo, exchange, listen, read_head, soon, start, upgrade};

/// The errors that a server reports to `on_error`.
pub(crate) struct Reports(mpsc::UnboundedReceiver<ServerError>);

impl Reports {
    pub(crate) fn of(server: Server) -> (Server, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let server = server.on_error(move |error| {
            // The test may be over.
            let _ = sender.send(error);
        });
        (server, Self(receiver))
    }

    pub(crate) async fn next(&mut self) -> ServerError {
        soon(self.0.recv()).await.expect("the server is there")
    }

    async fn next_kind(&mut self) -> ErrorKind {
        self.next().await.kind().expect("an error of ours")
    }
}

async fn connect(address: SocketAddr) -> WebSocket {
    soon(bowline::connect(format!("ws://{address}/path?query"))).await.unwrap()
}

/// Waits for the end of a connection, and returns the peer's Close frame.
async fn end_of(mut socket: WebSocket) -> Option<CloseFrame> {
    while let Ok(Some(_)) = soon(socket.recv()).await {}
    socket.close_frame()
}

#[tokio::test]
async fn a_closure_is_a_server() {
    let (listener, address) = listen().await;
    tokio::spawn(bowline::serve(listener, |mut socket: WebSocket| async move {
        while let Some(message) = socket.recv().await? {
            socket.send(message).await?;
        }
        Ok(())
    }));
    let mut socket = connect(address).await;
    socket.send("hello").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
    socket.close(CloseCode::NORMAL, "").await.unwrap();
}

#[tokio::test]
async fn a_handler_can_take_the_head() {
    let address = start(Server::new(), |head: Parts, socket: WebSocket| async move {
        socket.send(head.uri.to_string()).await?;
        Ok(())
    })
    .await;
    let mut socket = connect(address).await;
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("/path?query".into()));
}

#[tokio::test]
async fn a_handler_that_returns_closes_with_1000() {
    let (server, mut reports) = Reports::of(Server::new());
    let address = start(server, |_: WebSocket| async { Ok(()) }).await;
    let frame = end_of(connect(address).await).await.unwrap();
    assert_eq!(frame.code(), CloseCode::NORMAL);
    assert!(reports.0.try_recv().is_err(), "nothing went wrong");
}

#[tokio::test]
async fn what_a_handler_sent_goes_out_before_the_close() {
    let address = start(Server::new(), |socket: WebSocket| async move {
        for number in 0..1000 {
            socket.send(format!("{number}")).await?;
        }
        Ok(())
    })
    .await;
    let mut socket = connect(address).await;
    for number in 0..1000 {
        assert_eq!(soon(socket.recv()).await.unwrap(), Some(format!("{number}").into()));
    }
    assert_eq!(soon(socket.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn rfc6455_7_4_1_a_handler_that_fails_closes_with_1011() {
    let (server, mut reports) = Reports::of(Server::new());
    let address = start(server, |_: WebSocket| async { Err("no luck".into()) }).await;
    let frame = end_of(connect(address).await).await.unwrap();
    assert_eq!(frame.code(), CloseCode::INTERNAL_ERROR);
    assert_eq!(reports.next().await.error().to_string(), "no luck");
}

#[tokio::test]
async fn a_handler_that_panics_closes_with_1011() {
    async fn later(_: WebSocket) -> HandlerResult {
        tokio::task::yield_now().await;
        panic!("number {}", 7)
    }
    fn at_once(_: WebSocket) -> std::future::Pending<HandlerResult> {
        panic!("at once")
    }
    let (server, mut reports) = Reports::of(Server::new());
    let address = start(server, later).await;
    let frame = end_of(connect(address).await).await.unwrap();
    assert_eq!(frame.code(), CloseCode::INTERNAL_ERROR);
    assert_eq!(reports.next().await.error().to_string(), "the handler panicked: number 7");
    // The server continues.
    assert!(end_of(connect(address).await).await.is_some());

    let (server, mut reports) = Reports::of(Server::new());
    let address = start(server, at_once).await;
    let frame = end_of(connect(address).await).await.unwrap();
    assert_eq!(frame.code(), CloseCode::INTERNAL_ERROR);
    assert_eq!(reports.next().await.error().to_string(), "the handler panicked: at once");
}

#[tokio::test]
async fn a_handler_that_panics_when_it_is_dropped_closes_with_1011() {
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            assert!(std::thread::panicking(), "a broken guard");
        }
    }
    let (server, mut reports) = Reports::of(Server::new());
    let address = start(server, |socket: WebSocket| {
        let held = (Guard, socket);
        std::future::poll_fn(move |_| {
            let _ = &held;
            std::task::Poll::Ready(HandlerResult::Ok(()))
        })
    });
    let frame = end_of(connect(address.await).await).await.unwrap();
    assert_eq!(frame.code(), CloseCode::INTERNAL_ERROR);
    assert_eq!(reports.next().await.error().to_string(), "the handler panicked: a broken guard");
}

#[tokio::test]
async fn a_panic_in_on_error_keeps_no_close_frame_back() {
    let server = Server::new().on_error(|error| panic!("no room in the log for {error}"));
    let address = start(server, |_: WebSocket| async { HandlerResult::Err("no luck".into()) }).await;
    let frame = end_of(connect(address).await).await.unwrap();
    assert_eq!(frame.code(), CloseCode::INTERNAL_ERROR);
}

#[tokio::test]
async fn a_close_of_the_handlers_own_stays() {
    let address = start(Server::new(), |socket: WebSocket| async move {
        socket.close(CloseCode(4000), "bye").await?;
        Err("what comes later does not matter".into())
    })
    .await;
    let frame = end_of(connect(address).await).await.unwrap();
    assert_eq!((frame.code(), frame.reason()), (CloseCode(4000), "bye"));
}

#[tokio::test]
async fn a_peer_that_closes_gets_its_code_back() {
    let (server, mut reports) = Reports::of(Server::new());
    let address = start(server, echo).await;
    let socket = connect(address).await;
    let answer = soon(socket.close(CloseCode(4001), "done")).await.unwrap();
    assert_eq!(answer.code(), CloseCode(4001));
    // The handler returns the error of `recv`.
    assert_eq!(reports.next_kind().await, ErrorKind::Closed);
}

#[tokio::test]
async fn a_peer_that_vanishes_is_reported() {
    let (server, mut reports) = Reports::of(Server::new());
    let address = start(server, echo).await;
    drop(upgrade(address, &Head::request()).await);
    assert_eq!(reports.next_kind().await, ErrorKind::Disconnected);
}

#[tokio::test]
async fn errors_before_the_upgrade_are_reported() {
    let (server, mut reports) = Reports::of(Server::new());
    let address = start(server, echo).await;

    let mut stream = TcpStream::connect(address).await.unwrap();
    let (head, _) = exchange(&mut stream, &Head::request().without("upgrade")).await;
    assert_eq!(head.status(), 426);
    assert_eq!(head.get("connection").as_deref(), Some("Upgrade, close"));
    drop(stream);
    assert_eq!(reports.next_kind().await, ErrorKind::Handshake);

    drop(TcpStream::connect(address).await.unwrap());
    assert_eq!(reports.next_kind().await, ErrorKind::Disconnected);

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"hello?\r\n\r\n").await.unwrap();
    assert_eq!(read_head(&mut stream).await.status(), 400);
    drop(stream);
    assert_eq!(reports.next_kind().await, ErrorKind::Handshake);
}

/// The first bytes are read before their protocol is known.
#[tokio::test]
async fn a_request_arrives_in_pieces_or_with_what_follows_it() {
    let address = start(Server::new(), echo).await;
    for padding in [0, 2000, 9000] {
        let head = Head::request().with(&format!("X-Padding: {}", "x".repeat(padding))).text();
        let message = Frame::text("hello").encode(Role::Client);
        let bytes = [head.as_bytes(), &message].concat();
        for cut in [1, 4, head.len() - 1, head.len(), head.len() + 3, bytes.len()] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&bytes[..cut]).await.unwrap();
            // This connection is served after the bytes of earlier ones were read.
            drop(connect(address).await);
            stream.write_all(&bytes[cut..]).await.unwrap();
            assert_eq!(read_head(&mut stream).await.status(), 101);
            let mut reply = [0; 7];
            soon(stream.read_exact(&mut reply)).await.unwrap();
            assert_eq!(reply, Frame::text("hello").encode(Role::Server)[..], "{padding} {cut}");
        }
    }
}

/// A reset would make writing fail, and might take the response with it.
#[tokio::test]
async fn a_rejected_request_with_a_body_is_not_reset() {
    let address = start(Server::new(), echo).await;
    let body = vec![b'x'; 16 * 1024 * 1024];
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = Head::request().first_line("POST / HTTP/1.1").with(&format!("Content-Length: {}", body.len()));
    stream.write_all(head.text().as_bytes()).await.unwrap();
    soon(stream.write_all(&body)).await.expect("the server takes the body");
    assert_eq!(read_head(&mut stream).await.status(), 405);
}

#[tokio::test]
async fn on_request_rejects_with_any_response() {
    let server = Server::new().on_request(|head: Parts| async move {
        match head.headers.get("authorization").map(http::HeaderValue::as_bytes) {
            Some(b"Bearer 1234") => Ok(head),
            Some(_) => Err(Rejection::from(StatusCode::FORBIDDEN)),
            None => {
                let response = Response::builder().status(401).header("www-authenticate", "Bearer");
                Err(Rejection::from(response.body("who are you?".to_owned()).unwrap()))
            }
        }
    });
    let (server, mut reports) = Reports::of(server);
    let address = start(server, echo).await;
    let url = format!("ws://{address}/");

    let error = soon(bowline::connect(&url)).await.unwrap_err();
    let response = error.response().unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    assert_eq!(&response.body()[..], b"who are you?");
    assert_eq!(reports.next_kind().await, ErrorKind::Handshake);

    let error = soon(Connector::new().header("authorization", "x").connect(&url)).await.unwrap_err();
    assert_eq!(error.response().unwrap().status(), 403);

    let good = Connector::new().header("authorization", "Bearer 1234");
    let (mut socket, _) = soon(good.connect(&url)).await.unwrap();
    socket.send("hello").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
}

/// Returns a client for each version of HTTP.
pub(crate) fn clients() -> Vec<Connector> {
    vec![
        Connector::new(),
        #[cfg(feature = "http2")]
        Connector::new().http_version(bowline::HttpVersion::Http2),
    ]
}

pub(crate) fn serves_both(server: Server) -> Server {
    #[cfg(feature = "http2")]
    let server = server.http2();
    server
}

#[tokio::test]
async fn a_panic_in_a_check_of_the_request_is_a_500() {
    let at_once = |head: Parts| {
        assert!(head.uri.path() == "/fine", "the database is gone");
        async { Ok(head) }
    };
    let later = |head: Parts| async move {
        assert!(head.uri.path() == "/fine", "the database is gone");
        Ok(head)
    };
    let origin = |_: &str, headers: &http::HeaderMap| {
        assert!(headers.contains_key("x-fine"), "the database is gone");
        true
    };
    let open = Acceptor::new().allow_origin("*");
    for server in [
        Server::new().acceptor(open.clone()).on_request(at_once),
        Server::new().acceptor(open).on_request(later),
        Server::new().acceptor(Acceptor::new().check_origin(origin)),
    ] {
        let (server, mut reports) = Reports::of(serves_both(server));
        let address = start(server, echo).await;
        for client in clients() {
            let client = client.origin("https://elsewhere.example");
            let error = soon(client.clone().connect(format!("ws://{address}/"))).await.unwrap_err();
            let status = error.response().map(Response::status);
            assert_eq!(status, Some(StatusCode::INTERNAL_SERVER_ERROR), "{error:?}");
            assert!(!String::from_utf8_lossy(error.response().unwrap().body()).contains("database"));
            let report = reports.next().await;
            let text = report.error().to_string();
            assert!(
                text.starts_with("the check of a client's request panicked: the database is gone"),
                "{text}"
            );
            assert_eq!(report.kind(), Some(ErrorKind::Handshake));
            // The server continues.
            let client = client.header("x-fine", "yes");
            let (socket, _) = soon(client.connect(format!("ws://{address}/fine"))).await.unwrap();
            soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
        }
    }
}

/// The length in an application's headers doesn't count.
#[tokio::test]
async fn a_rejection_has_the_length_that_it_has() {
    let server = serves_both(Server::new()).on_request(|_| async {
        let response = Response::builder().status(401).header("content-length", "3");
        let response = response.header("transfer-encoding", "chunked").body("who are you?".to_owned());
        Err::<Parts, _>(response.unwrap().into())
    });
    let (server, mut reports) = Reports::of(server);
    let address = start(server, echo).await;
    for client in clients() {
        let error = soon(client.connect(format!("ws://{address}/"))).await.unwrap_err();
        assert_eq!(error.response().map(|response| &response.body()[..]), Some(&b"who are you?"[..]));
        assert_eq!(reports.next_kind().await, ErrorKind::Handshake);
    }
}

#[tokio::test]
async fn on_request_passes_values_to_the_handler() {
    #[derive(Clone)]
    struct User(String);

    let server = Server::new().on_request(|mut head: Parts| async move {
        let peer = head.extensions.get::<SocketAddr>().expect("the client's address");
        let user = User(format!("the one from {}", peer.ip()));
        head.extensions.insert(user);
        Ok(head)
    });
    let address = start(server, |head: Parts, socket: WebSocket| async move {
        let User(name) = head.extensions.get().expect("check put it there");
        socket.send(name).await?;
        Ok(())
    })
    .await;
    let mut socket = connect(address).await;
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("the one from 127.0.0.1".into()));
}

#[tokio::test]
async fn on_request_is_not_called_for_invalid_handshakes() {
    let server =
        Server::new().on_request(async |_| -> Result<Parts, Rejection> { panic!("nobody should ask") });
    let address = start(server, echo).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let foreign = Head::request().with("Origin: https://evil.example");
    assert_eq!(exchange(&mut stream, &foreign).await.0.status(), 403);
}

#[tokio::test]
async fn a_slow_handshake_is_given_up() {
    let limits = Limits::default().handshake_timeout(Duration::from_millis(300));
    let server = Server::new()
        .acceptor(Acceptor::new().limits(limits))
        .on_request(|head: Parts| async { if head.uri == "/slow" { pending().await } else { Ok(head) } });
    let (server, mut reports) = Reports::of(server);
    let address = start(server, echo).await;

    // This connection is open when the deadline of the others passes, and is unaffected.
    let mut open = connect(address).await;

    // A client that keeps sending single bytes gains no time.
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let trickle = tokio::spawn(async move {
        for byte in Head::request().text().bytes().cycle() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    });
    let mut rest = Vec::new();
    let _ = soon(read.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"", "no answer but the end");
    assert_eq!(reports.next_kind().await, ErrorKind::Timeout);
    trickle.abort();

    // The time of `on_request` counts.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(Head::request().first_line("GET /slow HTTP/1.1").text().as_bytes()).await.unwrap();
    assert_eq!(soon(stream.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(reports.next_kind().await, ErrorKind::Timeout);

    open.send("hello").await.unwrap();
    assert_eq!(soon(open.recv()).await.unwrap(), Some("hello".into()));
}

/// Starts a server that can be shut down.
async fn stoppable<H: bowline::Handler<M>, M: Send + 'static>(
    deadline: Duration,
    handler: H,
) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<std::io::Result<ShutdownSummary>>) {
    let (stop, stopped) = oneshot::channel();
    let (listener, address) = listen().await;
    let signal = async {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(Server::new().shutdown(signal, deadline).serve(listener, handler));
    (address, stop, serving)
}

#[tokio::test]
async fn rfc6455_7_4_1_a_shutdown_closes_all_with_1001() {
    let (address, stop, serving) = stoppable(Duration::from_secs(60), echo).await;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        let mut socket = connect(address).await;
        // At this point, the server has called the handler.
        socket.send("hello").await.unwrap();
        soon(socket.recv()).await.unwrap();
        sockets.push(socket);
    }
    stop.send(()).unwrap();
    for socket in sockets {
        assert_eq!(end_of(socket).await.unwrap().code(), CloseCode::GOING_AWAY);
    }
    let shutdown = soon(serving).await.unwrap().unwrap();
    assert_eq!((shutdown.closed(), shutdown.ended()), (10, 0));
}

/// The address is its own, so that no other test uses the port.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_shutdown_stops_listening() {
    let listener = tokio::net::TcpListener::bind("127.0.0.77:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(Server::new().shutdown(signal, Duration::from_secs(60)).serve(listener, echo));
    let mut socket = connect(address).await;
    socket.send("hello").await.unwrap();
    soon(socket.recv()).await.unwrap();
    stop.send(()).unwrap();
    // The server's Close frame shows that the signal has arrived. The server still waits for the client's.
    soon(socket.sender().closed()).await;
    assert!(TcpStream::connect(address).await.is_err(), "somebody listens");
    assert_eq!(end_of(socket).await.unwrap().code(), CloseCode::GOING_AWAY);
    assert_eq!(soon(serving).await.unwrap().unwrap().closed(), 1);
}

#[tokio::test]
async fn a_shutdown_ends_what_is_stuck_at_the_deadline() {
    let (address, stop, serving) =
        stoppable(Duration::from_millis(300), |mut socket: WebSocket| async move {
            while let Some(message) = socket.recv().await? {
                socket.send(message.clone()).await?;
                if message == "stay".into() {
                    // The handler ignores the end of its connection.
                    pending::<()>().await;
                }
            }
            Ok(())
        })
        .await;
    let mut stuck = connect(address).await;
    stuck.send("stay").await.unwrap();
    soon(stuck.recv()).await.unwrap();
    let mut good = connect(address).await;
    good.send("hello").await.unwrap();
    soon(good.recv()).await.unwrap();
    // This one never answers the Close frame.
    let (mut silent, _) = upgrade(address, &Head::request()).await;
    silent.write_all(&Frame::text("hello").encode(Role::Client)).await.unwrap();
    silent.read_u8().await.unwrap();
    // This one is in the middle of its handshake.
    let mut late = TcpStream::connect(address).await.unwrap();
    late.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();

    stop.send(()).unwrap();
    assert_eq!(end_of(good).await.unwrap().code(), CloseCode::GOING_AWAY);
    assert_eq!(end_of(stuck).await.unwrap().code(), CloseCode::GOING_AWAY);
    let shutdown = soon(serving).await.unwrap().unwrap();
    assert_eq!((shutdown.closed(), shutdown.ended()), (1, 2));
    // All of their transports have ended.
    let mut bytes = Vec::new();
    let _ = soon(silent.read_to_end(&mut bytes)).await;
    let close = bytes.len() - Frame::close(1001, "").encode(Role::Server).len();
    assert_eq!(take_frames(Role::Server, &mut bytes.split_off(close)), [Frame::close(1001, "")]);
    let _ = soon(late.read_to_end(&mut Vec::new())).await;
}

#[tokio::test]
async fn a_shutdown_waits_for_no_handshake() {
    let hour = Duration::from_secs(3600);
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async {
        let _ = stopped.await;
    };
    let acceptor = Acceptor::new().limits(Limits::default().handshake_timeout(hour));
    let (listener, address) = listen().await;
    let server = Server::new().acceptor(acceptor).shutdown(signal, hour);
    let serving = tokio::spawn(server.serve(listener, echo));
    let mut late = TcpStream::connect(address).await.unwrap();
    late.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    // Connections are accepted in their order, so the one before was.
    soon(connect(address).await.close(CloseCode::NORMAL, "")).await.unwrap();
    stop.send(()).unwrap();
    let shutdown = soon(serving).await.unwrap().unwrap();
    assert_eq!(shutdown.ended(), 0);
    let _ = soon(late.read_to_end(&mut Vec::new())).await;
}

/// Clients without a WebSocket are not waited for.
#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_no_connection_without_a_websocket() {
    use crate::support::{http2, settle};

    let refused = [http2::hello(&[]), http2::get_headers(1)].concat();
    let window = (http2::SETTINGS_INITIAL_WINDOW_SIZE, 0);
    let unread = [http2::hello(&[window]), http2::get_headers(1)].concat();
    for (name, first) in [
        ("nothing", Vec::new()),
        ("half a request", b"GET / HT".to_vec()),
        ("the begin of a preface", b"PRI".to_vec()),
        ("a preface", http2::PREFACE.to_vec()),
        ("settings", http2::hello(&[])),
        ("a request that is refused", refused),
        ("an answer that does not fit", unread),
    ] {
        let (sender, signal) = oneshot::channel::<()>();
        let (listener, address) = listen().await;
        let hour = Duration::from_secs(3600);
        let server = Server::new().http2().shutdown(async { signal.await.unwrap() }, hour);
        let (server, mut reports) = Reports::of(server);
        let serving = tokio::spawn(server.serve(listener, echo));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&first).await.unwrap();
        settle().await;
        if name == "a request that is refused" {
            assert_eq!(reports.next_kind().await, ErrorKind::Handshake);
        }
        let begun = tokio::time::Instant::now();
        sender.send(()).unwrap();
        assert_eq!(soon(serving).await.unwrap().unwrap(), ShutdownSummary::default());
        assert!(begun.elapsed() < Duration::from_secs(1), "{name}: {:?}", begun.elapsed());
        assert!(reports.0.recv().await.is_none(), "{name}");
    }
}

/// A task that does not yield can't be stopped, but its connection can.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_the_connection_of_a_handler_that_blocks() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Arc::new(std::sync::Mutex::new(released));
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async {
        let _ = stopped.await;
    };
    // Nothing but the deadline of the shutdown ends it.
    let acceptor = Acceptor::new().limits(Limits::default().close_timeout(Duration::from_secs(3600)));
    let server = Server::new().acceptor(acceptor).shutdown(signal, Duration::from_millis(100));
    let (listener, address) = listen().await;
    let serving = tokio::spawn(server.serve(listener, move |socket: WebSocket| {
        let released = Arc::clone(&released);
        async move {
            socket.send("ready").await?;
            // Other tasks go on elsewhere meanwhile.
            let _ = tokio::task::block_in_place(|| released.lock().unwrap().recv());
            Ok(())
        }
    }));
    let (mut stream, _) = upgrade(address, &Head::request()).await;
    assert_ne!(soon(stream.read(&mut [0; 64])).await.unwrap(), 0, "it is ready");
    stop.send(()).unwrap();
    let shutdown = soon(serving).await.unwrap().unwrap();
    assert_eq!((shutdown.closed(), shutdown.ended()), (0, 1));
    let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    drop(release);
}

#[tokio::test]
async fn a_dropped_server_ends_its_connections() {
    let dropped = Arc::new(Notify::new());
    let (listener, address) = listen().await;
    let told = Arc::clone(&dropped);
    let serving = tokio::spawn(bowline::serve(listener, move |mut socket: WebSocket| {
        let guard = NotifyOnDrop(Arc::clone(&told));
        async move {
            socket.send("ready").await?;
            socket.recv().await?;
            drop(guard);
            Ok(())
        }
    }));
    let mut socket = connect(address).await;
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("ready".into()));
    serving.abort();
    soon(dropped.notified()).await;
    let error = soon(socket.recv()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Io), "{error}");
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Runs a test below in a process that may open 64 files.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn too_many_open_files_do_not_end_a_server() {
    let output = tokio::process::Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$0\" --exact server::runs_out_of_files --ignored"])
        .arg(std::env::current_exe().unwrap())
        .env("BOWLINE_TEST_FILES", "64")
        .output();
    let output = soon(output).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// This function is no test of its own, since the limit belongs to the whole process.
#[tokio::test]
#[ignore = "run by too_many_open_files_do_not_end_a_server"]
async fn runs_out_of_files() {
    // Without the variable, this is a run of all ignored tests.
    if std::env::var_os("BOWLINE_TEST_FILES").is_none() {
        return;
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    let server = Server::new().on_error(move |error| {
        let _ = sender.send(error);
        panic!("that does not end it either");
    });
    let mut reports = Reports(receiver);
    let address = start(server, echo).await;
    // All of them wait to be accepted when no file is left: this doesn't let the server run meanwhile.
    let mut clients = Vec::new();
    let error = loop {
        match std::net::TcpStream::connect(address) {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
    };
    let report = reports.next().await;
    assert!(report.peer_addr().is_none() && !report.is_noise(), "{report:?}");
    assert_eq!(report.kind(), Some(ErrorKind::Io));
    assert!(report.to_string().starts_with("accepting a connection failed: "), "{report} {error}");
    drop(clients);
    let mut socket = connect(address).await;
    socket.send("hello").await.unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), Some("hello".into()));
}

// ---- settings

thread_local! {
    /// The panics on this thread, including those in tasks, which would go unnoticed.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Returns the bounds of each limit, and the values next to them.
fn extreme_limits() -> Vec<(String, Limits)> {
    let mut all = Vec::new();
    for number in [0, 1, usize::MAX - 1, usize::MAX] {
        let narrow = u32::try_from(number).unwrap_or(u32::MAX);
        let limits = Limits::default();
        let mut with = |name: &str, limits| all.push((format!("{name}({number})"), limits));
        with("message_size", limits.clone().message_size(number));
        with("frames_per_message", limits.clone().frames_per_message(narrow));
        with("head_size", limits.clone().head_size(number));
        with("max_headers", limits.clone().max_headers(number));
        with("write_buffer", limits.clone().write_buffer(number));
        #[cfg(feature = "http2")]
        with("max_streams", limits.clone().max_streams(narrow));
        #[cfg(feature = "http2")]
        with("stream_window", limits.stream_window(number));
    }
    for time in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
        all.push((format!("handshake_timeout({time:?})"), Limits::default().handshake_timeout(time)));
        all.push((format!("close_timeout({time:?})"), Limits::default().close_timeout(time)));
    }
    all
}

/// Valid but useless settings may fail. Returns whether the connection succeeded.
async fn use_once(server: Server, connector: Connector) -> bool {
    let address = start(server, echo).await;
    // In virtual time: some settings make both ends wait.
    let using = tokio::time::timeout(Duration::from_secs(100), async {
        let (mut socket, _) = connector.connect(format!("ws://{address}/")).await?;
        for message in ["", "hello"] {
            socket.send(message).await?;
            socket.recv().await?;
        }
        socket.close(CloseCode::NORMAL, "").await
    });
    let used = using.await.is_ok_and(|used| used.is_ok());
    tokio::time::sleep(Duration::from_secs(100)).await;
    used
}

#[tokio::test(start_paused = true)]
async fn no_setting_panics() {
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.with_borrow_mut(|panics| panics.push(info.to_string()));
        default_hook(info);
    }));
    let assert_none = |what: &str| assert_eq!(PANICS.take(), [""; 0], "{what}");
    let serve = |acceptor| {
        let server = Server::new().acceptor(acceptor);
        #[cfg(feature = "http2")]
        let server = server.http2();
        server
    };
    let connectors = [
        ("HTTP/1.1", Connector::new()),
        #[cfg(feature = "http2")]
        ("HTTP/2", Connector::new().http_version(bowline::HttpVersion::Http2)),
    ];
    for (version, connector) in connectors {
        assert!(use_once(serve(Acceptor::new()), connector.clone()).await, "the defaults make sense");
        for (name, limits) in extreme_limits() {
            use_once(serve(Acceptor::new()), connector.clone().limits(limits.clone())).await;
            assert_none(&format!("{name} of a client over {version}"));
            use_once(serve(Acceptor::new().limits(limits)), connector.clone()).await;
            assert_none(&format!("{name} of a server over {version}"));
        }
        for interval in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            use_once(serve(Acceptor::new()), connector.clone().keepalive(interval)).await;
            use_once(serve(Acceptor::new().keepalive(interval)), connector.clone()).await;
            assert_none(&format!("keepalive({interval:?}) over {version}"));
        }
        #[cfg(feature = "deflate")]
        for number in [0, 1, u8::MAX] {
            use bowline::Compression;

            let options = || Compression::ContextTakeover.options();
            for options in [
                options().level(number),
                options().server_max_window_bits(number),
                options().client_max_window_bits(number),
                options().threshold(usize::from(number)),
                options().threshold(usize::MAX),
            ] {
                use_once(
                    serve(Acceptor::new().compression(Compression::ContextTakeover)),
                    connector.clone().compression(options),
                )
                .await;
                use_once(
                    serve(Acceptor::new().compression(options)),
                    connector.clone().compression(Compression::ContextTakeover),
                )
                .await;
                assert_none(&format!("{options:?} over {version}"));
            }
        }
        for deadline in [Duration::ZERO, Duration::MAX] {
            let signal = tokio::time::sleep(Duration::from_secs(1));
            use_once(serve(Acceptor::new()).shutdown(signal, deadline), connector.clone()).await;
            assert_none(&format!("shutdown({deadline:?}) over {version}"));
        }
    }
}

// ---- the end of the runtime

/// A value whose drop reports its start, and waits for permission to end.
struct Dropping(std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<()>);

impl Drop for Dropping {
    fn drop(&mut self) {
        // A test that is gone has failed already.
        let _ = self.0.send(());
        let _ = self.1.recv();
    }
}

/// A task spawned on a runtime that is shutting down is dropped at once, by the spawning thread.
#[test]
fn a_connection_that_is_accepted_while_the_runtime_shuts_down() {
    let ending = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (begun, begins) = std::sync::mpsc::channel();
    let (go_on, may_end) = std::sync::mpsc::channel();
    let dropping = Dropping(begun, may_end);
    ending.spawn(async move {
        let _dropping = dropping;
        pending::<()>().await;
    });
    let handle = ending.handle().clone();
    ending.shutdown_background();
    begins.recv().unwrap();

    // The tasks are being dropped, and the thread still does the rest.
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (listener, address) = own.block_on(listen());
        let mut serving = Box::pin(Server::new().serve(listener, echo));
        own.block_on(async {
            let mut clients = Vec::new();
            for _ in 0..10 {
                clients.push(TcpStream::connect(address).await.unwrap());
            }
            let serving = std::future::poll_fn(|cx| {
                let _entered = handle.enter();
                serving.as_mut().poll(cx)
            });
            let ends = async {
                for client in &mut clients {
                    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
                }
            };
            tokio::select! {
                _ = serving => panic!("it was not told to end"),
                () = ends => {}
            }
        });
        sender.send(()).unwrap();
    });
    receiver.recv_timeout(Duration::from_secs(20)).expect("accepting hangs");
    go_on.send(()).unwrap();
}

/// A value that is dropped with a handler, and uses its own connection and those of others.
struct CallsBack(bowline::Sender, Arc<Mutex<Vec<bowline::Sender>>>);

impl Drop for CallsBack {
    fn drop(&mut self) {
        let all = self.1.lock().unwrap().clone();
        for sender in all.iter().chain([&self.0]) {
            // The result doesn't matter.
            let _ = (sender.is_closed(), sender.close_frame(), sender.try_send("one more").is_ok());
        }
    }
}

/// Handlers are dropped by the end of the server, and by that of the runtime.
#[test]
fn a_handler_that_is_dropped_may_call_back() {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for by_the_server in [true, false] {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let kept = runtime.block_on(async {
                let (listener, address) = listen().await;
                let all = Arc::default();
                let serving = tokio::spawn(Server::new().serve(listener, move |socket: WebSocket| {
                    let guard = CallsBack(socket.sender(), Arc::clone(&all));
                    all.lock().unwrap().push(socket.sender());
                    async move {
                        let _guard = guard;
                        socket.send("ready").await?;
                        pending().await
                    }
                }));
                let mut clients = Vec::new();
                for _ in 0..3 {
                    let mut client = connect(address).await;
                    assert_eq!(soon(client.recv()).await.unwrap(), Some("ready".into()));
                    clients.push(client);
                }
                if by_the_server {
                    serving.abort();
                    for client in &mut clients {
                        while let Ok(Some(_)) = soon(client.recv()).await {}
                    }
                }
                clients
            });
            drop((runtime, kept));
        }
        sender.send(()).unwrap();
    });
    receiver.recv_timeout(Duration::from_secs(60)).expect("it hangs");
}
