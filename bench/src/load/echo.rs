//! The load on echo servers and clients, in one thread.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};

use super::http2::Http2Streams;
#[cfg(feature = "http3")]
use super::http3;
use super::runs::{self, Span};
use super::streams::Streams;
use super::wire::{self, Wire};
use crate::control::say;
use crate::frames::{Counter, Kind, encode_masked, encode_unmasked, payload};

/// The number of connections with messages of their own. The other connections repeat these messages.
const DISTINCT: usize = 16;

/// Options of the load.
#[derive(clap::Args, Clone, Debug)]
pub struct Echo {
    /// The address of the server; without it, the load is the server, and prints its address.
    #[arg(long)]
    pub address: Option<SocketAddr>,
    #[arg(long)]
    pub connections: usize,
    /// The number of messages in flight on each connection.
    #[arg(long)]
    pub depth: usize,
    /// Bytes in a message.
    #[arg(long)]
    pub size: usize,
    #[arg(long)]
    pub kind: Kind,
    #[arg(long)]
    pub tls: bool,
    /// Use HTTP/2, with this many of the connections on each TCP connection.
    #[arg(long)]
    pub streams: Option<usize>,
    /// Use HTTP/3 instead of HTTP/2, on QUIC connections.
    #[cfg(feature = "http3")]
    #[arg(long)]
    pub http3: bool,
}

/// Connects or accepts, checks the first replies, then makes a run for each command.
pub fn run(load: &Echo) -> Result<()> {
    let Some(address) = load.address else {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        say(listener.local_addr()?);
        return run_on(load, || wire::accept_plain(&listener));
    };
    if let Some(streams) = load.streams {
        let batch = |number| batch(load, number % DISTINCT);
        #[cfg(feature = "http3")]
        if load.http3 {
            let opened = http3::Http3Streams::open(address, load.connections, streams, load.depth, batch)?;
            return run_on_streams(load, opened);
        }
        if load.tls {
            let config = wire::trusting_config_for(b"h2")?;
            let connect = || wire::connect_tls(address, &config);
            let opened = Http2Streams::open(connect, load.connections, streams, load.depth, batch)?;
            return run_on_streams(load, opened);
        }
        let connect = || wire::connect(address);
        let opened = Http2Streams::open(connect, load.connections, streams, load.depth, batch)?;
        return run_on_streams(load, opened);
    }
    if load.tls {
        let config = wire::trusting_config()?;
        return run_on(load, || wire::open_tls(address, &config));
    }
    run_on(load, || wire::open_plain(address, load.kind.is_compressed()))
}

fn run_on_streams(load: &Echo, mut streams: impl Streams) -> Result<()> {
    streams.run(&mut Histogram::new(3)?, &mut || false)?;
    check(load, streams.take_replies().into_iter())?;
    measure(load, |latencies, goes_on| streams.run(latencies, goes_on))
}

fn run_on<W: Wire>(load: &Echo, mut open: impl FnMut() -> Result<W>) -> Result<()> {
    let poll = Poll::new()?;
    let batches: Vec<_> =
        (0..load.connections.min(DISTINCT)).map(|number| batch(load, number).into()).collect();
    let mut connections = Vec::with_capacity(load.connections);
    for number in 0..load.connections {
        let mut wire = open()?;
        poll.registry().register(wire.socket(), Token(number), Interest::READABLE | Interest::WRITABLE)?;
        connections.push(Connection {
            wire,
            batch: Rc::clone(&batches[number % DISTINCT]),
            written: 0,
            replies: Counter::keeping(),
            missing: 0,
            began: Instant::now(),
        });
    }
    let mut running = Running {
        depth: load.depth,
        poll,
        connections,
        events: Events::with_capacity(1024),
        buffer: vec![0; 256 * 1024],
    };
    running.run(&mut Histogram::new(3)?, || false)?;
    let replies = running.connections.iter_mut();
    check(load, replies.map(|connection| std::mem::take(&mut connection.replies).messages()))?;
    measure(load, |latencies, goes_on| running.run(latencies, goes_on))
}

