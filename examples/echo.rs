//! A whole tour in one program: a server on a free port, a client, and their conversation.
//!
//! `cargo run -p bowline-examples --example echo`

use std::error::Error;

use bowline::{CloseCode, Message, MessageKind, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}", listener.local_addr()?);
    tokio::spawn(bowline::serve(listener, echo));

    let mut socket = bowline::connect(&url).await?;
    println!("connected to {url}");

    socket.send("hello").await?;
    println!("sent text, got {:?}", socket.recv().await?);

    socket.send(&[1, 2, 3]).await?;
    println!("sent binary, got {:?}", socket.recv().await?);

    // Stream a message of a million bytes, of which the client never holds more than a piece.
    let mut writer = socket.writer(MessageKind::Binary).await?;
    let writing = async {
        for _ in 0..1000 {
            writer.write_all(&[7; 1000]).await?;
        }
        Ok(writer.finish().await?)
    };
    let sender = socket.sender();
    let reading = async {
        let mut reader = socket.reader().await?.ok_or("the server has closed")?;
        let (mut piece, mut size) = (vec![0; 64 * 1024], 0);
        loop {
            match reader.read(&mut piece).await? {
                0 => break Ok::<_, Box<dyn Error + Send + Sync>>(size),
                count => size += count,
            }
        }
    };
    let ((), size) = tokio::try_join!(writing, reading)?;
    println!("streamed a message, got {size} bytes streamed back");

    println!("a ping took {:?}", sender.ping().await?);

    let answer = sender.close(CloseCode(4000), "that is all").await?;
    println!("closed with 4000, the server answered {answer}");
    Ok(())
}

async fn echo(mut socket: WebSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    while let Some(message) = socket.recv().await? {
        match &message {
            Message::Text(text) => println!("  the server received {text:?}"),
            Message::Binary(bytes) => println!("  the server received {} bytes", bytes.len()),
        }
        socket.send(message).await?;
    }
    Ok(())
}
