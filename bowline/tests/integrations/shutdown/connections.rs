//! `Connections`: the shutdown of applications on other HTTP servers, without one.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bowline::{
    Acceptor, Adoption, CloseCode, Connections, Connector, ErrorKind, Limits, Message, RejectionReason,
    Server, ServerError, ServerHandshake, ShutdownOptions, WebSocket,
};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::support::http::{HandlerResult, Head, echo, soon};
use crate::support::{poll_once, settle};

const DEADLINE: Duration = Duration::from_secs(30);

fn registry() -> (Connections, Acceptor) {
    let connections = Connections::new();
    let acceptor = Acceptor::new().connections(&connections);
    (connections, acceptor)
}

/// Opens a connection by `Acceptor::accept_stream`. Returns the client and the server.
async fn open(acceptor: &Acceptor) -> (WebSocket, WebSocket) {
    let (near, far) = duplex(4096);
    let connector = Connector::new();
    let connecting = connector.connect_over("ws://any.example/", near);
    let (client, server) = tokio::join!(connecting, acceptor.accept_stream(far).into_future());
    (client.unwrap().0, server.unwrap().0)
}

fn respond(acceptor: &Acceptor) -> ServerHandshake {
    acceptor.respond(&Head::request().to_request()).unwrap().1
}

/// Serves one connection by hyper, and spawns a handler for it.
fn serve_by_hyper<F, Fut>(
    acceptor: Acceptor,
    handler: F,
) -> (DuplexStream, mpsc::UnboundedReceiver<ServerError>)
where
    F: FnOnce(WebSocket) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = HandlerResult> + Send + 'static,
{
    let (near, far) = duplex(4096);
    let (sender, errors) = mpsc::unbounded_channel();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (response, upgrade) = acceptor.accept::<_, String>(&mut request).unwrap();
        let sender = sender.clone();
        upgrade.on_error(move |error| sender.send(error).unwrap()).spawn(handler.clone());
        async { Ok::<_, Infallible>(response) }
    });
    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(far), service).with_upgrades());
    (near, errors)
}

async fn connect_over(stream: DuplexStream) -> WebSocket {
    soon(Connector::new().connect_over("ws://any.example/chat?token=secret", stream)).await.unwrap().0
}

/// Opens a connection to a peer that answers nothing, and returns its end of the stream.
fn open_to_mute(acceptor: &Acceptor) -> (DuplexStream, WebSocket) {
    let (peer, stream) = duplex(4096);
    (peer, respond(acceptor).finish(stream, Vec::new()))
}

async fn assert_closed(client: &mut WebSocket, code: CloseCode) {
    // 1001 is a normal end, and other codes are errors.
    assert_eq!(soon(client.recv()).await.ok().flatten(), None);
    assert_eq!(client.close_frame().unwrap().code(), code);
}

