//! Sends lines from the terminal as messages, and prints received messages as lines.
//!
//! `cargo run -p bowline-examples --example client -- ws://127.0.0.1:8080`

use std::error::Error;

use bowline::{CloseCode, Message};
use clap::Parser;
use tokio::io::{AsyncBufReadExt, BufReader};

#[derive(Parser)]
struct Arguments {
    /// The URL of the server: ws://... or wss://...
    url: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut socket = bowline::connect(Arguments::parse().url).await?;
    let sender = socket.sender();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        // `select!` drops the slower future, which loses no data.
        tokio::select! {
            message = socket.recv() => match message? {
                Some(Message::Text(text)) => println!("{text}"),
                Some(Message::Binary(bytes)) => println!("{} bytes: {bytes:?}", bytes.len()),
                None => break println!("the server has closed the connection"),
            },
            line = lines.next_line() => match line? {
                Some(line) => sender.send(line).await?,
                None => break,
            },
        }
    }
    // At the end of the input, messages that arrive before the pong to a ping are still printed.
    let closing = tokio::spawn(async move {
        sender.ping().await?;
        sender.close(CloseCode::NORMAL, "").await
    });
    while let Some(message) = socket.recv().await? {
        println!("{}", String::from_utf8_lossy(message.as_bytes()));
    }
    closing.await??;
    Ok(())
}
