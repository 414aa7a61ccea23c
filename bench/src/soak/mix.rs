//! The mix: bowline against itself, over every carrier and through all of its API, until something fails.
//!
//! A run is a sequence of groups of connections. The [plan](plan) of a group is drawn from the seed and the
//! number of the group. The [connections](group) are [opened](carriers), and their tasks [send](senders) and
//! [receive](receivers). Connections end as planned, in order or by a [fault](relay) of the transport. The
//! [ledger] accounts for every message, the [watchdog] names hanging tasks, and the [judgement](endings)
//! compares the views of both sides. At rest, between two groups, no tasks, descriptors or memory may be
//! left.

mod cancel;
mod carriers;
mod endings;
mod group;
mod ledger;
mod plan;
mod receivers;
mod record;
mod relay;
mod run;
mod senders;
mod servers;
mod side;
mod watchdog;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

use super::sides::mebibytes;
use super::verdict::Verdict;
use crate::{allocations, process};
use carriers::Network;
use plan::{Carrier, GroupPlan, Side};
use run::{Counts, Run, Violation};
use servers::Servers;

/// The allowed growth of the heap after the first groups: compressors and decompressors that the threads of
/// two runtimes and the main thread may lend, 1.7 MB each, and 1 MiB for growing tables.
const MARGIN: i64 = 3 * 1_700_000 + (1 << 20);

/// The options of the mix on the command line.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "The mix")]
pub struct Arguments {
    /// The largest number of groups
    #[arg(long, default_value_t = u32::MAX / 64)]
    pub groups: u32,
    /// The number of concurrent groups
    #[arg(long, default_value_t = 16)]
    pub at_once: usize,
    /// The only group to run, to repeat a failure with the same seed
    #[arg(long)]
    pub group: Option<u32>,
    /// The only carrier to use
    #[arg(long)]
    pub carrier: Option<Carrier>,
    /// The number of seconds within which each operation has to end
    #[arg(long, default_value_t = 30)]
    pub patience: u64,
}

/// The options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    /// The time during which groups are started.
    pub time: Duration,
    pub arguments: Arguments,
}

/// Runs the mix. Returns an error if a check fails.
pub fn run(options: &Options) -> Result<()> {
    allocations::start();
    process::allow_files(4096)?;
    println!("seed {}", options.seed);
    // Neither the books nor tokio's process-wide state count as growth.
    record::books();
    drop(Builder::new_current_thread().enable_all().build()?);
    let files = process::open_files(std::process::id())?;
    let single = Builder::new_current_thread().enable_all().build()?;
    let multi = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let handles = vec![single.handle().clone(), multi.handle().clone()];
    let at_start = Rest::now(&handles, 0)?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let single = thread::spawn(move || {
        // The runtime is dropped when it has no more work.
        let _ = single.block_on(stopped);
        single
    });
    let run = Arc::new(Run::new(options.seed, handles.clone()));
    let registry = Arc::default();
    let servers = Servers::start(&handles, &registry)?;
    let network = Arc::new(Network { run: Arc::clone(&run), servers, registry });
    let is_over = Arc::new(AtomicBool::new(false));
    let guard = watch(&run, &is_over, Duration::from_secs(options.arguments.patience));
    let (first, last) = multi.block_on(talk(&network, options))?;
    is_over.store(true, Relaxed);
    guard.join().expect("the watchdog does not panic");
    print_summary(&run);
    let mut checks = Verdict::default();
    let violations = run.counts.violations.load(Relaxed);
    checks.check(violations == 0, format_args!("{violations} violations"));
    let (before, after) = (first.held, last.held);
    checks.check(
        after <= before + MARGIN,
        format_args!("the heap is flat: {before} bytes at rest at first, {after} at last, within {MARGIN}"),
    );
    checks.check(
        first.tasks == last.tasks && first.files == last.files,
        format_args!("as many tasks and descriptors at rest at first and at last: {first:?}, {last:?}"),
    );
    checks.check(network.registry.is_empty(), "no side of a server waits for its client");
    let network = Arc::into_inner(network).context("a group is left, which holds on to the servers")?;
    let open = multi.block_on(network.servers.stop())?;
    checks.check(open == 0, format_args!("{open} connections were open when the servers were shut down"));
    let at_end = multi.block_on(settle(&handles, 0, &at_start))?;
    checks.check(
        at_end.tasks == at_start.tasks && at_end.files == at_start.files,
        format_args!("no tasks and descriptors are left: {at_start:?}, {at_end:?}"),
    );
    drop((stop, handles, network.run, run));
    end(single.join().expect("the runtime does not panic"), multi);
    let files_at_end = process::open_files(std::process::id())?;
    checks.check(files_at_end <= files, format_args!("{files} descriptors before, {files_at_end} after"));
    checks.result()
}

fn end(single: Runtime, multi: Runtime) {
    drop(single);
    drop(multi);
}

