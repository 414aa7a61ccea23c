//! The client for Autobahn's `fuzzingserver`. The client requests each case in turn, and echoes messages.

use std::error::Error;
use std::path::PathBuf;

use bowline::{CloseCode, Connector, Http2Connection, HttpVersion, Limits, WebSocket};
use bowline_conformance::{Compression, trusting};
use bowline_http3::Http3Connection;
use clap::Parser;

#[derive(Parser)]
struct Arguments {
    /// The server, such as `ws://127.0.0.1:9001`.
    url: String,
    /// The name under which the server reports the results.
    #[arg(long)]
    agent: String,
    /// The largest message to accept, in bytes.
    #[arg(long)]
    max_message_size: usize,
    /// Set if compression is offered.
    #[arg(long, value_enum, default_value_t)]
    compression: Compression,
    /// Speak HTTP/2, and open the WebSockets of all cases over one connection.
    #[arg(long)]
    #[arg(conflicts_with = "http3")]
    http2: bool,
    /// Speak HTTP/3 likewise, and trust the certificate in this file.
    #[arg(long, value_name = "FILE")]
    http3: Option<PathBuf>,
}

/// The way to open the WebSockets of all cases.
enum Client {
    Http1(Box<Connector>, String),
    Http2(Http2Connection),
    Http3(Http3Connection),
}

impl Client {
    async fn connect(&self, path: &str) -> Result<WebSocket, bowline::Error> {
        let (socket, _) = match self {
            Self::Http1(connector, url) => connector.connect(format!("{url}{path}")).await?,
            Self::Http2(connection) => connection.connect(path).await?,
            Self::Http3(connection) => connection.connect(path).await?,
        };
        Ok(socket)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let Arguments { url, agent, max_message_size, compression, http2, http3 } = Arguments::parse();
    // Group 9 also sends its messages in fragments of 64 bytes.
    let frames = u32::try_from(max_message_size / 64).unwrap_or(u32::MAX);
    let limits = Limits::default().message_size(max_message_size).frames_per_message(frames);
    let version = if http2 { HttpVersion::Http2 } else { HttpVersion::Http1 };
    let connector = Connector::new().limits(limits).compression(compression).http_version(version);
    let client = match http3 {
        Some(file) => Client::Http3(Http3Connection::open(&connector.tls(trusting(&file)?), &url).await?),
        None if http2 => Client::Http2(connector.connect_http2(&url).await?),
        None => Client::Http1(Box::new(connector), url),
    };

    let cases = number_of_cases(&client).await?;
    for case in 1..=cases {
        let path = format!("/runCase?case={case}&agent={agent}");
        let socket = client.connect(&path).await?;
        // Most cases end in an error on purpose, as the server violates a rule and judges the reaction.
        match echo(socket).await {
            Ok(()) => println!("case {case} of {cases}"),
            Err(error) => println!("case {case} of {cases}: {error}"),
        }
    }
    let mut socket = client.connect(&format!("/updateReports?agent={agent}")).await?;
    while socket.recv().await?.is_some() {}
    Ok(())
}

async fn number_of_cases(client: &Client) -> Result<u32, bowline::Error> {
    let mut socket = client.connect("/getCaseCount").await?;
    let message = socket.recv().await?.expect("the server sends the number of cases");
    let number = message.as_text().and_then(|text| text.parse().ok());
    Ok(number.expect("the number of cases is a number"))
}

/// Echoes until the connection has ended. Only then does the server have a verdict.
async fn echo(mut socket: WebSocket) -> Result<(), bowline::Error> {
    let result = echo_messages(&mut socket).await;
    // The case is over, whatever the result.
    let _ = socket.close(CloseCode::NORMAL, "").await;
    result
}

async fn echo_messages(socket: &mut WebSocket) -> Result<(), bowline::Error> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}
