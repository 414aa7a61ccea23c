//! A server that only sends. Although the server never reads, bowline answers pings, notices closes and
//! detects dead peers.
//!
//! `cargo run -p bowline-examples --example write_only -- 127.0.0.1:8080`

use std::error::Error;
use std::time::{Duration, Instant};

use bowline::WebSocket;
use clap::Parser;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Arguments {
    /// The address to listen on.
    #[arg(default_value = "127.0.0.1:8080")]
    address: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(Arguments::parse().address).await?;
    println!("listening on {}", listener.local_addr()?);
    bowline::serve(listener, tick).await?;
    Ok(())
}

async fn tick(socket: WebSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    let sender = socket.sender();
    let start = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = ticks.tick() => sender.send(format!("{:?}", start.elapsed())).await?,
            // The peer has closed the connection, or is dead.
            () = sender.closed() => return Ok(()),
        }
    }
}
