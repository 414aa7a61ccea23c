//! The peer server of README.md on bowline; prints `listening on HOST:PORT` when it is ready.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bowline::{Acceptor, CloseCode, Server, WebSocket};
use bowline_conformance::{Compression, self_signed};
use bowline_http3::Http3Server;
use clap::Parser;
use http::Response;
use http::request::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Mutex, mpsc};

#[derive(Parser)]
struct Arguments {
    /// Set to accept offers of compression.
    #[arg(long, value_enum, default_value_t)]
    compression: Compression,
    /// The keepalive interval, in milliseconds.
    #[arg(long, default_value_t = 20_000)]
    keepalive: u64,
    /// Speak HTTP/3, with a self-signed certificate.
    #[arg(long)]
    http3: bool,
    /// Allow pages of this origin to connect; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    allow_origin: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let Arguments { compression, keepalive, http3, allow_origin } = Arguments::parse();

    let outcomes = Arc::new(Outcomes::new());
    let handler = move |head: Parts, socket: WebSocket| {
        let outcomes = Arc::clone(&outcomes);
        async move { handle(head.uri.path(), socket, &outcomes).await }
    };
    let acceptor = allow_origin
        .iter()
        .fold(Acceptor::new(), Acceptor::allow_origin)
        .subprotocols(["chat.v2", "chat.v1"])
        .compression(compression)
        .keepalive(Duration::from_millis(keepalive));
    // The health checks of proxies.
    let answer = async |_: Parts| Response::new("ok");
    let server =
        Server::new().http2().acceptor(acceptor).fallback(answer).on_error(|error| eprintln!("{error}"));
    if http3 {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        println!("listening on {}", socket.local_addr()?);
        let server = server.tls(Arc::new(self_signed()?));
        Http3Server::new(server).serve(socket, handler).await?;
    } else {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on {}", listener.local_addr()?);
        server.serve(listener, handler).await?;
    }
    Ok(())
}

/// The ends of `/record` connections, which `/outcome` connections report.
struct Outcomes {
    add: mpsc::UnboundedSender<String>,
    take: Mutex<mpsc::UnboundedReceiver<String>>,
}

impl Outcomes {
    fn new() -> Self {
        let (add, take) = mpsc::unbounded_channel();
        Self { add, take: Mutex::new(take) }
    }
}

async fn handle(
    path: &str,
    mut socket: WebSocket,
    outcomes: &Outcomes,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    match path {
        "/echo" => {
            while let Some(message) = socket.recv().await? {
                socket.send(message).await?;
            }
        }
        "/fragments" => send_back_fragments(socket).await?,
        "/ping" => {
            socket.ping().await?;
            socket.send("pong").await?;
        }
        "/record" => outcomes.add.send(how_it_ends(socket).await)?,
        "/outcome" => {
            let outcome = outcomes.take.lock().await.recv().await;
            socket.send(outcome.expect("the channel stays open")).await?;
        }
        _ => {
            let code = path.strip_prefix("/close/").ok_or("no such path")?.parse()?;
            socket.close(CloseCode(code), "enough").await?;
        }
    }
    Ok(())
}

/// Sends each message back as it arrives. The bytes of each read become a fragment.
async fn send_back_fragments(mut socket: WebSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    let sender = socket.sender();
    let mut buffer = vec![0; 4096];
    while let Some(mut reader) = socket.reader().await? {
        let mut writer = sender.writer(reader.kind()).await?;
        loop {
            let size = reader.read(&mut buffer).await?;
            if size == 0 {
                break;
            }
            writer.write_all(&buffer[..size]).await?;
            writer.flush().await?;
        }
        writer.finish().await?;
    }
    Ok(())
}

async fn how_it_ends(mut socket: WebSocket) -> String {
    let kind = loop {
        match socket.recv().await {
            Ok(Some(_)) => {}
            Ok(None) => break "normal",
            Err(error) if error.close_frame().is_some() => break "error",
            Err(error) => {
                return format!("{error}: {}", error.source().map_or(String::new(), ToString::to_string));
            }
        }
    };
    match socket.close_frame() {
        Some(frame) => format!("{kind} {} {}", frame.code().0, frame.reason()),
        None => format!("{kind} without a Close frame"),
    }
}