/// Compares the first replies on each connection byte for byte.
fn check(load: &Echo, replies: impl Iterator<Item = Vec<u8>>) -> Result<()> {
    let expected: Vec<Vec<u8>> = (0..load.connections.min(DISTINCT))
        .map(|number| {
            (0..load.depth).flat_map(|index| payload(load.kind, load.size, number + index)).collect()
        })
        .collect();
    for (number, replies) in replies.enumerate() {
        ensure!(replies == expected[number % DISTINCT], "the server's replies are wrong");
    }
    Ok(())
}

/// Makes a run for each command. `run` makes rounds on all connections while its last argument returns true.
fn measure(
    load: &Echo,
    mut run: impl FnMut(&mut Histogram<u64>, &mut dyn FnMut() -> bool) -> Result<usize>,
) -> Result<()> {
    runs::obey(|span, latencies| match span {
        Span::Time(time) => {
            let until = Instant::now() + time;
            run(latencies, &mut || Instant::now() < until)
        }
        Span::Rounds(count) => {
            // Each connection has started one round already.
            let mut left = count.saturating_sub(1) * load.connections;
            run(latencies, &mut || {
                let goes_on = left > 0;
                left = left.saturating_sub(1);
                goes_on
            })
        }
    })
}

fn batch(load: &Echo, number: usize) -> Vec<u8> {
    let mut batch = Vec::new();
    for index in 0..load.depth {
        let payload = payload(load.kind, load.size, number + index);
        match load.address {
            Some(_) => encode_masked(load.kind, &payload, number * load.depth + index, &mut batch),
            None => encode_unmasked(load.kind, &payload, &mut batch),
        }
    }
    batch
}

struct Connection<W> {
    wire: W,
    /// The messages of a round.
    batch: Rc<[u8]>,
    written: usize,
    replies: Counter,
    /// The number of missing replies in this round.
    missing: usize,
    began: Instant,
}

struct Running<W> {
    depth: usize,
    poll: Poll,
    connections: Vec<Connection<W>>,
    events: Events,
    buffer: Vec<u8>,
}

impl<W: Wire> Running<W> {
    /// Runs rounds on all connections while `goes_on` returns true. `goes_on` is called once per round of a
    /// connection.
    fn run(&mut self, latencies: &mut Histogram<u64>, mut goes_on: impl FnMut() -> bool) -> Result<usize> {
        let mut messages = 0;
        let mut active = 0;
        let now = Instant::now();
        for connection in &mut self.connections {
            connection.begin(self.depth, now)?;
            active += 1;
        }
        while active > 0 {
            self.poll.poll(&mut self.events, Some(Duration::from_secs(30)))?;
            ensure!(!self.events.is_empty(), "no reply came for 30 s");
            for event in &self.events {
                let connection = &mut self.connections[event.token().0];
                if event.is_writable() {
                    connection.write()?;
                }
                if !event.is_readable() || connection.missing == 0 {
                    continue;
                }
                connection.read(&mut self.buffer)?;
                if connection.missing == 0 {
                    messages += self.depth;
                    let now = Instant::now();
                    let _ = latencies.record((now - connection.began).as_nanos() as u64);
                    if goes_on() {
                        connection.begin(self.depth, now)?;
                    } else {
                        active -= 1;
                    }
                }
            }
        }
        Ok(messages)
    }
}

impl<W: Wire> Connection<W> {
    fn begin(&mut self, depth: usize, now: Instant) -> Result<()> {
        self.began = now;
        self.missing = depth;
        self.written = 0;
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        while self.written < self.batch.len() && self.missing > 0 {
            match self.wire.write(&self.batch[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        // Writes the bytes of the last piece that TLS still holds.
        Ok(self.wire.flush()?)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        loop {
            match self.wire.read(buffer) {
                Ok(0) => bail!("the server ended the connection"),
                Ok(count) => {
                    let replies = self.replies.count(&buffer[..count]);
                    ensure!(replies <= self.missing, "the server sent more than was asked for");
                    self.missing -= replies;
                    if W::SHORT_READ_EMPTIES && count < buffer.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
