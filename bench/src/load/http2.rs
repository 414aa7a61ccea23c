//! The load over HTTP/2 (RFC 9113), in one thread: WebSockets that share TCP connections.
//!
//! The frames of HTTP/2 are made by hand and in advance. To servers that permit it, requests are extended
//! CONNECTs (RFC 8441). To others, they are POSTs, whose bodies the server echoes.

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};

use super::streams::Streams;
use super::wire::{Blocking, Wire};
use crate::frames::Counter;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The size of the header of a frame.
const HEADER_SIZE: usize = 9;

/// The largest payload of a frame that every server accepts.
const PAYLOAD_MAX: usize = 16 * 1024;

/// The largest window of flow control.
const WINDOW_MAX: u32 = (1 << 31) - 1;

/// After this many bytes, the server's window is opened again.
const WINDOW_HALF: u32 = 1 << 30;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;
const SETTINGS_ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// The first byte of the head of a response with the status 200 (RFC 7541 appendix A).
const STATUS_200: u8 = 0x88;

/// All connections, and their streams.
pub struct Http2Streams<W> {
    poll: Poll,
    events: Events,
    connections: Vec<Connection<W>>,
    /// The messages in a round of a stream.
    depth: usize,
    buffer: Vec<u8>,
}

struct Connection<W> {
    wire: W,
    /// The bytes of an incomplete frame.
    partial: Vec<u8>,
    output: Vec<u8>,
    /// The bytes of `output` that are written.
    written: usize,
    streams: Vec<Stream>,
    /// The bytes that have arrived since the window of the connection was last opened.
    received: u32,
}

struct Stream {
    id: u32,
    /// The messages of a round, in DATA frames.
    batch: Vec<u8>,
    replies: Counter,
    /// The number of missing replies in this round.
    missing: usize,
    began: Instant,
    /// The bytes that have arrived since the window of the stream was last opened.
    received: u32,
}

/// A frame that has arrived.
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl<W: Wire> Http2Streams<W> {
    /// Opens `count` WebSockets, with `streams` of them on each TCP connection, which `connect` opens.
    /// `batch` returns the messages that a WebSocket sends in each round, `depth` of them.
    pub fn open<B: Blocking<Wire = W>>(
        connect: impl Fn() -> Result<B>,
        count: usize,
        streams: usize,
        depth: usize,
        batch: impl Fn(usize) -> Vec<u8>,
    ) -> Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::new();
        for first in (0..count).step_by(streams) {
            let batches = (first..count.min(first + streams)).map(&batch).collect();
            let mut connection = Connection::open(connect()?, batches)?;
            let token = Token(connections.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(connection.wire.socket(), token, interest)?;
            connections.push(connection);
        }
        let events = Events::with_capacity(1024);
        Ok(Self { poll, events, connections, depth, buffer: vec![0; 256 * 1024] })
    }
}

impl<W: Wire> Streams for Http2Streams<W> {
    fn take_replies(&mut self) -> Vec<Vec<u8>> {
        let streams = self.connections.iter_mut().flat_map(|connection| &mut connection.streams);
        streams.map(|stream| std::mem::take(&mut stream.replies).messages()).collect()
    }

    fn run(&mut self, latencies: &mut Histogram<u64>, goes_on: &mut dyn FnMut() -> bool) -> Result<usize> {
        let Self { poll, events, connections, depth, buffer } = self;
        let (mut messages, mut active) = (0, 0);
        let now = Instant::now();
        for connection in &mut *connections {
            for stream in &mut connection.streams {
                stream.begin(*depth, now, &mut connection.output);
                active += 1;
            }
            connection.write()?;
        }
        while active > 0 {
            poll.poll(events, Some(Duration::from_secs(30)))?;
            ensure!(!events.is_empty(), "no reply came for 30 s");
            for event in &*events {
                let connection = &mut connections[event.token().0];
                if event.is_readable() {
                    connection.read(buffer, |stream, output| {
                        let now = Instant::now();
                        messages += *depth;
                        let _ = latencies.record((now - stream.began).as_nanos() as u64);
                        if goes_on() {
                            stream.begin(*depth, now, output);
                        } else {
                            active -= 1;
                        }
                    })?;
                }
                connection.write()?;
            }
        }
        Ok(messages)
    }
}

