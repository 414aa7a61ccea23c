//! The trial of a server: does it send back what it receives?

use std::time::Duration;

use bowline::{CloseCode, Message, WebSocket};

use super::{Failure, within};
use crate::connect::Target;
use crate::exit::Exit;

/// The time that a server has for a step of the trial.
const LIMIT: Duration = Duration::from_secs(10);

/// The size of the largest message: more than a frame with a length of 16 bits can have.
const LARGE: usize = 64 * 1024;

/// Opens a connection, and checks that each message comes back as it was sent.
pub(super) async fn run(target: &Target) -> Result<(), Failure> {
    let opened = within(LIMIT, Exit::Unreachable, "the opening handshake", target.connect()).await?;
    let (mut socket, _) = opened.map_err(|error| Failure::new(error.exit(), error))?;
    let bytes = |size: usize| (0..=u8::MAX).cycle().take(size).collect::<Vec<_>>();
    let messages: [(&str, Message); 4] = [
        ("a text", "text: \u{e4}\u{20ac}\u{1f600}".into()),
        ("a binary message", bytes(256).into()),
        ("a text of 64 KiB", "x".repeat(LARGE).into()),
        ("a binary message of 64 KiB", bytes(LARGE).into()),
    ];
    for (what, message) in messages {
        let step = format!("the reply to {what}");
        within(LIMIT, Exit::Findings, &step, echoes(&mut socket, what, message)).await??;
    }
    // A server that does not close, or closes otherwise, can be measured nevertheless.
    let _ = socket.begin_close(CloseCode::NORMAL, "");
    Ok(())
}

async fn echoes(socket: &mut WebSocket, what: &str, message: Message) -> Result<(), Failure> {
    let lost = |error| Failure::new(Exit::of_connection(&error), format!("the trial with {what}: {error}"));
    socket.send(message.clone()).await.map_err(lost)?;
    match socket.recv().await.map_err(lost)? {
        Some(reply) if reply == message => Ok(()),
        Some(reply) => {
            let kind = if reply.as_text().is_some() { "a text" } else { "a binary message" };
            let text = format!("no echo: {what} came back as {kind} of {} bytes", reply.as_bytes().len());
            Err(Failure::new(Exit::Findings, text))
        }
        None => Err(Failure::new(Exit::Findings, format!("no echo: the server closed after {what}"))),
    }
}
