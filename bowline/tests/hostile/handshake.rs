//! Hostile opening handshakes.

use std::future::pending;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bowline::{Acceptor, Connector, Error, ErrorKind, Limits, Proxy, Role, WebSocket};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::allocations::peak_since_now;
use crate::support::cpu_time::cpu_time;
use crate::support::frames::{Frame, encode_all};
use crate::support::http::{Head, KEY, acceptance, exchange, listen, read_head, soon};
use crate::support::pairs::Stream;
use crate::support::{peer_of, warm_up};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// Performs the handshake of `role`.
async fn shake_hands(role: Role, limits: Limits, stream: impl Stream) -> Result<WebSocket, Error> {
    match role {
        Role::Client => {
            let connector = Connector::new().limits(limits);
            connector.connect_over("ws://example.com/", stream).await.map(|(socket, _)| socket)
        }
        Role::Server => Acceptor::new().limits(limits).accept_stream(stream).await.map(|(socket, _)| socket),
    }
}

/// Returns the good head of `role`'s peer, without the empty line at its end.
async fn head_of_peer(role: Role, peer: &mut DuplexStream) -> String {
    let head = match role {
        Role::Client => acceptance(&read_head(peer).await),
        Role::Server => Head::request(),
    };
    head.text().trim_end().to_owned() + "\r\n"
}

/// Returns the verdict of `role` on a head with more lines. The test fails if the verdict takes too long.
async fn with_lines(role: Role, limits: &Limits, lines: &[u8], chunk: usize) -> Result<WebSocket, Error> {
    let (ours, mut peer) = duplex(chunk);
    let (result, ()) = tokio::join!(soon(shake_hands(role, limits.clone(), ours)), async move {
        let mut head = head_of_peer(role, &mut peer).await.into_bytes();
        head.extend_from_slice(lines);
        head.extend_from_slice(b"\r\n");
        let (mut from, mut to) = tokio::io::split(peer);
        tokio::select! {
            biased;
            // The head may be refused before all of it has arrived.
            _ = read_answer(&mut from), if role == Role::Server => {}
            _ = async { to.write_all(&head).await.is_ok() && role == Role::Server && pending().await } => {}
        }
    });
    result
}

/// Returns the status of a server's response, if any.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Option<u16> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.ok()?);
    }
    Some(Head::parse(std::str::from_utf8(&head).ok()?).status())
}

// ---- a head that never ends

/// Returns `size` bytes of headers, in lines of `line` bytes.
fn lines(size: usize, line: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + line);
    let mut number = 0;
    while bytes.len() < size {
        let start = bytes.len();
        bytes.extend_from_slice(format!("x-{number}: ").as_bytes());
        bytes.resize((start + line - 2).max(bytes.len()), b'a');
        bytes.extend_from_slice(b"\r\n");
        number += 1;
    }
    bytes
}

#[tokio::test]
async fn a_head_that_never_ends_is_refused_as_soon_as_it_is_too_large() {
    warm_up().await;
    for role in ROLES {
        // In one line, in lines of 1 KiB, and in 100,000 lines.
        for line in [usize::MAX, 1024, 10] {
            let bytes = if line == usize::MAX {
                [b"x-long: ".as_slice(), &vec![b'a'; 1024 * 1024]].concat()
            } else {
                lines(1024 * 1024, line)
            };
            let (ours, mut peer) = duplex(4096);
            let limits = Limits::default();
            let peak = peak_since_now();
            let (result, (taken, answer)) =
                tokio::join!(soon(shake_hands(role, limits.clone(), ours)), async {
                    let head = head_of_peer(role, &mut peer).await;
                    peer.write_all(head.as_bytes()).await.unwrap();
                    let mut taken = 0;
                    let mut answer = Vec::new();
                    let (mut from, mut to) = tokio::io::split(peer);
                    // Until the answer is here, or the stream is gone.
                    let pouring = async {
                        while let Ok(count) = to.write(&bytes[taken % bytes.len()..]).await {
                            taken += count;
                        }
                    };
                    tokio::select! {
                        () = pouring => {}
                        _ = from.read_to_end(&mut answer) => {}
                    }
                    (taken, answer)
                });
            let peak = peak();
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Limit, "{role:?}, {line}: {error}");
            assert!(error.to_string().contains("Limits::head_size"), "{error}");
            assert!(taken < 64 * 1024, "{role:?}, {line}: {taken} bytes were taken");
            assert!(peak < 128 * 1024, "{role:?}, {line}: {peak} bytes were held");
            if role == Role::Server {
                assert!(answer.starts_with(b"HTTP/1.1 431 "), "{:?}", String::from_utf8_lossy(&answer));
            }
        }
    }
}

