//! `--demo`: a server, a client that talks to it, and what to try next.

use std::io::{self, Write};
use std::time::Instant;

use bowline::{CloseCode, Message, WebSocket};
use tokio::net::TcpListener;

use super::log::HandlerError;
use crate::exit::Exit;

/// The messages of the throughput, and how many are under way at a time.
const MESSAGES: usize = 100_000;
const BATCH: usize = 100;

/// Runs the demonstration.
pub(crate) async fn run() -> Exit {
    match demonstrate(&mut io::stdout().lock()).await {
        Ok(()) => Exit::Success,
        Err(error) => super::failed(&error, Exit::Failure),
    }
}

async fn demonstrate(out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}", listener.local_addr()?);
    let server = tokio::spawn(bowline::serve(listener, echo));
    writeln!(out, "A server listens on {url} and returns each message.")?;

    let begin = Instant::now();
    let mut socket = bowline::connect(&url).await?;
    writeln!(out, "A client has connected in {:?}.", begin.elapsed())?;
    for text in ["hello", "\u{26f5} a bowline never slips"] {
        let begin = Instant::now();
        socket.send(text).await?;
        match socket.recv().await? {
            Some(Message::Text(reply)) => {
                writeln!(out, "  > {text}\n  < {reply}    after {:?}", begin.elapsed())?;
            }
            other => return Err(format!("the server sent {other:?} instead of the message").into()),
        }
    }
    writeln!(out, "A ping was answered after {:?}.", socket.ping().await?)?;
    let begin = Instant::now();
    exchange(&mut socket).await?;
    writeln!(out, "{MESSAGES} messages there and back took {:?}, {BATCH} at a time.", begin.elapsed())?;
    let frame = socket.close(CloseCode::NORMAL, "done").await?;
    writeln!(out, "The connection was closed with {frame}.")?;
    server.abort();
    writeln!(
        out,
        "\nNow in two terminals:\n  \
         bowline serve                   a server on ws://127.0.0.1:8080\n  \
         bowline :8080                   talk to it\n\
         And against any server:\n  \
         bowline check :8080             is it right?\n  \
         bowline bench :8080             is it fast?\n\
         `cargo install --path cli` installs the command; `bowline --help` lists the rest."
    )?;
    out.flush()?;
    Ok(())
}

async fn echo(mut socket: WebSocket) -> Result<(), HandlerError> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

async fn exchange(socket: &mut WebSocket) -> Result<(), Box<dyn std::error::Error>> {
    for _ in 0..MESSAGES / BATCH {
        let batch = socket.batch();
        for _ in 0..BATCH {
            batch.send("sixteen bytes it").await?;
        }
        drop(batch);
        for _ in 0..BATCH {
            socket.recv().await?.ok_or("the server has closed the connection")?;
        }
    }
    Ok(())
}
