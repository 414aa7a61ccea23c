//! A server with a page and WebSockets on one port, by TCP and by UDP, and a client with many WebSockets over
//! one QUIC connection.
//!
//! `cargo run --release -p bowline-examples --features http3 --example http3 -- 127.0.0.1:8443`, then open
//! <https://127.0.0.1:8443> in a browser, which has to trust the certificate. The page tells the browser of
//! HTTP/3 by `Alt-Svc`; by default, browsers use HTTP/3 for pages but not for WebSockets. With `--open 1000`,
//! the program opens 1,000 WebSockets to itself, and ends.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use bowline::rustls::{ClientConfig, RootCertStore, ServerConfig};
use bowline::{Acceptor, CloseCode, Connector, Limits, Message, Server, WebSocket};
use bowline_http3::{Http3Connection, Http3Server};
use clap::Parser;
use http::header::{ALT_SVC, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Response};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

const PAGE: &str = "<!doctype html><title>bowline</title><pre></pre><script>
const socket = new WebSocket('wss://' + location.host + '/echo');
socket.onopen = () => socket.send('hello from the page');
socket.onmessage = event => document.querySelector('pre').append(event.data);
</script>";

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
struct Arguments {
    /// The address to listen on; port 0 selects a free port.
    #[arg(default_value = "127.0.0.1:0")]
    address: SocketAddr,
    /// The number of WebSockets to open over one QUIC connection.
    #[arg(long)]
    open: Option<u32>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let Arguments { address, open } = Arguments::parse();
    let (certificate, tls) = self_signed()?;
    let tcp = TcpListener::bind(address).await?;
    let address = tcp.local_addr()?;
    // The same port, which is another one for UDP.
    let udp = UdpSocket::bind(address).await?;
    println!("listening on https://{address}");

    let alt_svc = HeaderValue::try_from(format!("h3=\":{}\"; ma=86400", address.port()))?;
    let (stop, stopped) = oneshot::channel();
    let signal = async move {
        tokio::select! {
            _ = stopped => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    let server = Server::new()
        .tls(Arc::new(tls))
        .http2()
        // Each WebSocket is one stream for its whole life.
        .acceptor(Acceptor::new().limits(Limits::default().max_streams(1_000)))
        .fallback(move |_: Parts| {
            let alt_svc = alt_svc.clone();
            async move {
                let mut response = Response::new(PAGE);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
                response.headers_mut().insert(ALT_SVC, alt_svc);
                response
            }
        })
        .shutdown(signal, Duration::from_secs(5));
    let http3 = Http3Server::new(server.clone());
    let serving = async { tokio::try_join!(server.serve(tcp, echo), http3.serve(udp, echo)) };
    match open {
        None => serving.await?,
        Some(number) => {
            let serving = tokio::spawn(serving);
            open_many(address, certificate, number).await?;
            // A second signal is not needed, and so its sender may be gone.
            let _ = stop.send(());
            serving.await??
        }
    };
    Ok(())
}

async fn echo(mut socket: WebSocket) -> Result<(), Failure> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

async fn open_many(
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    number: u32,
) -> Result<(), Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let tls = ClientConfig::builder_with_provider(bowline::crypto_provider()?)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let start = Instant::now();
    let connector = Connector::new().tls(Arc::new(tls));
    let connection = Http3Connection::open(&connector, format!("wss://{address}")).await?;
    let mut opening = JoinSet::new();
    for _ in 0..number {
        let connection = connection.clone();
        opening.spawn(async move { connection.connect("/echo").await });
    }
    let mut sockets = Vec::new();
    while let Some(opened) = opening.join_next().await {
        let (socket, _) = opened??;
        sockets.push(socket);
    }
    println!("{number} WebSockets over one QUIC connection are open after {:?}", start.elapsed());

    let mut echoing = JoinSet::new();
    for (socket, number) in sockets.into_iter().zip(0..) {
        echoing.spawn(is_echoed(socket, number));
    }
    while let Some(echoed) = echoing.join_next().await {
        echoed??;
    }
    println!("{number} messages are back, and all WebSockets closed, after {:?}", start.elapsed());
    Ok(())
}

async fn is_echoed(mut socket: WebSocket, number: u32) -> Result<(), Failure> {
    let message = Message::from(format!("message {number}"));
    socket.send(message.clone()).await?;
    if socket.recv().await? != Some(message) {
        return Err(format!("message {number} did not come back").into());
    }
    socket.close(CloseCode::NORMAL, "").await?;
    Ok(())
}

/// Creates a certificate for the local machine.
fn self_signed() -> Result<(CertificateDer<'static>, ServerConfig), Failure> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let config = ServerConfig::builder_with_provider(bowline::crypto_provider()?)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    Ok((certificate, config))
}
