//! Events for the crate `tracing`.

mod support;

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};

use bowline::{Acceptor, CloseCode, Limits, Role, Server};
use tokio::net::TcpStream;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use support::frames::Frame;
use support::http::{Head, echo, exchange, soon, start};
use support::open;

/// Keeps the events of bowline as lines of text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// For as long as the result is kept, of this thread.
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let guard = tracing::subscriber::set_default(log.clone());
        (log, guard)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn assert_has(&self, parts: &[&str]) {
        let lines = self.take();
        let found = lines.iter().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line with {parts:?} in {lines:#?}");
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "bowline"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                write!(self.0, " {field}={value:?}").unwrap();
            }
        }
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_connection_from_its_handshake_to_its_end() {
    let (log, _guard) = Log::start();
    let acceptor = Acceptor::new().subprotocols(["chat"]);
    let address = start(Server::new().acceptor(acceptor), echo).await;
    let connector = bowline::Connector::new().subprotocols(["chat"]);
    let url = format!("ws://user:password@{address}/room?token=secret");
    let (mut socket, _) = soon(connector.connect(url)).await.unwrap();
    let lines = log.take().join("\n");
    assert!(lines.contains("path=\"/room\"") && lines.contains("an opening handshake has come"), "{lines}");
    assert!(lines.contains("role=Server") && lines.contains("role=Client"), "{lines}");
    assert!(lines.contains("subprotocol=\"chat\""), "{lines}");
    for _ in 0..10 {
        socket.send("confidential").await.unwrap();
        soon(socket.recv()).await.unwrap();
    }
    assert!(log.take().is_empty(), "no event for a message");
    soon(socket.close(CloseCode(4000), "private")).await.unwrap();
    let lines = log.take().join("\n");
    assert!(lines.contains("code=4000") && lines.contains("we close the connection"), "{lines}");
    assert!(lines.contains("the peer closed the connection"), "{lines}");
    for secret in ["secret", "password", "confidential", "private"] {
        assert!(!lines.contains(secret), "{lines}");
    }
}

#[tokio::test]
async fn handshakes_that_are_rejected_and_refused() {
    let (log, _guard) = Log::start();
    let address = start(Server::new(), echo).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    exchange(&mut stream, &Head::request().with("origin: https://evil.example")).await;
    log.assert_has(&["rejection=403", "origin"]);
    let (stream, mut far) = tokio::io::duplex(1000);
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        assert!(far.read(&mut [0; 1000]).await.unwrap() > 0);
        far.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    });
    let connecting = bowline::Connector::new();
    soon(connecting.connect_over("ws://localhost/", stream)).await.unwrap_err();
    log.assert_has(&["status=503", "refused"]);
}

#[tokio::test(start_paused = true)]
async fn violations_and_lost_connections() {
    let (log, _guard) = Log::start();
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed_frame(Role::Server, &Frame::text("not masked"));
    socket.recv().await.unwrap_err();
    log.assert_has(&["WARN", "code=1002", "the connection is failed"]);
    let (mut socket, _wire) = open(Role::Client, Limits::default());
    socket.recv().await.unwrap_err();
    log.assert_has(&["WARN", "given up", "nothing came within 20s after a ping"]);
    let (mut socket, wire) = open(Role::Client, Limits::default());
    wire.end();
    socket.recv().await.unwrap_err();
    log.assert_has(&["without a Close frame", "lost"]);
}
