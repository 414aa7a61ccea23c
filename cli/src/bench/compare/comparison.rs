//! The samples of all servers, as text or JSON.

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use super::Failure;
use super::arguments::CompareArguments;
use crate::bench::units::{Bytes, Grouped, Span, nanos};

const HEAD: Style = Style::new().bold();
const BAD: Style = AnsiColor::Red.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default();
const DIM: Style = Style::new().dimmed();

/// The share of its time from which on the load may be what is measured.
const BUSY: f64 = 0.9;

/// The results of all servers.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) rows: Vec<Row>,
}

/// The results of a server.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    command: String,
    pub(super) samples: Vec<Sample>,
    /// The reason why there are no further samples.
    pub(super) failure: Option<Failure>,
}

/// One sample of a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Messages a second.
    pub(super) rate: u64,
    /// The time of the processors for a message.
    pub(super) cpu: Duration,
    /// Bytes.
    pub(super) memory: u64,
    /// The share of its time that the load was at work.
    pub(super) busy: f64,
}

impl Row {
    pub(super) fn new(name: &str, command: &str) -> Self {
        Self { name: name.to_owned(), command: command.to_owned(), samples: Vec::new(), failure: None }
    }

    /// The distributions of the figures: messages a second, nanoseconds of the processors, and bytes.
    fn figures(&self) -> Option<[Range; 3]> {
        let range = |figure: &dyn Fn(&Sample) -> u64| Range::of(self.samples.iter().map(figure).collect());
        Some([
            range(&|sample| sample.rate)?,
            range(&|sample| nanos(sample.cpu))?,
            range(&|sample| sample.memory)?,
        ])
    }
}

/// The median of some numbers, with the least and the largest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Range {
    median: u64,
    min: u64,
    max: u64,
}

impl Range {
    /// Returns `None` if there are no numbers.
    fn of(mut numbers: Vec<u64>) -> Option<Self> {
        numbers.sort_unstable();
        let (min, max) = (*numbers.first()?, *numbers.last()?);
        // Of an even count, halfway between the two in the middle.
        let median = u64::midpoint(numbers[(numbers.len() - 1) / 2], numbers[numbers.len() / 2]);
        Some(Self { median, min, max })
    }

    fn text<T: Display>(self, unit: impl Fn(u64) -> T) -> [String; 2] {
        let Self { median, min, max } = self;
        [unit(median).to_string(), format!("{}..{}", unit(min), unit(max))]
    }
}

impl Comparison {
    /// The failures of servers, in their order.
    pub(super) fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.rows.iter().filter_map(|row| row.failure.as_ref())
    }

    /// Writes the results as text.
    pub(super) fn write(&self, arguments: &CompareArguments, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{HEAD}{}{HEAD:#}\n", headline(arguments))?;
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
        writeln!(
            out,
            "{DIM}{:width$}{:>32}{:>26}{:>30}{DIM:#}",
            "", "messages/s", "CPU per message", "memory"
        )?;
        for row in &self.rows {
            write!(out, "{:width$}", row.name)?;
            if let Some([rate, cpu, memory]) = row.figures() {
                let ([rate, rates], [cpu, cpus]) = (rate.text(Grouped), cpu.text(Span));
                let [memory, memories] = memory.text(Bytes);
                write!(out, "{rate:>13} {DIM}{rates:<18}{DIM:#}")?;
                write!(out, "{cpu:>10} {DIM}{cpus:<15}{DIM:#}")?;
                write!(out, "{memory:>13} {DIM}{memories}{DIM:#}")?;
            }
            match &row.failure {
                Some(_) => writeln!(out, "  {BAD}failed{BAD:#}")?,
                None => writeln!(out)?,
            }
        }
        for warning in self.warnings(arguments) {
            writeln!(out, "\n{WARNING}warning{WARNING:#}: {warning}")?;
        }
        writeln!(out, "\n{}", machine())
    }

    /// Returns the results as one document.
    pub(super) fn document(&self, arguments: &CompareArguments) -> Value {
        let range = |range: Range| json!({ "median": range.median, "min": range.min, "max": range.max });
        let rows = self.rows.iter().map(|row| {
            let [rate, cpu, memory] = match row.figures() {
                Some(figures) => figures.map(range),
                None => [Value::Null, Value::Null, Value::Null],
            };
            json!({
                "name": row.name,
                "command": row.command,
                "messages_per_s": rate,
                "cpu_ns_per_message": cpu,
                "memory_bytes": memory,
                "samples": row.samples.iter().map(document_of_sample).collect::<Vec<_>>(),
                "failure": row.failure.as_ref().map(|failure| &failure.text),
            })
        });
        json!({
            "connections": arguments.connections(),
            "in_flight": arguments.in_flight(),
            "size": arguments.size(),
            "binary": arguments.is_binary(),
            "rounds": arguments.rounds(),
            "duration_s": arguments.duration().as_secs_f64(),
            "machine": machine(),
            "servers": rows.collect::<Vec<_>>(),
            "warnings": self.warnings(arguments),
        })
    }

    /// Warnings about the measurement itself.
    fn warnings(&self, arguments: &CompareArguments) -> Vec<String> {
        let mut warnings = Vec::new();
        let samples = || self.rows.iter().flat_map(|row| &row.samples);
        let busiest = samples().map(|sample| sample.busy).fold(0.0, f64::max);
        if busiest > BUSY {
            warnings.push(format!(
                "this program was busy for up to {:.0} % of the time of its threads, so messages/s may be \
                 its own limit: compare the CPU per message, or use more --threads",
                busiest * 100.0
            ));
        }
        if self.rows.iter().any(|row| row.samples.len() < arguments.rounds()) {
            warnings.push("not all samples were taken".into());
        }
        warnings
    }
}

fn document_of_sample(sample: &Sample) -> Value {
    json!({
        "messages_per_s": sample.rate,
        "cpu_ns_per_message": nanos(sample.cpu),
        "memory_bytes": sample.memory,
        "load_busy": sample.busy,
    })
}

fn headline(arguments: &CompareArguments) -> String {
    format!(
        "echo on {} connections, {} bytes, {} in flight on each, {} rounds of {}",
        Grouped(arguments.connections()),
        arguments.size(),
        arguments.in_flight(),
        arguments.rounds(),
        humantime::format_duration(arguments.duration()),
    )
}

/// The machine and the version of this program.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let processor = processor.map_or("unknown processor", |(_, name)| name);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let version = env!("CARGO_PKG_VERSION");
    format!("{processor}, {count} processors, Linux {}, bowline {version}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Range::of(vec![]), None);
        assert_eq!(Range::of(vec![7]), Some(Range { median: 7, min: 7, max: 7 }));
        assert_eq!(Range::of(vec![9, 1, 4]), Some(Range { median: 4, min: 1, max: 9 }));
        assert_eq!(Range::of(vec![10, 1, 4, 6]), Some(Range { median: 5, min: 1, max: 10 }));
    }
}