/// With sufficient limits, the time is linear in the size of the head, however it is split.
#[tokio::test]
async fn a_large_head_takes_linear_time() {
    // On a busy machine, the slowest takes longer than the default.
    let limits = Limits::default()
        .head_size(4 * 1024 * 1024)
        .max_headers(2000)
        .handshake_timeout(Duration::from_secs(120));
    for role in ROLES {
        for (named, line, chunk, sizes) in [
            ("one line at once", usize::MAX, 1 << 22, [64, 256, 1024]),
            ("one line in pieces of 100 bytes", usize::MAX, 100, [64, 256, 1024]),
            ("lines of 1 KiB", 1024, 1 << 22, [64, 256, 1024]),
            ("lines of 1 KiB in pieces of 100 bytes", 1024, 100, [64, 256, 1024]),
            ("one line byte by byte", usize::MAX, 1, [4, 16, 64]),
        ] {
            let mut times = Vec::new();
            for size in sizes {
                let size = size * 1024;
                let head = if line == usize::MAX {
                    [b"x-long: ".as_slice(), &vec![b'a'; size], b"\r\n"].concat()
                } else {
                    lines(size, line)
                };
                let mut best = Duration::MAX;
                for _ in 0..2 {
                    let start = cpu_time();
                    with_lines(role, &limits, &head, chunk).await.unwrap();
                    best = best.min(cpu_time().saturating_sub(start));
                }
                times.push(best);
            }
            println!("{role:?}, {named}: {times:?} for {sizes:?} KiB");
            // Sixteen times as much would be 256 times the time if that were quadratic.
            assert!(times[2] < times[0] * 80, "{role:?}, {named}: {times:?} for {sizes:?} KiB");
        }
    }
}

/// The parts of a head that bowline parses itself: lists, with as many elements as fit into the head.
#[tokio::test]
async fn long_lists_take_linear_time() {
    let limits = Limits::default().head_size(4 * 1024 * 1024);
    for (name, element) in [
        ("Sec-WebSocket-Protocol", "a,"),
        ("Sec-WebSocket-Extensions", "a,"),
        ("Sec-WebSocket-Extensions", "a;b=\"c\"    ,"),
        ("Sec-WebSocket-Extensions", "a;"),
        ("Sec-WebSocket-Extensions", "a;b=\"\\c\\d\";"),
        ("Connection", "a,"),
        ("Upgrade", ",,"),
    ] {
        let mut times = Vec::new();
        for size in [64, 256, 1024] {
            let count = size * 1024 / element.len();
            let list = format!("{name}: {}{}\r\n", element.repeat(count), "a");
            let mut best = Duration::MAX;
            for _ in 0..2 {
                let start = cpu_time();
                // Lists with only parameters after one name may be accepted or not: only the time matters.
                let _ = with_lines(Role::Server, &limits, list.as_bytes(), 1 << 22).await;
                best = best.min(cpu_time().saturating_sub(start));
            }
            times.push(best);
        }
        println!("{name} of {element:?}: {times:?} for 64, 256 and 1024 KiB");
        assert!(times[2] < times[0] * 80, "{name} of {element:?}: {times:?}");
    }
}

