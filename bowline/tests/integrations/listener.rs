//! Sources of connections: listeners of all kinds, several at once, and connections that the application has
//! accepted itself.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bowline::{Acceptor, CloseCode, Connector, ErrorKind, Limits, Listener, Server, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::support::http::{HandlerResult, echo, listen, soon};

const MINUTE: Duration = Duration::from_secs(60);

/// Sends the peer's address and the path in use, and waits for the end.
async fn report(mut socket: WebSocket) -> HandlerResult {
    let path = if socket.is_tcp_fast_path() { "fast" } else { "boxed" };
    let peer = socket.peer_addr().map_or_else(|| "nobody".to_owned(), |peer| peer.to_string());
    socket.send(format!("{peer} {path} {}", socket.local_addr().is_some())).await?;
    while socket.recv().await?.is_some() {}
    Ok(())
}

async fn first_text(socket: &mut WebSocket) -> String {
    match soon(socket.recv()).await.unwrap() {
        Some(bowline::Message::Text(text)) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn dial(address: SocketAddr) -> WebSocket {
    soon(bowline::connect(format!("ws://{address}/"))).await.unwrap()
}

/// Performs a client's handshake over any stream.
async fn connect_over(stream: DuplexStream) -> WebSocket {
    soon(Connector::new().connect_over("ws://any.example/", stream)).await.unwrap().0
}

/// A signal, and the sender that lets it complete.
fn signal() -> (oneshot::Sender<()>, impl Future<Output = ()> + Send + 'static) {
    let (stop, stopped) = oneshot::channel();
    (stop, async {
        let _ = stopped.await;
    })
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_is_served() {
    use tokio::net::{UnixListener, UnixStream};

    let path = std::env::temp_dir().join(format!("bowline-test-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(bowline::serve(listener, report));
    let stream = UnixStream::connect(&path).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let (mut socket, _) = soon(Connector::new().connect_over("ws://any.example/", stream)).await.unwrap();
    assert_eq!(first_text(&mut socket).await, "nobody boxed false");
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
}

/// The listener of the documentation, shortened: the first line is the address of the client.
struct FirstLine {
    listener: TcpListener,
    arriving: JoinSet<io::Result<(TcpStream, Option<SocketAddr>)>>,
}

impl Listener for FirstLine {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let (mut stream, _) = accepted?;
                    self.arriving.spawn(async move {
                        let mut line = Vec::new();
                        while !line.ends_with(b"\n") {
                            line.push(stream.read_u8().await?);
                        }
                        let peer = String::from_utf8_lossy(&line).trim().parse().map_err(io::Error::other)?;
                        Ok((stream, Some(peer)))
                    });
                }
                arrived = self.arriving.join_next(), if !self.arriving.is_empty() => {
                    if let Some(Ok(Ok(arrived))) = arrived {
                        return Ok(arrived);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_listener_of_the_applications_own_says_who_the_peer_is() {
    let (listener, address) = listen().await;
    tokio::spawn(bowline::serve(FirstLine { listener, arriving: JoinSet::new() }, report));
    // A client that sends nothing, and one that sends nonsense, keep nobody waiting.
    let _silent = TcpStream::connect(address).await.unwrap();
    TcpStream::connect(address).await.unwrap().write_all(b"nonsense\n").await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"203.0.113.7:51234\n").await.unwrap();
    let (mut socket, _) = soon(Connector::new().connect_over("ws://any.example/", stream)).await.unwrap();
    assert_eq!(first_text(&mut socket).await, "203.0.113.7:51234 fast true");
}

/// A listener whose connections come from a channel.
struct Channel(mpsc::UnboundedReceiver<io::Result<DuplexStream>>);

impl Listener for Channel {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
        match self.0.recv().await {
            Some(stream) => Ok((stream?, None)),
            None => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_fails_is_asked_again_after_a_pause() {
    let (streams, receiver) = mpsc::unbounded_channel();
    let (errors, mut reported) = mpsc::unbounded_channel();
    let server = Server::new().on_error(move |error| errors.send(error.to_string()).unwrap());
    tokio::spawn(server.serve(Channel(receiver), report));
    streams.send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
    streams.send(Err(io::Error::other("no descriptors left"))).unwrap();
    let (stream, other) = duplex(4096);
    streams.send(Ok(other)).unwrap();
    let begun = tokio::time::Instant::now();
    let mut socket = connect_over(stream).await;
    assert_eq!(first_text(&mut socket).await, "nobody boxed false");
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
    let text = soon(reported.recv()).await.unwrap();
    assert!(text.contains("no descriptors left"), "{text}");
}

/// A listener that is always ready, with an error of one connection.
struct Flood(Arc<AtomicUsize>);

impl Listener for Flood {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
        // It ends, so that the test fails rather than hangs.
        if self.0.fetch_add(1, Ordering::Relaxed) > 1_000_000 {
            std::future::pending::<()>().await;
        }
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

#[tokio::test]
async fn a_listener_that_is_always_ready_lets_other_tasks_run() {
    let calls = Arc::new(AtomicUsize::new(0));
    let serving = tokio::spawn(bowline::serve(Flood(Arc::clone(&calls)), echo));
    tokio::task::yield_now().await;
    let before = calls.load(Ordering::Relaxed);
    assert!((1..1000).contains(&before), "{before} calls at once");
    serving.abort();
}

#[tokio::test]
async fn clones_serve_several_listeners_and_one_signal_ends_them() {
    let (stop, stopped) = signal();
    let server = Server::new().shutdown(stopped, MINUTE);
    let mut servings = Vec::new();
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let (listener, address) = listen().await;
        servings.push(tokio::spawn(server.clone().serve(listener, report)));
        let mut socket = dial(address).await;
        first_text(&mut socket).await;
        sockets.push(socket);
    }
    // The one that waits for the signal itself is gone. Its connections end, and the others go on.
    let first = servings.remove(0);
    first.abort();
    let error = soon(sockets.remove(0).recv()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Io), "{error}");
    stop.send(()).unwrap();
    for (serving, mut socket) in servings.into_iter().zip(sockets) {
        assert_eq!(soon(socket.recv()).await.unwrap(), None);
        assert_eq!(socket.close_frame().unwrap().code(), CloseCode::GOING_AWAY);
        let shutdown = soon(serving).await.unwrap().unwrap();
        assert_eq!((shutdown.closed(), shutdown.ended()), (1, 0));
    }
    // The signal has completed, so a further call ends at once.
    let (listener, _) = listen().await;
    soon(server.serve(listener, echo)).await.unwrap();
}

#[tokio::test]
async fn a_clones_options_are_its_own() {
    let server = Server::new();
    let strict = server
        .clone()
        .on_request(|_| async { Err::<http::request::Parts, _>(http::StatusCode::FORBIDDEN.into()) });
    let (open, address) = listen().await;
    let (shut, other) = listen().await;
    tokio::spawn(server.serve(open, echo));
    tokio::spawn(strict.serve(shut, echo));
    dial(address).await;
    let error = soon(bowline::connect(format!("ws://{other}/"))).await.unwrap_err();
    assert_eq!(error.response().unwrap().status(), 403);
}

#[tokio::test]
async fn a_connection_that_the_application_accepted_is_served() {
    let server = Server::new();
    let (listener, address) = listen().await;
    let client = TcpStream::connect(address).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let serving = tokio::spawn(server.serve_connection(stream, peer, report));
    let (mut socket, _) = soon(Connector::new().connect_over("ws://any.example/", client)).await.unwrap();
    assert_eq!(first_text(&mut socket).await, format!("{peer} fast true"));
    assert!(!serving.is_finished());
    soon(socket.close(CloseCode::NORMAL, "")).await.unwrap();
    soon(serving).await.unwrap().unwrap();

    // Any other stream, with the address of a client or without one.
    for peer in [None, Some(SocketAddr::from(([203, 0, 113, 7], 51234)))] {
        let (client, stream) = duplex(4096);
        tokio::spawn(server.serve_connection(stream, peer, report));
        let mut socket = connect_over(client).await;
        let peer = peer.map_or_else(|| "nobody".to_owned(), |peer| peer.to_string());
        assert_eq!(first_text(&mut socket).await, format!("{peer} boxed false"));
    }
}

#[tokio::test]
async fn a_connection_that_the_application_accepted_reports_its_errors() {
    let (errors, mut reported) = mpsc::unbounded_channel();
    let server = Server::new().on_error(move |error| errors.send(error.to_string()).unwrap());
    let panics = |_: WebSocket| async { panic!("on the first day") };
    let (client, stream) = duplex(4096);
    let serving = tokio::spawn(server.serve_connection(stream, None, panics));
    let mut socket = connect_over(client).await;
    let error = soon(socket.recv()).await.unwrap_err();
    assert_eq!(error.close_frame().unwrap().code(), CloseCode::INTERNAL_ERROR);
    let text = soon(reported.recv()).await.unwrap();
    assert!(text.contains("the handler panicked: on the first day"), "{text}");
    drop(socket);
    soon(serving).await.unwrap().unwrap();

    let invalid = server.acceptor(Acceptor::new().limits(Limits::default().write_buffer(0)));
    let error = soon(invalid.serve_connection(duplex(64).0, None, echo)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(error.to_string().contains("Limits::write_buffer"), "{error}");
}

#[tokio::test]
async fn a_shutdown_closes_connections_that_the_application_accepted() {
    let (stop, stopped) = signal();
    let server = Server::new().shutdown(stopped, MINUTE);
    let (client, stream) = duplex(4096);
    let serving = tokio::spawn(server.serve_connection(stream, None, report));
    let mut socket = connect_over(client).await;
    first_text(&mut socket).await;
    stop.send(()).unwrap();
    assert_eq!(soon(socket.recv()).await.unwrap(), None);
    assert_eq!(socket.close_frame().unwrap().code(), CloseCode::GOING_AWAY);
    soon(serving).await.unwrap().unwrap();
    // A connection that comes after the signal is dropped.
    let (mut late, stream) = duplex(4096);
    soon(server.serve_connection(stream, None, report)).await.unwrap();
    assert_eq!(soon(late.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_accepted_connections_until_its_deadline_only() {
    let (stop, stopped) = signal();
    let hour = Duration::from_secs(3600);
    let server = Server::new()
        .acceptor(Acceptor::new().limits(Limits::default().handshake_timeout(hour)))
        .handshakes_per_second(1)
        .shutdown(stopped, Duration::from_secs(10));
    let stuck = |_: WebSocket| std::future::pending::<HandlerResult>();
    let (client, stream) = duplex(4096);
    let stuck = tokio::spawn(server.serve_connection(stream, None, stuck));
    let mut socket = connect_over(client).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // One is in the middle of its handshake, and one waits for its time.
    let (mut half, stream) = duplex(4096);
    half.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let half = tokio::spawn(server.serve_connection(stream, None, echo));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let (_waiting, stream) = duplex(4096);
    let waiting = tokio::spawn(server.serve_connection(stream, None, echo));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let begun = tokio::time::Instant::now();
    stop.send(()).unwrap();
    half.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_millis(10), "{:?}", begun.elapsed());
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(socket.close_frame().unwrap().code(), CloseCode::GOING_AWAY);
    stuck.await.unwrap().unwrap();
    let elapsed = begun.elapsed();
    assert!(elapsed >= Duration::from_secs(10) && elapsed < Duration::from_secs(11), "{elapsed:?}");
}

#[tokio::test]
async fn a_dropped_call_ends_the_connection_that_the_application_accepted() {
    let held = Arc::new(());
    let (client, stream) = duplex(4096);
    let kept = Arc::clone(&held);
    let handler = move |mut socket: WebSocket| {
        let kept = Arc::clone(&kept);
        async move {
            socket.send("ready").await?;
            socket.recv().await?;
            drop(kept);
            Ok(())
        }
    };
    let serving = tokio::spawn(Server::new().serve_connection(stream, None, handler));
    let mut socket = connect_over(client).await;
    assert_eq!(first_text(&mut socket).await, "ready");
    serving.abort();
    soon(socket.recv()).await.unwrap_err();
    while Arc::strong_count(&held) > 1 {
        tokio::task::yield_now().await;
    }
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn a_connection_that_the_application_accepted_may_carry_many() {
    let (listener, address) = listen().await;
    let (stop, stopped) = signal();
    let server = Server::new().http2().shutdown(stopped, MINUTE);
    let serving = tokio::spawn(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        server.serve_connection(stream, peer, report).await
    });
    let connector = Connector::new().http_version(bowline::HttpVersion::Http2);
    let url = format!("ws://{address}/");
    let http2 = soon(connector.connect_http2(&url)).await.unwrap();
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let (mut socket, _) = soon(http2.connect(&url)).await.unwrap();
        assert!(first_text(&mut socket).await.starts_with("127.0.0.1:"));
        sockets.push(socket);
    }
    stop.send(()).unwrap();
    for mut socket in sockets {
        assert_eq!(soon(socket.recv()).await.unwrap(), None);
    }
    soon(serving).await.unwrap().unwrap();
}
