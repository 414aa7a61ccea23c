//! The cost of idle connections with keepalive, as many as a process may have files.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::sides::Sides;
use super::verdict::Verdict;
use crate::process;

/// The number of files that are not connections.
const OTHER_FILES: u64 = 100;

#[derive(clap::Args, Clone, Debug)]
pub struct Idle {
    /// The number of connections; without this, as many as the limit of open files permits
    #[arg(long)]
    connections: Option<usize>,
    #[arg(long, default_value_t = 3)]
    minutes: u64,
}

pub fn run(options: &Idle) -> Result<()> {
    let most = process::most_files().saturating_sub(OTHER_FILES) as usize;
    let connections = options.connections.unwrap_or(most);
    let mut sides = Sides::start(connections, 1, Duration::from_secs(1), 1)?;
    let empty = sides.footprint()?;
    empty.print("without connections");
    sides.clients.ask("rest")?;
    // Waits until the connections have been silent for long enough to be pinged.
    std::thread::sleep(Duration::from_secs(60));
    let began = Instant::now();
    let (cpu, pings) = (sides.server.cpu_time()?, sides.totals()?.pings);
    std::thread::sleep(Duration::from_secs(60 * options.minutes));
    let cpu = (sides.server.cpu_time()? - cpu) as f64 / began.elapsed().as_nanos() as f64;
    let idle = sides.footprint()?;
    idle.print(&format!("{connections} idle for {} minutes", options.minutes + 1));
    let counts = sides.counts()?;
    let (closed, ended) = sides.shut_down()?;
    let last = sides.footprint()?;
    last.print("after the shutdown");
    // Connections at rest report their counts only at the farewell.
    let pings = sides.totals()?.pings - pings;

    let each = |bytes: f64| bytes / connections as f64;
    let resident = each(idle.resident as f64 - empty.resident as f64);
    let held = each((idle.held - empty.held) as f64);
    println!(
        "per connection: {resident:.0} bytes resident, {held:.0} bytes of heap; without the kernel's memory"
    );
    println!("keepalive: {pings} pings answered; {:.2} % of a core", 100.0 * cpu);
    let million = 1_000_000.0;
    println!(
        "extrapolated, not measured: 1,000,000 would take {:.2} GiB resident, {:.2} GiB of heap, {:.0} % of \
         a core",
        resident * million / f64::from(1 << 30),
        held * million / f64::from(1 << 30),
        100.0 * cpu * million / connections as f64,
    );
    let mut verdict = Verdict::default();
    verdict.check(counts.opened == connections as u64 && counts.ended() == 0, "all connections stayed open");
    verdict.check(pings >= connections as u64 * options.minutes, "each was pinged once a minute at least");
    verdict.check(
        closed == connections && ended == 0,
        format_args!("the shutdown closed {closed} connections with a handshake, {ended} without"),
    );
    verdict.check(last.files <= empty.files, "no files are left");
    sides.server.end_well()?;
    sides.clients.end_well()?;
    verdict.result()
}
