//! The events for `tracing`, received by a subscriber of the test.
//!
//! This file is a program of its own. With a single subscriber, the first thread at an event decides for all
//! threads whether the event is enabled, and a test without a subscriber would disable it.
#![cfg(feature = "tracing")]

mod support;

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use bowline::{Acceptor, CloseCode, Connector, Limits, Rejection, Role, Sender, Server, WebSocket, pair};
use http::StatusCode;
use http::request::Parts;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};

use support::frames::Frame;
use support::{open, settle};

/// A subscriber that records the level, name and fields of each event.
#[derive(Clone, Default)]
struct Events {
    lines: Arc<Mutex<Vec<String>>>,
    /// Called at each event, to check that no lock is held.
    sender: Arc<Mutex<Option<Sender>>>,
}

impl Events {
    /// Records this thread's events until the guard is dropped.
    fn catch() -> (Self, DefaultGuard) {
        let events = Self::default();
        let guard = tracing::subscriber::set_default(events.clone());
        (events, guard)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "bowline"
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} {}", event.metadata().level(), event.metadata().name()));
        event.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
        if let Some(sender) = &*self.sender.lock().unwrap() {
            // This deadlocks if an event is sent under a lock.
            let _ = (sender.is_closed(), sender.close_frame());
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != "message" {
            write!(self.0, " {}={value:?}", field.name()).unwrap();
        }
    }
}

fn watched(role: Role) -> (Events, DefaultGuard, WebSocket, support::wire::Wire) {
    let (events, guard) = Events::catch();
    let (socket, wire) = open(role, Limits::default());
    *events.sender.lock().unwrap() = Some(socket.sender());
    let opened = if role == Role::Server { "server" } else { "client" };
    assert_eq!(events.take(), [format!("DEBUG connection_opened role={opened:?}")]);
    (events, guard, socket, wire)
}

#[tokio::test]
async fn messages_are_no_events() {
    let (events, _guard) = Events::catch();
    let (client, mut server) = pair();
    events.take();
    for _ in 0..100 {
        client.send("text").await.unwrap();
        server.recv().await.unwrap();
    }
    client.ping().await.unwrap();
    assert_eq!(events.take(), [""; 0]);
}

