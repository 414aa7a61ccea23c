//! An opening handshake through reqwest, which adds its cookies, headers, TLS and proxies.
//!
//! `cargo run -p bowline-examples --features reqwest --example reqwest_client -- ws://127.0.0.1:8080`

use std::error::Error;

use bowline::{CloseCode, Connector, WebSocket};
use clap::Parser;
use reqwest::{Body, Client, Response};

#[derive(Parser)]
struct Arguments {
    /// The URL of the server: ws://... or wss://...
    url: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // This build of reqwest lacks its default crypto provider.
    let _ = bowline::rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .cookie_store(true)
        .user_agent("a client of many things")
        // With its feature `http2`, reqwest would negotiate HTTP/2 with wss:// servers, where this request is
        // invalid.
        .http1_only()
        .build()?;

    let mut socket = connect(&client, &Arguments::parse().url).await?;
    socket.send("hello through reqwest").await?;
    println!("got {:?}", socket.recv().await?);
    socket.close(CloseCode::NORMAL, "").await?;
    Ok(())
}

async fn connect(client: &Client, url: &str) -> Result<WebSocket, Box<dyn Error>> {
    let (request, handshake) = Connector::new().request(url)?;
    let request = request.map(|()| Body::default()).try_into()?;
    let response = http::Response::from(client.execute(request).await?);
    let verified = handshake.verify(&response)?;
    let upgraded = Response::from(response).upgrade().await?;
    Ok(verified.finish(upgraded, Vec::new()))
}
