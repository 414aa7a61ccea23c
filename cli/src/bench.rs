//! `bowline bench`: load, and the latency under it.
//!
//! ```text
//! arguments      the options, checked: a plan
//! load           the way to the server, the threads, the end
//!   worker       one thread: opening, running, draining, closing its connections
//!     conversation, handshakes   what one connection does
//!     station    what the tasks of a thread share: the tally, the stage
//! report         what was measured, as text, JSON or a page
//! ```
//!
//! In the open model, messages are due at the times of a [`schedule`], and a latency is counted from when its
//! message was due. A tool that sends the next message only after the last reply waits together with a server
//! that has stopped. Such a tool measures one slow reply where users would have had thousands, a mistake that
//! is known as coordinated omission.

mod arguments;
mod condition;
mod conversation;
mod dial;
mod handshakes;
mod load;
mod plan;
mod progress;
mod report;
mod schedule;
mod station;
mod status;
mod system;
mod tally;
mod template;
mod timer;
mod units;
mod window;
mod worker;

use std::io::{self, Write};

use tokio::runtime::Builder;

pub(crate) use self::arguments::BenchArguments;
use self::arguments::ReportArguments;
use self::load::LoadError;
use self::plan::Plan;
use self::report::Report;
use crate::exit::{Exit, first_signal};

/// Runs `bowline bench`.
pub(crate) fn run(arguments: &BenchArguments) -> Exit {
    let allowed = |plan: Plan| system::allow_connections(plan.connections).map(|()| plan);
    let plan = match arguments.plan().and_then(allowed) {
        Ok(plan) => plan,
        Err(error) => return failed(&error, Exit::Usage),
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, Exit::Failure),
    };
    runtime.block_on(async {
        let (signal, stop) = first_signal();
        let report = match load::run(plan, stop).await {
            Ok(Some(report)) => report,
            Ok(None) => return signal.get(),
            Err(LoadError::Connect(error)) => return failed(&error, error.exit()),
            Err(LoadError::Thread(error)) => return failed(&error, Exit::Failure),
        };
        let verdict = publish(&report, &arguments.report);
        if signal.get() == Exit::Success { verdict } else { signal.get() }
    })
}

/// Writes the report, and returns its verdict.
fn publish(report: &Report, arguments: &ReportArguments) -> Exit {
    if let Err(error) = print(report, arguments) {
        // Nobody reads any more.
        return if error.kind() == io::ErrorKind::BrokenPipe {
            Exit::Success
        } else {
            failed(&error, Exit::Failure)
        };
    }
    let failures: Vec<_> =
        arguments.fail_if.iter().filter_map(|condition| condition.failure(report)).collect();
    for failure in &failures {
        failed(failure, Exit::Findings);
    }
    match (failures.is_empty(), report.has_measured()) {
        (false, _) => Exit::Findings,
        (true, false) => failed(&"nothing was measured", Exit::Lost),
        (true, true) => Exit::Success,
    }
}

fn print(report: &Report, arguments: &ReportArguments) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if arguments.json {
        let document = report::document(report, &arguments.fail_if);
        serde_json::to_writer_pretty(&mut out, &document)?;
        writeln!(out)?;
    } else {
        report::write(report, &mut out)?;
    }
    out.flush()
}

fn failed(error: &dyn std::fmt::Display, exit: Exit) -> Exit {
    let _ = writeln!(anstream::stderr(), "bowline: {error}");
    exit
}