#[tokio::test]
async fn who_closes_first_is_told_once_with_the_code() {
    let (events, _guard, mut socket, wire) = watched(Role::Server);
    wire.feed_frame(Role::Client, &Frame::close(4000, "private"));
    socket.recv().await.unwrap_err();
    wire.end();
    let _ = socket.close(CloseCode::NORMAL, "").await;
    drop(socket);
    settle().await;
    assert_eq!(events.take(), [r#"DEBUG connection_closed by="peer" code=4000"#]);

    let (events, _guard, mut socket, wire) = watched(Role::Server);
    wire.feed_frame(Role::Client, &Frame::close_without_code());
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(events.take(), [r#"DEBUG connection_closed by="peer" code=1005"#]);
    drop(socket);

    let (events, _guard, socket, wire) = watched(Role::Server);
    let closing = tokio::spawn(async move { socket.close(CloseCode(4001), "private").await });
    settle().await;
    wire.feed_frame(Role::Client, &Frame::close(4001, "private"));
    wire.end();
    closing.await.unwrap().unwrap();
    assert_eq!(events.take(), [r#"DEBUG connection_closed by="us" code=4001"#]);

    let (events, _guard, socket, wire) = watched(Role::Server);
    wire.end();
    drop(socket);
    settle().await;
    assert_eq!(events.take(), [r#"DEBUG connection_closed by="us""#]);
}

#[tokio::test]
async fn a_violation_is_told_with_its_reason_and_no_payload() {
    let (events, _guard, mut socket, wire) = watched(Role::Server);
    wire.feed_frame(Role::Client, &Frame::text(b"private \xFF"));
    socket.recv().await.unwrap_err();
    assert_eq!(
        events.take(),
        ["INFO connection_failed code=1007 error=the peer broke the protocol: a text message is not UTF-8"]
    );
}

#[tokio::test]
async fn a_transport_that_ends_is_told() {
    let (events, _guard, mut socket, wire) = watched(Role::Server);
    wire.end();
    socket.recv().await.unwrap_err();
    settle().await;
    assert_eq!(
        events.take(),
        ["INFO connection_lost error=the peer ended the connection without a Close frame"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_keepalive_is_told() {
    let (events, _guard, mut socket, _wire) = watched(Role::Server);
    socket.recv().await.unwrap_err();
    settle().await;
    let told = events.take();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("INFO keepalive_lost error=the peer is gone: nothing arrived within"),
        "{told:?}"
    );
}

#[tokio::test]
async fn handshakes_are_told_by_both_sides() {
    let (events, _guard) = Events::catch();
    let (client, server) = tokio::io::duplex(4096);
    let acceptor = Acceptor::new().subprotocols(["chat"]);
    let connector = bowline::Connector::new().subprotocols(["chat"]);
    let (accepted, connected) = tokio::join!(
        acceptor.accept_stream(server),
        connector.connect_over("ws://localhost/private?token=1", client)
    );
    let told = events.take();
    assert_eq!(
        told,
        [
            r#"DEBUG handshake_accepted role="server" path=/private subprotocol="chat""#,
            r#"DEBUG connection_opened role="server""#,
            r#"DEBUG handshake_accepted role="client" subprotocol="chat""#,
            r#"DEBUG connection_opened role="client""#,
        ]
    );
    drop((accepted.unwrap(), connected.unwrap()));
}

#[tokio::test]
async fn rejections_are_told_by_both_sides_with_the_reason() {
    let (events, _guard) = Events::catch();
    let (client, server) = tokio::io::duplex(4096);
    let connector = bowline::Connector::new().origin("https://foreign.example");
    let acceptor = Acceptor::new();
    let (accepted, connected) =
        tokio::join!(acceptor.accept_stream(server), connector.connect_over("ws://localhost/", client));
    accepted.unwrap_err();
    connected.unwrap_err();
    let why = concat!(
        "pages of this origin may not connect here: the origin \"https://foreign.example\" does not fit the \
         host ",
        "of the request, \"localhost\": Acceptor::allow_origin(\"https://foreign.example\") allows it"
    );
    assert_eq!(
        events.take(),
        [
            &*format!(
                r#"INFO handshake_rejected role="server" path=/ status=403 reason=403 Forbidden: {why}"#
            ),
            concat!(
                r#"INFO handshake_rejected role="client" status=403 "#,
                "reason=the server answered 403 Forbidden instead of 101 Switching Protocols"
            ),
        ]
    );

    let mut request = http::Request::new(());
    let rejection = bowline::accept::<(), ()>(&mut request).unwrap_err();
    assert_eq!(rejection.status(), StatusCode::UPGRADE_REQUIRED);
    let told = events.take();
    assert!(told[0].starts_with(r#"INFO handshake_rejected role="server" path=/ status=426"#), "{told:?}");
}

/// Over every version of HTTP, and in a server of the application's own.
#[tokio::test]
async fn a_server_tells_the_address_and_the_path_of_its_client() {
    let (events, _guard) = Events::catch();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new().on_request(|mut head: Parts| async move {
        assert!(head.uri.path() != "/panic", "no database");
        // The path is that of the client.
        let path = std::mem::replace(&mut head.uri, "/elsewhere".parse().unwrap()).path().to_owned();
        if path == "/open" {
            Ok(head)
        } else {
            Err(Rejection::from(StatusCode::NOT_FOUND).with_source("none"))
        }
    });
    #[cfg(feature = "http2")]
    let server = server.http2();
    tokio::spawn(server.serve(listener, |_: WebSocket| std::future::pending()));
    let clients = [
        Connector::new(),
        #[cfg(feature = "http2")]
        Connector::new().http_version(bowline::HttpVersion::Http2),
    ];
    for client in clients {
        let (socket, _) = client.connect(format!("ws://{address}/open?token=secret")).await.unwrap();
        let peer = socket.local_addr().unwrap();
        let told: Vec<_> = events.take().into_iter().filter(|line| line.contains("server")).collect();
        assert_eq!(
            told,
            [
                format!(r#"DEBUG handshake_accepted role="server" peer={peer} path=/open"#),
                format!(r#"DEBUG connection_opened role="server" peer={peer}"#),
            ]
        );
        drop(socket);
        settle().await;
        events.take();
        client.connect(format!("ws://{address}/a%1Bb?token=secret")).await.unwrap_err();
        let told: Vec<_> = events.take().into_iter().filter(|line| line.contains("server")).collect();
        let told = told.iter().find(|line| line.contains("handshake")).expect("the rejection");
        assert!(told.starts_with(r#"INFO handshake_rejected role="server" peer=127.0.0.1:"#), "{told}");
        assert!(told.ends_with(" path=/a%1Bb status=404 reason=404 Not Found: none"), "{told}");
        client.connect(format!("ws://{address}/panic")).await.unwrap_err();
        let told = events.take();
        let told = told.iter().find(|line| line.contains("server") && line.contains("handshake")).unwrap();
        assert!(told.contains(" path=/panic status=500 reason=500 Internal Server Error: "), "{told}");
        assert!(told.ends_with(": the check of a client's request panicked: no database"), "{told}");
    }

    let mut request = http::Request::get("/page?token=secret").body(()).unwrap();
    request.extensions_mut().insert(address);
    bowline::accept::<(), ()>(&mut request).unwrap_err();
    let told = events.take();
    let expected = format!(r#"INFO handshake_rejected role="server" peer={address} path=/page status=426"#);
    assert!(told[0].starts_with(&expected), "{told:?}");
}

// ---- the spans of handlers

/// A subscriber that records in which spans each event of a handler occurs.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    /// The text of each span, with that of its parent in front.
    spans: Vec<String>,
    entered: Vec<usize>,
    events: Vec<String>,
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() || metadata.target() == "handler"
    }

    fn event(&self, _: &Event<'_>) {
        let mut recorded = self.0.lock().unwrap();
        let current = recorded.entered.last().map_or("nowhere", |index| &recorded.spans[*index]).to_owned();
        recorded.events.push(current);
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut recorded = self.0.lock().unwrap();
        let parent = recorded.entered.last().map(|index| recorded.spans[*index].clone() + ": ");
        let mut line = Line(parent.unwrap_or_default() + attributes.metadata().name());
        attributes.record(&mut line);
        recorded.spans.push(line.0);
        Id::from_u64(recorded.spans.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, span: &Id) {
        let index = usize::try_from(span.into_u64()).unwrap() - 1;
        self.0.lock().unwrap().entered.push(index);
    }

    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().entered.pop();
    }
}

/// Sends an event, before and after an await.
async fn tell(socket: WebSocket) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    tracing::info!(target: "handler", "begun");
    tokio::task::yield_now().await;
    tracing::info!(target: "handler", "awaited");
    drop(socket);
    Ok(())
}

/// Returns the spans of the events of a handler, and the address of the client.
async fn spans_of(address: std::net::SocketAddr) -> (Vec<String>, std::net::SocketAddr) {
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(spans.clone());
    let mut socket = bowline::connect(format!("ws://{address}/chat?token=secret")).await.unwrap();
    while let Ok(Some(_)) = socket.recv().await {}
    let client = socket.local_addr().unwrap();
    let events = std::mem::take(&mut spans.0.lock().unwrap().events);
    (events, client)
}

#[tokio::test]
async fn a_handler_of_a_server_runs_in_a_span() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Server::new().serve(listener, tell));
    let (spans, client) = spans_of(address).await;
    let span = format!("websocket peer={client} path=/chat");
    assert_eq!(spans, [span.clone(), span]);
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn a_handler_under_axum_runs_in_a_span_below_that_of_the_request() {
    use bowline::extract::WebSocketUpgrade;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upgrade = async |upgrade: WebSocketUpgrade| {
        tracing::info_span!("request", id = 17).in_scope(|| upgrade.on_upgrade(tell))
    };
    let router = axum::Router::new().route("/chat", axum::routing::any(upgrade));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (spans, _) = spans_of(address).await;
    let span = "request id=17: websocket path=/chat".to_owned();
    assert_eq!(spans, [span.clone(), span]);
}
