//! The server of the tests in `bowline/tests/browser`, beside the echo of `bowline serve`; prints
//! `listening on HOST:PORT` when it is ready.
//!
//! The first segment of the path says what the server does. The query is a name, under which another
//! connection finds out what became of this one, or makes it go on.
//!
//! | path | behaviour of the server |
//! |---|---|
//! | `/close/CODE` | waits for a message, then closes with that code and the reason `enough` |
//! | `/drop` | sends a message, then ends the connection without a Close frame |
//! | `/flood/COUNT/SIZE?NAME` | sends so many binary messages of that size, and records how many |
//! | `/hold?NAME` | receives nothing before `/release?NAME`; answers `sum` with the bytes before it |
//! | `/peek?NAME` | sends what was recorded by then, or `nothing` |
//! | `/release?NAME` | lets `/hold?NAME` receive |
//! | `/record?NAME` | receives messages until the connection ends, and records how |
//! | `/outcome?NAME` | sends what was recorded, or, with `NAME-end`, how `/flood?NAME` has ended |
//! | `/refuse` | answers the handshake with 403 |
//! | `/silent?NAME` | does not answer the handshake; records `asked`, and then `gone` |
//! | `/text/SIZE` | sends a text message of that size |

use std::collections::HashMap;
use std::error::Error;
use std::future::pending;
use std::sync::Arc;

use bowline::http::StatusCode;
use bowline::http::request::Parts;
use bowline::{Acceptor, CloseCode, Limits, Message, Rejection, Server, WebSocket};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Notify, watch};

type Failure = Box<dyn Error + Send + Sync>;

/// The largest messages of the tests, and some more.
const MESSAGE_SIZE: usize = 20 * 1024 * 1024;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    let acceptor = Acceptor::new()
        .allow_origin("*")
        .subprotocols(["chat.v2", "chat.v1"])
        // What is in front of the write buffer would hide how much a page may have in flight.
        .limits(Limits::default().message_size(MESSAGE_SIZE).unsent(64 * 1024));
    let board = Arc::new(Board::default());
    let checking = Arc::clone(&board);
    let server = Server::new().acceptor(acceptor).on_request(move |head| check(head, Arc::clone(&checking)));
    loop {
        let (stream, peer) = listener.accept().await?;
        let lost = Arc::new(Notify::new());
        let (board, losing) = (Arc::clone(&board), Arc::clone(&lost));
        let handler = move |head: Parts, socket: WebSocket| {
            let (board, losing) = (Arc::clone(&board), Arc::clone(&losing));
            async move { handle(head, socket, &board, &losing).await }
        };
        let serving = server.serve_connection(stream, peer, handler);
        tokio::spawn(async move {
            // Dropping the future of a connection ends it without a Close frame.
            tokio::select! {
                _ = serving => {}
                () = lost.notified() => {}
            }
        });
    }
}

async fn check(head: Parts, board: Arc<Board>) -> Result<Parts, Rejection> {
    match head.uri.path() {
        "/refuse" => Err(StatusCode::FORBIDDEN.into()),
        "/silent" => {
            let name = head.uri.query().unwrap_or_default().to_owned();
            board.post(&name, "asked".to_owned()).await;
            // The future is dropped with its client.
            let _departure = Departure { name, board };
            pending().await
        }
        _ => Ok(head),
    }
}

/// Records that a client is gone when it is dropped.
struct Departure {
    name: String,
    board: Arc<Board>,
}

impl Drop for Departure {
    fn drop(&mut self) {
        let (name, board) = (std::mem::take(&mut self.name), Arc::clone(&self.board));
        tokio::spawn(async move { board.post(&name, "gone".to_owned()).await });
    }
}

async fn handle(head: Parts, mut socket: WebSocket, board: &Board, lost: &Notify) -> Result<(), Failure> {
    let name = head.uri.query().unwrap_or_default();
    let path: Vec<_> = head.uri.path().split('/').skip(1).collect();
    match path[..] {
        ["close", code] => {
            socket.recv().await?;
            socket.close(CloseCode(code.parse()?), "enough").await?;
        }
        ["drop"] => {
            socket.send("the last message").await?;
            socket.flush().await?;
            lost.notify_one();
            pending::<()>().await;
        }
        ["flood", count, size] => {
            let message = Message::from(vec![7; size.parse()?]);
            for number in 1..=count.parse()? {
                if socket.send(message.clone()).await.is_err() {
                    break;
                }
                if !name.is_empty() {
                    board.post(name, u32::to_string(&number)).await;
                }
            }
            board.post(&format!("{name}-end"), how_it_ends(socket).await).await;
        }
        ["hold"] => {
            board.wait_for(name).await;
            let mut sum = 0;
            while let Some(message) = socket.recv().await? {
                match message.as_text() {
                    Some("sum") => socket.send(format!("{sum}")).await?,
                    _ => sum += message.len(),
                }
            }
        }
        ["text", size] => {
            socket.send("x".repeat(size.parse()?)).await?;
            how_it_ends(socket).await;
        }
        ["release"] => board.post(name, String::new()).await,
        ["peek"] => socket.send(board.peek(name).await.unwrap_or("nothing".to_owned())).await?,
        ["record"] => board.post(name, how_it_ends(socket).await).await,
        ["outcome"] => socket.send(board.wait_for(name).await).await?,
        _ => return Err("no such path".into()),
    }
    Ok(())
}

async fn how_it_ends(mut socket: WebSocket) -> String {
    let result = loop {
        match socket.recv().await {
            Ok(Some(_)) => {}
            Ok(None) => break "normal".to_owned(),
            Err(error) => break error.kind().to_string(),
        }
    };
    match socket.close_frame() {
        Some(frame) => format!("{result}: {frame}"),
        None => format!("{result}: no Close frame"),
    }
}

/// Notes under names, which those who look for them wait for.
#[derive(Default)]
struct Board(Mutex<HashMap<String, watch::Sender<Option<String>>>>);

impl Board {
    async fn post(&self, name: &str, note: String) {
        self.0.lock().await.entry(name.to_owned()).or_default().send_replace(Some(note));
    }

    async fn peek(&self, name: &str) -> Option<String> {
        self.0.lock().await.get(name)?.borrow().clone()
    }

    async fn wait_for(&self, name: &str) -> String {
        let mut notes = self.0.lock().await.entry(name.to_owned()).or_default().subscribe();
        let note = notes.wait_for(Option::is_some).await.expect("the board keeps the other end");
        note.clone().unwrap_or_default()
    }
}
