//! A client that stays connected: after each loss, it waits and reconnects, with growing pauses.
//!
//! `cargo run -p bowline-examples --example reconnect -- ws://127.0.0.1:8080`

use std::time::Duration;

use bowline::{CloseCode, Connector, Error, ErrorKind, WebSocket};
use clap::Parser;
use http::StatusCode;

const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Arguments {
    /// The URL of the server: ws://... or wss://...
    url: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = Arguments::parse().url;
    let connector = Connector::new();
    let mut pause = SHORTEST_PAUSE;
    loop {
        let lost = match connector.connect(&url).await {
            Ok((mut socket, _)) => {
                println!("connected");
                pause = SHORTEST_PAUSE;
                follow(&mut socket).await
            }
            Err(error) if is_worth_another_try(&error) => Err(error),
            Err(error) => return Err(error),
        };
        match lost {
            Ok(Some(CloseCode::GOING_AWAY)) => println!("the server is going away"),
            Ok(_) => {
                println!("the server has closed the connection");
                return Ok(());
            }
            Err(error) => println!("{error}"),
        }
        // Random jitter of up to the pause's own length spreads the clients of a server that restarts.
        let jitter = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
        tokio::time::sleep(pause.mul_f64(1.0 + jitter)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Prints messages until the server closes the connection, and returns the close code.
async fn follow(socket: &mut WebSocket) -> Result<Option<CloseCode>, Error> {
    while let Some(message) = socket.recv().await? {
        println!("{message:?}");
    }
    Ok(socket.close_frame().map(|frame| frame.code()))
}

/// Returns whether a retry makes sense. Invalid input and refusals would only repeat.
fn is_worth_another_try(error: &Error) -> bool {
    let refused = error.response().is_some_and(|response| {
        response.status().is_client_error() && response.status() != StatusCode::TOO_MANY_REQUESTS
    });
    error.kind() != ErrorKind::InvalidInput && !refused
}
