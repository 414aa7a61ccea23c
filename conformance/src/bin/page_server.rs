//! A hyper server for a page and WebSockets on one HTTPS port. The program prints a line about each request,
//! and the results that the page posts.

use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use bowline::{Acceptor, CloseCode, Upgrade};
use bowline_conformance::{Compression, self_signed};
use clap::{Parser, ValueEnum};
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
struct Arguments {
    /// The file of the page.
    page: PathBuf,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let page = Arc::new(std::fs::read_to_string(Arguments::parse().page)?);
    let mut config = self_signed()?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        let serving = serve(tls.clone(), stream, peer, Arc::clone(&page));
        tokio::spawn(async { serving.await.unwrap_or_else(|error| eprintln!("{error}")) });
    }
}

async fn serve(
    tls: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    page: Arc<String>,
) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    let stream = tls.accept(stream).await?;
    let service = service_fn(move |request| answer(request, peer, Arc::clone(&page)));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().enable_connect_protocol();
    builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await
}

async fn answer(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    page: Arc<String>,
) -> Result<Response<String>, Failure> {
    println!("{} {} {:?} from {peer}", request.method(), request.uri().path(), request.version());
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => Ok(Response::builder()
            .header(CONTENT_TYPE, "text/html; charset=utf-8")
            .body(String::clone(&page))?),
        (&Method::POST, "/") => {
            println!("{}", read(request.into_body()).await?);
            println!("the page has finished");
            Ok(Response::default())
        }
        (_, "/favicon.ico") => Ok(Response::builder().status(StatusCode::NOT_FOUND).body(String::new())?),
        (_, path) => {
            let handler = match path {
                "/close" => Handler::Close,
                "/drop" => Handler::Drop,
                _ => Handler::Echo,
            };
            let compression = Compression::from_str(path.trim_start_matches('/'), true).unwrap_or_default();
            match Acceptor::new().compression(compression).accept(&mut request) {
                Ok((response, upgrade)) => {
                    tokio::spawn(async move {
                        handler.run(upgrade).await.unwrap_or_else(|error| eprintln!("{error}"));
                    });
                    Ok(response)
                }
                Err(rejection) => Ok(rejection.into_response()),
            }
        }
    }
}

async fn read(mut body: Incoming) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(String::from_utf8(bytes)?)
}

enum Handler {
    Echo,
    Close,
    Drop,
}

impl Handler {
    async fn run(self, upgrade: Upgrade) -> Result<(), bowline::Error> {
        let mut socket = upgrade.await?;
        match self {
            Self::Echo => {
                while let Some(message) = socket.recv().await? {
                    socket.send(message).await?;
                }
            }
            Self::Close => {
                let answer = socket.close(CloseCode(4001), "enough").await?;
                println!("the page answered the Close frame with {}", answer.code().0);
            }
            Self::Drop => socket.send("the last message").await?,
        }
        Ok(())
    }
}
