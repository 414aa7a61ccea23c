//! Shutdowns that are spread over a time, with a Close frame of the application's; and those of other HTTP
//! servers.

#[cfg(feature = "axum")]
mod axum;
mod connections;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::{
    Acceptor, CloseCode, Connector, Limits, Listener, RejectionReason, Server, ShutdownOptions, WebSocket,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, advance, sleep};

use crate::support::http::{HandlerResult, Head, echo, soon};
use crate::support::settle;

const WINDOW: Duration = Duration::from_millis(100);

/// A listener whose connections come from a channel.
struct Channel(mpsc::UnboundedReceiver<DuplexStream>);

impl Listener for Channel {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
        match self.0.recv().await {
            Some(stream) => Ok((stream, None)),
            None => std::future::pending().await,
        }
    }
}

/// A signal, and the sender that lets it complete.
fn signal() -> (oneshot::Sender<()>, impl Future<Output = ()> + Send + 'static) {
    let (stop, stopped) = oneshot::channel();
    (stop, async {
        let _ = stopped.await;
    })
}

/// The times at which the connections of a server were closed.
#[derive(Clone, Default)]
struct Closings(Arc<Mutex<Vec<Instant>>>);

impl Closings {
    fn handler(&self) -> impl bowline::Handler<(WebSocket,)> + Clone + use<> {
        let closings = self.clone();
        move |socket: WebSocket| {
            let closings = closings.clone();
            async move {
                socket.sender().closed().await;
                closings.0.lock().unwrap().push(Instant::now());
                Ok(())
            }
        }
    }