/// Starts a thread that watches for hanging tasks, independent of the runtimes.
fn watch(run: &Arc<Run>, is_over: &Arc<AtomicBool>, patience: Duration) -> thread::JoinHandle<()> {
    let (watchdog, is_over) = (Arc::clone(&run.watchdog), Arc::clone(is_over));
    thread::spawn(move || {
        while !is_over.load(Relaxed) {
            watchdog.look(patience);
            thread::sleep(Duration::from_millis(200));
        }
    })
}

/// Runs one group after another. Returns what was held at rest after the first groups, and at the end.
async fn talk(network: &Arc<Network>, options: &Options) -> Result<(Rest, Rest)> {
    let Arguments { groups: count, at_once, group, carrier, .. } = options.arguments;
    let numbers = group.map_or(0..count, |group| group..group + 1);
    let (run, servers) = (&network.run, network.servers.count());
    let began = Instant::now();
    let (mut groups, mut first) = (JoinSet::new(), None);
    let mut printed = Duration::ZERO;
    let start = numbers.start;
    let warm = start + (numbers.end - start).min(4 * at_once as u32) / 2;
    for number in numbers {
        if began.elapsed() >= options.time {
            break;
        }
        while groups.len() >= at_once || (number == warm && !groups.is_empty()) {
            joined(run, groups.join_next().await);
        }
        if number == warm {
            first = Some(settle(&run.runtimes, servers, &Rest::default()).await?);
        }
        let plan = Arc::new(GroupPlan::new(options.seed, number, carrier));
        let handle = run.runtimes[plan.runtimes[Side::Client as usize]].clone();
        groups.spawn_on(group::talk(Arc::clone(network), plan), &handle);
        if began.elapsed() >= printed + Duration::from_secs(10) {
            printed = began.elapsed();
            print_progress(run, number, printed)?;
        }
    }
    while !groups.is_empty() {
        joined(run, groups.join_next().await);
    }
    let last = settle(&run.runtimes, servers, first.as_ref().unwrap_or(&Rest::default())).await?;
    Ok((first.unwrap_or(last), last))
}

fn joined(run: &Run, ended: Option<Result<(), tokio::task::JoinError>>) {
    if let Some(Err(error)) = ended {
        run.violated(Violation::First, format!("a task panicked: {error}"));
    }
}

/// The resources held at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rest {
    /// The number of tasks, without those of the servers and of the run.
    tasks: usize,
    files: usize,
    held: i64,
}

impl Rest {
    fn now(runtimes: &[Handle], servers: usize) -> Result<Self> {
        let tasks: usize = runtimes.iter().map(|runtime| runtime.metrics().num_alive_tasks()).sum();
        let files = process::open_files(std::process::id())?;
        Ok(Self { tasks: tasks - servers.min(tasks), files, held: allocations::held() })
    }
}

/// Waits until no connection is in progress, and no more descriptors are open than before, up to a time
/// limit.
async fn settle(runtimes: &[Handle], servers: usize, before: &Rest) -> Result<Rest> {
    let began = Instant::now();
    let mut calm = 0;
    loop {
        let now = Rest::now(runtimes, servers)?;
        let is_calm = now.tasks == 0 && (before.files == 0 || now.files <= before.files);
        calm = if is_calm { calm + 1 } else { 0 };
        if calm == 10 || began.elapsed() > Duration::from_secs(60) {
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn print_progress(run: &Run, number: u32, time: Duration) -> Result<()> {
    let Counts { connections, messages, bytes, violations, .. } = &run.counts;
    let resident = mebibytes(process::memory(std::process::id())? as f64);
    print!("{:>6.0} s {number:>7} groups {:>8} connections", time.as_secs_f64(), connections.load(Relaxed));
    println!(
        " {:>10} messages {:>8.0} MiB {resident:>6.0} MiB resident {} violations",
        messages.load(Relaxed),
        mebibytes(bytes.load(Relaxed) as f64),
        violations.load(Relaxed),
    );
    Ok(())
}

fn print_summary(run: &Run) {
    let Counts { connections, messages, bytes, pings, cancelled, .. } = &run.counts;
    println!(
        "{} connections, {} messages of {:.0} MiB, {} pings, {} futures dropped",
        connections.load(Relaxed),
        messages.load(Relaxed),
        mebibytes(bytes.load(Relaxed) as f64),
        pings.load(Relaxed),
        cancelled.load(Relaxed),
    );
    for (what, count) in run.coverage().iter() {
        println!("{count:>10} {what}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The run is bounded by counts. Time limits only end hanging runs.
    #[test]
    fn a_short_soak_finds_nothing() {
        let arguments = Arguments { groups: 40, at_once: 8, group: None, carrier: None, patience: 120 };
        let options = Options { seed: 1, time: Duration::from_secs(3600), arguments };
        run(&options).expect("nothing is wrong");
    }
}