#[tokio::test(start_paused = true)]
async fn all_ways_to_a_websocket_are_waited_for() {
    let (connections, acceptor) = registry();
    let (near, far) = duplex(4096);
    let adopting = Connector::new().adopt(near, Adoption::new()).unwrap();
    let adopted = (adopting, acceptor.adopt(far, Adoption::new()).unwrap());
    let (near, far) = duplex(4096);
    let adopting = Connector::new().adopt(near, Adoption::new()).unwrap();
    let finished = (adopting, respond(&acceptor).finish(far, Vec::new()));
    let accepted = open(&acceptor).await;

    let mut shutdown = pin!(connections.shutdown(DEADLINE));
    assert!(poll_once(shutdown.as_mut()).await.is_none());
    for (mut client, mut server) in [adopted, finished, accepted] {
        assert_closed(&mut client, CloseCode::GOING_AWAY).await;
        assert_eq!(soon(server.recv()).await.unwrap(), None);
        drop(client);
        settle().await;
        assert!(poll_once(shutdown.as_mut()).await.is_none(), "a handler still has its WebSocket");
        drop(server);
    }
    let summary = soon(shutdown).await.unwrap();
    assert_eq!((summary.closed(), summary.ended()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_spawned_handler_is_waited_for_beyond_its_websocket() {
    let (connections, acceptor) = registry();
    let (finish, finished) = watch::channel(());
    let handler = |socket| async move {
        echo(socket).await?;
        let _ = finished.clone().changed().await;
        Ok(())
    };
    let (stream, mut errors) = serve_by_hyper(acceptor, handler);
    let mut client = connect_over(stream).await;
    let mut shutdown = pin!(connections.shutdown(DEADLINE));
    assert!(poll_once(shutdown.as_mut()).await.is_none());
    assert_closed(&mut client, CloseCode::GOING_AWAY).await;
    drop(client);
    settle().await;
    assert!(poll_once(shutdown.as_mut()).await.is_none());
    drop(finish);
    assert_eq!(soon(shutdown).await.unwrap().closed(), 1);
    assert!(errors.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_spawned_handler_is_aborted_at_the_deadline() {
    let (connections, acceptor) = registry();
    let (running, mut ended) = watch::channel(());
    let (stream, _errors) = serve_by_hyper(acceptor, |_socket| async move {
        let _running = running;
        std::future::pending().await
    });
    let mut client = connect_over(stream).await;
    let (summary, ()) =
        tokio::join!(connections.shutdown(DEADLINE), assert_closed(&mut client, CloseCode::GOING_AWAY));
    assert_eq!(summary.unwrap().ended(), 1);
    soon(ended.changed()).await.unwrap_err();
}

#[tokio::test]
async fn rfc6455_7_4_1_the_result_of_a_spawned_handler_closes_the_connection() {
    let fails = |_| async { HandlerResult::Err("out of luck".into()) };
    let panics = |_| async { panic!("out of luck") };
    let (failing, panicking) =
        (serve_by_hyper(Acceptor::new(), fails), serve_by_hyper(Acceptor::new(), panics));
    for ((stream, mut errors), text) in
        [(failing, "out of luck"), (panicking, "the handler panicked: out of luck")]
    {
        assert_closed(&mut connect_over(stream).await, CloseCode::INTERNAL_ERROR).await;
        assert_eq!(soon(errors.recv()).await.unwrap().to_string(), format!("GET /chat: {text}"));
    }
    let (stream, mut errors) = serve_by_hyper(Acceptor::new(), |_| async { Ok(()) });
    assert_closed(&mut connect_over(stream).await, CloseCode::NORMAL).await;
    assert!(errors.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_last_bytes_are_waited_for() {
    let (connections, acceptor) = registry();
    let (mut client, server) = open(&acceptor).await;
    server.send(vec![7; 50_000]).await.unwrap();
    let mut shutdown = pin!(connections.shutdown(DEADLINE));
    assert!(poll_once(shutdown.as_mut()).await.is_none());
    // The stream holds 4 KiB, and the rest waits for the client.
    drop(server);
    settle().await;
    assert!(poll_once(shutdown.as_mut()).await.is_none());
    assert_eq!(soon(client.recv()).await.unwrap(), Some(vec![7; 50_000].into()));
    assert_closed(&mut client, CloseCode::GOING_AWAY).await;
    assert_eq!(soon(shutdown).await.unwrap().closed(), 1);
}

#[tokio::test(start_paused = true)]
async fn connections_that_have_ended_are_forgotten() {
    let (connections, acceptor) = registry();
    let (mut client, server) = open(&acceptor).await;
    // One ends before its `WebSocket` is dropped, one after it, and one never opens.
    let (other_client, mut other_server) = open(&acceptor).await;
    drop(server);
    assert_eq!(client.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
    drop(other_client);
    assert_eq!(other_server.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
    settle().await;
    drop(other_server);
    drop(respond(&acceptor));
    settle().await;
    let mut shutdown = pin!(connections.shutdown(DEADLINE));
    let summary = poll_once(shutdown.as_mut()).await.expect("there is nobody to wait for").unwrap();
    assert_eq!((summary.closed(), summary.ended()), (0, 0));
}

#[tokio::test]
async fn a_handshake_during_a_shutdown_is_rejected() {
    let (connections, acceptor) = registry();
    // Other settings do not matter, and neither does the order.
    let acceptor = acceptor.clone().subprotocols(["chat.v1"]);
    let (client, server) = open(&acceptor).await;
    let mut shutdown = pin!(connections.shutdown(DEADLINE));
    assert!(poll_once(shutdown.as_mut()).await.is_none());
    for _ in 0..2 {
        let rejection = acceptor.respond(&Head::request().to_request()).unwrap_err();
        let response = rejection.into_response::<String>();
        assert_eq!(
            (response.status().as_u16(), response.headers()["retry-after"].as_bytes()),
            (503, &b"5"[..])
        );
        assert_eq!(response.body(), "the server is shutting down\n");
        let error = acceptor.adopt(duplex(64).0, Adoption::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(error.to_string().contains("Connections::shutdown"), "{error}");
    }
    // A request that is no handshake is told so.
    let malformed = Head::request().without("sec-websocket-key").to_request();
    assert_eq!(acceptor.respond(&malformed).unwrap_err().status(), 400);
    drop((client, server));
    soon(shutdown).await.unwrap();
    // It stays shut.
    assert_eq!(acceptor.respond(&Head::request().to_request()).unwrap_err().status(), 503);
    assert!(
        Acceptor::new().respond(&Head::request().to_request()).is_ok(),
        "another acceptor is not concerned"
    );
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_was_accepted_before_opens_and_is_closed_at_once() {
    let (connections, acceptor) = registry();
    let (early, dropped) = (respond(&acceptor), respond(&acceptor));
    let options = ShutdownOptions::new(DEADLINE).close_frame(CloseCode::SERVICE_RESTART, "");
    let mut shutdown = pin!(connections.shutdown(options));
    assert!(poll_once(shutdown.as_mut()).await.is_none());
    let (near, far) = duplex(4096);
    let mut server = early.finish(far, Vec::new());
    let mut client = Connector::new().adopt(near, Adoption::new()).unwrap();
    assert_closed(&mut client, CloseCode::SERVICE_RESTART).await;
    assert_eq!(soon(server.recv()).await.unwrap(), None);
    drop(server);
    settle().await;
    assert!(poll_once(shutdown.as_mut()).await.is_none(), "the other handshake may still open");
    drop(dropped);
    assert_eq!(soon(shutdown).await.unwrap().closed(), 1);
}

/// The WebSockets of a `Server` can be closed while the server goes on.
#[tokio::test(start_paused = true)]
async fn a_server_may_have_connections_too() {
    let (connections, acceptor) = registry();
    let server = Server::new().acceptor(acceptor);
    let connect = async || {
        let (near, far) = duplex(4096);
        tokio::spawn(server.serve_connection(far, None, echo));
        Connector::new().connect_over("ws://any.example/", near).await
    };
    let (mut client, _) = soon(connect()).await.unwrap();
    client.send("hello").await.unwrap();
    assert_eq!(soon(client.recv()).await.unwrap(), Some("hello".into()));
    let (summary, ()) =
        tokio::join!(connections.shutdown(DEADLINE), assert_closed(&mut client, CloseCode::GOING_AWAY));
    let summary = summary.unwrap();
    assert_eq!((summary.closed(), summary.ended()), (1, 0));
    let error = soon(connect()).await.unwrap_err();
    assert_eq!(error.response().unwrap().status(), 503);
    settle().await;
    let rejected: Vec<_> = server.stats().rejections().filter(|(_, count)| *count > 0).collect();
    assert_eq!(rejected, [(RejectionReason::Shutdown, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_opens_after_the_deadline_has_no_transport() {
    let (connections, acceptor) = registry();
    let late = respond(&acceptor);
    let begun = Instant::now();
    let summary = connections.shutdown(DEADLINE).await.unwrap();
    assert_eq!((summary.closed(), summary.ended(), begun.elapsed()), (0, 0, DEADLINE));
    let (near, far) = duplex(4096);
    let mut server = late.finish(far, Vec::new());
    assert_eq!(soon(server.recv()).await.unwrap_err().kind(), ErrorKind::Closed);
    let mut client = Connector::new().adopt(near, Adoption::new()).unwrap();
    assert_eq!(soon(client.recv()).await.unwrap_err().kind(), ErrorKind::Disconnected);
}

/// A peer that answers nothing holds the shutdown up for the close timeout, or until the deadline.
#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_nothing_does_not_hold_a_shutdown_up() {
    let limits = Limits::default().close_timeout(Duration::from_secs(5));
    for (deadline, took) in [(30, 5), (2, 2)] {
        let (connections, acceptor) = registry();
        let (_peer, mut server) = open_to_mute(&acceptor.limits(limits.clone()));
        let handler = tokio::spawn(async move { server.recv().await });
        let begun = Instant::now();
        let summary = connections.shutdown(Duration::from_secs(deadline)).await.unwrap();
        assert_eq!((summary.closed(), summary.ended()), (0, 1));
        assert_eq!(begun.elapsed().as_secs(), took);
        assert_eq!(soon(handler).await.unwrap().unwrap(), None, "our Close frame was first");
    }
}

/// The task is not ours, so it can't be aborted.
#[tokio::test(start_paused = true)]
async fn a_handler_that_ignores_the_close_does_not_hold_a_shutdown_up() {
    let (connections, acceptor) = registry();
    let (mut client, server) = open(&acceptor).await;
    let begun = Instant::now();
    let (summary, ()) =
        tokio::join!(connections.shutdown(DEADLINE), assert_closed(&mut client, CloseCode::GOING_AWAY));
    assert_eq!(begun.elapsed(), DEADLINE);
    // It has ended with a closing handshake, but its handler has not.
    assert_eq!(summary.unwrap().ended(), 1);
    assert_eq!(server.send("too late").await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn shutdowns_at_the_same_time_have_the_same_result() {
    let (connections, acceptor) = registry();
    let (mut client, server) = open(&acceptor).await;
    let again = connections.clone();
    let (first, second, ()) = tokio::join!(connections.shutdown(DEADLINE), again.shutdown(DEADLINE), async {
        assert_closed(&mut client, CloseCode::GOING_AWAY).await;
        drop(server);
    });
    let summary = first.unwrap();
    assert_eq!((summary, summary.closed()), (second.unwrap(), 1));
    assert_eq!(connections.shutdown(DEADLINE).await.unwrap(), summary, "another one finds nothing to do");
}

#[tokio::test(start_paused = true)]
async fn a_second_shutdown_can_end_the_first_sooner() {
    let (connections, acceptor) = registry();
    let (_peer, server) = open_to_mute(&acceptor);
    let begun = Instant::now();
    let sooner = async {
        settle().await;
        connections.shutdown(Duration::from_secs(1)).await
    };
    let (first, second) = tokio::join!(connections.shutdown(DEADLINE), sooner);
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert_eq!((first.unwrap().ended(), second.unwrap().ended()), (1, 1));
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_was_dropped_can_be_continued() {
    let (connections, acceptor) = registry();
    let options = || ShutdownOptions::new(DEADLINE).spread(Duration::from_secs(10));
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(open(&acceptor).await);
    }
    // The first connection is closed at once.
    assert!(poll_once(pin!(connections.shutdown(options()))).await.is_none());
    settle().await;
    let open_ones = sockets.iter().filter(|(client, _)| !client.sender().is_closed()).count();
    assert_eq!(open_ones, 2);
    assert_eq!(acceptor.respond(&Head::request().to_request()).unwrap_err().status(), 503);
    for (client, server) in &mut sockets {
        if !client.sender().is_closed() {
            client.send("still here").await.unwrap();
            assert_eq!(soon(server.recv()).await.unwrap(), Some(Message::from("still here")));
        }
    }
    let (summary, ()) = tokio::join!(connections.shutdown(DEADLINE), async {
        for (client, server) in &mut sockets {
            assert_closed(client, CloseCode::GOING_AWAY).await;
            assert_eq!(soon(server.recv()).await.unwrap(), None);
        }
        sockets.clear();
    });
    assert_eq!((summary.unwrap().closed()), 3);
}

#[tokio::test]
async fn the_drop_of_all_connections_closes_nothing() {
    let (connections, acceptor) = registry();
    let (client, server) = open(&acceptor).await;
    tokio::spawn(echo(server));
    drop((connections, acceptor));
    let mut client = client;
    client.send("hello").await.unwrap();
    assert_eq!(soon(client.recv()).await.unwrap(), Some("hello".into()));
    soon(client.close(CloseCode::NORMAL, "")).await.unwrap();
}

/// The runtime drops the tasks in any order, those of the connections before or after those that wait.
#[test]
fn a_runtime_may_be_dropped_at_any_time() {
    for _ in 0..20 {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (connections, acceptor) = registry();
        runtime.block_on(async {
            for _ in 0..5 {
                let (mut peer, server) = open_to_mute(&acceptor);
                tokio::spawn(echo(server));
                tokio::spawn(async move {
                    let _ = peer.write_all(b"\x81").await;
                    std::future::pending::<()>().await;
                });
            }
            let waiting = connections.clone();
            tokio::spawn(async move { waiting.shutdown(DEADLINE).await });
        });
        drop(runtime);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let summary = runtime.block_on(async { soon(connections.shutdown(DEADLINE)).await.unwrap() });
        assert!(summary.closed() == 0 && summary.ended() <= 5, "{summary:?}");
    }
}

#[tokio::test]
async fn invalid_options_close_nothing() {
    let (connections, acceptor) = registry();
    let (client, server) = open(&acceptor).await;
    let options = ShutdownOptions::new(Duration::from_secs(1)).spread(Duration::from_secs(2));
    let error = connections.shutdown(options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("ShutdownOptions::spread"), "{error}");
    assert!(acceptor.respond(&Head::request().to_request()).is_ok());
    assert!(!client.sender().is_closed() && !server.sender().is_closed());
}

/// A stream of the application's that panics when it is written to.
struct Panicking(DuplexStream);

impl AsyncRead for Panicking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Panicking {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        panic!("a bug of the stream");
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_panics_keeps_no_other_connection_open() {
    let (connections, acceptor) = registry();
    let mut broken = Vec::new();
    let mut peers = Vec::new();
    let mut sound = Vec::new();
    for _ in 0..4 {
        let (peer, stream) = duplex(4096);
        peers.push(peer);
        broken.push(acceptor.adopt(Panicking(stream), Adoption::new()).unwrap());
        sound.push(open(&acceptor).await);
    }
    let (mut clients, servers): (Vec<_>, Vec<_>) = sound.into_iter().unzip();
    let handlers = tokio::spawn(async move {
        for server in servers {
            echo(server).await.unwrap();
        }
    });
    let shutdown = tokio::spawn(async move { connections.shutdown(DEADLINE).await.unwrap() });
    for client in &mut clients {
        assert_closed(client, CloseCode::GOING_AWAY).await;
    }
    handlers.await.unwrap();
    shutdown.await.unwrap();
    drop(broken);
}
