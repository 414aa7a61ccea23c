//! The crowd: thousands of hand-written clients, which talk with bowline's server.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::clients::{Fate, Totals};
use super::serve::Counts;
use super::sides::Sides;
use super::verdict::Verdict;

/// The interval at which memory is sampled while the connections talk.
const STEP: Duration = Duration::from_secs(10);

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "The crowd")]
pub struct Crowd {
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Threads of the server
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// The number of minutes of talking within which each connection dies, reconnects, stalls or misbehaves
    #[arg(long, default_value_t = 100)]
    life: u64,
}

pub fn run(options: &Crowd, time: Duration, seed: u64) -> Result<()> {
    let connections = options.connections as u64;
    let life = Duration::from_secs(60 * options.life);
    let mut sides = Sides::start(options.connections, options.threads, life, seed)?;
    let empty = sides.footprint()?;
    empty.print("without connections");
    sides.clients.ask("rest")?;
    sides.footprint()?.print("all open, before any message");
    talk(&mut sides, Duration::from_secs(60))?;
    let before = sides.footprint()?;
    before.print("at rest, after a minute");
    let talked = talk(&mut sides, time)?;
    let (counts, totals) = settled(&mut sides, connections)?;
    let after = sides.footprint()?;
    after.print(&format!("at rest, after {} minutes more", time.as_secs_f64() / 60.0));
    let (closed, ended) = sides.shut_down()?;
    let last = sides.footprint()?;
    last.print("after the shutdown");
    let finally = sides.counts()?;

    let fate = |fate: Fate| totals.fates[fate as usize];
    println!(
        "{} connections opened, {} messages echoed, {} in doubt",
        totals.opened, totals.echoed, totals.in_doubt
    );
    for kind in Fate::ALL {
        println!("{:>8} connections: {kind:?}", fate(kind));
    }
    let mut verdict = Verdict::default();
    verdict.check(counts.opened == totals.opened, "the server opened as many connections as the clients did");
    let known = totals.echoed..=totals.echoed + totals.in_doubt;
    verdict.check(
        known.contains(&counts.received) && known.contains(&counts.sent) && counts.sent <= counts.received,
        format_args!(
            "the server received {} and sent {} messages: all accounted for",
            counts.received, counts.sent
        ),
    );
    verdict.check(counts.normal == fate(Fate::Close), format_args!("{} ended normally", counts.normal));
    let lost = fate(Fate::Vanish) + fate(Fate::Reset);
    verdict.check(counts.lost == lost, format_args!("{} were lost, by a drop or a reset", counts.lost));
    let dead = fate(Fate::FallSilent) + fate(Fate::Stall);
    verdict.check(
        counts.timed_out == dead,
        format_args!("{} ended by keepalive: silent or stalled", counts.timed_out),
    );
    verdict.check(
        counts.violated == fate(Fate::Misbehave),
        format_args!("{} broke the protocol", counts.violated),
    );
    verdict.check(counts.other == 0, "none ended in another way");
    let flat = after.held <= before.held + before.held / 50 + 256 * 1024;
    verdict.check(flat, format_args!("the heap is flat: {} bytes, then {}", before.held, after.held));
    let flat = after.resident <= before.resident + before.resident / 20 + 4 * 1024 * 1024;
    verdict.check(
        flat,
        format_args!("resident memory is flat: {} bytes, then {}", before.resident, after.resident),
    );
    let (first, last_of_all) = talked;
    let flat = last_of_all <= first + first / 10 + 4 * 1024 * 1024;
    verdict.check(
        flat,
        format_args!("and so while they talk: {first} bytes in the first minute, {last_of_all} in the last"),
    );
    let open = empty.files + options.connections;
    verdict.check(
        before.files == open && after.files == open,
        format_args!(
            "open files: {} and {}, as many as connections and {} more",
            before.files, after.files, empty.files
        ),
    );
    verdict.check(
        last.files <= empty.files,
        format_args!("{} files after the shutdown, {} at the start", last.files, empty.files),
    );
    verdict.check(
        closed == options.connections && ended == 0,
        format_args!("the shutdown closed {closed} connections with a handshake, {ended} without"),
    );
    verdict.check(finally.ended() == finally.opened, "every handler has returned");
    sides.server.end_well()?;
    sides.clients.end_well()?;
    verdict.result()
}

/// Lets the connections talk, and then rest. Returns the server's memory in the first and in the last minute.
fn talk(sides: &mut Sides, time: Duration) -> Result<(u64, u64)> {
    sides.clients.ask("run")?;
    let began = Instant::now();
    let mut samples = Vec::new();
    while began.elapsed() < time {
        std::thread::sleep(STEP);
        samples.push(sides.server.memory()?);
    }
    sides.clients.ask("rest")?;
    let minute = samples.len().min(6);
    let median = |samples: &[u64]| {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 2]
    };
    Ok((median(&samples[..minute]), median(&samples[samples.len() - minute..])))
}

/// Returns the counts after the server has noticed the last ends.
fn settled(sides: &mut Sides, connections: u64) -> Result<(Counts, Totals)> {
    let began = Instant::now();
    loop {
        let (counts, totals) = (sides.counts()?, sides.totals()?);
        if counts.opened - counts.ended() == connections || began.elapsed() > Duration::from_secs(20) {
            return Ok((counts, totals));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
