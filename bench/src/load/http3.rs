//! The load over HTTP/3 (RFC 9114), in one thread: WebSockets that share QUIC connections of quinn.
//!
//! The frames of HTTP/3 are made by hand and in advance.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::stream::{FuturesUnordered, TryStreamExt};
use hdrhistogram::Histogram;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::streams::Streams;
use super::wire;
use crate::frames::Counter;
use crate::frames::http3::{DATA, HEADERS, Pieces, frame};

/// The stream type of a control stream, and empty settings (RFC 9114 6.2.1, 7.2.4).
const CONTROL: [u8; 3] = [0x00, 0x04, 0x00];

/// The field section of an extended CONNECT for `/` on localhost (RFC 9204 4.5): `:method`, `:scheme`,
/// `:path`, `:authority`, `:protocol` and `sec-websocket-version`.
const CONNECT: &[u8] =
    b"\x00\x00\xcf\xd7\xc1\x50\x09localhost\x27\x02:protocol\x09websocket\x27\x0esec-websocket-version\x0213";

/// The field section of a response with the status 200.
const STATUS_200: u8 = 0xd9;

/// The time after which a reply does not come any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// All connections, and their streams.
pub struct Http3Streams {
    runtime: Runtime,
    streams: Vec<Stream>,
    /// The messages in a round of a stream.
    depth: usize,
    _connections: Vec<(Connection, SendStream)>,
    _endpoint: Endpoint,
}

struct Stream {
    send: SendStream,
    receive: RecvStream,
    /// The messages of a round, in a DATA frame.
    batch: Vec<u8>,
    replies: Counter,
    pieces: Pieces,
}

impl Http3Streams {
    /// Opens `count` WebSockets, with `streams` of them on each QUIC connection. `batch` returns the messages
    /// that a WebSocket sends in each round, `depth` of them.
    pub fn open(
        address: SocketAddr,
        count: usize,
        streams: usize,
        depth: usize,
        batch: impl Fn(usize) -> Vec<u8>,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (endpoint, connections, opened) = runtime.block_on(async {
            let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
            endpoint.set_default_client_config(config()?);
            let (mut connections, mut opened) = (Vec::new(), Vec::new());
            for first in (0..count).step_by(streams) {
                let connection = endpoint.connect(address, "localhost")?.await?;
                let mut control = connection.open_uni().await?;
                control.write_all(&CONTROL).await?;
                for number in first..count.min(first + streams) {
                    opened.push(Stream::open(&connection, &batch(number)).await?);
                }
                connections.push((connection, control));
            }
            anyhow::Ok((endpoint, connections, opened))
        })?;
        Ok(Self { runtime, streams: opened, depth, _connections: connections, _endpoint: endpoint })
    }
}

impl Streams for Http3Streams {
    fn take_replies(&mut self) -> Vec<Vec<u8>> {
        let streams = self.streams.iter_mut();
        streams.map(|stream| std::mem::take(&mut stream.replies).messages()).collect()
    }

    fn run(&mut self, latencies: &mut Histogram<u64>, goes_on: &mut dyn FnMut() -> bool) -> Result<usize> {
        let (latencies, goes_on, depth) = (RefCell::new(latencies), RefCell::new(goes_on), self.depth);
        let rounds = self.streams.iter_mut().map(async |stream| {
            let mut messages = 0;
            loop {
                let began = Instant::now();
                stream.round(depth).await?;
                messages += depth;
                let _ = latencies.borrow_mut().record(began.elapsed().as_nanos() as u64);
                if !(goes_on.borrow_mut())() {
                    return anyhow::Ok(messages);
                }
            }
        });
        let rounds: FuturesUnordered<_> = rounds.collect();
        self.runtime.block_on(rounds.try_fold(0, async |sum, messages| Ok(sum + messages)))
    }
}

impl Stream {
    async fn open(connection: &Connection, batch: &[u8]) -> Result<Self> {
        let (mut send, mut receive) = connection.open_bi().await?;
        send.write_all(&frame(HEADERS, CONNECT)).await?;
        let (mut pieces, mut section) = (Pieces::default(), Vec::new());
        while pieces.headers == 0 || pieces.is_within_frame() {
            let chunk = receive.read_chunk(4096, true).await?.context("the server ended a stream")?;
            pieces.split(&chunk.bytes, |kind, piece| {
                if kind == HEADERS {
                    section.extend_from_slice(piece);
                }
            });
        }
        ensure!(section.get(2) == Some(&STATUS_200), "the server refused a request");
        Ok(Self { send, receive, batch: frame(DATA, batch), replies: Counter::keeping(), pieces })
    }

    /// Sends the batch, and receives `depth` replies.
    async fn round(&mut self, depth: usize) -> Result<()> {
        self.send.write_all(&self.batch).await?;
        let mut missing = depth;
        while missing > 0 {
            let reading = timeout(PATIENCE, self.receive.read_chunk(256 * 1024, true));
            let chunk = reading.await.context("no reply came")??.context("the server ended a stream")?;
            let mut replies = 0;
            self.pieces.split(&chunk.bytes, |_, piece| replies += self.replies.count(piece));
            ensure!(replies <= missing, "the server sent more than was asked for");
            missing -= replies;
        }
        Ok(())
    }
}

fn config() -> Result<ClientConfig> {
    let tls = wire::trusting_config_for(b"h3")?;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut transport = TransportConfig::default();
    // A connection that echoes seldom is not lost.
    transport.keep_alive_interval(Some(Duration::from_secs(10))).receive_window(VarInt::MAX);
    config.transport_config(Arc::new(transport));
    Ok(config)
}
