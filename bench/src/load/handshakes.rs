//! The load of opening handshakes: each of eight threads opens and ends connections, one after another.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::runs::{self, Span};
use super::wire;

/// The number of concurrent handshakes.
const AT_ONCE: usize = 8;

#[derive(clap::Args, Clone, Debug)]
pub struct Handshakes {
    #[arg(long)]
    pub address: SocketAddr,
}

pub fn run(load: &Handshakes) -> Result<()> {
    drop(wire::open(load.address, false)?);
    runs::obey(|span, latencies| {
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..AT_ONCE).map(|_| scope.spawn(|| shake_hands(load.address, span))).collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        let mut count = 0;
        for result in results {
            let times = result.map_err(|_| anyhow!("a thread of the load panicked"))??;
            count += times.len();
            for time in times {
                let _ = latencies.record(time.as_nanos() as u64);
            }
        }
        Ok(count)
    })
}

/// Opens connections one after another, and returns the duration of each opening.
fn shake_hands(address: SocketAddr, span: Span) -> Result<Vec<Duration>> {
    let began = Instant::now();
    let mut times = Vec::new();
    loop {
        let done = match span {
            Span::Time(time) => began.elapsed() >= time,
            Span::Rounds(count) => times.len() >= count,
        };
        if done {
            return Ok(times);
        }
        let start = Instant::now();
        drop(wire::open(address, false)?);
        times.push(start.elapsed());
    }
}
