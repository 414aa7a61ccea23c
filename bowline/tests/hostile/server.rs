//! Hostile clients of a server with pages, limits on its load, and a shutdown.

use std::future::{pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bowline::{
    Acceptance, Acceptor, Connector, Limits, Listener, Rejection, RejectionReason, Server, ShutdownOptions,
};
use http::request::Parts;
use http::{Response, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use crate::support::http::{Head, echo, exchange, read_head, soon};
use crate::support::wire::wire;
use crate::support::{poll_once, settle};

const TIMEOUT: Duration = Duration::from_secs(10);

async fn page(head: Parts) -> Response<String> {
    let mut response = Response::new(head.uri.path().to_owned());
    match head.uri.path() {
        "/hangs" => pending().await,
        "/http3" => *response.version_mut() = Version::HTTP_3,
        _ => {}
    }
    response
}

fn get(path: &str) -> Head {
    Head::from([&format!("GET {path} HTTP/1.1"), "Host: example.com"])
}

/// Connects to a server in memory.
fn connect(server: &Server) -> DuplexStream {
    let (near, far) = duplex(64 * 1024);
    tokio::spawn(server.serve_connection(far, None, echo));
    near
}

/// Sends a request, and reads the head and the body of its answer.
async fn ask(stream: &mut DuplexStream, request: &Head) -> (Head, String) {
    stream.write_all(request.text().as_bytes()).await.unwrap();
    let head = read_head(stream).await;
    let length = head.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    soon(stream.read_exact(&mut body)).await.expect("a whole body");
    (head, String::from_utf8(body).unwrap())
}

fn rejected(server: &Server) -> Vec<(RejectionReason, u64)> {
    server.stats().rejections().filter(|(_, count)| *count > 0).collect()
}

// ---- limits on the load

/// Otherwise, a client could hold any number of connections beyond the limit, by a request from time to time.
#[tokio::test(start_paused = true)]
async fn pages_keep_no_connection_beyond_the_limit() {
    let server = Server::new().connections(1).fallback(page);
    let mut first = connect(&server);
    assert_eq!(ask(&mut first, &get("/")).await.0.get("connection"), None);
    let mut second = connect(&server);
    let (head, body) = exchange(&mut second, &get("/healthz")).await;
    assert_eq!((head.status(), head.get("connection").as_deref(), &*body), (200, Some("close"), "/healthz"));
    // A place that is free when the page is asked for is taken.
    let mut third = connect(&server);
    settle().await;
    drop(first);
    settle().await;
    for _ in 0..3 {
        sleep(TIMEOUT * 3 / 4).await;
        assert_eq!(ask(&mut third, &get("/")).await.0.get("connection"), None);
    }
    // So it counts.
    let mut fourth = connect(&server);
    assert_eq!(exchange(&mut fourth, &Head::request()).await.0.status(), 503);
}

/// Over HTTP/2, there is no `Connection: close`, so the connection ends like one that is not used.
#[cfg(feature = "http2")]
#[tokio::test(start_paused = true)]
async fn pages_keep_no_http2_connection_beyond_the_limit() {
    use crate::support::http2::{get_headers, hello, read_frame};

    let server = Server::new().http2().connections(1).fallback(page);
    let mut first = connect(&server);
    ask(&mut first, &get("/")).await;
    let mut stream = connect(&server);
    stream.write_all(&hello(&[])).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let reading = tokio::spawn(async move {
        let mut answers = 0;
        while let Some((kind, ..)) = read_frame(&mut read).await {
            answers += usize::from(kind == crate::support::http2::HEADERS);
        }
        answers
    });
    let begun = Instant::now();
    for stream in (1..).step_by(2) {
        if write.write_all(&get_headers(stream)).await.is_err() {
            break;
        }
        sleep(TIMEOUT / 4).await;
        // The first connection keeps its place.
        ask(&mut first, &get("/")).await;
        assert!(begun.elapsed() <= TIMEOUT * 4, "the connection does not end");
    }
    assert!(soon(reading).await.unwrap() > 3, "pages are answered meanwhile");
}

/// All kinds of ends, of which none keeps a place or loses its count.
#[tokio::test(start_paused = true)]
async fn a_storm_leaves_no_connection_and_no_count_behind() {
    const CLIENTS: usize = 400;
    let reported = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reported);
    let check = |head: Parts| async move {
        match head.uri.path() {
            "/panics" => panic!("the check is broken"),
            "/hangs" => pending().await,
            "/rejects" => Err(Rejection::from(http::StatusCode::FORBIDDEN)),
            _ => Ok(head),
        }
    };
    let server = Server::new().connections(20).connections_per_address(10).on_request(check);
    let server = server.on_error(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        panic!("the log is full");
    });
    let handler = |head: Parts, socket: bowline::WebSocket| async move {
        match head.uri.path() {
            "/handler" => panic!("the handler is broken"),
            "/fails" => Err("the handler fails".into()),
            _ => echo(socket).await,
        }
    };
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (mut client, stream) = duplex(1024);
            let peer = std::net::SocketAddr::from(([192, 0, 2, u8::try_from(number % 3).unwrap()], 1));
            let mut serving = Box::pin(server.serve_connection(stream, peer, handler));
            let paths = ["/", "/panics", "/hangs", "/rejects", "/handler", "/fails"];
            tokio::spawn(async move {
                sleep(Duration::from_millis(100) * u32::try_from(number).unwrap()).await;
                let request = Head::request()
                    .first_line(&format!("GET {} HTTP/1.1", paths[number % paths.len()]))
                    .text();
                let client = tokio::spawn(async move {
                    match number % 5 {
                        // It stays, and waits for an answer.
                        0 => {
                            let _ = client.write_all(request.as_bytes()).await;
                            let _ =
                                tokio::time::timeout(TIMEOUT * 3, client.read_to_end(&mut Vec::new())).await;
                        }
                        1 => drop(client),
                        2 => {
                            let _ = client.write_all(&request.as_bytes()[..40]).await;
                            sleep(TIMEOUT * 2).await;
                        }
                        3 => {
                            let _ = client.write_all(request.as_bytes()).await;
                        }
                        _ => {
                            let _ = client.write_all(b"\x16\x03\x01\r\n\r\n\r\n").await;
                        }
                    }
                });
                serving.as_mut().await.unwrap();
                client.abort();
            })
        })
        .collect();
    for client in clients {
        soon_in_paused_time(client).await;
    }
    let stats = server.stats();
    assert_eq!(stats.open(), 0);
    assert_eq!(stats.accepted() + stats.rejected(), u64::try_from(CLIENTS).unwrap(), "{stats:?}");
    assert!(stats.accepted() > 10 && rejected(&server).len() >= 5, "{stats:?}");
    assert!(reported.load(Ordering::Relaxed) > 10);
    // All places are free again.
    let mut open = Vec::new();
    for number in 0..20 {
        let (client, stream) = duplex(1024);
        let peer = std::net::SocketAddr::from(([192, 0, 2, number % 2], 1));
        tokio::spawn(server.serve_connection(stream, peer, echo));
        let connector = Connector::new();
        open.push(connector.connect_over("ws://any.example/", client).await.unwrap());
    }
}

