//! A server with a page and WebSockets on one HTTPS port, over HTTP/2, and a client with many WebSockets over
//! one connection.
//!
//! `cargo run --release -p bowline-examples --features http2 --example http2 -- 127.0.0.1:8443`, then open
//! <https://127.0.0.1:8443> in a browser, which has to trust the certificate. With `--open 1000`, the program
//! opens 1,000 WebSockets to itself, and ends.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bowline::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use bowline::rustls::{ClientConfig, RootCertStore, ServerConfig};
use bowline::{CloseCode, Connector, Message, Upgrade, WebSocket};
use clap::Parser;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

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
    /// The number of WebSockets to open over one TCP connection.
    #[arg(long)]
    open: Option<u32>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let Arguments { address, open } = Arguments::parse();
    let (certificate, tls) = self_signed()?;
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    println!("listening on https://{address}");
    match open {
        None => serve(listener, tls).await,
        Some(number) => {
            tokio::spawn(serve(listener, tls));
            open_many(address, certificate, number).await
        }
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor) -> Result<(), Failure> {
    loop {
        let (stream, peer) = listener.accept().await?;
        let connection = serve_connection(tls.clone(), stream);
        tokio::spawn(async move {
            connection.await.unwrap_or_else(|error| eprintln!("the connection from {peer}: {error}"));
        });
    }
}

async fn serve_connection(tls: TlsAcceptor, stream: TcpStream) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let stream = tls.accept(stream).await?;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        // Tells clients that they may open WebSockets. Browsers then open them over the page's connection.
        .enable_connect_protocol()
        // Each WebSocket is one stream for its whole life. With the default, the 201st would wait for another
        // to end.
        .max_concurrent_streams(1_000)
        // The windows for unread bytes, per WebSocket and in total. By default both are equal, so that one
        // unread WebSocket would block all others.
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size((1 << 31) - 1);
    // Without `with_upgrades`, hyper doesn't hand over the streams.
    builder.serve_connection_with_upgrades(TokioIo::new(stream), service_fn(answer)).await
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<String>, hyper::http::Error> {
    match request.uri().path() {
        "/" => Ok(Response::builder().header(CONTENT_TYPE, "text/html").body(PAGE.to_owned())?),
        "/echo" => match bowline::accept(&mut request) {
            Ok((response, upgrade)) => {
                tokio::spawn(echo(upgrade));
                Ok(response)
            }
            Err(rejection) => Ok(rejection.into_response()),
        },
        _ => Ok(Response::builder().status(StatusCode::NOT_FOUND).body("no such page".to_owned())?),
    }
}

async fn echo(upgrade: Upgrade) -> Result<(), bowline::Error> {
    let mut socket = upgrade.await?;
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
    let connection = Connector::new().tls(Arc::new(tls)).connect_http2(format!("wss://{address}")).await?;
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
    println!("{number} WebSockets over one TCP connection are open after {:?}", start.elapsed());

    let mut echoing = JoinSet::new();
    for (socket, number) in sockets.into_iter().zip(0..) {
        echoing.spawn(is_echoed(socket, number));
    }
    while let Some(echoed) = echoing.join_next().await {
        echoed??;
    }
    println!("each has sent a message, got it back, and closed after {:?}", start.elapsed());
    Ok(())
}

async fn is_echoed(mut socket: WebSocket, number: u32) -> Result<(), Failure> {
    let message = format!("hello from {number}");
    socket.send(&message).await?;
    let answer = socket.recv().await?;
    if answer.as_ref().and_then(Message::as_text) != Some(message.as_str()) {
        return Err(format!("{message:?} came back as {answer:?}").into());
    }
    socket.close(CloseCode::NORMAL, "").await?;
    Ok(())
}

fn self_signed() -> Result<(CertificateDer<'static>, TlsAcceptor), Failure> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let certificate = made.cert.der().clone();
    let mut config = ServerConfig::builder_with_provider(bowline::crypto_provider()?)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((certificate, TlsAcceptor::from(Arc::new(config))))
}
