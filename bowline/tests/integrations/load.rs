//! The limits on the load of a server, and its numbers.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::{Acceptor, Connector, Error, Limits, Listener, RejectionReason, Server, WebSocket};
use http::StatusCode;
use http::request::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::support::http::{HandlerResult, Head, echo, listen, read_head, soon};
use crate::support::settle;

/// A listener whose connections come from a channel.
struct Channel(mpsc::UnboundedReceiver<io::Result<(DuplexStream, Option<SocketAddr>)>>);

impl Listener for Channel {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
        match self.0.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }
}

/// Clients of a server, without a network.
struct Clients(mpsc::UnboundedSender<io::Result<(DuplexStream, Option<SocketAddr>)>>);

impl Clients {
    fn of<H: bowline::Handler<M>, M: Send + 'static>(server: &Server, handler: H) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(server.clone().serve(Channel(receiver), handler));
        Self(sender)
    }

    fn stream(&self, peer: Option<&str>) -> DuplexStream {
        let (client, stream) = duplex(4096);
        let peer = peer.map(|ip| SocketAddr::new(ip.parse().unwrap(), 51234));
        self.0.send(Ok((stream, peer))).unwrap();
        client
    }

    async fn connect(&self, peer: Option<&str>) -> Result<WebSocket, Error> {
        let connector = Connector::new();
        soon(connector.connect_over("ws://any.example/", self.stream(peer))).await.map(|(socket, _)| socket)
    }

    /// Sends a request by hand.
    async fn request(&self, peer: Option<&str>) -> DuplexStream {
        let mut stream = self.stream(peer);
        // A connection that is closed at once takes no request.
        let _ = stream.write_all(Head::request().text().as_bytes()).await;
        stream
    }
}

/// The texts that a server reports.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<String>>>);

