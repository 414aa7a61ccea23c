//! `bowline bench`: load, and the latency under it.
//!
//! ```text
//! compare     servers side by side, under the same load
//! arguments   the options, checked
//!   plan      the plan that they make: the schedule, the messages
//! load        the plan carried out, by threads that share nothing
//!   tally     what they have measured
//! report      the tally as text, JSON or a page; the verdict
//! ```
//!
//! In the open model, messages are due at the times of a [`plan::schedule`], and a latency is counted from
//! when its message was due. A tool that sends the next message only after the last reply waits together with
//! a server that has stopped. Such a tool measures one slow reply where users would have had thousands, a
//! mistake that is known as coordinated omission.

mod arguments;
mod compare;
mod load;
mod plan;
mod report;
mod tally;
mod units;

use std::fs::File;
use std::io::{self, BufWriter, Write};

use tokio::runtime::Builder;

pub(crate) use self::arguments::BenchArguments;
use self::arguments::{ReportArguments, RunArguments};
use self::load::LoadError;
use self::plan::Plan;
use self::report::Report;
use crate::connect::{ConnectError, UsageError};
use crate::exit::{Exit, first_signal};

/// Runs `bowline bench`, or its subcommand.
pub(crate) fn run(arguments: &BenchArguments) -> Exit {
    match arguments {
        BenchArguments::Run(arguments) => load(arguments),
        BenchArguments::Compare(arguments) => compare::run(arguments),
    }
}

/// Puts a server under load.
fn load(arguments: &RunArguments) -> Exit {
    let allowed = |plan: Plan| load::allow_connections(plan.connections).map(|()| plan);
    let prepared = arguments.plan().and_then(allowed).and_then(|plan| Ok((plan, create(&arguments.report)?)));
    let (plan, page) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return failed(&error, Exit::Usage),
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, Exit::Failure),
    };
    runtime.block_on(async {
        let (signal, stop) = first_signal();
        let report = match load::run(plan, stop, || {}).await {
            Ok(Some(report)) => report,
            Ok(None) => return signal.get(),
            Err(LoadError::Connect(error)) => return failed(&explained(&error), error.exit()),
            Err(LoadError::Thread(error)) => return failed(&error, Exit::Failure),
        };
        let verdict = publish(&report, &arguments.report, page);
        if signal.get() == Exit::Success { verdict } else { signal.get() }
    })
}

/// The text of an error, with the beginning of the body if the server has refused the handshake.
fn explained(error: &ConnectError) -> String {
    let mut text = error.to_string();
    if let ConnectError::Library(error) = error
        && let Some(response) = error.response()
    {
        let body = String::from_utf8_lossy(response.body());
        // The body is the server's, and must not control the terminal.
        let shown = body.trim().chars().filter(|&char| char == '\n' || !char.is_control());
        text.push('\n');
        text.extend(shown);
    }
    text.trim_end().to_owned()
}

/// Creates the file of the page. A file that can't be written is an error before the run, not after it.
fn create(arguments: &ReportArguments) -> Result<Option<File>, UsageError> {
    let Some(path) = &arguments.html else { return Ok(None) };
    match File::create(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) => Err(UsageError(format!("--html {}: {error}", path.display()))),
    }
}

/// Writes the report, and returns its verdict.
fn publish(report: &Report, arguments: &ReportArguments, page: Option<File>) -> Exit {
    let page = page.map(|page| write_page(report, arguments, page));
    match print(report, arguments) {
        // If nobody reads any more, the verdict still counts.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return failed(&error, Exit::Failure),
        _ => {}
    }
    let failures: Vec<_> =
        arguments.fail_if.iter().filter_map(|condition| condition.failure(report)).collect();
    for failure in &failures {
        failed(failure, Exit::Findings);
    }
    let page = page.and_then(Result::err).map(|error| failed(&format!("--html: {error}"), Exit::Failure));
    match (failures.is_empty(), report.has_measured()) {
        (false, _) => Exit::Findings,
        (true, true) if page.is_some() => Exit::Failure,
        (true, false) => failed(&report.plan.mode.silence(), Exit::Lost),
        (true, true) => Exit::Success,
    }
}

fn write_page(report: &Report, arguments: &ReportArguments, page: File) -> io::Result<()> {
    let mut page = BufWriter::new(page);
    report::write_page(report, &arguments.fail_if, &mut page)?;
    page.flush()
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
