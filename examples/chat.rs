//! A chat with rooms in an axum router: one page, and a WebSocket for each room.
//!
//! Run `cargo run -p bowline-examples --features axum --example chat`, then open
//! <http://127.0.0.1:8080/#lobby> in several windows.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{Html, Response};
use axum::routing::{any, get};
use bowline::extract::WebSocketUpgrade;
use bowline::{Acceptor, CloseCode, Limits, Message, Prepared, Sender, TrySendError, WebSocket};
use tokio::net::TcpListener;

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
    // Chat messages are short.
    let acceptor = Acceptor::new().limits(Limits::default().message_size(4096));
    let router = Router::new()
        .route("/", get(async || Html(include_str!("chat.html"))))
        // WebSockets are opened with GET over HTTP/1.1, and with CONNECT over HTTP/2.
        .route("/rooms/{room}", any(join))
        .with_state(Chat { acceptor, rooms: Arc::default() });
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
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

    /// Sends text to all members of a room. Nobody waits for slow members, which are disconnected.
    fn say(&self, room: &str, text: &str) {
        let message = Prepared::new(text);
        let rooms = self.rooms();
        for sender in rooms.get(room).into_iter().flat_map(|room| room.members.values()) {
            if let Err(TrySendError::Full(_)) = sender.try_send(&message) {
                let sender = sender.clone();
                tokio::spawn(async move { sender.close(CloseCode::POLICY_VIOLATION, "too slow").await });
            }
        }
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<String, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
