//! The echo servers over HTTP/3.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Result, bail};
use bowline_http3::Http3Server;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig, VarInt};
use tokio::net::UdpSocket;

use super::echo::floor::Frames;
use super::echo::{Side, bowline};
use super::library::Library;
use super::tls;
use crate::control::say;
use crate::frames::http3::{DATA, HEADERS, Pieces, begin, frame};

/// The window of a stream, as large as that of bowline.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The most streams of a connection.
const STREAMS: u32 = 1000;

/// The stream type of a control stream, and settings with `SETTINGS_ENABLE_CONNECT_PROTOCOL`.
const CONTROL: [u8; 5] = [0x00, 0x04, 0x02, 0x08, 0x01];

/// The field section of a response with the status 200.
const STATUS_200: [u8; 3] = [0x00, 0x00, 0xd9];

pub async fn serve(library: Library) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    say(socket.local_addr()?);
    match library {
        Library::Bowline => {
            let server = Http3Server::new(bowline::server().tls(tls::config()?));
            server.serve(socket, bowline::reply).await?;
            Ok(())
        }
        Library::Floor => floor(socket).await,
        #[allow(unreachable_patterns, reason = "there may be no other libraries")]
        other => bail!("{other:?} is not served over HTTP/3"),
    }
}

/// An echo on bare streams of quinn.
async fn floor(socket: UdpSocket) -> Result<()> {
    let mut tls = rustls::ServerConfig::clone(&*tls::config()?);
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(STREAMS.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(VarInt::MAX);
    config.transport_config(Arc::new(transport));
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = Endpoint::new(Default::default(), Some(config), socket.into_std()?, runtime)?;
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            let connection = incoming.await?;
            let mut control = connection.open_uni().await?;
            control.write_all(&CONTROL).await?;
            loop {
                let (send, receive) = connection.accept_bi().await?;
                tokio::spawn(echo(send, receive));
            }
            #[allow(unreachable_code, reason = "the type of the task's result")]
            anyhow::Ok(())
        });
    }
    Ok(())
}

async fn echo(mut send: SendStream, mut receive: RecvStream) -> Result<()> {
    send.write_all(&frame(HEADERS, &STATUS_200)).await?;
    let (mut pieces, mut frames) = (Pieces::default(), Frames::new(Side::Server));
    while let Some(chunk) = receive.read_chunk(64 * 1024, true).await? {
        let mut replies = Vec::with_capacity(chunk.bytes.len() + 5);
        begin(DATA, 0, &mut replies);
        pieces.split(&chunk.bytes, |kind, piece| {
            if kind == DATA {
                frames.echo(piece, &mut replies);
            }
        });
        let len = replies.len() - 5;
        if len > 0 {
            replies[1..5].copy_from_slice(&(len as u32 | 0x8000_0000).to_be_bytes());
            send.write_chunk(replies.into()).await?;
        }
    }
    send.finish()?;
    Ok(())
}