/// However high the limits are, a head with very many lines is refused or accepted, and nothing worse.
#[tokio::test]
async fn a_hundred_thousand_lines_within_the_limits_do_no_harm() {
    let limits = Limits::default().head_size(16 * 1024 * 1024).max_headers(16 * 1024);
    for role in ROLES {
        for (named, lines) in
            [("different names", lines(1_500_000, 15)), ("one name", b"x-a: 0123456789\r\n".repeat(100_000))]
        {
            match with_lines(role, &limits, &lines, 1 << 22).await {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::Limit, "{role:?}, {named}: {error}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_of_a_byte_a_second_ends_at_the_deadline() {
    for role in ROLES {
        for line in ["x-long: aaaaaaaaaaaaaaaaaaaaaaaaa", "a:b\r\nc:d\r\ne:f\r\ng:h\r\ni:j\r\n"] {
            let (ours, mut peer) = duplex(4096);
            let start = Instant::now();
            let limits = Limits::default();
            let slow = async {
                let head = head_of_peer(role, &mut peer).await;
                peer.write_all(head.as_bytes()).await.unwrap();
                for byte in line.bytes() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    let _ = peer.write_all(&[byte]).await;
                }
            };
            let (result, ()) = tokio::join!(
                async {
                    let result = shake_hands(role, limits.clone(), ours).await;
                    assert_eq!(start.elapsed(), Duration::from_secs(10));
                    result
                },
                slow
            );
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{role:?}: {error}");
            assert!(error.to_string().contains("Limits::handshake_timeout"), "{error}");
        }
    }
}

// ---- heads with something odd in them

/// Returns whether a server accepts a request with these lines instead of those of the same names.
async fn server_accepts(lines: &[&str]) -> bool {
    let replaced = lines.iter().fold(Head::request(), |head, line| {
        head.without(line.split_once(':').expect("a header").0.trim_end())
    });
    let request = lines.iter().fold(replaced, |head, line| head.with(line));
    let (ours, mut peer) = duplex(64 * 1024);
    peer.write_all(request.text().as_bytes()).await.unwrap();
    let accepting = tokio::spawn(shake_hands(Role::Server, Limits::default(), ours));
    let status = read_answer(&mut peer).await;
    drop(peer);
    match (soon(accepting).await.unwrap(), status) {
        (Ok(_), Some(101)) => true,
        (Err(error), Some(400 | 426)) => {
            assert_eq!(error.kind(), ErrorKind::Handshake, "{lines:?}: {error}");
            false
        }
        (result, status) => panic!("{lines:?}: {status:?}, {result:?}"),
    }
}

/// Returns whether a client accepts a response with these lines instead of those of the same names.
/// `{accept}` stands for the right value.
async fn client_accepts(lines: &[&str]) -> bool {
    let (ours, mut peer) = duplex(64 * 1024);
    let (result, _peer) = tokio::join!(soon(shake_hands(Role::Client, Limits::default(), ours)), async {
        let good = acceptance(&read_head(&mut peer).await);
        let accept = good.get("sec-websocket-accept").unwrap();
        let replaced = lines
            .iter()
            .fold(good, |head, line| head.without(line.split_once(':').expect("a header").0.trim_end()));
        let answer = lines.iter().fold(replaced, |head, line| head.with(&line.replace("{accept}", &accept)));
        peer.write_all(answer.text().as_bytes()).await.unwrap();
        peer
    });
    match result {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Handshake, "{lines:?}: {error}");
            false
        }
    }
}

/// Returns ten thousand spaces.
fn spaces() -> String {
    " ".repeat(10_000)
}

#[tokio::test]
async fn rfc6455_4_2_1_repeated_headers_of_a_request() {
    let key = format!("Sec-WebSocket-Key: {KEY}");
    // RFC 6455 11.3.1, 11.3.5: once.
    assert!(!server_accepts(&[&key, &key]).await);
    assert!(!server_accepts(&[&key, "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="]).await);
    assert!(!server_accepts(&[&format!("{key}, {KEY}")]).await);
    assert!(!server_accepts(&["Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13"]).await);
    assert!(!server_accepts(&["Sec-WebSocket-Version: 13, 13"]).await);
    // RFC 9110 5.3, 7.8: lists may be split into several lines.
    assert!(server_accepts(&["Upgrade: websocket", "Upgrade: websocket"]).await);
    assert!(server_accepts(&["Connection: upgrade", "Connection: Upgrade"]).await);
    assert!(server_accepts(&["Connection: close, x, keep-alive, upgrade, upgrade"]).await);
    assert!(!server_accepts(&["Connection: keep-alive", "Connection: close"]).await);
    assert!(!server_accepts(&["Connection: upgrades, xupgrade, up grade"]).await);
    assert!(
        server_accepts(&["UPGRADE: WEBSOCKET", "CONNECTION: UPGRADE", "sec-WEBSOCKET-version: 13"]).await
    );
}

#[tokio::test]
async fn rfc6455_4_1_repeated_headers_of_a_response() {
    // RFC 6455 11.3.3: once.
    assert!(!client_accepts(&["Sec-WebSocket-Accept: {accept}", "Sec-WebSocket-Accept: {accept}"]).await);
    assert!(!client_accepts(&["Sec-WebSocket-Accept: {accept}, {accept}"]).await);
    assert!(!client_accepts(&["Upgrade: websocket", "Upgrade: websocket"]).await);
    assert!(client_accepts(&["Connection: upgrade", "Connection: Upgrade"]).await);
    assert!(client_accepts(&["Connection: x, y", "Connection: UPGRADE, z"]).await);
    assert!(!client_accepts(&["Connection: upgrades, xupgrade"]).await);
    assert!(client_accepts(&["UPGRADE: WEBSOCKET", "sec-WEBSOCKET-accept: {accept}"]).await);
}