impl Reports {
    fn of(self, server: Server) -> Server {
        server.on_error(move |error| self.0.lock().unwrap().push(error.to_string()))
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn status(error: &Error) -> StatusCode {
    error.response().unwrap_or_else(|| panic!("no response: {error}")).status()
}

fn retry_after(error: &Error) -> &str {
    error.response().unwrap().headers()["retry-after"].to_str().unwrap()
}

fn rejections(server: &Server) -> HashMap<RejectionReason, u64> {
    server.stats().rejections().filter(|(_, count)| *count > 0).collect()
}

/// Waits until a server has counted a rejection, which may be after its response has arrived.
async fn has_rejected(server: &Server, count: u64) {
    soon(async {
        while server.stats().rejected() < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Waits until a WebSocket of the server has ended.
async fn has_ended(server: &Server, open: u64) {
    soon(async {
        while server.stats().open() > open {
            tokio::task::yield_now().await;
        }
    })
    .await;
    settle().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_answered_with_503() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let reports = Reports::default();
    let server = reports.clone().of(Server::new()).connections(2).on_request(move |head: Parts| {
        count.fetch_add(1, Ordering::Relaxed);
        async move { Ok(head) }
    });
    let clients = Clients::of(&server, echo);
    let first = clients.connect(None).await.unwrap();
    // The other place is taken by a connection that has sent nothing yet.
    let silent = clients.stream(None);
    let error = clients.connect(None).await.unwrap_err();
    assert_eq!((status(&error), retry_after(&error)), (StatusCode::SERVICE_UNAVAILABLE, "5"));
    assert_eq!(asked.load(Ordering::Relaxed), 1, "nobody asks about the one that was refused");
    has_rejected(&server, 1).await;
    assert_eq!(rejections(&server), HashMap::from([(RejectionReason::Connections, 1)]));
    let [report] = &reports.take()[..] else { panic!("one report") };
    assert!(report.contains("the server has 2 (Server::connections)"), "{report}");

    // A place is free again after a WebSocket has ended, and after a connection has ended before its request.
    drop(silent);
    drop(first);
    has_ended(&server, 0).await;
    let _first = clients.connect(None).await.unwrap();
    let _second = clients.connect(None).await.unwrap();
    assert_eq!(status(&clients.connect(None).await.unwrap_err()), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((server.stats().open(), server.stats().accepted()), (2, 3));
}

/// A permit that is free when the request arrives is as good as one that was free before.
#[tokio::test]
async fn a_connection_over_the_limit_takes_a_place_that_is_free_at_its_request() {
    let server = Server::new().connections(1);
    let clients = Clients::of(&server, echo);
    let first = clients.connect(None).await.unwrap();
    let mut waiting = clients.stream(None);
    settle().await;
    drop(first);
    has_ended(&server, 0).await;
    waiting.write_all(Head::request().text().as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut waiting).await.status(), 101);
    assert_eq!(status(&clients.connect(None).await.unwrap_err()), StatusCode::SERVICE_UNAVAILABLE);
}

/// A server without room is still healthy.
#[tokio::test]
async fn a_fallback_answers_beyond_the_limit() {
    let server = Server::new().connections(1).fallback(|_| async { http::Response::new("ok") });
    let clients = Clients::of(&server, echo);
    let _first = clients.connect(None).await.unwrap();
    let mut stream = clients.stream(None);
    let page = Head::from(["GET /healthz HTTP/1.1", "Host: example.com"]);
    stream.write_all(page.text().as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut stream).await.status(), 200);
    let mut body = String::new();
    soon(stream.read_to_string(&mut body)).await.unwrap();
    assert_eq!(body, "ok", "the connection is closed");
}

/// All listeners of a server count together.
#[tokio::test]
async fn clones_share_their_limits() {
    let server = Server::new().connections(2);
    let (some, others) = (Clients::of(&server, echo), Clients::of(&server, echo));
    let _first = some.connect(None).await.unwrap();
    let _second = others.connect(None).await.unwrap();
    assert_eq!(status(&some.connect(None).await.unwrap_err()), StatusCode::SERVICE_UNAVAILABLE);
    let (client, stream) = duplex(4096);
    tokio::spawn(server.serve_connection(stream, None, echo));
    let error = soon(Connector::new().connect_over("ws://any.example/", client)).await.unwrap_err();
    assert_eq!(status(&error), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(server.stats().open(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_neither_answered_nor_reported_one_by_one() {
    const FLOOD: u64 = 1000;
    let reports = Reports::default();
    let server = reports.clone().of(Server::new()).connections(1);
    let clients = Clients::of(&server, echo);
    let _first = clients.connect(None).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..FLOOD {
        streams.push(clients.request(None).await);
    }
    settle().await;
    let mut answered = 0;
    for mut stream in streams {
        let mut text = String::new();
        let _ = soon(stream.read_to_string(&mut text)).await;
        if text.is_empty() {
            continue;
        }
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        answered += 1;
    }
    // What a tenth of a second saves up.
    assert_eq!(answered, 11);
    assert_eq!(rejections(&server), HashMap::from([(RejectionReason::Connections, FLOOD)]));
    assert_eq!(reports.take().len(), 1);
    sleep(Duration::from_secs(1)).await;
    clients.connect(None).await.unwrap_err();
    has_rejected(&server, FLOOD + 1).await;
    let [report] = &reports.take()[..] else { panic!("one report") };
    assert!(report.contains(&format!("{} others were refused", FLOOD - 1)), "{report}");
}

#[tokio::test]
async fn connections_of_one_address_are_answered_with_429() {
    let reports = Reports::default();
    let server = reports.clone().of(Server::new()).connections_per_address(1);
    let clients = Clients::of(&server, echo);
    let first = clients.connect(Some("203.0.113.7")).await.unwrap();
    let error = clients.connect(Some("::ffff:203.0.113.7")).await.unwrap_err();
    assert_eq!((status(&error), retry_after(&error)), (StatusCode::TOO_MANY_REQUESTS, "5"));
    has_rejected(&server, 1).await;
    assert_eq!(rejections(&server), HashMap::from([(RejectionReason::ConnectionsPerAddress, 1)]));
    let [report] = &reports.take()[..] else { panic!("one report") };
    assert!(report.contains("its address has 1 (Server::connections_per_address)"), "{report}");
    // Other addresses have places of their own, and a network of IPv6 has one.
    let _other = clients.connect(Some("203.0.113.8")).await.unwrap();
    let _ipv6 = clients.connect(Some("2001:db8:1:2::1")).await.unwrap();
    let error = clients.connect(Some("2001:db8:1:2:3::1")).await.unwrap_err();
    assert_eq!(status(&error), StatusCode::TOO_MANY_REQUESTS);
    let _network = clients.connect(Some("2001:db8:1:3::1")).await.unwrap();
    // Without an address, there is no limit.
    let _sockets = [clients.connect(None).await.unwrap(), clients.connect(None).await.unwrap()];
    let before = server.stats().open();
    drop(first);
    has_ended(&server, before - 1).await;
    clients.connect(Some("203.0.113.7")).await.unwrap();
}

#[cfg(feature = "http2")]
#[tokio::test]
async fn streams_of_http2_count_as_connections() {
    let server = Server::new().http2().connections(2);
    let (listener, address) = listen().await;
    tokio::spawn(server.clone().serve(listener, echo));
    let http2 = Connector::new().http_version(bowline::HttpVersion::Http2);
    let http2 = soon(http2.connect_http2(format!("ws://{address}/"))).await.unwrap();
    let (first, _) = soon(http2.connect("/")).await.unwrap();
    let (_second, _) = soon(http2.connect("/")).await.unwrap();
    let error = soon(http2.connect("/")).await.unwrap_err();
    assert_eq!((status(&error), retry_after(&error)), (StatusCode::SERVICE_UNAVAILABLE, "5"));
    // The connection goes on, and so do the others.
    soon(first.close(bowline::CloseCode::NORMAL, "")).await.unwrap();
    has_ended(&server, 1).await;
    soon(async {
        while http2.connect("/").await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(rejections(&server)[&RejectionReason::Connections] >= 1);
}

/// Otherwise, connections that carry nothing would cost nothing.
#[cfg(feature = "http2")]
#[tokio::test]
async fn a_connection_of_http2_keeps_its_place_between_its_websockets() {
    let server = Server::new().http2().connections(1);
    let (listener, address) = listen().await;
    tokio::spawn(server.clone().serve(listener, echo));
    let url = format!("ws://{address}/");
    let http2 = Connector::new().http_version(bowline::HttpVersion::Http2);
    let http2 = soon(http2.connect_http2(&url)).await.unwrap();
    for _ in 0..3 {
        let (socket, _) = soon(http2.connect("/")).await.unwrap();
        for error in
            [soon(http2.connect("/")).await.unwrap_err(), soon(bowline::connect(&url)).await.unwrap_err()]
        {
            assert_eq!(status(&error), StatusCode::SERVICE_UNAVAILABLE);
        }
        soon(socket.close(bowline::CloseCode::NORMAL, "")).await.unwrap();
        has_ended(&server, 0).await;
        assert_eq!(status(&soon(bowline::connect(&url)).await.unwrap_err()), StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn refusals_arrive_over_tls() {
    let (server_config, client_config) = crate::support::tls::configs();
    let server = Server::new().tls(server_config).connections(1);
    let (listener, address) = listen().await;
    tokio::spawn(server.serve(listener, echo));
    let connector = Connector::new().tls(client_config);
    let url = format!("wss://localhost:{}/", address.port());
    let _first = soon(connector.connect(&url)).await.unwrap();
    let error = soon(connector.connect(&url)).await.unwrap_err();
    assert_eq!((status(&error), retry_after(&error)), (StatusCode::SERVICE_UNAVAILABLE, "5"));
}

#[tokio::test(start_paused = true)]
async fn handshakes_beyond_the_rate_wait_for_their_time() {
    const CLIENTS: u32 = 100;
    let server = Server::new().handshakes_per_second(20);
    let clients = Clients::of(&server, echo);
    let begun = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        streams.push(clients.request(None).await);
    }
    let mut times = Vec::new();
    for stream in &mut streams {
        assert_eq!(read_head(stream).await.status(), 101);
        times.push(begun.elapsed());
    }
    // Those of a tenth of a second were saved up: 3 come at once, and then 20 a second.
    assert_eq!(times.iter().filter(|time| **time < Duration::from_millis(40)).count(), 3);
    let within = |second: u64| times.iter().filter(|time| time.as_secs() == second).count();
    assert_eq!([0, 1, 2, 3].map(within), [22, 20, 20, 20]);
    assert_eq!(server.stats().rejected(), 0, "they wait");
}

#[tokio::test(start_paused = true)]
async fn connections_that_the_application_accepted_wait_as_long_as_a_handshake_may_take() {
    let reports = Reports::default();
    let limits = Limits::default().handshake_timeout(Duration::from_secs(2));
    let server = reports.clone().of(Server::new()).handshakes_per_second(1);
    let server = server.acceptor(Acceptor::new().limits(limits));
    let mut times = Vec::new();
    let begun = Instant::now();
    let mut callers = Vec::new();
    for _ in 0..5 {
        let (mut client, stream) = duplex(4096);
        tokio::spawn(server.serve_connection(stream, None, echo));
        callers.push(tokio::spawn(async move {
            let _ = client.write_all(Head::request().text().as_bytes()).await;
            let answered = client.read_u8().await.is_ok();
            (answered, begun.elapsed().as_millis() / 100, client)
        }));
        settle().await;
    }
    for caller in callers {
        let (answered, at, _client) = caller.await.unwrap();
        times.push((answered, at));
    }
    assert_eq!(times, [(true, 0), (true, 9), (true, 19), (false, 0), (false, 0)]);
    assert_eq!(rejections(&server), HashMap::from([(RejectionReason::HandshakesPerSecond, 2)]));
    let refused: Vec<_> = reports.take().into_iter().filter(|text| text.contains("refused")).collect();
    let [report] = &refused[..] else { panic!("{refused:?}") };
    assert!(report.contains("more than 1 a second (Server::handshakes_per_second)"), "{report}");
}

#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn handshakes_over_http2_beyond_the_rate_are_refused() {
    let server = Server::new().http2().handshakes_per_second(10);
    let (listener, address) = listen().await;
    tokio::spawn(server.clone().serve(listener, echo));
    let http2 = Connector::new().http_version(bowline::HttpVersion::Http2);
    let http2 = http2.connect_http2(format!("ws://{address}/")).await.unwrap();
    let mut refused = None;
    let mut sockets = Vec::new();
    for _ in 0..10 {
        match http2.connect("/").await {
            Ok(opened) => sockets.push(opened),
            Err(error) => refused = Some(error),
        }
    }
    let error = refused.expect("ten are too many at once");
    assert_eq!((status(&error), retry_after(&error)), (StatusCode::SERVICE_UNAVAILABLE, "5"));
    assert!(rejections(&server)[&RejectionReason::HandshakesPerSecond] >= 1);
    sleep(Duration::from_secs(1)).await;
    http2.connect("/").await.unwrap();
}

#[tokio::test]
async fn limits_on_the_load_of_zero_are_refused_by_name() {
    let server = Server::new;
    for (server, text) in [
        (server().connections(0), "Server::connections is 0, but has to be at least 1"),
        (
            server().connections_per_address(0),
            "Server::connections_per_address is 0, but has to be at least 1",
        ),
        (server().handshakes_per_second(0), "Server::handshakes_per_second is 0, but has to be at least 1"),
        (
            server().handshakes_per_second(1_000_001),
            "Server::handshakes_per_second is 1000001, but may be at most 1000000",
        ),
    ] {
        let error = soon(server.clone().serve(listen().await.0, echo)).await.unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (io::ErrorKind::InvalidInput, text));
        let error = soon(server.serve_connection(duplex(64).0, None, echo)).await.unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (io::ErrorKind::InvalidInput, text));
    }
    let most = server().connections(usize::MAX).connections_per_address(usize::MAX);
    let clients = Clients::of(&most.handshakes_per_second(1_000_000), echo);
    clients.connect(Some("203.0.113.7")).await.unwrap();
}

// ---- numbers

/// Each way not to become a WebSocket has its number.
#[tokio::test(start_paused = true)]
async fn rejections_are_counted_by_reason() {
    let server = Server::new()
        .on_request(|_| async { Err::<Parts, _>(StatusCode::UNAUTHORIZED.into()) })
        .acceptor(Acceptor::new().limits(Limits::default().max_headers(10)));
    let clients = Clients::of(&server, echo);
    let many = (0..20).fold(Head::request(), |head, number| head.with(&format!("X-{number}: x")));
    let mut expected = HashMap::new();
    for (request, reason) in [
        (Head::request(), RejectionReason::OnRequest),
        (Head::request().without("upgrade"), RejectionReason::Handshake),
        (Head::from(["hello?"]), RejectionReason::Handshake),
        (Head::request().with("Origin: https://evil.example"), RejectionReason::Origin),
        (many, RejectionReason::HeadSize),
    ] {
        let mut stream = clients.stream(None);
        stream.write_all(request.text().as_bytes()).await.unwrap();
        assert!(read_head(&mut stream).await.status() >= 400);
        drop(stream);
        *expected.entry(reason).or_default() += 1;
        settle().await;
        assert_eq!(rejections(&server), expected, "{request:?}");
    }
    // A client that ends, and one that waits.
    drop(clients.stream(None));
    settle().await;
    expected.insert(RejectionReason::Disconnected, 1);
    let _silent = clients.stream(None);
    sleep(Duration::from_secs(11)).await;
    expected.insert(RejectionReason::Timeout, 1);
    assert_eq!(rejections(&server), expected);
    assert_eq!(server.stats().rejected(), expected.values().sum::<u64>());
    assert_eq!((server.stats().open(), server.stats().accepted()), (0, 0));

    clients.0.send(Err(io::Error::other("no descriptors left"))).unwrap();
    settle().await;
    assert_eq!(server.stats().accept_errors(), 1);
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_failed_tls_handshake_is_counted() {
    let (config, _) = crate::support::tls::configs();
    let server = Server::new().tls(config);
    let (listener, address) = listen().await;
    tokio::spawn(server.clone().serve(listener, echo));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(rejections(&server), HashMap::from([(RejectionReason::Tls, 1)]));
}

#[tokio::test]
async fn websockets_are_counted_from_their_beginning_to_their_end() {
    let server = Server::new();
    assert_eq!(server.stats(), Server::new().stats());
    let clients = Clients::of(&server, |mut socket: WebSocket| async move {
        match socket.recv().await? {
            Some(message) if message == "panic".into() => panic!("as told"),
            Some(_) => HandlerResult::Err("as told".into()),
            None => Ok(()),
        }
    });
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(clients.connect(None).await.unwrap());
    }
    assert_eq!((server.stats().open(), server.stats().accepted()), (3, 3));
    sockets[0].send("panic").await.unwrap();
    sockets[1].send("fail").await.unwrap();
    for mut socket in sockets {
        if server.stats().open() == 1 {
            soon(socket.close(bowline::CloseCode::NORMAL, "")).await.unwrap();
        } else {
            soon(socket.recv()).await.unwrap_err();
        }
        drop(socket);
        settle().await;
    }
    has_ended(&server, 0).await;
    let stats = server.stats();
    assert_eq!((stats.open(), stats.accepted(), stats.rejected()), (0, 3, 0));
    assert_eq!(stats.handlers_failed(), 2);
}