/// The limit holds at every moment, also if clients come in parallel, over both versions of HTTP.
#[cfg(feature = "http2")]
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_storm_in_parallel_stays_within_the_limit() {
    const LIMIT: usize = 8;
    const CLIENTS: usize = 300;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let server = Server::new().http2().connections(LIMIT).fallback(page);
    let handler = {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        move |socket: bowline::WebSocket| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                let echoed = echo(socket).await;
                now.fetch_sub(1, Ordering::Relaxed);
                echoed
            }
        }
    };
    let (listener, address) = crate::support::http::listen().await;
    tokio::spawn(server.clone().serve(listener, handler));
    let url = format!("ws://{address}/");
    let clients: Vec<_> = (0..CLIENTS).map(|number| tokio::spawn(visit(url.clone(), number))).collect();
    let mut opened = 0;
    for client in clients {
        opened += u64::from(soon(client).await.unwrap());
    }
    soon(async {
        while server.stats().open() > 0 || server.stats().accepted() < opened {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(most.load(Ordering::Relaxed) <= LIMIT, "{most:?}");
    // All places are free again, as soon as the last connection of HTTP/2 is closed.
    let mut open = Vec::new();
    soon(async {
        while open.len() < LIMIT {
            match bowline::connect(&url).await {
                Ok(socket) => open.push(socket),
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    bowline::connect(&url).await.unwrap_err();
}

/// Tries to open a WebSocket, and leaves after a few messages. Returns `true` if it opened.
#[cfg(feature = "http2")]
async fn visit(url: String, number: usize) -> bool {
    use bowline::HttpVersion;

    let version = if number % 2 == 0 { HttpVersion::Http1 } else { HttpVersion::Http2 };
    let connecting = Connector::new().http_version(version).connect(url).await;
    let Ok((mut socket, _)) = connecting else { return false };
    for _ in 0..number % 5 {
        if socket.send("hello").await.is_err() || socket.recv().await.is_err() {
            break;
        }
    }
    if number % 3 > 0 {
        let _ = socket.close(bowline::CloseCode::NORMAL, "").await;
    }
    true
}

async fn soon_in_paused_time<T>(task: tokio::task::JoinHandle<T>) -> T {
    tokio::time::timeout(TIMEOUT * 10, task).await.expect("the test hangs").unwrap()
}

/// The places of connections whose runtime was dropped in the middle are free for the next runtime.
#[test]
fn a_runtime_that_is_dropped_frees_its_places() {
    let server = Server::new().connections(3).on_request(|head: Parts| async move {
        match head.uri.path() {
            "/hangs" => pending().await,
            _ => Ok(head),
        }
    });
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..3 {
        let runtime = runtime();
        let streams = runtime.block_on(async {
            let mut streams = Vec::new();
            for path in ["/", "/hangs"] {
                let mut stream = connect(&server);
                let request = Head::request().first_line(&format!("GET {path} HTTP/1.1"));
                stream.write_all(request.text().as_bytes()).await.unwrap();
                streams.push(stream);
            }
            streams.push(connect(&server));
            settle().await;
            assert_eq!(server.stats().open(), 1);
            let mut refused = connect(&server);
            assert_eq!(exchange(&mut refused, &Head::request()).await.0.status(), 503);
            streams
        });
        drop(runtime);
        drop(streams);
        assert_eq!(server.stats().open(), 0);
    }
}

// ---- requests and answers over HTTP/1.1

/// A body that two rules measure differently is one that a proxy may measure differently.
#[tokio::test]
async fn no_request_hides_in_a_body() {
    let server = Server::new().fallback(page);
    let hidden = get("/hidden").text();
    let both = |first: &str, second: &str| {
        get("/").first_line("POST / HTTP/1.1").with(first).with(second).text() + "0\r\n\r\n" + &hidden
    };
    let length = format!("Content-Length: {}", hidden.len() + 5);
    let chunked = "Transfer-Encoding: chunked";
    let sent = [
        both(&length, chunked),
        both(chunked, &length),
        both("Content-Length: 5", "Content-Length: 6"),
        both("Transfer-Encoding: chunked, identity", "X-Other: 1"),
        both("Transfer-Encoding : chunked", "X-Other: 1"),
        both("Content-Length: +5", "X-Other: 1"),
        both("Content-Length: 5\n", "X-Other: 1").replace("POST / HTTP/1.1", "POST / HTTP/1.0"),
        get("/").first_line("POST / HTTP/1.1").with("Expect: 100-continue").with(&length).text() + &hidden,
    ];
    for text in sent {
        let mut stream = connect(&server);
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answers = String::new();
        let _ = soon(stream.read_to_string(&mut answers)).await;
        assert_eq!(answers.matches("HTTP/1.").count(), 1, "{text}\n{answers}");
        assert!(!answers.contains("/hidden"), "{text}\n{answers}");
    }
}

/// RFC 9112 3.2: a request of HTTP/1.1 has one Host.
#[tokio::test]
async fn a_page_is_of_one_host() {
    let server = Server::new().fallback(page);
    for (request, status) in [
        (get("/").without("host"), 400),
        (get("/").with("Host: other.example"), 400),
        (get("/").first_line("GET / HTTP/1.0").without("host"), 200),
        (get("/").first_line("GET / HTTP/1.0").with("Host: other.example"), 400),
        (get("/"), 200),
    ] {
        let mut stream = connect(&server);
        let (head, body) = ask(&mut stream, &request).await;
        assert_eq!(head.status(), status, "{request:?} {body}");
    }
    settle().await;
    assert_eq!(rejected(&server), [(RejectionReason::Handshake, 3)]);
}

/// Such as one that was received from an upstream server.
#[tokio::test]
async fn an_answer_of_any_version_of_http_is_sent() {
    let server = Server::new().fallback(page).on_request(|head: Parts| async move {
        let mut response = Response::new("no".to_owned());
        *response.version_mut() = Version::HTTP_3;
        *response.status_mut() = http::StatusCode::FORBIDDEN;
        match head.uri.path() {
            "/rejects" => Err(Rejection::from(response)),
            _ => Ok(head),
        }
    });
    let (head, body) = ask(&mut connect(&server), &get("/http3")).await;
    assert_eq!((head.status(), &*body), (200, "/http3"));
    let request = Head::request().first_line("GET /rejects HTTP/1.1");
    assert_eq!(ask(&mut connect(&server), &request).await.0.status(), 403);
}

/// A client would take such a response for an acceptance, or wait for another one.
#[tokio::test]
async fn a_rejection_that_accepts_is_a_500() {
    for status in [100, 101, 103, 200, 204] {
        let (sender, mut errors) = mpsc::unbounded_channel();
        let server = Server::new()
            .on_request(move |_: Parts| async move {
                let response = Response::builder().status(status).body("fine".to_owned()).unwrap();
                Err::<Parts, _>(response.into())
            })
            .on_error(move |error| sender.send(error.to_string()).unwrap());
        let (head, body) = exchange(&mut connect(&server), &Head::request()).await;
        assert_eq!((head.status(), &*body), (500, "Internal Server Error\n"), "{status}");
        let report = soon(errors.recv()).await.unwrap();
        assert!(report.contains(&format!("Server::on_request rejected a request with {status}")), "{report}");
        assert_eq!(rejected(&server), [(RejectionReason::OnRequest, 1)]);
    }
}

/// Otherwise, whoever is rejected could hide the reason.
#[tokio::test(start_paused = true)]
async fn a_rejection_counts_even_if_nobody_receives_it() {
    let (sender, mut errors) = mpsc::unbounded_channel();
    let server = Server::new().on_error(move |error| sender.send(error).unwrap());
    let (stream, wire) = wire();
    wire.break_writing(io::ErrorKind::ConnectionReset);
    wire.feed(Head::request().with("Origin: https://evil.example").text().as_bytes());
    soon(server.serve_connection(stream, None, echo)).await.unwrap();
    assert_eq!(rejected(&server), [(RejectionReason::Origin, 1)]);
    let error = soon(errors.recv()).await.unwrap();
    assert_eq!(error.status().unwrap(), 403);
    assert!(!error.is_noise());
}

/// A stream that is always ready, as a user's own may be.
struct Flood {
    text: Vec<u8>,
    at: usize,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
}

impl AsyncRead for Flood {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.stop.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let rest = &this.text[this.at..];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        this.at = (this.at + count) % this.text.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.written.fetch_add(buf.len(), Ordering::Relaxed);
        assert!(written < 100 * 1024 * 1024, "nobody else runs");
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// One client with many requests does not keep the thread from the others.
#[tokio::test]
async fn a_flood_of_requests_for_pages_lets_others_run() {
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let text = get("/").text().repeat(50).into_bytes();
    let flood = Flood { text, at: 0, stop: Arc::clone(&stop), written: Arc::clone(&written) };
    let server = Server::new().fallback(page);
    let serving = tokio::spawn(server.serve_connection(flood, None, echo));
    tokio::task::yield_now().await;
    assert!(written.load(Ordering::Relaxed) > 0);
    stop.store(true, Ordering::Relaxed);
    soon(serving).await.unwrap().unwrap();
}

/// A body where there is none would be taken for the next answer.
#[tokio::test]
async fn an_answer_without_content_has_none() {
    let forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    let server = Server::new().fallback(move |head: Parts| async move {
        let status: u16 = head.uri.path()[1..].parse().unwrap();
        let response = Response::builder().status(status).header("content-length", "3");
        response.header("transfer-encoding", "chunked").body(forged).unwrap()
    });
    for (request, body) in [
        (get("/204"), ""),
        (get("/304"), ""),
        (get("/200").first_line("HEAD /200 HTTP/1.1"), ""),
        (get("/404").first_line("HEAD /404 HTTP/1.1"), ""),
        (get("/205"), forged),
        (get("/200"), forged),
    ] {
        let mut stream = connect(&server);
        let both = request.text() + &get("/418").with("Connection: close").text();
        stream.write_all(both.as_bytes()).await.unwrap();
        let first = read_head(&mut stream).await;
        assert_eq!(format!("/{}", first.status()), request.second_word());
        let mut received = vec![0; body.len()];
        soon(stream.read_exact(&mut received)).await.unwrap();
        assert_eq!(received, body.as_bytes(), "{request:?}");
        assert_eq!(read_head(&mut stream).await.status(), 418, "{request:?}");
    }
}

/// Whatever goes wrong with a request, its secrets are in no text.
#[tokio::test(start_paused = true)]
async fn errors_tell_no_secrets() {
    const SECRET: &str = "s3cret";
    let (sender, mut errors) = mpsc::unbounded_channel();
    let fallback = |head: Parts| async move {
        match head.uri.path() {
            "/panics" => panic!("the template is gone"),
            "/hangs" => pending().await,
            _ => Response::builder().status(101).header("x-secret", SECRET).body("").unwrap(),
        }
    };
    let check = |head: Parts| async move {
        match head.uri.path() {
            "/panics" => panic!("the check is broken"),
            "/hangs" => pending().await,
            "/accepts" => Ok(Acceptance::from(head).header("set-cookie", "s3cret\r\n")),
            _ => {
                let response = Response::builder().status(401).header("set-cookie", SECRET);
                Err(Rejection::from(response.body("no".to_owned()).unwrap()))
            }
        }
    };
    let server = Server::new().fallback(fallback).on_request(check).on_error(move |error| {
        let debug = format!("{error:?} {:?}", error.error());
        sender.send(format!("{error} {debug}")).unwrap();
    });
    let secrets = ["Cookie: s3cret", "Authorization: s3cret", "Sec-WebSocket-Protocol: s3cret"];
    let mut requests = Vec::new();
    for path in ["/panics", "/hangs", "/accepts", "/rejects"] {
        for request in [get(path), Head::request()] {
            let request =
                request.first_line(&format!("GET http://s3cret:s3cret@example.com{path}?s3cret HTTP/1.1"));
            requests.push(secrets.iter().fold(request, |request, line| request.with(line)));
        }
    }
    let one = requests.last().unwrap().clone();
    requests.push(one.clone().replace("Sec-WebSocket-Protocol: s3cret token"));
    requests.push(one.clone().replace("Sec-WebSocket-Extensions: s3cret token"));
    requests.push(one.clone().replace("Sec-WebSocket-Key: s3cret"));
    requests.push(one.clone().replace("Sec-WebSocket-Version: s3cret"));
    requests.push(one.clone().with("Origin: https://other.example/?s3cret"));
    requests.push(one.clone().with("X s3cret: 1"));
    requests.push(one.clone().with("Content-Length: s3cret"));
    requests.push(one.clone().with(&format!("X-Large: {}", SECRET.repeat(10_000))));
    requests.push(get("/panics").with("Host: s3cret"));
    for request in requests {
        let mut stream = connect(&server);
        // A head that is too large is not read to its end.
        let _ = stream.write_all(request.text().as_bytes()).await;
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let text = soon(errors.recv()).await.unwrap();
        assert!(!text.contains(SECRET), "{request:?}\n{text}");
    }
}

/// Requests that are reset at once neither run beside each other nor stay.
#[cfg(feature = "http2")]
#[tokio::test]
async fn requests_for_pages_that_are_reset_at_once() {
    use crate::support::http2::{get_headers, hello, read_frame, rst_stream};

    struct Running(Arc<AtomicUsize>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    const STREAMS: u32 = 5;
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, peak) = (Arc::clone(&running), Arc::clone(&most));
    let acceptor = Acceptor::new().limits(Limits::default().max_streams(STREAMS));
    let server = Server::new().http2().acceptor(acceptor).connections(2).fallback(move |_: Parts| {
        peak.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        let running = Running(Arc::clone(&now));
        async move {
            let _running = running;
            pending::<Response<String>>().await
        }
    });
    let mut stream = connect(&server);
    stream.write_all(&hello(&[])).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let reading = tokio::spawn(async move { while read_frame(&mut read).await.is_some() {} });
    for stream in (1..4000).step_by(2) {
        let both = if stream % 3 == 0 {
            get_headers(stream)
        } else {
            [get_headers(stream), rst_stream(stream)].concat()
        };
        // The server may end the connection.
        if write.write_all(&both).await.is_err() {
            break;
        }
        if stream % 3 == 0 {
            let _ = write.write_all(&rst_stream(stream)).await;
        }
    }
    drop(write);
    soon(reading).await.unwrap();
    soon(async {
        while running.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(most.load(Ordering::Relaxed) <= usize::try_from(STREAMS).unwrap(), "{most:?}");
    // Its places are free again.
    settle().await;
    let (client, far) = duplex(1024);
    tokio::spawn(server.serve_connection(far, None, echo));
    Connector::new().connect_over("ws://any.example/", client).await.unwrap();
}

// ---- the listener

/// A panic of `on_error` ends nothing, whatever its payload does.
#[tokio::test]
async fn a_panic_whose_payload_panics_ends_no_server() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Bomb);
        }
    }
    struct Failing(mpsc::UnboundedReceiver<io::Result<DuplexStream>>);
    impl Listener for Failing {
        type Stream = DuplexStream;

        async fn accept(&mut self) -> io::Result<(DuplexStream, Option<std::net::SocketAddr>)> {
            match self.0.recv().await {
                Some(accepted) => accepted.map(|stream| (stream, None)),
                None => pending().await,
            }
        }
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    let server = Server::new().on_error(|_| std::panic::panic_any(Bomb));
    let _serving = tokio::spawn(server.serve(Failing(receiver), echo));
    sender.send(Err(io::Error::other("no file descriptors"))).unwrap();
    let (client, far) = duplex(1024);
    sender.send(Ok(far)).unwrap();
    soon(Connector::new().connect_over("ws://any.example/", client)).await.unwrap();
}

/// A listener that panics ends its own server, and no other.
#[tokio::test]
async fn a_listener_that_panics_ends_its_connections() {
    struct Panicking(Option<DuplexStream>);
    impl Listener for Panicking {
        type Stream = DuplexStream;

        async fn accept(&mut self) -> io::Result<(DuplexStream, Option<std::net::SocketAddr>)> {
            if let Some(stream) = self.0.take() {
                return Ok((stream, None));
            }
            settle().await;
            panic!("the listener is broken");
        }
    }
    let server = Server::new().connections(2);
    let (client, far) = duplex(4096);
    let mut other = connect(&server);
    let serving = tokio::spawn(server.clone().serve(Panicking(Some(far)), echo));
    let (mut socket, _) = soon(Connector::new().connect_over("ws://any.example/", client)).await.unwrap();
    assert!(soon(serving).await.unwrap_err().is_panic());
    assert_eq!(soon(socket.recv()).await.unwrap_err().kind(), bowline::ErrorKind::Disconnected);
    settle().await;
    assert_eq!(server.stats().open(), 0);
    other.write_all(Head::request().text().as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut other).await.status(), 101);
    let mut next = connect(&server);
    next.write_all(Head::request().text().as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut next).await.status(), 101, "the place is free");
}

// ---- the shutdown

/// A future that somebody keeps without polling it is no hindrance for others.
#[tokio::test]
async fn a_server_that_is_not_polled_keeps_the_signal_from_nobody() {
    let (stop, stopped) = oneshot::channel::<()>();
    let signal = async move { stopped.await.unwrap() };
    // The connection that is polled would end by this timeout otherwise.
    let acceptor = Acceptor::new().limits(Limits::default().handshake_timeout(TIMEOUT * 10));
    let server = Server::new().acceptor(acceptor).shutdown(signal, TIMEOUT);
    let (_kept, far) = duplex(64);
    let mut kept = pin!(server.serve_connection(far, None, echo));
    assert!(poll_once(kept.as_mut()).await.is_none());
    let (_client, far) = duplex(64);
    let polled = tokio::spawn(server.serve_connection(far, None, echo));
    settle().await;
    stop.send(()).unwrap();
    soon(polled).await.unwrap().unwrap();
    soon(kept).await.unwrap();
}

/// A signal that wakes its task before it has returned is polled again.
#[tokio::test]
async fn a_signal_may_wake_itself() {
    let mut polls = 0;
    let signal = poll_fn(move |cx| {
        polls += 1;
        cx.waker().wake_by_ref();
        if polls < 5 { Poll::Pending } else { Poll::Ready(()) }
    });
    let server = Server::new().shutdown(signal, TIMEOUT);
    let mut serving = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (client, far) = duplex(64);
        clients.push(client);
        serving.push(tokio::spawn(server.serve_connection(far, None, echo)));
    }
    for serving in serving {
        soon(serving).await.unwrap().unwrap();
    }
}

/// Wake-ups that come while another task polls the signal are not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_signal_reaches_all_that_wait_in_parallel() {
    for round in 0..100 {
        let (wake, mut woken) = tokio::sync::watch::channel(0);
        let signal = async move {
            while *woken.borrow_and_update() < 20 {
                woken.changed().await.unwrap();
            }
        };
        let acceptor = Acceptor::new().limits(Limits::default().handshake_timeout(TIMEOUT * 100));
        let server = Server::new().acceptor(acceptor).shutdown(signal, TIMEOUT);
        let mut clients = Vec::new();
        let mut servings = Vec::new();
        let mut kept = Vec::new();
        for _ in 0..10 {
            let (client, far) = duplex(64);
            servings.push(tokio::spawn(server.serve_connection(far, None, echo)));
            clients.push(client);
            let (client, far) = duplex(64);
            let mut unpolled = Box::pin(server.serve_connection(far, None, echo));
            assert!(poll_once(unpolled.as_mut()).await.is_none(), "round {round}");
            kept.push(unpolled);
            clients.push(client);
        }
        tokio::spawn(async move {
            for number in 0..=20 {
                // The signal may be gone already.
                let _ = wake.send(number);
                tokio::task::yield_now().await;
            }
        });
        for serving in servings {
            soon(serving).await.unwrap().unwrap();
        }
    }
}

/// The signal knows the tasks that wait for it, but does not keep them, nor itself.
#[tokio::test]
async fn a_signal_ends_with_its_server() {
    let (sender, held) = oneshot::channel::<()>();
    let (_stop, stopped) = oneshot::channel::<()>();
    let signal = async move {
        let _ = stopped.await;
        drop(sender);
    };
    let server = Server::new().shutdown(signal, TIMEOUT);
    let (client, far) = duplex(64);
    let serving = tokio::spawn(server.serve_connection(far, None, echo));
    settle().await;
    drop((client, server));
    soon(serving).await.unwrap().unwrap();
    assert!(soon(held).await.is_err(), "the signal was dropped");
}

/// RFC 9113 8.7: a request that the application has not seen may be repeated elsewhere.
#[cfg(feature = "http2")]
#[tokio::test]
async fn requests_that_a_shutdown_was_faster_than_may_be_repeated() {
    use crate::support::http2::{RST_STREAM, connect_headers, hello, read_frame, rst_stream};

    /// RFC 9113 7.
    const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];
    let (stop, stopped) = oneshot::channel::<()>();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let options = ShutdownOptions::new(TIMEOUT * 2).spread(TIMEOUT);
    let server = Server::new().http2().acceptor(Acceptor::new().limits(Limits::default().max_streams(2)));
    let server = server.shutdown(async move { stopped.await.unwrap() }, options).on_request(move |head| {
        count.fetch_add(1, Ordering::Relaxed);
        async move { Ok(head) }
    });
    let mut stream = connect(&server);
    // The first is closed at once, and the second keeps the connection open.
    let opened = [hello(&[]), connect_headers(1, "/", "13"), connect_headers(3, "/", "13")].concat();
    stream.write_all(&opened).await.unwrap();
    settle().await;
    assert_eq!(seen.load(Ordering::Relaxed), 2);
    // The third has waited for one of the streams, and the fourth comes after the signal.
    stream.write_all(&[rst_stream(1), connect_headers(5, "/", "13")].concat()).await.unwrap();
    stop.send(()).unwrap();
    settle().await;
    stream.write_all(&[rst_stream(5), connect_headers(7, "/", "13")].concat()).await.unwrap();
    let mut refused = Vec::new();
    let reading = async {
        while refused.len() < 2 {
            let frame = read_frame(&mut stream).await.expect("the connection is open");
            if let (RST_STREAM, _, stream @ (5 | 7), reason) = frame {
                refused.push((stream, reason));
            }
        }
    };
    soon(reading).await;
    assert_eq!(refused, [(5, REFUSED_STREAM.to_vec()), (7, REFUSED_STREAM.to_vec())]);
    assert_eq!(seen.load(Ordering::Relaxed), 2);
}

/// Every connection is counted, also those that the shutdown was faster than.
#[tokio::test]
async fn connections_after_the_signal_are_counted() {
    let server = Server::new().shutdown(std::future::ready(()), TIMEOUT);
    for _ in 0..2 {
        let (_client, far) = duplex(64);
        soon(server.serve_connection(far, None, echo)).await.unwrap();
    }
    assert_eq!(rejected(&server), [(RejectionReason::Shutdown, 2)]);
}

/// Handlers, checks and pages that never end, and no time to wait for them.
#[tokio::test(start_paused = true)]
async fn a_shutdown_without_time_ends_everything() {
    for spread in [Duration::ZERO, TIMEOUT] {
        let (stop, stopped) = oneshot::channel::<()>();
        let options = ShutdownOptions::new(spread).spread(spread);
        let server = Server::new().fallback(page).shutdown(async move { stopped.await.unwrap() }, options);
        let server = server.on_request(|head: Parts| async move {
            match head.uri.path() {
                "/hangs" => pending().await,
                _ => Ok(head),
            }
        });
        let mut clients = Vec::new();
        let mut servings = Vec::new();
        for request in [
            Head::request(),
            Head::request().first_line("GET /hangs HTTP/1.1"),
            get("/hangs"),
            get("/"),
            Head::from(["GET / HTTP/1.1"]),
        ] {
            let (mut client, far) = duplex(4096);
            let never = |socket: bowline::WebSocket| async move {
                let _socket = socket;
                pending().await
            };
            servings.push(tokio::spawn(server.serve_connection(far, None, never)));
            client.write_all(request.text().as_bytes()).await.unwrap();
            clients.push(client);
        }
        settle().await;
        assert_eq!(server.stats().open(), 1);
        stop.send(()).unwrap();
        // With a spread, the first is closed at once, and its client does not answer.
        drop(clients);
        for serving in servings {
            soon(serving).await.unwrap().unwrap();
        }
        settle().await;
        let stats = server.stats();
        assert_eq!((stats.open(), stats.shut_down()), (0, 1));
        // It stays down.
        soon(server.serve_connection(duplex(64).1, None, echo)).await.unwrap();
        soon(server.serve(Never, echo)).await.unwrap();
    }
}

/// A listener without connections.
struct Never;

impl Listener for Never {
    type Stream = DuplexStream;

    async fn accept(&mut self) -> io::Result<(DuplexStream, Option<std::net::SocketAddr>)> {
        pending().await
    }
}
