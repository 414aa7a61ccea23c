//! The server of the chat, for its page and for its WebSockets.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bowline::{CloseCode, Rejection, Sender, Server, TrySendError, WebSocket};
use bowline_chat_page::protocol::{News, Say};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use tokio::net::TcpListener;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: bowline-chat-page FOLDER")?;
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let guests = Arc::new(Guests::default());
    Server::new()
        .fallback(move |head| read_file(folder.clone(), head))
        .on_request(only_the_chat)
        .on_error(|error| {
            if !error.is_noise() {
                eprintln!("{error}");
            }
        })
        .serve(listener, move |socket| chat(Arc::clone(&guests), socket))
        .await?;
    Ok(())
}

async fn only_the_chat(head: Parts) -> Result<Parts, Rejection> {
    match head.uri.path() {
        "/chat" => Ok(head),
        _ => Err(StatusCode::NOT_FOUND.into()),
    }
}

/// Answers with one of the files of the page.
async fn read_file(folder: PathBuf, head: Parts) -> Response<Vec<u8>> {
    let (name, kind) = match head.uri.path() {
        "/" => ("page.html", "text/html; charset=utf-8"),
        "/page.js" => ("page.js", "text/javascript"),
        "/page_bg.wasm" => ("page_bg.wasm", "application/wasm"),
        _ => return status(StatusCode::NOT_FOUND),
    };
    let Ok(content) = tokio::fs::read(folder.join(name)).await else {
        return status(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = Response::new(content);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn status(status: StatusCode) -> Response<Vec<u8>> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}

async fn chat(guests: Arc<Guests>, mut socket: WebSocket) -> Result<(), Failure> {
    let guest = guests.enter(socket.sender());
    let result = listen(&guests, guest, &mut socket).await;
    guests.leave(guest);
    result
}

async fn listen(guests: &Guests, guest: u64, socket: &mut WebSocket) -> Result<(), Failure> {
    while let Some(Say { text }) = socket.recv_json().await? {
        guests.tell(&News::Said { guest, text });
    }
    Ok(())
}

/// The guests of the chat, by number.
#[derive(Default)]
struct Guests(Mutex<(u64, HashMap<u64, Sender>)>);

impl Guests {
    fn enter(&self, sender: Sender) -> u64 {
        let guest = {
            let (count, guests) = &mut *self.lock();
            *count += 1;
            guests.insert(*count, sender);
            *count
        };
        self.tell(&News::Came { guest });
        guest
    }

    fn leave(&self, guest: u64) {
        self.lock().1.remove(&guest);
        self.tell(&News::Gone { guest });
    }

    /// Sends news to all guests, and closes the connections of those that don't keep up.
    fn tell(&self, news: &News) {
        let text = serde_json::to_string(news).expect("news are JSON");
        for sender in self.lock().1.values() {
            if let Err(TrySendError::Full(_)) = sender.try_send(&text) {
                let begun = sender.begin_close(CloseCode::POLICY_VIOLATION, "you are too slow");
                begun.expect("the code and the reason may be sent");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<u64, Sender>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
