//! The results: text or JSON lines on stdout, and JUnit XML in a file.

mod json;
mod junit;
mod text;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{ArgAction, Args};

use super::examiner::Outcome;
use super::finding::Verdict;
use super::script::Case;
use crate::escape;

/// The options of the output.
#[derive(Args, Debug)]
pub(super) struct OutputArguments {
    /// Show every case, and the bytes of findings; twice: the bytes of all cases
    #[arg(short, long, action = ArgAction::Count, help_heading = "Output")]
    verbose: u8,
    /// One JSON object a line
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// Write a report as JUnit XML, too
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    junit: Option<PathBuf>,
}

/// The results so far.
pub(super) struct Report {
    format: Format,
    detail: Detail,
    junit: Option<PathBuf>,
    began: Instant,
    tally: Tally,
    /// The elements of the JUnit report.
    elements: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    Text,
    Json,
}

/// The details that are shown beside the findings.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Detail {
    Findings,
    /// Every case, and the bytes of findings.
    Cases,
    /// The bytes of every case.
    Bytes,
}

/// The number of cases by verdict.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Report {
    pub(super) fn new(arguments: &OutputArguments) -> Self {
        let format = if arguments.json { Format::Json } else { Format::Text };
        let detail = match arguments.verbose {
            0 => Detail::Findings,
            1 => Detail::Cases,
            _ => Detail::Bytes,
        };
        let (junit, elements) = (arguments.junit.clone(), Vec::new());
        Self { format, detail, junit, began: Instant::now(), tally: Tally::default(), elements }
    }

    /// Lists cases.
    pub(super) fn list(&self, cases: &[Case]) -> Result<(), ReportError> {
        let lines = cases.iter().map(|case| match self.format {
            Format::Text => text::listed(case),
            Format::Json => json::listed(case),
        });
        lines.into_iter().try_for_each(|line| print(&line))
    }

    /// Adds a case.
    pub(super) fn add(&mut self, case: &Case, outcome: &Outcome) -> Result<(), ReportError> {
        match outcome.verdict {
            Verdict::Passed => self.tally.passed += 1,
            Verdict::Failed(_) => self.tally.failed += 1,
            Verdict::Skipped(_) => self.tally.skipped += 1,
        }
        if self.junit.is_some() {
            self.elements.push(junit::element(case, outcome));
        }
        let is_finding = matches!(outcome.verdict, Verdict::Failed(_));
        let with_bytes = self.detail == Detail::Bytes || (is_finding && self.detail >= Detail::Cases);
        let bytes = if with_bytes { outcome.transcript.lines() } else { Vec::new() };
        match self.format {
            Format::Json => print(&json::case(case, outcome, &bytes)),
            Format::Text if is_finding || self.detail >= Detail::Cases => {
                print(&text::case(case, outcome))?;
                bytes.into_iter().try_for_each(|line| print(&format!("    {line}")))
            }
            Format::Text => Ok(()),
        }
    }

    /// Prints the summary, and writes the files. Returns the number of findings.
    pub(super) fn finish(&self) -> Result<usize, ReportError> {
        let took = self.began.elapsed();
        let summary = match self.format {
            Format::Text => text::summary(self.tally, took),
            Format::Json => json::summary(self.tally, took),
        };
        print(&summary)?;
        if let Some(file) = &self.junit {
            self.write_junit(file, took).map_err(|error| ReportError::Junit(file.clone(), error))?;
        }
        Ok(self.tally.failed)
    }

    fn write_junit(&self, file: &Path, took: Duration) -> io::Result<()> {
        std::fs::write(file, junit::document(&self.elements, self.tally, took))
    }
}

/// A report that was not written.
#[derive(Debug)]
pub(super) enum ReportError {
    Stdout(io::Error),
    Junit(PathBuf, io::Error),
}

impl std::fmt::Display for ReportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout(error) => write!(f, "writing the report failed: {error}"),
            Self::Junit(file, error) => write!(f, "--junit {}: {error}", file.display()),
        }
    }
}

/// Prints a line, in colours on terminals alone.
fn print(line: &str) -> Result<(), ReportError> {
    let mut stdout = anstream::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(ReportError::Stdout)
}

/// Prints a text on stderr, some of which may be the server's. A closed stderr is no reason to end.
pub(super) fn complain(text: &str) {
    let _ = writeln!(anstream::stderr(), "bowline: {}", escape::text(text));
}
