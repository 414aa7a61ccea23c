//! A chat with rooms in an axum router: one page, and a WebSocket for each room, over HTTP/1.1 and HTTP/2.
//!
//! Run `cargo run -p bowline-examples --features axum --example chat`, then open
//! <http://127.0.0.1:8080/#lobby> in several windows. Ctrl-C and SIGTERM close all WebSockets with 1001, and
//! the program ends when their handlers have.
//!
//! The tests at the end run by `cargo test -p bowline-examples --features axum --example chat`.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{Html, Response};
use axum::routing::{any, get};
use bowline::extract::WebSocketUpgrade;
use bowline::{
    Acceptor, CloseCode, Connections, Limits, Message, Prepared, Sender, ShutdownSummary, TrySendError,
    WebSocket,
};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The time in which all members have to leave.
const DEADLINE: Duration = Duration::from_secs(10);

/// The time for requests of other kinds after that.
const GRACE: Duration = Duration::from_secs(2);

/// The state of the router.
#[derive(Clone)]
struct Chat {
    acceptor: Acceptor,
    rooms: Arc<Mutex<HashMap<String, Room>>>,
}

/// The members of a room, by number.
#[derive(Default)]
struct Room {
    members: HashMap<u64, Sender>,
    /// The number of members so far, from which the next member's number is derived.
    count: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let shutdown = serve(listener, stop_signal()?).await?;
    println!("{} members have left, and {} were cut off", shutdown.closed(), shutdown.ended());
    Ok(())
}

/// Returns a future that completes on Ctrl-C, and on SIGTERM, by which systemd, Docker and Kubernetes stop a
/// program.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    Ok(async move {
        #[cfg(unix)]
        let terminated = terminate.recv();
        #[cfg(not(unix))]
        let terminated = std::future::pending::<()>();
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated => {}
        }
    })
}

/// Serves the chat until `stop` completes and all members have left.
async fn serve(
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> Result<ShutdownSummary, Box<dyn Error>> {
    let connections = Connections::new();
    // Chat messages are short. A slow member is noticed when it is some hundred KiB behind, since the
    // operating system would otherwise hold megabytes for it.
    let limits = Limits::default().message_size(4096).unsent(64 * 1024);
    let acceptor = Acceptor::new().limits(limits).connections(&connections);
    let router = Router::new()
        .route("/", get(async || Html(include_str!("chat.html"))))
        // WebSockets are opened with GET over HTTP/1.1, and with CONNECT over HTTP/2.
        .route("/rooms/{room}", any(join))
        .with_state(Chat { acceptor, rooms: Arc::default() });
    let (all_left, stopping) = oneshot::channel::<()>();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async {
        let _ = stopping.await;
    });
    let serving = tokio::spawn(serving.into_future());
    stop.await;
    // Members who come now are rejected with 503, and connect again to another server.
    let shutdown = connections.shutdown(DEADLINE).await?;
    drop(all_left);
    // axum waits for all of its connections. A client over HTTP/2 that answers nothing would hold it up for
    // ever.
    if let Ok(served) = timeout(GRACE, serving).await {
        served??;
    }
    Ok(shutdown)
}

async fn join(State(chat): State<Chat>, Path(room): Path<String>, upgrade: WebSocketUpgrade) -> Response {
    let upgrade = upgrade.acceptor(chat.acceptor.clone()).on_error(|error| {
        if !error.is_noise() {
            eprintln!("{error}");
        }
    });
    upgrade.on_upgrade(move |socket| async move {
        let number = chat.enter(&room, socket.sender());
        let result = talk(&chat, &room, number, socket).await;
        chat.leave(&room, number);
        result
    })
}

async fn talk(
    chat: &Chat,
    room: &str,
    number: u64,
    mut socket: WebSocket,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    while let Some(message) = socket.recv().await? {
        match message {
            Message::Text(text) => chat.say(room, &format!("guest {number}: {text}")),
            Message::Binary(_) => {
                socket.close(CloseCode::UNSUPPORTED_DATA, "only text, please").await?;
            }
        }
    }
    Ok(())
}

impl Chat {
    fn enter(&self, room: &str, sender: Sender) -> u64 {
        let number = {
            let mut rooms = self.rooms();
            let room = rooms.entry(room.to_owned()).or_default();
            room.count += 1;
            room.members.insert(room.count, sender);
            room.count
        };
        self.say(room, &format!("guest {number} has come"));
        number
    }

    fn leave(&self, room: &str, number: u64) {
        let mut rooms = self.rooms();
        if let Some(members) = rooms.get_mut(room).map(|room| &mut room.members) {
            members.remove(&number);
            if members.is_empty() {
                rooms.remove(room);
            }
        }
        drop(rooms);
        self.say(room, &format!("guest {number} has gone"));
    }

