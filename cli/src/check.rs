//! `bowline check`: is this server right?
//!
//! ```text
//! cases        the specification: what is sent, and what the server has to do; script is its language
//! selection    the cases that the options leave
//! consent      stops before a server that is not on this machine
//! examiner     runs a case, and judges what the server does
//! wire         the bytes below: opening handshakes, frames, HTTP/2, HTTP/3, transcripts
//! schedule     runs many cases at once, and reports them in order
//! report       text, JSON lines, JUnit XML
//! ```
//!
//! The library's WebSockets are not used, as they would send almost none of these bytes. Over HTTP/3, the
//! library carries the bytes, and a request that it would not build.

mod cases;
mod consent;
mod examiner;
mod finding;
mod report;
mod schedule;
mod script;
mod selection;
mod wire;

use std::fmt::Display;
use std::io;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::Args;
use clap::builder::ArgPredicate;

use self::consent::Reach;
use self::examiner::Examiner;
use self::report::{OutputArguments, Report, ReportError};
use self::script::Case;
use self::selection::SelectionArguments;
use self::wire::opening::{NoResponse, Opened};
use crate::connect::{ConnectArguments, Dialer};
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  bowline check localhost:8080                    any server
  bowline check --echo --strict localhost:8080    an echo server, and recommendations too
  bowline check --case text -v localhost:8080     one chapter, with the bytes of findings
  bowline check --http 2 wss://localhost/feed     over HTTP/2 (RFC 8441)
  bowline check --http 3 wss://localhost/feed     over HTTP/3 (RFC 9220)

Exit status: 0 no findings, 8 findings, 3 not reached, 4 a correct handshake was refused.";

/// The options of `bowline check`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
// All bytes are those of the cases: these options have no meaning here.
#[command(mut_arg("proxy", |arg| arg.hide(true)), mut_arg("compress", |arg| arg.hide(true)))]
#[command(mut_arg("max_size", |arg| arg.hide(true)))]
// The list is that of the cases alone.
#[command(mut_arg("url", |arg| arg.required(false).required_unless_present("list")))]
#[command(mut_arg("url", |arg| arg.default_value_if("list", ArgPredicate::Equals("true".into()), "-")))]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    #[command(flatten)]
    selection: SelectionArguments,
    /// Check a server that is not on this machine
    #[arg(long, help_heading = "Cases")]
    yes: bool,
    /// The number of cases that run at once
    #[arg(short, long, value_name = "COUNT", default_value = "8", help_heading = "Cases")]
    jobs: NonZeroU16,
    /// The time in which the server has to react
    #[arg(long, value_name = "DURATION", default_value = "2s", help_heading = "Cases")]
    #[arg(value_parser = parse_wait)]
    wait: Duration,
    #[command(flatten)]
    output: OutputArguments,
}

/// The shortest and the longest `--wait`.
const WAITS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(1);

fn parse_wait(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if WAITS.contains(&wait) { Ok(wait) } else { Err("expected 1ms to 1h".into()) }
}

/// The end of the command before its report: the status, and the reason.
#[derive(Debug)]
struct Ended(Exit, String);

impl Ended {
    fn usage(error: impl Display) -> Self {
        Self(Exit::Usage, error.to_string())
    }
}

impl From<ReportError> for Ended {
    fn from(error: ReportError) -> Self {
        match error {
            // Nobody reads any more: an end as asked.
            ReportError::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Self(Exit::Success, String::new())
            }
            error => Self(Exit::Failure, error.to_string()),
        }
    }
}

/// Runs `bowline check`.
pub(crate) fn run(arguments: &CheckArguments) -> Exit {
    match check(arguments) {
        Ok(exit) => exit,
        Err(Ended(exit, text)) => {
            if !text.is_empty() {
                report::complain(&text);
            }
            exit
        }
    }
}

fn check(arguments: &CheckArguments) -> Result<Exit, Ended> {
    let version = arguments.connect.http_version();
    let cases = arguments.selection.select(version).map_err(Ended::usage)?;
    let report = Report::new(&arguments.output);
    if arguments.selection.list {
        report.list(&cases)?;
        return Ok(Exit::Success);
    }
    if let Some(option) = arguments.connect.needs_library() {
        return Err(Ended::usage(format!(
            "{option} can't be used with check, which writes all bytes itself"
        )));
    }
    let target = arguments.connect.target().map_err(Ended::usage)?;
    let dialer = Dialer::new(target).map_err(Ended::usage)?;
    let strictness = arguments.selection.strictness();
    let examiner = Examiner { dialer, version, wait: arguments.wait, strictness };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Ended(Exit::Failure, format!("starting the runtime failed: {error}")))?;
    runtime.block_on(examine(arguments, examiner, cases, report))
}

async fn examine(
    arguments: &CheckArguments,
    examiner: Examiner,
    cases: Vec<Case>,
    mut report: Report,
) -> Result<Exit, Ended> {
    let reach =
        consent::reach(&examiner.dialer).await.map_err(|error| Ended(error.exit(), error.to_string()))?;
    if let Reach::Others(addresses) = reach {
        let warning = consent::warning(&addresses, cases.len());
        if !arguments.yes {
            return Err(Ended::usage(format!("{warning}; --yes does so")));
        }
        report::complain(&warning);
    }
    probe(&examiner).await?;
    let add = |case: &Case, outcome| report.add(case, &outcome);
    schedule::run(examiner, cases, usize::from(arguments.jobs.get()), add).await?;
    Ok(if report.finish()? == 0 { Exit::Success } else { Exit::Findings })
}

/// Finds out whether the server is there, and accepts a correct handshake at all.
async fn probe(examiner: &Examiner) -> Result<(), Ended> {
    match examiner.open().await {
        Ok(Opened::Accepted(..)) => Ok(()),
        Ok(Opened::Refused(head, body, _)) => {
            let body = String::from_utf8_lossy(&body);
            let text = format!("the server refused a correct handshake with the status {}", head.status);
            Err(Ended(Exit::Refused, format!("{text}\n{}", body.trim_end()).trim_end().to_owned()))
        }
        Ok(Opened::Nothing(why, _)) => {
            let exit = match why {
                NoResponse::Invalid(_) => Exit::Refused,
                NoResponse::Ended(_) | NoResponse::Silence => Exit::Unreachable,
            };
            Err(Ended(exit, format!("the server did not accept a correct handshake: {why}")))
        }
        Err(error) => Err(Ended(error.exit(), error.to_string())),
    }
}