impl Stream {
    fn begin(&mut self, depth: usize, now: Instant, output: &mut Vec<u8>) {
        self.began = now;
        self.missing = depth;
        output.extend_from_slice(&self.batch);
    }
}

impl<W: Wire> Connection<W> {
    /// Opens a connection of HTTP/2 with a stream for each of `batches`.
    fn open(mut socket: impl Blocking<Wire = W>, batches: Vec<Vec<u8>>) -> Result<Self> {
        let mut output = PREFACE.to_vec();
        let window = setting(SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_MAX);
        frame(SETTINGS, 0, 0, &window, &mut output);
        frame(WINDOW_UPDATE, 0, 0, &(WINDOW_MAX - 65_535).to_be_bytes(), &mut output);
        socket.write_all(&output)?;
        output.clear();
        let mut input = Vec::new();
        let settings = read_until(&mut socket, &mut input, |frame| {
            (frame.kind == SETTINGS && frame.flags & ACK == 0).then(|| frame.payload.to_vec())
        })?;
        frame(SETTINGS, ACK, 0, &[], &mut output);
        let enabled = setting(SETTINGS_ENABLE_CONNECT_PROTOCOL, 1);
        let head = head(settings.chunks(enabled.len()).any(|setting| setting == enabled));
        let mut streams = Vec::new();
        for (index, batch) in batches.into_iter().enumerate() {
            let id = 2 * index as u32 + 1;
            frame(HEADERS, END_HEADERS, id, &head, &mut output);
            let mut framed = Vec::new();
            batch.chunks(PAYLOAD_MAX).for_each(|piece| frame(DATA, 0, id, piece, &mut framed));
            streams.push(Stream {
                id,
                batch: framed,
                replies: Counter::keeping(),
                missing: 0,
                began: Instant::now(),
                received: 0,
            });
        }
        socket.write_all(&output)?;
        output.clear();
        for _ in &streams {
            let status = read_until(&mut socket, &mut input, |frame| {
                (frame.kind == HEADERS).then(|| frame.payload.first().copied())
            })?;
            ensure!(status == Some(STATUS_200), "the server refused a request");
        }
        Ok(Self { wire: socket.into_wire()?, partial: input, output, written: 0, streams, received: 0 })
    }