    fn take(&self) -> Vec<Instant> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Returns the largest number of `times`, which are in order, that lie in one window.
fn most_in_a_window(times: &[Instant], window: Duration) -> usize {
    let within = |first: usize| times.partition_point(|at| *at < times[first] + window) - first;
    (0..times.len()).map(within).max().unwrap_or(0)
}

/// Opens a connection to the server at the other end of the returned stream, which is polled elsewhere.
async fn member() -> (DuplexStream, DuplexStream) {
    let (mut client, stream) = duplex(512);
    client.write_all(Head::request().text().as_bytes()).await.unwrap();
    (client, stream)
}

/// Members are clients that answer nothing, and so are closed when the close timeout has passed.
fn acceptor() -> Acceptor {
    let limits = Limits::default().close_timeout(Duration::from_secs(1));
    Acceptor::new().limits(limits).keepalive(None)
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_members_are_closed_evenly() {
    let spread = Duration::from_secs(10);
    let times = close_evenly(10_000, spread).await;
    let most = most_in_a_window(&times, WINDOW);
    assert!(most <= 200, "{most} within {WINDOW:?}");
}

/// A node that drains sends the others no more clients in a second than they expect.
#[tokio::test(start_paused = true)]
#[ignore = "takes a minute, and half a gigabyte"]
async fn a_hundred_thousand_members_leave_at_most_two_thousand_a_second() {
    let times = close_evenly(100_000, Duration::from_secs(60)).await;
    let most = most_in_a_window(&times, Duration::from_secs(1));
    assert!(most <= 2000, "{most} within a second");
}

/// Shuts a server down over a time, and returns the times at which its connections were closed, in order.
async fn close_evenly(members: usize, spread: Duration) -> Vec<Instant> {
    let (stop, stopped) = signal();
    let options = ShutdownOptions::new(spread * 3)
        .spread(spread)
        .close_frame(CloseCode::SERVICE_RESTART, "please connect again");
    let server = Server::new().acceptor(acceptor()).shutdown(stopped, options);
    let closings = Closings::default();
    let (streams, receiver) = mpsc::unbounded_channel();
    let serving = tokio::spawn(server.serve(Channel(receiver), closings.handler()));
    let mut clients = Vec::new();
    for _ in 0..members {
        let (client, stream) = member().await;
        streams.send(stream).unwrap();
        clients.push(client);
    }
    sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    stop.send(()).unwrap();
    let shutdown = serving.await.unwrap().unwrap();
    assert_eq!((shutdown.closed(), shutdown.ended()), (0, members), "no client answers");
    let times = closings.take();
    assert_eq!(times.len(), members);
    let last = *times.last().unwrap() - begun;
    assert!(last > spread * 99 / 100 && last < spread * 102 / 100, "{last:?}");
    // They are even from the beginning to the end, too.
    for tenth in 0..10 {
        let range = begun + spread * tenth / 10..begun + spread * (tenth + 1) / 10;
        let count = times.iter().filter(|at| range.contains(at)).count();
        assert!(count.abs_diff(members / 10) < members / 50, "{count} in tenth {tenth}");
    }
    times
}

/// The connections of several listeners, and those that the application has accepted itself.
#[tokio::test(start_paused = true)]
async fn members_are_closed_evenly_wherever_they_came_from() {
    const EACH: usize = 200;
    let spread = Duration::from_secs(10);
    let (stop, stopped) = signal();
    let options = ShutdownOptions::new(Duration::from_secs(30)).spread(spread);
    let server = Server::new().acceptor(acceptor()).shutdown(stopped, options);
    let closings = Closings::default();
    let mut clients = Vec::new();
    let mut servings = Vec::new();
    for _ in 0..2 {
        let (streams, receiver) = mpsc::unbounded_channel();
        servings.push(tokio::spawn(server.clone().serve(Channel(receiver), closings.handler())));
        for _ in 0..EACH {
            let (client, stream) = member().await;
            streams.send(stream).unwrap();
            clients.push(client);
        }
    }
    for _ in 0..EACH {
        let (client, stream) = member().await;
        tokio::spawn(server.serve_connection(stream, None, closings.handler()));
        clients.push(client);
    }
    sleep(Duration::from_secs(1)).await;
    stop.send(()).unwrap();
    for serving in servings {
        assert_eq!(serving.await.unwrap().unwrap().ended(), EACH);
    }
    sleep(Duration::from_secs(1)).await;
    let times = closings.take();
    assert_eq!(times.len(), 3 * EACH);
    let most = most_in_a_window(&times, WINDOW);
    assert!(most <= 2 * 3 * EACH / 100, "{most} within {WINDOW:?}");
}

/// The WebSockets of one HTTP/2 connection, which accepts no further ones meanwhile.
#[cfg(feature = "http2")]
#[tokio::test]
async fn websockets_over_http2_are_closed_one_after_the_other() {
    let (stop, stopped) = signal();
    let options = ShutdownOptions::new(Duration::from_secs(30)).spread(Duration::from_secs(1));
    let server = Server::new().http2().shutdown(stopped, options);
    let closings = Closings::default();
    let (listener, address) = crate::support::http::listen().await;
    let serving = tokio::spawn(server.serve(listener, closings.handler()));
    let http2 = Connector::new().http_version(bowline::HttpVersion::Http2);
    let http2 = soon(http2.connect_http2(format!("ws://{address}/"))).await.unwrap();
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(soon(http2.connect("/")).await.unwrap().0);
    }
    let begun = Instant::now();
    stop.send(()).unwrap();
    for socket in &mut sockets {
        assert_eq!(soon(socket.recv()).await.unwrap(), None);
        assert_eq!(socket.close_frame().unwrap().code(), CloseCode::GOING_AWAY);
    }
    let shutdown = soon(serving).await.unwrap().unwrap();
    assert_eq!((shutdown.closed(), shutdown.ended()), (4, 0));
    // After 0, 24, 62 and 85 % of the time.
    let times: Vec<_> = closings.take().iter().map(|at| (*at - begun).as_millis()).collect();
    for (time, at_least) in times.iter().zip([0, 236, 618, 854]) {
        assert!(*time >= at_least, "{times:?}");
    }
}

/// A client that has connected within the last moment stays for a while.
#[tokio::test(start_paused = true)]
async fn the_oldest_connection_is_closed_first() {
    let (stop, stopped) = signal();
    let options = ShutdownOptions::new(Duration::from_secs(30)).spread(Duration::from_secs(20));
    let server = Server::new().shutdown(stopped, options);
    let (streams, receiver) = mpsc::unbounded_channel();
    let serving = tokio::spawn(server.serve(Channel(receiver), echo));
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let (client, stream) = duplex(4096);
        streams.send(stream).unwrap();
        sockets.push(Connector::new().connect_over("ws://any.example/", client).await.unwrap().0);
    }
    stop.send(()).unwrap();
    let begun = Instant::now();
    assert_eq!(sockets[0].recv().await.unwrap(), None);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    for socket in &mut sockets[1..] {
        socket.send("hello").await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some("hello".into()));
    }
    drop(sockets);
    serving.await.unwrap().unwrap();
}

/// A burst that catches up would be the one that the spread avoids.
#[tokio::test(start_paused = true)]
async fn a_process_that_was_stopped_does_not_catch_up() {
    const MEMBERS: usize = 1000;
    let (stop, stopped) = signal();
    let options = ShutdownOptions::new(Duration::from_secs(60)).spread(Duration::from_secs(10));
    let server = Server::new().acceptor(acceptor()).shutdown(stopped, options);
    let closings = Closings::default();
    let (streams, receiver) = mpsc::unbounded_channel();
    let serving = tokio::spawn(server.serve(Channel(receiver), closings.handler()));
    let mut clients = Vec::new();
    for _ in 0..MEMBERS {
        let (client, stream) = member().await;
        streams.send(stream).unwrap();
        clients.push(client);
    }
    sleep(Duration::from_secs(1)).await;
    stop.send(()).unwrap();
    sleep(Duration::from_secs(1)).await;
    let before = closings.take().len();
    assert!(before.abs_diff(MEMBERS / 10) < 20, "{before}");
    advance(Duration::from_secs(5)).await;
    sleep(WINDOW).await;
    let after = closings.take().len();
    assert!(after <= 2 * MEMBERS / 100, "{after} at once");
    assert_eq!(serving.await.unwrap().unwrap().ended(), MEMBERS);
    assert_eq!(before + after + closings.take().len(), MEMBERS);
}

