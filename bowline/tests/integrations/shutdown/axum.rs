//! `Connections` in an application on axum: the graceful shutdown of the whole server.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::any;
use bowline::extract::WebSocketUpgrade;
use bowline::{Acceptor, CloseCode, Connections, Connector, Limits, ShutdownSummary, WebSocket};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::http::{HandlerResult, Head, echo, listen, soon, upgrade};

const DEADLINE: Duration = Duration::from_secs(10);

/// An application, and the signal to shut it down.
struct App {
    address: SocketAddr,
    connections: Connections,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<ShutdownSummary>,
    /// The number of handlers that run, or were dropped without a result.
    running: Arc<AtomicUsize>,
}

/// Counts itself for as long as it lives.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl App {
    /// Serves `handler` until the signal, and closes the connections until the deadline.
    async fn start<F, Fut>(handler: F, deadline: Duration) -> Self
    where
        F: Fn(WebSocket) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = HandlerResult> + Send + 'static,
    {
        let (connections, running) = (Connections::new(), Arc::<AtomicUsize>::default());
        let limits = Limits::default().close_timeout(Duration::from_millis(100));
        let acceptor = Acceptor::new().limits(limits).connections(&connections);
        let counter = Arc::clone(&running);
        let chat = move |State(acceptor): State<Acceptor>, upgrade: WebSocketUpgrade| async move {
            upgrade.acceptor(acceptor).on_upgrade(move |socket| async move {
                counter.fetch_add(1, Ordering::SeqCst);
                let _running = Running(counter);
                handler(socket).await
            })
        };
        let router = Router::new().route("/chat", any(chat)).with_state(acceptor);
        let (listener, address) = listen().await;
        let ((stop, stopped), (done, summary)) = (oneshot::channel(), oneshot::channel());
        let registry = connections.clone();
        let serving = tokio::spawn(async move {
            let shutdown = async move {
                let _ = stopped.await;
                done.send(registry.shutdown(deadline).await.unwrap()).unwrap();
            };
            axum::serve(listener, router).with_graceful_shutdown(shutdown).await.unwrap();
            summary.await.unwrap()
        });
        Self { address, connections, stop, serving, running }
    }

    async fn connect(&self, carrier: Carrier) -> WebSocket {
        let connector = match carrier {
            Carrier::Http1 => Connector::new(),
            #[cfg(feature = "http2")]
            Carrier::Http2 => Connector::new().http_version(bowline::HttpVersion::Http2),
        };
        soon(connector.connect(format!("ws://{}/chat", self.address))).await.unwrap().0
    }

    /// Shuts the application down, and returns the number of handlers that still run.
    async fn shut_down(self) -> (ShutdownSummary, usize) {
        self.stop.send(()).unwrap();
        let summary = soon(self.serving).await.unwrap();
        (summary, self.running.load(Ordering::SeqCst))
    }
}

#[derive(Clone, Copy, Debug)]
enum Carrier {
    Http1,
    #[cfg(feature = "http2")]
    Http2,
}

const CARRIERS: &[Carrier] = &[
    Carrier::Http1,
    #[cfg(feature = "http2")]
    Carrier::Http2,
];

async fn assert_closed(client: &mut WebSocket) {
    assert_eq!(soon(client.recv()).await.unwrap(), None);
    assert_eq!(client.close_frame().unwrap().code(), CloseCode::GOING_AWAY);
}

