//! A server of a page and WebSockets over HTTP/3. The program prints a line about each request.
//!
//! The line `public key HEX` precedes `listening on HOST:PORT`: over QUIC, Chromium trusts no certificate
//! unless an option names the hash of its key.

use std::error::Error;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bowline::{Acceptance, CloseCode, Rejection, Server, WebSocket};
use bowline_conformance::{Compression, self_signed_with_public_key};
use bowline_http3::Http3Server;
use clap::{Parser, ValueEnum};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{Response, StatusCode};
use tokio::net::UdpSocket;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
struct Arguments {
    /// The file of the page.
    page: PathBuf,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let page = std::fs::read_to_string(Arguments::parse().page)?;
    let (config, public_key) = self_signed_with_public_key()?;
    let server = Server::new()
        .tls(Arc::new(config))
        .on_request(|head: Parts| async move { Ok::<_, Rejection>(accept(head)) })
        .fallback(move |head: Parts| {
            let response = answer(&head, &page);
            async move { response }
        })
        .on_error(|error| eprintln!("{error}"));
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let hex = public_key.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    println!("public key {hex}");
    println!("listening on {}", socket.local_addr()?);
    Http3Server::new(server).serve(socket, serve).await?;
    Ok(())
}

/// Accepts a WebSocket with the compression that its path names.
fn accept(head: Parts) -> Acceptance {
    print(&head);
    let compression = Compression::from_str(head.uri.path().trim_start_matches('/'), true);
    Acceptance::from(head).compression(compression.unwrap_or_default())
}

fn answer(head: &Parts, page: &str) -> Response<String> {
    print(head);
    let mut response = Response::new(String::new());
    if head.uri.path() == "/" {
        page.clone_into(response.body_mut());
        let html = "text/html; charset=utf-8".parse().expect("a valid value");
        response.headers_mut().insert(CONTENT_TYPE, html);
    } else {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response
}

fn print(head: &Parts) {
    let peer: Option<&SocketAddr> = head.extensions.get();
    let peer = peer.map_or(String::new(), ToString::to_string);
    println!("{} {} {:?} from {peer}", head.method, head.uri.path(), head.version);
}

async fn serve(head: Parts, mut socket: WebSocket) -> Result<(), Failure> {
    if head.uri.path() == "/close" {
        let answer = socket.close(CloseCode(4001), "enough").await?;
        println!("the page answered the Close frame with {}", answer.code().0);
        return Ok(());
    }
    loop {
        match socket.recv().await {
            Ok(Some(message)) => socket.send(message).await?,
            Ok(None) => return Ok(()),
            Err(error) => {
                let Some(frame) = error.close_frame() else { return Err(error.into()) };
                println!("the page has closed with {}", frame.code().0);
                return Ok(());
            }
        }
    }
}