#[tokio::test(start_paused = true)]
async fn a_member_goes_on_until_it_is_closed_with_the_applications_code() {
    let (stop, stopped) = signal();
    let options = ShutdownOptions::new(Duration::from_secs(30))
        .spread(Duration::from_secs(20))
        .close_frame(CloseCode::SERVICE_RESTART, "back at once");
    let (streams, receiver) = mpsc::unbounded_channel();
    let server = Server::new().shutdown(stopped, options);
    let numbers = server.clone();
    let quits = |mut socket: WebSocket| async move {
        while let Some(message) = socket.recv().await? {
            if message == "quit".into() {
                break;
            }
            socket.send(message).await?;
        }
        HandlerResult::Ok(())
    };
    let serving = tokio::spawn(server.serve(Channel(receiver), quits));
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let (client, stream) = duplex(4096);
        streams.send(stream).unwrap();
        sockets.push(Connector::new().connect_over("ws://any.example/", client).await.unwrap().0);
    }
    // This one is in the middle of its handshake.
    let (mut late, stream) = duplex(4096);
    streams.send(stream).unwrap();
    late.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    settle().await;
    stop.send(()).unwrap();
    assert_eq!(soon(late.read(&mut [0])).await.unwrap(), 0);
    // The first is closed at once, and the others in their turn: after 62 % and 24 % of the time.
    let mut closed = 0;
    for socket in &mut sockets {
        if socket.sender().is_closed() {
            closed += 1;
            continue;
        }
        socket.send("still here").await.unwrap();
        assert_eq!(soon(socket.recv()).await.unwrap(), Some("still here".into()));
    }
    assert_eq!(closed, 1);
    // A handler may end on its own meanwhile.
    let quitting = sockets.iter_mut().rfind(|socket| !socket.sender().is_closed()).unwrap();
    quitting.send("quit").await.unwrap();
    assert_eq!(soon(quitting.recv()).await.unwrap(), None);
    assert_eq!(quitting.close_frame().unwrap().code(), CloseCode::NORMAL);
    let mut restarted = 0;
    for mut socket in sockets {
        while let Ok(Some(_)) = socket.recv().await {}
        let frame = socket.close_frame().unwrap();
        if frame.code() == CloseCode::SERVICE_RESTART {
            assert_eq!(frame.reason(), "back at once");
            restarted += 1;
        }
    }
    assert_eq!(restarted, 2);
    let shutdown = soon(serving).await.unwrap().unwrap();
    assert_eq!((shutdown.closed(), shutdown.ended()), (3, 0));
    let stats = numbers.stats();
    assert_eq!((stats.open(), stats.accepted(), stats.shut_down()), (0, 3, 3));
    let rejected: Vec<_> = stats.rejections().filter(|(_, count)| *count > 0).collect();
    assert_eq!(rejected, [(RejectionReason::Shutdown, 1)]);
}

/// The first is closed at once, and the others in years, unless they end before.
#[tokio::test(start_paused = true)]
async fn the_longest_times_of_a_shutdown_are_no_problem() {
    let (stop, stopped) = signal();
    let options = ShutdownOptions::new(Duration::MAX).spread(Duration::MAX);
    let server = Server::new().acceptor(acceptor()).shutdown(stopped, options);
    let closings = Closings::default();
    let (streams, receiver) = mpsc::unbounded_channel();
    let serving = tokio::spawn(server.serve(Channel(receiver), closings.handler()));
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (client, stream) = member().await;
        streams.send(stream).unwrap();
        clients.push(client);
    }
    settle().await;
    stop.send(()).unwrap();
    sleep(Duration::from_secs(60 * 60)).await;
    assert_eq!(closings.take().len(), 1);
    assert!(!serving.is_finished());
    drop(clients);
    let shutdown = soon(serving).await.unwrap().unwrap();
    assert_eq!((shutdown.closed(), shutdown.ended()), (0, 3), "no client answers");
    assert_eq!(closings.take().len(), 2);
}

#[tokio::test]
async fn invalid_options_of_a_shutdown_are_named() {
    let minute = || ShutdownOptions::new(Duration::from_secs(60));
    for (options, name) in [
        (minute().spread(Duration::from_secs(61)), "ShutdownOptions::spread is 61s"),
        (minute().close_frame(CloseCode(1006), ""), "ShutdownOptions::close_frame can't be sent"),
        (minute().close_frame(CloseCode::NORMAL, &"x".repeat(124)), "ShutdownOptions::close_frame can't"),
    ] {
        let server = Server::new().shutdown(std::future::pending(), options);
        let (_streams, receiver) = mpsc::unbounded_channel();
        for error in [
            soon(server.clone().serve(Channel(receiver), echo)).await.unwrap_err(),
            soon(server.serve_connection(duplex(64).0, None, echo)).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
    // A spread as long as the deadline is valid.
    let options = minute().spread(Duration::from_secs(60));
    let server = Server::new().shutdown(std::future::ready(()), options);
    soon(server.serve_connection(duplex(64).0, None, echo)).await.unwrap();
}