#[tokio::test]
async fn a_shutdown_closes_all_websockets_and_waits_for_their_handlers() {
    for carrier in CARRIERS {
        let last_words = |mut socket: WebSocket| async move {
            while let Some(message) = socket.recv().await? {
                socket.send(message).await?;
            }
            // The work after the close, which a shutdown waits for.
            drop(socket);
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        let app = App::start(last_words, DEADLINE).await;
        let mut clients = Vec::new();
        for _ in 0..5 {
            let mut client = app.connect(*carrier).await;
            client.send("hello").await.unwrap();
            assert_eq!(soon(client.recv()).await.unwrap(), Some("hello".into()));
            clients.push(client);
        }
        let begun = Instant::now();
        let watching = tokio::spawn(async move {
            for client in &mut clients {
                assert_closed(client).await;
            }
        });
        let (summary, running) = app.shut_down().await;
        assert_eq!((summary.closed(), summary.ended(), running), (5, 0, 0), "{carrier:?}");
        assert!(begun.elapsed() < DEADLINE, "{carrier:?}");
        soon(watching).await.unwrap();
    }
}

#[tokio::test]
async fn a_handler_that_ignores_the_close_is_aborted() {
    for carrier in CARRIERS {
        let app = App::start(|_socket| pending(), Duration::from_millis(200)).await;
        let mut client = app.connect(*carrier).await;
        let watching = tokio::spawn(async move { assert_closed(&mut client).await });
        let running = Arc::clone(&app.running);
        let (summary, _) = app.shut_down().await;
        assert_eq!((summary.closed(), summary.ended()), (0, 1), "{carrier:?}");
        soon(watching).await.unwrap();
        soon(async {
            while running.load(Ordering::SeqCst) > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// The client reads nothing, and so does not answer the Close frame.
#[tokio::test]
async fn a_peer_that_answers_nothing_does_not_hold_the_server_up() {
    let app = App::start(echo, DEADLINE).await;
    let (_stream, _) = upgrade(app.address, &Head::request()).await;
    let begun = Instant::now();
    let (summary, running) = app.shut_down().await;
    assert_eq!((summary.closed(), summary.ended(), running), (0, 1, 0));
    assert!(begun.elapsed() < DEADLINE);
}

#[tokio::test]
async fn a_handler_that_panics_is_waited_for() {
    for carrier in CARRIERS {
        let panics = |mut socket: WebSocket| async move {
            socket.recv().await?;
            panic!("at the end")
        };
        let app = App::start(panics, DEADLINE).await;
        let mut client = app.connect(*carrier).await;
        let watching = tokio::spawn(async move { assert_closed(&mut client).await });
        let (summary, running) = app.shut_down().await;
        assert_eq!((summary.closed(), summary.ended(), running), (1, 0, 0), "{carrier:?}");
        soon(watching).await.unwrap();
    }
}

/// axum still accepts requests while the connections are closed.
#[tokio::test]
async fn a_handshake_during_the_shutdown_is_rejected() {
    for carrier in CARRIERS {
        let (release, released) = watch::channel(());
        let waits = move |mut socket: WebSocket| {
            let mut released = released.clone();
            async move {
                socket.recv().await?;
                let _ = released.changed().await;
                Ok(())
            }
        };
        let app = App::start(waits, DEADLINE).await;
        let mut client = app.connect(*carrier).await;
        let url = format!("ws://{}/chat", app.address);
        let connections = app.connections.clone();
        let shutdown = tokio::spawn(app.shut_down());
        assert_closed(&mut client).await;
        // Both carriers are refused, whichever the others use.
        let error = soon(bowline::connect(&url)).await.unwrap_err();
        let response = error.response().unwrap();
        assert_eq!(
            (response.status().as_u16(), response.headers()["retry-after"].as_bytes()),
            (503, &b"5"[..])
        );
        #[cfg(feature = "http2")]
        {
            let connector = Connector::new().http_version(bowline::HttpVersion::Http2);
            let error = soon(connector.connect(&url)).await.unwrap_err();
            assert_eq!(error.response().unwrap().status(), 503);
        }
        drop(release);
        let (summary, running) = soon(shutdown).await.unwrap();
        assert_eq!((summary.closed(), running), (1, 0), "{carrier:?}");
        assert_eq!(soon(connections.shutdown(DEADLINE)).await.unwrap(), summary);
    }
}

/// The other order: the server stops accepting at once, and the connections are closed meanwhile.
#[tokio::test]
async fn the_connections_may_be_closed_beside_the_shutdown_of_the_server() {
    for carrier in CARRIERS {
        let connections = Connections::new();
        let acceptor = Acceptor::new().connections(&connections);
        let chat = async move |upgrade: WebSocketUpgrade| upgrade.acceptor(acceptor.clone()).on_upgrade(echo);
        let router = Router::new().route("/chat", any(chat));
        let (listener, address) = listen().await;
        let (stop, stopped) = watch::channel(());
        let signal = |mut stopped: watch::Receiver<()>| async move {
            let _ = stopped.changed().await;
        };
        let server = axum::serve(listener, router).with_graceful_shutdown(signal(stopped.clone()));
        let closing = async move {
            signal(stopped).await;
            connections.shutdown(DEADLINE).await.unwrap()
        };
        let serving = tokio::spawn(async { tokio::join!(server.into_future(), closing) });
        let connector = match carrier {
            Carrier::Http1 => Connector::new(),
            #[cfg(feature = "http2")]
            Carrier::Http2 => Connector::new().http_version(bowline::HttpVersion::Http2),
        };
        let (mut client, _) = soon(connector.connect(format!("ws://{address}/chat"))).await.unwrap();
        drop(stop);
        assert_closed(&mut client).await;
        let (result, summary) = soon(serving).await.unwrap();
        result.unwrap();
        assert_eq!((summary.closed(), summary.ended()), (1, 0), "{carrier:?}");
    }
}

/// axum itself waits for such a peer for ever, but the handlers are done and the summary is there.
#[cfg(feature = "http2")]
#[tokio::test]
async fn a_peer_over_http2_that_answers_nothing_does_not_hold_the_handlers_up() {
    let app = App::start(echo, DEADLINE).await;
    let url = format!("ws://{}/chat", app.address);
    let connecting = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connector = Connector::new().http_version(bowline::HttpVersion::Http2);
        let (socket, _) = runtime.block_on(connector.connect(url)).unwrap();
        // From now on, nothing runs in this runtime.
        (socket, runtime)
    });
    let (socket, runtime) = soon(connecting).await.unwrap();
    let (begun, connections) = (Instant::now(), app.connections.clone());
    let shutdown = tokio::spawn(app.shut_down());
    let summary = soon(connections.shutdown(DEADLINE)).await.unwrap();
    assert_eq!((summary.closed(), summary.ended()), (0, 1));
    assert!(begun.elapsed() < DEADLINE);
    assert!(!shutdown.is_finished());
    // The end of the TCP connection ends the wait.
    drop(socket);
    runtime.shutdown_background();
    let (same, running) = soon(shutdown).await.unwrap();
    assert_eq!((same, running), (summary, 0));
}
