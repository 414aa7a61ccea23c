//! Servers that want to hurt the tool: bounded time and memory, and no panic.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bowline::proto::handshake::Key;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Outcome, limited_command, run};

/// The behaviour of a server after it has accepted.
#[derive(Clone, Copy, Debug)]
enum Hostility {
    /// Sends nothing, and reads nothing.
    Silent,
    /// Ends the connection.
    Closes,
    /// Sends these bytes without end, instead of a response.
    Endless(&'static [u8]),
    /// Sends a head without end: this line, again and again.
    EndlessHead(&'static [u8]),
    /// Accepts the handshake, and sends these bytes without end.
    AcceptsAndFloods(&'static [u8]),
    /// Accepts the handshake, and neither reads nor sends.
    AcceptsAndStalls,
    /// Accepts the handshake, and sends these bytes once.
    AcceptsAndSends(&'static [u8]),
}

async fn serve(hostility: Hostility) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // An error is the end of the connection.
                let _ = answer(stream, hostility).await;
            });
        }
    });
    address
}

async fn answer(mut stream: TcpStream, hostility: Hostility) -> std::io::Result<()> {
    match hostility {
        Hostility::Silent => {}
        Hostility::Closes => return Ok(()),
        Hostility::Endless(bytes) => return repeat(&mut stream, bytes).await,
        Hostility::EndlessHead(line) => {
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n").await?;
            return repeat(&mut stream, line).await;
        }
        Hostility::AcceptsAndFloods(bytes) => {
            accept(&mut stream).await?;
            return repeat(&mut stream, bytes).await;
        }
        Hostility::AcceptsAndStalls => accept(&mut stream).await?,
        Hostility::AcceptsAndSends(bytes) => {
            accept(&mut stream).await?;
            stream.write_all(bytes).await?;
        }
    }
    std::future::pending().await
}

async fn repeat(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let chunk = bytes.repeat(64 * 1024 / bytes.len());
    loop {
        stream.write_all(&chunk).await?;
    }
}

async fn accept(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    // The key has lost its case: a server may well answer with a wrong key.
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap_or_default();
    let accept = Key::parse(key.as_bytes()).unwrap_or(Key::from_nonce([0; 16])).accept();
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept.as_str()
    );
    stream.write_all(response.as_bytes()).await
}

/// Checks a server with a short patience, and asserts on time and memory. A server that accepts has five
/// times this patience for the first handshake.
async fn check_within(seconds: u64, wait: &str, hostility: Hostility, options: &[&str]) -> Outcome {
    let address = serve(hostility).await.to_string();
    let began = Instant::now();
    let command = limited_command(&[&["--wait", wait, "--jobs", "32", &*address], options].concat());
    let outcome = run(command).await;
    assert!(began.elapsed() < Duration::from_secs(seconds), "{:?}", began.elapsed());
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    outcome
}

#[tokio::test]
async fn a_server_without_a_handshake_is_refused_at_once() {
    for (hostility, text) in [
        (Hostility::Silent, "no response in time"),
        (Hostility::Closes, "instead of a response"),
        (Hostility::Endless(b"garbage\xff\x00"), "the response begins with \"garbage"),
        (Hostility::Endless(b"\r\n"), "the response begins with \"\\r\\n"),
        (Hostility::Endless(b"HTTP/1.1 "), "the head of the response has no end within 65536 bytes"),
        (Hostility::EndlessHead(b"X-Header: value\r\n"), "no end within 65536 bytes"),
        (Hostility::EndlessHead(b"no header\r\n\r\n"), "a malformed line: \"no header\""),
    ] {
        let outcome = check_within(20, "100ms", hostility, &[]).await;
        // As for the other commands: no response is "not reached", and a wrong one is "refused".
        let status = if matches!(hostility, Hostility::Silent | Hostility::Closes) { 3 } else { 4 };
        assert_eq!(outcome.status, status, "{hostility:?}: {outcome:?}");
        assert!(outcome.stderr.contains(text), "{hostility:?}: {outcome:?}");
        let outcome = check_within(20, "100ms", hostility, &["--http", "2"]).await;
        assert!([3, 4].contains(&outcome.status), "{hostility:?}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_silent_during_tls_is_not_reached() {
    let address = serve(Hostility::Silent).await;
    let url = format!("wss://localhost:{}", address.port());
    let began = Instant::now();
    let outcome = run(limited_command(&["--wait", "100ms", "-4", "-k", &url])).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!((outcome.status, &*outcome.stderr), (3, "bowline: connecting took too long\n"));
}

#[tokio::test]
async fn a_server_that_floods_has_findings_in_bounded_time() {
    let floods: [&'static [u8]; 6] = [
        // Messages, pings, pongs and fragments without end; garbage; zeros.
        b"\x81\x05hello",
        b"\x89\x01p",
        b"\x8a\x01p",
        b"\x00\x01x",
        b"\xff\xff\xff\xff\xff\xff",
        b"\x00",
    ];
    for flood in floods {
        let options = ["--strict", "--echo", "-v", "--case", "control", "--case", "close", "--case", "echo"];
        let outcome = check_within(100, "1s", Hostility::AcceptsAndFloods(flood), &options).await;
        assert_eq!(outcome.status, 8, "{flood:?}");
    }
}

#[tokio::test]
async fn a_server_that_stalls_has_findings_in_bounded_time() {
    // All cases, with those that send 17 MiB to a server that does not read.
    let outcome = check_within(100, "400ms", Hostility::AcceptsAndStalls, &["--strict", "--echo"]).await;
    assert_eq!(outcome.status, 8, "{outcome:?}");
}

#[tokio::test]
async fn announced_sizes_take_no_memory() {
    // 2^62 bytes, of which none come; 2^63; a message in a fragment of 4 GiB.
    let sizes: [&'static [u8]; 3] =
        [b"\x82\x7f\x40\0\0\0\0\0\0\0", b"\x82\x7f\x80\0\0\0\0\0\0\0", b"\x02\x7f\0\0\0\x01\0\0\0\0"];
    for bytes in sizes {
        let options = ["--case", "control", "--case", "close.normal", "-vv"];
        let outcome = check_within(100, "1s", Hostility::AcceptsAndSends(bytes), &options).await;
        assert_eq!(outcome.status, 8, "{bytes:?}");
    }
}
