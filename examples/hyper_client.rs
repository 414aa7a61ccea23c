//! An opening handshake through hyper-util's client, with a custom connector. The connector dials one
//! address, whatever the host of the URL. It could also ask a service registry, or connect to a Unix socket.
//!
//! ```sh
//! cargo run -p bowline-examples --features hyper-client --example hyper_client -- \
//!     ws://chat.internal/ 127.0.0.1:8080
//! ```

use std::error::Error;
use std::net::SocketAddr;

use bowline::{CloseCode, Connector};
use clap::Parser;
use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

#[derive(Parser)]
struct Arguments {
    /// The URL to request: ws://...
    url: String,
    /// The address to connect to.
    address: SocketAddr,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { url, address } = Arguments::parse();
    let connector = tower::service_fn(move |host: Uri| {
        println!("connecting to {address} for {host}");
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        })
    });
    let client = Client::builder(TokioExecutor::new()).build(connector);

    let (request, handshake) = Connector::new().request(url)?;
    let mut response = client.request(request.map(|()| String::new())).await?;
    let verified = handshake.verify(&response)?;
    let upgraded = hyper::upgrade::on(&mut response).await?;
    // If the stream is TCP, bowline unwraps it from hyper's types.
    let mut socket = verified.finish(TokioIo::new(upgraded), Vec::new());

    socket.send("hello through hyper").await?;
    println!("got {:?}", socket.recv().await?);
    socket.close(CloseCode::NORMAL, "").await?;
    Ok(())
}