#[tokio::test]
async fn headers_with_spaces_folds_and_other_bytes() {
    for ours in [false, true] {
        let accepts = async |lines: &[&str]| {
            if ours { client_accepts(lines).await } else { server_accepts(lines).await }
        };
        // RFC 9112 5.2: a line folding is refused, or at least not taken for anything else.
        assert!(!accepts(&["X-Folded: a\r\n b"]).await);
        assert!(!accepts(&["Upgrade: \r\n websocket"]).await);
        assert!(!accepts(&["Connection: keep-alive,\r\n\tUpgrade"]).await);
        // RFC 9112 5.1: no space in front of the colon.
        assert!(!accepts(&["Upgrade : websocket"]).await);
        // RFC 9110 5.5: other bytes are opaque; in the handshake's own headers they are wrong.
        assert!(accepts(&["X-Other: \u{e4}\u{20ac}"]).await);
        assert!(!accepts(&["Upgrade: websocket\u{e4}"]).await);
        assert!(!accepts(&["Connection: Upgrade\u{e4}"]).await);
        // U+212A equals K only in an overly lenient comparison.
        assert!(!accepts(&["Upgrade: websoc\u{212a}et"]).await);
        assert!(!accepts(&["Sec-WebSocket-Protocol: \u{e4}"]).await);
        assert!(!accepts(&["Sec-WebSocket-Extensions: \u{e4}"]).await);
        assert!(!accepts(&["X-Null: a\0b"]).await);
        assert!(!accepts(&["X-Return: a\rb"]).await);
        // RFC 9110 5.5, 5.6.3: optional whitespace, however much.
        assert!(accepts(&[&format!("X-Spaces: {}", spaces())]).await);
        assert!(accepts(&[&format!("Upgrade: {}websocket", spaces())]).await);
        assert!(accepts(&[&format!("Connection: x,{}Upgrade", spaces())]).await);
        assert!(!accepts(&[&format!("Upgrade: web{}socket", spaces())]).await);
    }
    let spaces = spaces();
    assert!(server_accepts(&[&format!("Sec-WebSocket-Key: {spaces}{KEY}")]).await);
    assert!(server_accepts(&[&format!("Sec-WebSocket-Extensions: a;{spaces}b \t=\t1")]).await);
    assert!(client_accepts(&[&format!("Sec-WebSocket-Accept: {spaces}{{accept}}")]).await);
}

#[tokio::test]
async fn rfc6455_4_1_what_was_not_offered_or_does_not_belong_is_refused() {
    for line in [
        "Sec-WebSocket-Accept: ",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Accept: {accept}=",
        "Sec-WebSocket-Accept: x{accept}",
        "Sec-WebSocket-Accept: \"{accept}\"",
        "Sec-WebSocket-Protocol: chat",
        "Sec-WebSocket-Protocol: ,",
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Sec-WebSocket-Extensions: ;",
    ] {
        assert!(!client_accepts(&[line]).await, "{line}");
    }
    // RFC 9110 5.6.1: an empty list chooses nothing.
    assert!(client_accepts(&["Sec-WebSocket-Protocol: "]).await);
    assert!(client_accepts(&["Sec-WebSocket-Extensions: "]).await);
    assert!(client_accepts(&["Sec-WebSocket-Accept: {accept}"]).await);
}

// ---- bodies

/// RFC 9110 15.2: a 101 has no body, whatever its headers say. The following bytes are frames.
#[tokio::test]
async fn rfc9110_15_2_a_101_has_no_body() {
    let frames = encode_all(Role::Server, &[Frame::text("a"), Frame::text("b")]);
    for line in ["Content-Length: 6", "Content-Length: 0", "Transfer-Encoding: chunked", "X-No: body"] {
        let mut socket = connect_with_body(line, &frames).await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some("a".into()), "{line}");
        assert_eq!(socket.recv().await.unwrap(), Some("b".into()), "{line}");
        let mut socket = connect_with_body(line, b"<html>welcome</html>").await.unwrap();
        let error = socket.recv().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{line}: {error}");
    }
}

