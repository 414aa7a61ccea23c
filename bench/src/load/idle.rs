//! The load of idle connections: it opens all connections, and later makes each echo one message.
//!
//! The load writes "ready" at once, and "done" after each of the commands "open" and "echo".

use std::io::{Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;

use super::http2::Http2Streams;
#[cfg(feature = "http3")]
use super::http3;
use super::streams::Streams;
use super::wire;
use crate::control::{listen, say};
use crate::frames::{Counter, Kind, encode_masked, payload};

/// The number of concurrent handshakes, and later of concurrent echoes.
const AT_ONCE: usize = 64;

#[derive(clap::Args, Clone, Debug)]
pub struct Idle {
    #[arg(long)]
    pub address: SocketAddr,
    #[arg(long)]
    pub connections: usize,
    /// Bytes in the message that each echoes.
    #[arg(long)]
    pub size: usize,
    #[arg(long)]
    pub tls: bool,
    /// Use HTTP/2, with this many of the connections on each TCP connection.
    #[arg(long)]
    pub streams: Option<usize>,
    /// Use HTTP/3 instead of HTTP/2, on QUIC connections.
    #[cfg(feature = "http3")]
    #[arg(long)]
    pub http3: bool,
    #[arg(long)]
    pub kind: Kind,
}

pub fn run(load: &Idle) -> Result<()> {
    if let Some(streams) = load.streams {
        return run_on_streams(load, streams);
    }
    if load.tls {
        let config = wire::trusting_config()?;
        return run_on(load, || wire::open_blocking_tls(load.address, &config));
    }
    run_on(load, || wire::open(load.address, load.kind.is_compressed()))
}

fn run_on_streams(load: &Idle, streams: usize) -> Result<()> {
    say("ready");
    ensure!(listen().context("no command came")? == "open", "the first command has to be \"open\"");
    let payload = payload(load.kind, load.size, 0);
    let mut message = Vec::new();
    encode_masked(load.kind, &payload, 0, &mut message);
    #[cfg(feature = "http3")]
    if load.http3 {
        let batch = |_| message.clone();
        let opened = http3::Http3Streams::open(load.address, load.connections, streams, 1, batch)?;
        return echo_on_command(opened, &payload);
    }
    let connect = || wire::connect(load.address);
    let opened = Http2Streams::open(connect, load.connections, streams, 1, |_| message.clone())?;
    echo_on_command(opened, &payload)
}

/// Makes each stream echo for each command.
fn echo_on_command(mut streams: impl Streams, payload: &[u8]) -> Result<()> {
    say("done");
    while let Some(line) = listen() {
        ensure!(line == "echo", "an unknown command: {line:?}");
        streams.run(&mut Histogram::new(3)?, &mut || false)?;
        let replies = streams.take_replies();
        ensure!(replies.iter().all(|replies| replies == payload), "the server's reply is wrong");
        say("done");
    }
    Ok(())
}

fn run_on<S: Read + Write + Send>(load: &Idle, open: impl Fn() -> Result<S> + Sync) -> Result<()> {
    say("ready");
    ensure!(listen().context("no command came")? == "open", "the first command has to be \"open\"");
    let mut shares: Vec<Vec<S>> = at_once((0..AT_ONCE).collect(), |number: usize| {
        let share = load.connections / AT_ONCE + usize::from(number < load.connections % AT_ONCE);
        (0..share).map(|_| open()).collect::<Result<_>>()
    })?;
    say("done");
    while let Some(line) = listen() {
        if line != "echo" {
            bail!("an unknown command: {line:?}");
        }
        let payload = payload(load.kind, load.size, 0);
        let mut message = Vec::new();
        encode_masked(load.kind, &payload, 0, &mut message);
        at_once(shares.iter_mut().collect(), |share: &mut Vec<S>| {
            share.iter_mut().try_for_each(|stream| echo(stream, &message, &payload))
        })?;
        say("done");
    }
    Ok(())
}

/// Runs each job in a thread of its own.
fn at_once<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> Result<R> + Sync) -> Result<Vec<R>> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<R>>| {
            thread.join().map_err(|_| anyhow!("a thread of the load panicked"))?
        };
        threads.into_iter().map(join).collect()
    })
}

fn echo(stream: &mut (impl Read + Write), message: &[u8], payload: &[u8]) -> Result<()> {
    stream.write_all(message)?;
    stream.flush()?;
    let mut counter = Counter::keeping();
    let mut buffer = [0; 8192];
    loop {
        let count = stream.read(&mut buffer)?;
        ensure!(count > 0, "the server ended the connection");
        if counter.count(&buffer[..count]) > 0 {
            break;
        }
    }
    ensure!(counter.messages() == payload, "the server's reply is wrong");
    Ok(())
}
