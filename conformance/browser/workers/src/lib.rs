//! A connection that is opened in one worker, and used in another with the same memory.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;

use bowline::{CloseCode, Error, Message, TrySendError, WebSocket};
use wasm_bindgen::prelude::*;

static SOCKET: Mutex<Option<WebSocket>> = Mutex::new(None);

/// Opens the connection.
#[wasm_bindgen]
pub async fn open(url: String) -> String {
    match bowline::connect(url).await {
        Ok(socket) => {
            *SOCKET.lock().unwrap() = Some(socket);
            "open".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

/// Polls all operations once, and returns the text of their errors, each in a line.
#[wasm_bindgen]
pub async fn use_everything() -> String {
    let mut socket = SOCKET.lock().unwrap();
    let Some(socket) = &mut *socket else { return "no connection".to_owned() };
    let sender = socket.sender();
    let results = [
        ("recv", once(socket.recv()).await),
        ("send", once(socket.send("text")).await),
        ("send", once(sender.send("text")).await),
        ("flush", once(sender.flush()).await),
        ("close", once(sender.close(CloseCode::NORMAL, "")).await),
        ("begin_close", sender.begin_close(CloseCode::NORMAL, "").err()),
    ];
    assert_eq!(sender.try_send("text"), Err(TrySendError::Closed("text")));
    let lines = results.map(|(name, error)| match error {
        Some(error) => format!("{name}: {:?}: {error}", error.kind()),
        None => format!("{name}: no error"),
    });
    lines.join("\n")
}

/// Sends messages of both kinds and receives their echoes. JavaScript refuses to send shared memory, so the
/// library has to copy the binary ones.
#[wasm_bindgen]
pub async fn talk() -> String {
    let socket = SOCKET.lock().unwrap().take();
    let Some(mut socket) = socket else { return "no connection".to_owned() };
    let talked = async {
        let mut echoes = Vec::new();
        for message in [Message::from("still here"), vec![7_u8; 70_000].into(), Vec::<u8>::new().into()] {
            socket.send(message.clone()).await?;
            if socket.recv().await? == Some(message) {
                echoes.push("equal");
            }
        }
        socket.close(CloseCode::NORMAL, "").await?;
        Ok::<_, Error>(echoes.join(" "))
    };
    talked.await.unwrap_or_else(|error| error.to_string())
}

/// Drops the connection.
#[wasm_bindgen]
pub fn abandon() {
    SOCKET.lock().unwrap().take();
}

/// Polls a future once, and returns its error.
async fn once<T>(future: impl Future<Output = Result<T, Error>>) -> Option<Error> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result.err()),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
