//! The options of `bowline bench`, and the plan that they make.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use regex_lite::Regex;

use crate::bench::compare::CompareArguments;
use crate::bench::plan::schedule::{Rate, Schedule};
use crate::bench::plan::template::Template;
use crate::bench::plan::{Mode, Pace, Plan};
use crate::bench::report::condition::Condition;
use crate::connect::{ConnectArguments, Size, UsageError, Version};

/// The number of connections that are opened a second, if `--ramp` does not say so.
const OPENED_A_SECOND: u32 = 1_000;

const EXAMPLES: &str = "\
Examples:
  bowline bench ws://localhost:8080
  bowline bench ws://localhost:8080 -c 10000 --ramp 30s -d 60s --rate 50000/s
  bowline bench ws://localhost:8080 --message '{\"id\":{{id}}}' --each 1/s --fail-if 'p99>50ms'
  bowline bench ws://localhost:8080 --in-flight 16 --html report.html

Messages are due at the times of a schedule, and a latency is the time from when the message was due \
until its reply is there. So a server that stops for a while shows, with all the messages that it kept \
waiting. With --in-flight there is no schedule: the server's replies decide when the next message is \
sent.";

/// The name of the subcommand.
const COMPARE: &str = "compare";

/// The options of `bowline bench`, or of its subcommand.
#[derive(Debug)]
pub(crate) enum BenchArguments {
    Run(Box<RunArguments>),
    Compare(CompareArguments),
}