    fn write(&mut self) -> Result<()> {
        while self.written < self.output.len() {
            match self.wire.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.written = 0;
        // Writes the bytes that TLS still holds.
        Ok(self.wire.flush()?)
    }

    /// Reads everything that has arrived. `done` is called with each stream that has all of its replies.
    fn read(&mut self, buffer: &mut [u8], mut done: impl FnMut(&mut Stream, &mut Vec<u8>)) -> Result<()> {
        loop {
            let before = self.partial.len();
            buffer[..before].copy_from_slice(&self.partial);
            self.partial.clear();
            let count = match self.wire.read(&mut buffer[before..]) {
                Ok(0) => bail!("the server ended the connection"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.partial.extend_from_slice(&buffer[..before]);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            let is_full = before + count == buffer.len();
            let mut bytes = &buffer[..before + count];
            while let Some((frame, rest)) = split_frame(bytes) {
                bytes = rest;
                self.handle(&frame, &mut done)?;
            }
            self.partial.extend_from_slice(bytes);
            if W::SHORT_READ_EMPTIES && !is_full {
                return Ok(());
            }
        }
    }

    fn handle(
        &mut self,
        arrived: &Frame<'_>,
        done: &mut impl FnMut(&mut Stream, &mut Vec<u8>),
    ) -> Result<()> {
        check(arrived)?;
        match arrived.kind {
            DATA => {
                let size = arrived.payload.len() as u32;
                open_window(&mut self.received, size, 0, &mut self.output);
                let stream = self.streams.get_mut(arrived.stream as usize / 2);
                let Some(stream) = stream else { bail!("data came on the stream {}", arrived.stream) };
                open_window(&mut stream.received, size, stream.id, &mut self.output);
                let replies = stream.replies.count(arrived.payload);
                ensure!(replies <= stream.missing, "the server sent more than was asked for");
                stream.missing -= replies;
                if replies > 0 && stream.missing == 0 {
                    done(stream, &mut self.output);
                }
            }
            SETTINGS if arrived.flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[], &mut self.output),
            PING if arrived.flags & ACK == 0 => frame(PING, ACK, 0, arrived.payload, &mut self.output),
            _ => {}
        }
        Ok(())
    }
}

/// Counts bytes that have arrived, and opens the window by them if they are many.
fn open_window(received: &mut u32, size: u32, stream: u32, output: &mut Vec<u8>) {
    *received += size;
    if *received >= WINDOW_HALF {
        frame(WINDOW_UPDATE, 0, stream, &received.to_be_bytes(), output);
        *received = 0;
    }
}

fn check(arrived: &Frame<'_>) -> Result<()> {
    ensure!(arrived.kind != GOAWAY, "the server ended the connection: {:?}", arrived.payload);
    ensure!(arrived.kind != RST_STREAM, "the server reset a stream: {:?}", arrived.payload);
    Ok(())
}

/// Reads frames until `wanted` returns a value for one of them. `input` contains the bytes read ahead.
fn read_until<T>(
    socket: &mut impl Read,
    input: &mut Vec<u8>,
    mut wanted: impl FnMut(&Frame<'_>) -> Option<T>,
) -> Result<T> {
    let mut piece = [0; 4096];
    loop {
        while let Some((frame, rest)) = split_frame(input) {
            check(&frame)?;
            let found = wanted(&frame);
            let size = input.len() - rest.len();
            input.drain(..size);
            if let Some(found) = found {
                return Ok(found);
            }
        }
        let count = socket.read(&mut piece)?;
        ensure!(count > 0, "the server ended the connection");
        input.extend_from_slice(&piece[..count]);
    }
}

/// Returns the head of a request, without compression and Huffman codes (RFC 7541).
fn head(is_connect: bool) -> Vec<u8> {
    let mut head = Vec::new();
    let literal = |name: &[u8], value: &str, head: &mut Vec<u8>| {
        head.extend_from_slice(name);
        head.push(value.len() as u8);
        head.extend_from_slice(value.as_bytes());
    };
    if is_connect {
        literal(&[0x02], "CONNECT", &mut head);
        literal(b"\x00\x09:protocol", "websocket", &mut head);
    } else {
        // The method is POST.
        head.push(0x83);
    }
    // The scheme is http, and the path is "/".
    head.extend([0x86, 0x84]);
    literal(&[0x01], "localhost", &mut head);
    if is_connect {
        literal(b"\x00\x15sec-websocket-version", "13", &mut head);
    }
    head
}

fn setting(name: u16, value: u32) -> [u8; 6] {
    let mut bytes = [0; 6];
    bytes[..2].copy_from_slice(&name.to_be_bytes());
    bytes[2..].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// Appends a frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Returns the first frame of `bytes`, if complete, and the bytes after it.
fn split_frame(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let (&[a, b, c, kind, flags, d, e, f, g], rest) = bytes.split_first_chunk::<HEADER_SIZE>()?;
    let (payload, rest) = rest.split_at_checked(u32::from_be_bytes([0, a, b, c]) as usize)?;
    Some((Frame { kind, flags, stream: u32::from_be_bytes([d, e, f, g]), payload }, rest))
}