async fn connect_with_body(line: &str, body: &[u8]) -> Result<WebSocket, Error> {
    let (ours, mut peer) = duplex(64 * 1024);
    let (result, ()) = tokio::join!(soon(shake_hands(Role::Client, Limits::default(), ours)), async {
        let answer = acceptance(&read_head(&mut peer).await).with(line);
        peer.write_all(answer.text().as_bytes()).await.unwrap();
        peer.write_all(body).await.unwrap();
    });
    result
}

/// Nor is the body of a request taken for frames.
#[tokio::test]
async fn a_request_with_a_body_opens_nothing_out_of_step() {
    for (line, body) in
        [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
    {
        let (ours, mut peer) = duplex(64 * 1024);
        let mut bytes = Head::request().with(line).text().into_bytes();
        bytes.extend_from_slice(body.as_bytes());
        bytes.extend(Frame::text("frame").encode(Role::Client));
        peer.write_all(&bytes).await.unwrap();
        peer.shutdown().await.unwrap();
        match soon(shake_hands(Role::Server, Limits::default(), ours)).await {
            Ok(mut socket) => assert_eq!(socket.recv().await.unwrap(), Some("frame".into()), "{line}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Handshake, "{line}: {error}"),
        }
    }
}

/// A rejected request is followed by a gibibyte, sent as fast as it is read. The bytes are discarded until
/// the deadline, so that no reset discards the response. The clock stands still while bytes are read.
#[tokio::test(start_paused = true)]
async fn a_gibibyte_behind_a_rejected_request_costs_no_memory() {
    const SIZE: usize = 1024 * 1024 * 1024;
    let (ours, mut peer) = duplex(64 * 1024);
    let request = Head::request().without("upgrade").with("Content-Length: 1073741824");
    peer.write_all(request.text().as_bytes()).await.unwrap();
    let peak = peak_since_now();
    let (result, head) = tokio::join!(soon(shake_hands(Role::Server, Limits::default(), ours)), async {
        let body = vec![b'x'; 64 * 1024];
        for _ in 0..SIZE / body.len() {
            peer.write_all(&body).await.unwrap();
        }
        let head = read_head(&mut peer).await;
        drop(peer);
        head
    });
    let peak = peak();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Handshake);
    assert_eq!(head.status(), 426);
    assert!(peak < 300_000, "{peak} bytes were held");
}

/// A stream that is always ready, ignores tokio's budget, and repeats its last byte forever.
struct Endless {
    head: Vec<u8>,
    position: usize,
    repeated: &'static [u8],
    /// A client receives the answer after its request.
    answers: bool,
    waker: Option<Waker>,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.answers {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let head = &self.head[self.position..];
        let count = head.len().min(buf.remaining());
        if count > 0 {
            buf.put_slice(&head[..count]);
            self.position += count;
        } else {
            let repeated = &self.repeated[..self.repeated.len().min(buf.remaining())];
            buf.put_slice(repeated);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.answers = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A peer that sends without end and is always ready. The deadline takes effect nevertheless.
#[test]
fn a_peer_that_never_stops_sending_is_left_at_the_deadline() {
    let limits = Limits::default().handshake_timeout(Duration::from_millis(200));
    for (role, head, repeated, expected) in [
        (Role::Server, Head::request().without("upgrade").text(), "x".repeat(512), ErrorKind::Handshake),
        (Role::Server, "GET / HTTP/1.1\r\nx: ".to_owned(), "x".repeat(512), ErrorKind::Limit),
        (Role::Server, "no HTTP\r\n\r\n".to_owned(), "x".repeat(512), ErrorKind::Handshake),
        (Role::Client, "HTTP/1.1 500 No\r\n\r\n".to_owned(), "x".repeat(512), ErrorKind::Handshake),
        (Role::Client, "HTTP/1.1 101 Yes\r\nx: ".to_owned(), "x".repeat(512), ErrorKind::Limit),
    ] {
        let repeated = String::leak(repeated).as_bytes();
        let stream = Endless {
            head: head.clone().into_bytes(),
            position: 0,
            repeated,
            answers: role == Role::Server,
            waker: None,
        };
        let limits = limits.clone();
        // A thread of its own keeps the test from hanging.
        let (done, finished) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _ = done.send(runtime.block_on(shake_hands(role, limits, stream)).map(drop));
        });
        let result =
            finished.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|_| panic!("{head:?} hangs"));
        assert_eq!(result.unwrap_err().kind(), expected, "{head:?}");
    }
}

/// Endless informational responses are treated alike.
#[tokio::test]
async fn informational_responses_without_end_are_left_at_the_deadline() {
    warm_up().await;
    let limits = Limits::default().handshake_timeout(Duration::from_millis(200));
    let (ours, mut peer) = duplex(4096);
    let peak = peak_since_now();
    let (result, ()) = tokio::join!(soon(shake_hands(Role::Client, limits, ours)), async move {
        read_head(&mut peer).await;
        while peer.write_all(b"HTTP/1.1 103 Early Hints\r\nx-hint: y\r\n\r\n").await.is_ok() {}
    });
    let peak = peak();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(peak < 128 * 1024, "{peak} bytes were held");
}

// ---- proxies

/// A proxy that is slow, or never stops.
#[tokio::test]
async fn a_slow_or_endless_proxy_ends_in_an_error() {
    for scheme in ["http", "socks5", "socks5h"] {
        for (endless, piece) in [(false, b"H".as_slice()), (true, b"HTTP/1.1 200 OK\r\nx: y\r\n")] {
            let (listener, address) = listen().await;
            let proxy = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut sent = 0;
                loop {
                    let taken = if endless {
                        stream.write(piece).await
                    } else {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        stream.write(b"H").await
                    };
                    match taken {
                        Ok(count) if sent < 50_000_000 => sent += count,
                        _ => return sent,
                    }
                }
            });
            let limits = Limits::default().handshake_timeout(Duration::from_millis(300));
            let connector =
                Connector::new().proxy(Proxy::new(format!("{scheme}://{address}")).unwrap()).limits(limits);
            let peak = peak_since_now();
            let start = std::time::Instant::now();
            let error = soon(connector.connect("ws://127.0.0.1:9/")).await.unwrap_err();
            let peak = peak();
            assert!(start.elapsed() < Duration::from_secs(2), "{scheme}: {:?}", start.elapsed());
            assert!(
                [ErrorKind::Timeout, ErrorKind::Io].contains(&error.kind()),
                "{scheme}, {endless}: {error}"
            );
            assert!(error.to_string().contains("proxy"), "{scheme}, {endless}: {error}");
            assert!(peak < 300_000, "{scheme}, {endless}: {peak} bytes were held");
            drop(connector);
            let sent = soon(proxy).await.unwrap();
            assert!(sent < 50_000_000, "{scheme}: the connection was not ended");
        }
    }
}