    /// Sends text to all members of a room, and waits for nobody.
    ///
    /// A member that does not keep up is disconnected: a chat with gaps is worse than one that begins anew,
    /// and a queue of its own for each member would only grow. 1008 lets the client come back after a short
    /// pause, while 1013 would mean that the server is overloaded. (An application whose messages replace
    /// each other, such as prices, would skip them instead.) The Close frame waits behind what the member has
    /// not read. If it reads nothing for 5 s more (`Limits::close_timeout`), the connection is cut.
    fn say(&self, room: &str, text: &str) {
        let message = Prepared::new(text);
        let rooms = self.rooms();
        for sender in rooms.get(room).into_iter().flat_map(|room| room.members.values()) {
            if let Err(TrySendError::Full(_)) = sender.try_send(&message) {
                let begun = sender.begin_close(CloseCode::POLICY_VIOLATION, "you are too slow");
                begun.expect("the code and the reason may be sent");
            }
        }
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<String, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use bowline::{CloseCode, CloseFrame, Connector, ErrorKind, HttpVersion, ShutdownSummary, WebSocket};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    const VERSIONS: [HttpVersion; 2] = [HttpVersion::Http1, HttpVersion::Http2];

    /// The number of messages, of 4 KB, that a slow member does not read. Some hundred KB fit into buffers.
    const MESSAGES: usize = 250;

    /// A chat that runs, and the signal to stop it.
    struct Running {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        serving: JoinHandle<ShutdownSummary>,
    }

    impl Running {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (stop, stopped) = oneshot::channel();
            let serving = tokio::spawn(async move {
                let stopped = async {
                    let _ = stopped.await;
                };
                super::serve(listener, stopped).await.map_err(|error| error.to_string()).unwrap()
            });
            Self { address, stop, serving }
        }

        /// Enters the room, and waits for the announcement.
        async fn enter(&self, version: HttpVersion, announcement: &str) -> WebSocket {
            // Over HTTP/2, the window of the stream bounds what arrives without being read. Over HTTP/1.1,
            // the buffer of the operating system does, which may grow to many megabytes by itself.
            let connector = Connector::new().http_version(version);
            let url = format!("ws://{}/rooms/lobby", self.address);
            let (mut socket, _) = if version == HttpVersion::Http1 {
                let stream = TcpSocket::new_v4().unwrap();
                stream.set_recv_buffer_size(64 * 1024).unwrap();
                let stream = soon(stream.connect(self.address)).await.unwrap();
                soon(connector.connect_over(url, stream)).await.unwrap()
            } else {
                soon(connector.connect(url)).await.unwrap()
            };
            assert_eq!(next(&mut socket).await, announcement);
            socket
        }
    }

    async fn soon<F: IntoFuture>(future: F) -> F::Output {
        timeout(Duration::from_secs(60), future).await.expect("the test hangs")
    }

    async fn next(socket: &mut WebSocket) -> String {
        soon(socket.recv()).await.unwrap().expect("a message").into_text().unwrap().to_string()
    }

    #[tokio::test]
    async fn a_member_that_does_not_read_is_disconnected_and_nobody_waits_for_it() {
        for version in VERSIONS {
            let chat = Running::start().await;
            let mut slow = chat.enter(version, "guest 1 has come").await;
            let mut talker = chat.enter(version, "guest 2 has come").await;
            let mut listener = chat.enter(HttpVersion::Http1, "guest 3 has come").await;
            assert_eq!(next(&mut talker).await, "guest 3 has come");
            let line = "x".repeat(4000);
            let expected = format!("guest 2: {line}");
            for _ in 0..MESSAGES {
                talker.send(&line).await.unwrap();
                assert_eq!(next(&mut talker).await, expected);
                assert_eq!(next(&mut listener).await, expected);
            }
            // The slow member receives the messages that were accepted for it, and the reason.
            let mut received = 0;
            let error = loop {
                match soon(slow.recv()).await {
                    Ok(message) => assert!(message.is_some()),
                    Err(error) => break error,
                }
                received += 1;
            };
            assert_eq!(
                error.close_frame().map(CloseFrame::code),
                Some(CloseCode::POLICY_VIOLATION),
                "{error}"
            );
            assert!(received < MESSAGES, "all messages waited for the slow member over {version:?}");
            assert_eq!(next(&mut listener).await, "guest 1 has gone");
        }
    }

    #[tokio::test]
    async fn a_stop_closes_all_members_with_1001_and_waits_for_them() {
        let chat = Running::start().await;
        let mut first = chat.enter(HttpVersion::Http1, "guest 1 has come").await;
        let mut second = chat.enter(HttpVersion::Http2, "guest 2 has come").await;
        assert_eq!(next(&mut first).await, "guest 2 has come");
        chat.stop.send(()).unwrap();
        for member in [&mut first, &mut second] {
            // They may hear of each other's end.
            while soon(member.recv()).await.unwrap().is_some() {}
            assert_eq!(member.close_frame().unwrap().code(), CloseCode::GOING_AWAY);
        }
        let shutdown = soon(chat.serving).await.unwrap();
        assert_eq!((shutdown.closed(), shutdown.ended()), (2, 0));
        let url = format!("ws://{}/rooms/lobby", chat.address);
        assert_eq!(bowline::connect(url).await.unwrap_err().kind(), ErrorKind::Io);
    }

    /// Enters by a client that then stops to run, such as a laptop that was closed, and stops the chat.
    async fn stop_with_a_member_that_answers_nothing(version: HttpVersion) {
        let chat = Running::start().await;
        let url = format!("ws://{}/rooms/lobby", chat.address);
        let connecting = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let socket = runtime.block_on(Connector::new().http_version(version).connect(url)).unwrap();
            // From now on, nothing runs in this runtime.
            (socket, runtime)
        });
        let (_socket, runtime) = soon(connecting).await.unwrap();
        chat.stop.send(()).unwrap();
        let shutdown = soon(chat.serving).await.unwrap();
        assert_eq!((shutdown.closed(), shutdown.ended()), (0, 1));
        runtime.shutdown_background();
    }

    #[tokio::test]
    async fn a_member_that_answers_nothing_does_not_hold_a_stop_up() {
        stop_with_a_member_that_answers_nothing(HttpVersion::Http1).await;
    }

    #[tokio::test]
    async fn a_member_over_http2_that_answers_nothing_does_not_hold_a_stop_up() {
        stop_with_a_member_that_answers_nothing(HttpVersion::Http2).await;
    }
}
