//! A server that sends back each message.
//!
//! ```sh
//! cargo run --release -p bowline-examples --features deflate,http2 --example echo_server -- \
//!     127.0.0.1:8080 --compression takeover --http2
//! ```

use std::error::Error;
use std::sync::Arc;

use bowline::rustls::ServerConfig;
use bowline::rustls::pki_types::PrivateKeyDer;
use bowline::{Acceptor, Limits, Server, WebSocket};
use clap::Parser;
use http::request::Parts;
use tokio::net::TcpListener;
use tokio::runtime::Builder;

#[derive(Parser)]
struct Arguments {
    /// The address to listen on; port 0 selects a free port.
    address: String,
    /// The number of threads; 1 selects a current-thread runtime. Default: all cores.
    #[arg(long)]
    threads: Option<usize>,
    /// The largest message, in bytes.
    #[arg(long)]
    max_message_size: Option<usize>,
    /// Serve wss://, with a certificate for localhost and 127.0.0.1 that is generated at startup.
    #[arg(long)]
    tls: bool,
    /// Serve HTTP/2 as well, on the same port.
    #[cfg(feature = "http2")]
    #[arg(long)]
    http2: bool,
    /// Print a line about each accepted request.
    #[arg(long)]
    verbose: bool,
    /// Allow pages of this origin to connect, such as `https://*.example.com`; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    allow_origin: Vec<String>,
    /// The offers of compression to accept: none, or those with or without references to earlier messages.
    #[cfg(feature = "deflate")]
    #[arg(long, value_enum, default_value_t)]
    compression: Compression,
}

#[cfg(feature = "deflate")]
#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Compression {
    #[default]
    Off,
    NoTakeover,
    Takeover,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let mut runtime = match arguments.threads {
        Some(1) => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if let Some(threads) = arguments.threads.filter(|threads| *threads > 1) {
        runtime.worker_threads(threads);
    }
    runtime.enable_all().build()?.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut limits = Limits::default();
    if let Some(bytes) = arguments.max_message_size {
        // The limit of frames allows the largest message in fragments of 64 bytes.
        let frames = u32::try_from(bytes / 64).unwrap_or(u32::MAX).max(16_384);
        limits = limits.message_size(bytes).frames_per_message(frames);
    }
    let acceptor = arguments.allow_origin.iter().fold(Acceptor::new(), Acceptor::allow_origin).limits(limits);
    #[cfg(feature = "deflate")]
    let acceptor = acceptor.compression(match arguments.compression {
        Compression::Off => bowline::Compression::Off,
        Compression::NoTakeover => bowline::Compression::NoContextTakeover,
        Compression::Takeover => bowline::Compression::ContextTakeover,
    });
    let mut server = Server::new().acceptor(acceptor).on_error(|error| {
        if !error.is_noise() {
            eprintln!("{error}");
        }
    });
    if arguments.tls {
        server = server.tls(Arc::new(self_signed()?));
    }
    #[cfg(feature = "http2")]
    if arguments.http2 {
        server = server.http2();
    }
    let listener = TcpListener::bind(&arguments.address).await?;
    println!("listening on {}", listener.local_addr()?);
    if arguments.verbose {
        server.serve(listener, print_and_echo).await?;
    } else {
        server.serve(listener, echo).await?;
    }
    Ok(())
}

async fn print_and_echo(head: Parts, socket: WebSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    let peer = socket.peer_addr().ok_or("a TCP connection has addresses")?;
    println!("{} {} {:?} from {peer}", head.method, head.uri.path(), head.version);
    echo(socket).await
}

async fn echo(mut socket: WebSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

fn self_signed() -> Result<ServerConfig, Box<dyn Error>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let config = ServerConfig::builder_with_provider(bowline::crypto_provider()?)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(config)
}
