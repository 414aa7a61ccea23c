//! The client for Autobahn's `fuzzingserver`. The client requests each case in turn, and echoes messages.

use bowline::{CloseCode, Connector, Error, HttpVersion, Limits, WebSocket};
use bowline_conformance::Compression;
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
    http2: bool,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let Arguments { url, agent, max_message_size, compression, http2 } = Arguments::parse();
    // Group 9 also sends its messages in fragments of 64 bytes.
    let frames = u32::try_from(max_message_size / 64).unwrap_or(u32::MAX);
    let limits = Limits::default().message_size(max_message_size).frames_per_message(frames);
    let version = if http2 { HttpVersion::Http2 } else { HttpVersion::Http1 };
    let connector = Connector::new().limits(limits).compression(compression).http_version(version);
    let connection = if http2 { Some(connector.connect_http2(&url).await?) } else { None };

    let cases = number_of_cases(&connector, &url).await?;
    for case in 1..=cases {
        let path = format!("/runCase?case={case}&agent={agent}");
        let (socket, _) = match &connection {
            Some(connection) => connection.connect(path).await?,
            None => connector.connect(format!("{url}{path}")).await?,
        };
        // Most cases end in an error on purpose, as the server violates a rule and judges the reaction.
        match echo(socket).await {
            Ok(()) => println!("case {case} of {cases}"),
            Err(error) => println!("case {case} of {cases}: {error}"),
        }
    }
    let (mut socket, _) = connector.connect(format!("{url}/updateReports?agent={agent}")).await?;
    while socket.recv().await?.is_some() {}
    Ok(())
}

async fn number_of_cases(connector: &Connector, url: &str) -> Result<u32, Error> {
    let (mut socket, _) = connector.connect(format!("{url}/getCaseCount")).await?;
    let message = socket.recv().await?.expect("the server sends the number of cases");
    let number = message.as_text().and_then(|text| text.parse().ok());
    Ok(number.expect("the number of cases is a number"))
}

/// Echoes until the connection has ended. Only then does the server have a verdict.
async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    let result = echo_messages(&mut socket).await;
    // The case is over, whatever the result.
    let _ = socket.close(CloseCode::NORMAL, "").await;
    result
}

async fn echo_messages(socket: &mut WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}
