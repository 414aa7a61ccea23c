//! soketto: `receive_data`, `send_binary` or `send_text`, and `flush`, as in the documentation of the crate.
//! The loop validates text, since sending text takes a `&str`.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use anyhow::{Result, ensure};
use futures_util::FutureExt;
use soketto::handshake::server::Response;
use soketto::handshake::{Client, Server, ServerResponse};
use soketto::{Data, Receiver, Sender};
use tokio::io::{BufReader, BufWriter};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::{MESSAGE_SIZE, Side};

/// As in its example `autobahn_server`.
type Buffered = Compat<BufReader<BufWriter<TcpStream>>>;

type Halves = (Sender<Buffered>, Receiver<Buffered>);

const SIZE: usize = 64 * 1024;

pub async fn echo(side: Side, stream: TcpStream) -> Result<()> {
    let (mut sender, mut receiver) = Box::pin(open(side, stream)).await?;
    let mut data = Vec::new();
    loop {
        data.clear();
        let kind = receiver.receive_data(&mut data).await?;
        send(&mut sender, kind, &data).await?;
        sender.flush().await?;
    }
}

/// Flushes when no further message is available.
pub async fn echo_batches(side: Side, stream: TcpStream) -> Result<()> {
    let (mut sender, mut receiver) = Box::pin(open(side, stream)).await?;
    let mut data = Vec::new();
    loop {
        data.clear();
        let kind = {
            // This future must not be dropped before it is ready.
            let mut receiving = pin!(receiver.receive_data(&mut data));
            let first = poll_fn(|cx| Poll::Ready(receiving.as_mut().poll_unpin(cx))).await;
            match first {
                Poll::Ready(kind) => kind?,
                Poll::Pending => {
                    sender.flush().await?;
                    receiving.await?
                }
            }
        };
        send(&mut sender, kind, &data).await?;
    }
}

async fn open(side: Side, stream: TcpStream) -> Result<Halves> {
    let stream = BufReader::with_capacity(SIZE, BufWriter::with_capacity(SIZE, stream));
    let mut builder = match side {
        Side::Server | Side::CompressingServer { .. } => {
            let mut server = Server::new(stream.compat());
            let key = server.receive_request().await?.key();
            server.send_response(&Response::Accept { key, protocol: None }).await?;
            server.into_builder()
        }
        Side::Client => {
            let mut client = Client::new(stream.compat(), "localhost", "/");
            let response = client.handshake().await?;
            ensure!(matches!(response, ServerResponse::Accepted { .. }), "the handshake was rejected");
            client.into_builder()
        }
    };
    builder.set_max_message_size(MESSAGE_SIZE);
    builder.set_max_frame_size(MESSAGE_SIZE);
    Ok(builder.finish())
}

async fn send(sender: &mut Sender<Buffered>, kind: Data, data: &[u8]) -> Result<()> {
    match kind {
        Data::Text(_) => sender.send_text(std::str::from_utf8(data)?).await?,
        Data::Binary(_) => sender.send_binary(data).await?,
    }
    Ok(())
}
