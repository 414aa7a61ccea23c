//! A client that stays connected: after each loss, it waits and connects again.
//!
//! `cargo run -p bowline-examples --example reconnect -- ws://127.0.0.1:8080`

use bowline::{CloseCode, Connector, Error, WebSocket};
use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// The URL of the server: ws://... or wss://...
    url: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = Arguments::parse().url;
    let mut client = Connector::new().reconnecting(url).on_retry(|retry| println!("{retry}"));
    loop {
        // An error here would only repeat, such as 404 Not Found.
        let (mut socket, _) = client.connect().await?;
        println!("connected");
        if let Err(error) = follow(&mut socket).await {
            println!("{error}");
        } else if socket.close_frame().is_some_and(|frame| frame.code() == CloseCode::NORMAL) {
            return Ok(());
        }
    }
}

/// Prints messages until the connection ends. A client that subscribes would do so here, each time anew.
async fn follow(socket: &mut WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await? {
        println!("{message:?}");
    }
    Ok(())
}
