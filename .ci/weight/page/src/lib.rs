//! The smallest useful page: it connects, sends a message, and shows what it receives, or the error.
#![cfg(target_family = "wasm")]

use bowline::Error;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = console)]
    fn log(text: &str);
}

#[wasm_bindgen(start)]
fn start() {
    spawn_local(async {
        if let Err(error) = talk("wss://example.com/feed").await {
            log(&error.to_string());
        }
    });
}

async fn talk(url: &str) -> Result<(), Error> {
    let mut socket = bowline::connect(url).await?;
    socket.send("hello").await?;
    while let Some(message) = socket.recv().await? {
        log(message.as_text().unwrap_or("binary"));
    }
    Ok(())
}
