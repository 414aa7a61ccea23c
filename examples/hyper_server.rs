//! A hyper server with WebSockets beside plain pages.
//!
//! `cargo run -p bowline-examples --example hyper_server`, then open <http://127.0.0.1:8080> in a browser.

use std::error::Error;

use bowline::WebSocket;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const PAGE: &str = "<!doctype html><title>bowline</title><pre></pre><script>
const socket = new WebSocket('ws://' + location.host + '/echo');
socket.onopen = () => socket.send('hello from the page');
socket.onmessage = event => document.querySelector('pre').append(event.data);
</script>";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        // Without `with_upgrades`, hyper doesn't hand over the stream.
        tokio::spawn(connection.with_upgrades());
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<String>, hyper::http::Error> {
    match request.uri().path() {
        "/" => Ok(Response::builder().header(CONTENT_TYPE, "text/html").body(PAGE.to_owned())?),
        "/echo" => match bowline::accept(&mut request) {
            Ok((response, upgrade)) => {
                upgrade.on_error(|error| eprintln!("{error}")).spawn(echo);
                Ok(response)
            }
            Err(rejection) => Ok(rejection.into_response()),
        },
        _ => Ok(Response::builder().status(StatusCode::NOT_FOUND).body("no such page".to_owned())?),
    }
}

async fn echo(mut socket: WebSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}