impl Args for BenchArguments {
    fn augment_args(command: Command) -> Command {
        RunArguments::augment_args(command)
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
            .subcommand(CompareArguments::augment_args(Command::new(COMPARE)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for BenchArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some((COMPARE, matches)) => CompareArguments::from_arg_matches(matches).map(Self::Compare),
            _ => RunArguments::from_arg_matches(matches).map(|run| Self::Run(Box::new(run))),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The options of a run.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArguments {
    // The order is that of the help text.
    #[command(flatten)]
    load: LoadArguments,
    #[command(flatten)]
    messages: MessageArguments,
    #[command(flatten)]
    pub(super) report: ReportArguments,
    #[command(flatten)]
    connect: ConnectArguments,
}

/// The options of the load.
#[derive(Args, Debug)]
#[command(next_help_heading = "Load")]
struct LoadArguments {
    /// The load: what the connections do
    #[arg(long, value_enum, default_value_t = Mode::Echo)]
    mode: Mode,
    /// The number of connections
    #[arg(short, long, value_name = "NUMBER", default_value_t = 50)]
    connections: u32,
    /// The time of the run, which begins when all connections are open
    #[arg(short, long, value_name = "TIME", default_value = "10s")]
    duration: Time,
    /// Messages by all connections together, such as 50k/s; handshakes in the mode `connect`. Default: 1000/s
    /// (`connect`: 100/s, `broadcast`: 10/s)
    #[arg(short, long, value_name = "RATE", conflicts_with_all = ["each", "in_flight"])]
    rate: Option<Rate>,
    /// Messages by each connection, such as 1/s
    #[arg(long, value_name = "RATE", conflicts_with = "in_flight")]
    each: Option<Rate>,
    /// No schedule: each connection keeps so many messages under way (closed model)
    #[arg(long, value_name = "NUMBER")]
    in_flight: Option<u32>,
    /// The time in which the connections are opened. Default: 1 s for each 1,000
    #[arg(long, value_name = "TIME")]
    ramp: Option<Time>,
    /// The time to wait for missing replies after the run
    #[arg(long, value_name = "TIME", default_value = "2s")]
    grace: Time,
    /// Local addresses to connect from, in turns: one, or a range such as 127.0.0.2-127.0.0.40; may be
    /// repeated. One address has about 28,000 ports
    #[arg(long, value_name = "ADDRESSES", conflicts_with_all = ["unix", "proxy"])]
    source: Vec<Sources>,
    /// The number of threads. Default: one for each processor
    #[arg(long, value_name = "NUMBER")]
    threads: Option<u16>,
}

/// The options of the messages.
#[derive(Args, Debug)]
#[command(next_help_heading = "Messages")]
struct MessageArguments {
    /// The size of a message in bytes, or with K or M. Messages of less than 16 bytes have no number, so
    /// their replies are told apart by order
    #[arg(long, value_name = "SIZE", default_value = "16", conflicts_with = "message")]
    size: Size,
    /// The message; {{id}} becomes a number that no other message of the run has
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// A message that each connection sends once it is open, such as a subscription
    #[arg(long, value_name = "TEXT")]
    first: Option<String>,
    /// Send binary messages
    #[arg(long)]
    binary: bool,
    /// The pattern of replies; other messages are ignored. Its first group, if any, is the {{id}}
    #[arg(long = "match", value_name = "REGEX")]
    matching: Option<Regex>,
}

/// The options of the report.
#[derive(Args, Debug)]
#[command(next_help_heading = "Report")]
pub(super) struct ReportArguments {
    /// Exit with 8 if this is true, such as 'p99>50ms', 'errors>0' or 'rate<900/s'; may be repeated. Of: p50,
    /// p90, p99, p99.9, p99.99, max, errors, rate
    #[arg(long, value_name = "CONDITION")]
    pub(super) fail_if: Vec<Condition>,
    /// Print the report as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Write the report to a file as a page, with diagrams
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
}

impl RunArguments {
    /// Checks the options.
    pub(super) fn plan(&self) -> Result<Plan, UsageError> {
        let target = self.connect.target()?;
        let load = &self.load;
        if !load.source.is_empty() && self.connect.http_version() == Version::Http3 {
            return Err(UsageError("--source can't be used with --http 3".into()));
        }
        if load.connections == 0 {
            return Err(UsageError("--connections is at least 1".into()));
        }
        if load.duration.0.is_zero() {
            return Err(UsageError("--duration is more than 0s".into()));
        }
        let ramp =
            load.ramp.map_or(Duration::from_secs(1) * load.connections / OPENED_A_SECOND, |ramp| ramp.0);
        // Each thread has a runtime of its own. By measurement, two of them take as much processor time for a
        // message as one does.
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = load.threads.map_or(processors, usize::from).min(load.connections as usize);
        if threads == 0 {
            return Err(UsageError("--threads is at least 1".into()));
        }
        Ok(Plan {
            target,
            mode: load.mode,
            pace: load.pace()?,
            connections: u64::from(load.connections),
            duration: load.duration.0,
            ramp,
            grace: load.grace.0,
            sources: load.source.iter().flat_map(|sources| sources.0.clone()).collect(),
            threads,
            template: self.messages.template(load.mode)?,
            first: self.messages.first.clone(),
            binary: self.messages.binary,
        })
    }
}

impl LoadArguments {
    /// Returns the pace of the messages, or of the handshakes.
    fn pace(&self) -> Result<Pace, UsageError> {
        let connections = u64::from(self.connections);
        let needless = |option: &str| {
            let mode = self.mode.to_possible_value().expect("no mode is hidden");
            Err(UsageError(format!("{option} has no use with --mode {}", mode.get_name())))
        };
        let rate = match (self.rate, self.each, self.in_flight, self.mode) {
            (Some(_), ..) if self.mode == Mode::Idle => return needless("--rate"),
            (_, Some(_), _, Mode::Idle | Mode::Connect) => return needless("--each"),
            (_, _, Some(_), Mode::Idle | Mode::Broadcast) => return needless("--in-flight"),
            (_, _, Some(0), _) => return Err(UsageError("--in-flight is at least 1".into())),
            (_, _, Some(_), Mode::Connect) if self.in_flight != Some(1) => {
                let text = "--in-flight is 1 with --mode connect: use --connections for more at once";
                return Err(UsageError(text.into()));
            }
            (_, _, Some(in_flight), _) => return Ok(Pace::Closed { in_flight }),
            (Some(rate), ..) => rate,
            (_, Some(each), ..) => {
                let rate = each.times(connections);
                rate.ok_or_else(|| UsageError("--each times --connections is too much".into()))?
            }
            (None, None, None, Mode::Connect) => Rate::per_second(100),
            (None, None, None, Mode::Broadcast) => Rate::per_second(10),
            (None, None, None, Mode::Echo | Mode::Idle) => Rate::per_second(1_000),
        };
        Ok(Pace::Open(Schedule { rate, connections }))
    }
}

impl MessageArguments {
    /// Checks the options, and returns the messages that they make.
    fn template(&self, mode: Mode) -> Result<Template, UsageError> {
        let template = match &self.message {
            Some(text) => Template::of_text(text)?,
            None => Template::of_size(self.size.0),
        };
        let template = match &self.matching {
            Some(pattern) => template.matching(pattern.clone()),
            None => template,
        };
        let wrong = if mode == Mode::Broadcast && !template.is_numbered() {
            "--mode broadcast needs to know which message a reply belongs to: use {{id}} in --message, a \
             group for it \
             in --match, and a --size of at least 16"
        } else if self.matching.is_some() && template.is_numbered() && !template.has_number() {
            "--match has a group for the {{id}}, but --message contains none"
        } else if self.first.is_some() && mode == Mode::Connect {
            "--first has no use with --mode connect"
        } else {
            return Ok(template);
        };
        Err(UsageError(wrong.into()))
    }
}

/// A time as users write it: `10s`, `200ms`, `5min`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time =
            humantime::parse_duration(text).map_err(|_| "expected a time such as 10s, 200ms or 5min")?;
        // More than this is no run, and the arithmetic with nanoseconds stays small.
        if time > Duration::from_hours(30 * 24) {
            return Err("a time is at most 30 days".into());
        }
        Ok(Self(time))
    }
}

/// Local addresses: one, or a range.
#[derive(Clone, Debug)]
struct Sources(Vec<IpAddr>);

impl FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address =
            |text: &str| text.trim().parse::<IpAddr>().map_err(|error| format!("{text:?}: {error}"));
        let Some((first, last)) = text.split_once('-') else { return Ok(Self(vec![address(text)?])) };
        match (address(first)?, address(last)?) {
            (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
                let (first, last) = (u32::from(first), u32::from(last));
                if last - first >= 1 << 16 {
                    return Err("a range has at most 65536 addresses".into());
                }
                Ok(Self((first..=last).map(|address| IpAddr::V4(address.into())).collect()))
            }
            (IpAddr::V4(_), IpAddr::V4(_)) => Err("the range ends before it begins".into()),
            _ => Err("a range is one of IPv4 addresses".into()),
        }
    }
}