// ---- frames behind the handshake

/// More frames than any buffer holds, in the same packets as the head.
#[tokio::test]
async fn many_frames_behind_the_handshake_all_arrive() {
    const COUNT: usize = 10_000;
    for role in ROLES {
        for chunk in [1 << 22, 1000, 7] {
            let (ours, mut peer) = duplex(chunk);
            let (socket, ()) = tokio::join!(soon(shake_hands(role, Limits::default(), ours)), async {
                let mut bytes = head_of_peer(role, &mut peer).await.into_bytes();
                bytes.extend_from_slice(b"\r\n");
                let frames: Vec<_> = (0..COUNT).map(|number| Frame::text(number.to_string())).collect();
                bytes.extend(encode_all(peer_of(role), &frames));
                let feeding = tokio::spawn(async move {
                    // The response has to be read.
                    let (mut from, mut to) = tokio::io::split(peer);
                    let mut rest = Vec::new();
                    let _ = tokio::join!(to.write_all(&bytes), from.read_to_end(&mut rest));
                });
                drop(feeding);
            });
            let mut socket = socket.unwrap();
            for number in 0..COUNT {
                let message = soon(socket.recv()).await.unwrap().unwrap();
                assert_eq!(message.as_text(), Some(number.to_string().as_str()));
            }
        }
    }
}

/// Over TCP, a reset must not discard the rejection of a head that is too large.
#[tokio::test]
async fn a_client_that_goes_on_sending_still_gets_its_rejection() {
    let (listener, address) = listen().await;
    let asking = async {
        let mut client = TcpStream::connect(address).await.unwrap();
        let long = Head::request().with(&format!("x-long: {}", "a".repeat(1024 * 1024)));
        exchange(&mut client, &long).await.0
    };
    let answering = async {
        let (server, _) = listener.accept().await.unwrap();
        soon(shake_hands(Role::Server, Limits::default(), server)).await.unwrap_err()
    };
    let (response, error) = tokio::join!(asking, answering);
    assert_eq!(response.status(), 431);
    assert_eq!(error.kind(), ErrorKind::Limit);
}
