//! `bowline bench compare`: echo servers side by side, as processes of this machine.
//!
//! ```text
//! arguments   the options, checked
//! server      a server as a process, from its start to its end
//!   trial       does it echo?
//! usage       the time and memory of its processes, from /proc
//! comparison  the samples of all servers, as text or JSON
//! ```
//!
//! All servers are started and tried before the first is measured, and run until the end. They are measured
//! in turns: each round has one sample of each server, and begins with another one. So a machine that becomes
//! slower for a while slows down all of them.

mod arguments;
mod comparison;
mod server;
mod trial;
mod usage;

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write as _};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

pub(crate) use self::arguments::CompareArguments;
use self::comparison::{Comparison, Row, Sample};
use self::server::Server;
use self::usage::Usage;
use super::failed;
use super::load::{self, LoadError, allow_connections};
use super::plan::Plan;
use super::report::Report;
use crate::exit::{Exit, first_signal};

/// The time between two samples, in which the connections of the last one end.
const PAUSE: Duration = Duration::from_millis(50);

/// A comparison that can't go on, and the status that it means.
#[derive(Debug)]
struct Failure {
    text: String,
    exit: Exit,
}

impl Failure {
    fn new(exit: Exit, text: impl Display) -> Self {
        Self { text: text.to_string(), exit }
    }

    /// Names the server that has failed.
    fn of(self, name: &str) -> Self {
        Self { text: format!("{name}: {}", self.text), exit: self.exit }
    }
}

/// Runs `bowline bench compare`.
pub(crate) fn run(arguments: &CompareArguments) -> Exit {
    if let Err(error) = arguments.check().and_then(|()| allow_connections(arguments.connections())) {
        return failed(&error, Exit::Usage);
    }
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, Exit::Failure),
    };
    runtime.block_on(async {
        let (signal, stop) = first_signal();
        let stop = Stop::when(stop);
        let mut comparison = Comparison::default();
        // The servers have ended when this has.
        let outcome = compare(arguments, &stop, &mut comparison).await;
        if let Err(error) = print(arguments, &comparison)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return failed(&error, Exit::Failure);
        }
        match (signal.get(), outcome) {
            (Exit::Success, Ok(())) => comparison.failures().fold(Exit::Success, |first, failure| {
                failed(&failure.text, failure.exit);
                if first == Exit::Success { failure.exit } else { first }
            }),
            (Exit::Success, Err(failure)) => failed(&failure.text, failure.exit),
            (signal, _) => signal,
        }
    })
}

/// Starts all servers, and measures them in turns.
async fn compare(
    arguments: &CompareArguments,
    stop: &Stop,
    comparison: &mut Comparison,
) -> Result<(), Failure> {
    let mut servers = Vec::new();
    for wanted in arguments.servers() {
        let starting = async {
            let server = Server::start(wanted, arguments.start_timeout()).await?;
            let plan = arguments.plan(server.port())?;
            trial::run(&plan.target).await?;
            Ok((server, plan))
        };
        let started = tokio::select! {
            started = starting => started.map_err(|failure: Failure| failure.of(&wanted.name))?,
            () = stop.arrived() => return Ok(()),
        };
        servers.push(started);
    }
    comparison.rows = servers.iter().map(|(server, _)| Row::new(server.name(), server.command())).collect();
    for round in 0..arguments.rounds() {
        for turn in 0..servers.len() {
            let at = (round + turn) % servers.len();
            let (row, (server, plan)) = (&mut comparison.rows[at], &servers[at]);
            if row.failure.is_some() {
                continue;
            }
            match measure(plan.clone(), server, stop).await {
                Ok(Some(sample)) => row.samples.push(sample),
                Ok(None) => return Ok(()),
                Err(failure) => row.failure = Some(failure.of(&row.name)),
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Takes a sample. Returns `None` if a signal has ended it.
async fn measure(plan: Plan, server: &Server, stop: &Stop) -> Result<Option<Sample>, Failure> {
    let mut usages = Vec::new();
    let report = load::run(plan, stop.clone().into_future(), || usages.push(server.usage())).await;
    let report = match report {
        Ok(Some(report)) if !report.is_interrupted => report,
        Ok(_) => return Ok(None),
        Err(LoadError::Connect(error)) => return Err(Failure::new(error.exit(), error)),
        Err(LoadError::Thread(error)) => return Err(Failure::new(Exit::Failure, error)),
    };
    if let Some((kind, count)) = report.tally.errors.first_key_value() {
        return Err(Failure::new(Exit::Lost, format!("{count} errors in a round: {kind}")));
    }
    let Ok([before, after]) = <[io::Result<Usage>; 2]>::try_from(usages) else {
        return Err(Failure::new(Exit::Failure, "the run had no beginning or no end"));
    };
    let unreadable = |error| Failure::new(Exit::Failure, format!("reading /proc: {error}"));
    sample(&report, &before.map_err(unreadable)?, &after.map_err(unreadable)?).map(Some)
}

fn sample(report: &Report, before: &Usage, after: &Usage) -> Result<Sample, Failure> {
    if !report.has_measured() {
        return Err(Failure::new(Exit::Lost, report.plan.mode.silence()));
    }
    let messages = report.tally.received.messages;
    Ok(Sample {
        rate: report.rate(),
        cpu: after.cpu.saturating_sub(before.cpu) / u32::try_from(messages).unwrap_or(u32::MAX),
        memory: after.memory,
        busy: report.utilization(),
    })
}

fn print(arguments: &CompareArguments, comparison: &Comparison) -> io::Result<()> {
    if comparison.rows.is_empty() {
        return Ok(());
    }
    let mut out = anstream::stdout().lock();
    if arguments.is_json() {
        serde_json::to_writer_pretty(&mut out, &comparison.document(arguments))?;
        writeln!(out)?;
    } else {
        comparison.write(arguments, &mut out)?;
    }
    out.flush()
}

/// The wish that everything ends, which any number of waiters see.
#[derive(Clone)]
struct Stop(watch::Receiver<bool>);

impl Stop {
    fn when(signal: impl Future<Output = ()> + Send + 'static) -> Self {
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            signal.await;
            sender.send_replace(true);
        });
        Self(receiver)
    }

    async fn arrived(&self) {
        self.clone().into_future().await;
    }

    async fn into_future(mut self) {
        // The sender is dropped only after it has sent.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}

/// Waits for a step of a server, for so long at most. `exit` is the status of a step that takes longer.
async fn within<T>(
    limit: Duration,
    exit: Exit,
    step: &str,
    future: impl Future<Output = T>,
) -> Result<T, Failure> {
    let late = || Failure::new(exit, format!("{step} took more than {}", humantime::format_duration(limit)));
    timeout(limit, future).await.map_err(|_| late())
}
