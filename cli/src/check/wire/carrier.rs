//! The bytes of one WebSocket: a connection of HTTP/1.1, or a stream of HTTP/2 or HTTP/3.

use std::io;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::raw_stream::RawStream;

/// The chunks that wait until a case reads them. A server that sends without end is held back then.
const CHUNKS: usize = 8;

/// The bytes of one read.
const READ_SIZE: usize = 16 << 10;

/// Both directions of a WebSocket's bytes. Dropping it closes the transport.
pub(crate) struct Carrier {
    pub(crate) writer: Writer,
    pub(crate) incoming: mpsc::Receiver<Incoming>,
    /// The tasks that read and that drive HTTP/2, which end with this value.
    tasks: JoinSet<()>,
}

/// A part of the server's direction.
pub(crate) enum Incoming {
    Bytes(Vec<u8>),
    End(StreamEnd),
}

/// The end of the server's direction.
#[derive(Clone, Debug)]
pub(crate) enum StreamEnd {
    /// FIN, or `END_STREAM` of HTTP/2.
    Orderly,
    /// A reset, for this reason.
    Abrupt(String),
}

pub(crate) enum Writer {
    Stream(WriteHalf<Box<dyn RawStream>>),
    Http2(SendStream<Bytes>),
    /// The connection was reset by this side.
    Gone,
}

impl Carrier {
    /// A connection of its own, or a stream of HTTP/3.
    pub(crate) fn of_stream(stream: Box<dyn RawStream>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let (sender, incoming) = mpsc::channel(CHUNKS);
        let mut tasks = JoinSet::new();
        tasks.spawn(read_stream(reader, sender));
        Self { writer: Writer::Stream(writer), incoming, tasks }
    }

    /// A stream of HTTP/2, with the tasks that drive its connection.
    pub(crate) fn of_http2(send: SendStream<Bytes>, receive: RecvStream, mut tasks: JoinSet<()>) -> Self {
        let (sender, incoming) = mpsc::channel(CHUNKS);
        tasks.spawn(read_http2(receive, sender));
        Self { writer: Writer::Http2(send), incoming, tasks }
    }

    /// Closes the transport at once, without the end of the stream.
    pub(crate) fn reset(&mut self) {
        if let Writer::Http2(send) = &mut self.writer {
            send.send_reset(Reason::CANCEL);
        } else {
            self.tasks.abort_all();
        }
        self.writer = Writer::Gone;
    }
}

impl Writer {
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            Self::Http2(stream) => write_http2(stream, bytes).await.map_err(io::Error::other),
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Ends the direction to the server.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.shutdown().await,
            Self::Http2(stream) => stream.send_data(Bytes::new(), true).map_err(io::Error::other),
            Self::Gone => Ok(()),
        }
    }
}

async fn read_stream(mut reader: ReadHalf<Box<dyn RawStream>>, sender: mpsc::Sender<Incoming>) {
    let mut buf = vec![0; READ_SIZE];
    loop {
        let incoming = match reader.read(&mut buf).await {
            Ok(0) => Incoming::End(StreamEnd::Orderly),
            Ok(size) => Incoming::Bytes(buf[..size].to_vec()),
            Err(error) => Incoming::End(StreamEnd::Abrupt(error.to_string())),
        };
        let is_end = matches!(incoming, Incoming::End(_));
        if sender.send(incoming).await.is_err() || is_end {
            return;
        }
    }
}

async fn read_http2(mut receive: RecvStream, sender: mpsc::Sender<Incoming>) {
    loop {
        let incoming = match receive.data().await {
            None => Incoming::End(StreamEnd::Orderly),
            Some(Ok(data)) => {
                // An error means that the stream has ended, which the next read returns.
                let _ = receive.flow_control().release_capacity(data.len());
                Incoming::Bytes(data.to_vec())
            }
            Some(Err(error)) => Incoming::End(StreamEnd::Abrupt(error.to_string())),
        };
        let is_end = matches!(incoming, Incoming::End(_));
        if sender.send(incoming).await.is_err() || is_end {
            return;
        }
    }
}

async fn write_http2(stream: &mut SendStream<Bytes>, bytes: &[u8]) -> Result<(), h2::Error> {
    let mut rest = bytes;
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let room = match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(room) => room?.min(rest.len()),
            None => return Err(Reason::STREAM_CLOSED.into()),
        };
        stream.send_data(Bytes::copy_from_slice(&rest[..room]), false)?;
        rest = &rest[room..];
    }
    Ok(())
}
