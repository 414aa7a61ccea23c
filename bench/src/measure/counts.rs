//! Counts that don't depend on the machine: system calls, allocations, instructions. Separate runs take these
//! counts, since counting takes time.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::cases::{Case, Messages, Workload};
use super::sample::{Figure, Figures, Manner, Pair};

/// The available tools for counting.
#[derive(Clone, Copy, Debug)]
pub struct Tools {
    pub strace: bool,
    pub valgrind: bool,
}

impl Tools {
    /// Detects the installed tools.
    pub fn installed() -> Self {
        Self { strace: exists("strace"), valgrind: exists("valgrind") }
    }
}

fn exists(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Returns the counts of one library per message, or per unit of the case. Counts whose tool is missing are
/// left out.
///
/// For an idle connection, returns the sizes of its allocations.
pub fn take(case: &Case, library: &str, cores: &[usize], tools: Tools) -> Result<(Figures, Option<String>)> {
    if let Workload::Idle { connections, .. } = case.workload {
        let manner = Manner { count_allocations: true, ..Manner::default() };
        let mut pair = Pair::start(case.workload, library, cores, &manner)?;
        pair.load.ask("open")?;
        return Ok((Figures::default(), Some(pair.measured.ask(&format!("parts {connections}"))?)));
    }
    let workload = small(case.workload);
    let units = case.units_per_message() as f64;
    let mut figures = BTreeMap::new();
    let rounds = rounds(workload);
    let mut add = |figure, count: f64| figures.insert(figure, count / units);
    add(Figure::Allocations, allocations(workload, library, cores, rounds)?);
    if tools.strace {
        let count = difference(rounds, |rounds| system_calls(workload, library, cores, rounds));
        add(Figure::SystemCalls, count.context("strace")?);
    }
    if tools.valgrind {
        let count = difference(rounds, |rounds| instructions(workload, library, cores, rounds));
        add(Figure::Instructions, count.context("valgrind")?);
    }
    Ok((Figures(figures), None))
}

/// Returns the workload with fewer connections, since the tools are slow.
fn small(workload: Workload) -> Workload {
    match workload {
        Workload::Echo(messages) => {
            Workload::Echo(Messages { connections: messages.connections.min(500), ..messages })
        }
        Workload::Broadcast { connections, size, behavior, threads } => {
            Workload::Broadcast { connections: connections.min(500), size, behavior, threads }
        }
        other => other,
    }
}

/// Returns the number of rounds. It balances the weight of startup and handshakes against the time that slow
/// tools take.
fn rounds(workload: Workload) -> usize {
    match workload {
        Workload::Echo(messages)
        | Workload::Client(messages)
        | Workload::Stream(messages)
        | Workload::Json(messages) => {
            let bytes = messages.connections * messages.depth * messages.size;
            (64 * 1024 * 1024 / bytes).clamp(2, 60)
        }
        Workload::Handshakes => 20,
        Workload::Idle { .. } => 0,
        Workload::Broadcast { .. } => 4,
    }
}

/// Returns the count per message, as the difference of a short and a long run.
fn difference(rounds: usize, count: impl Fn(usize) -> Result<(f64, f64)>) -> Result<f64> {
    let (few_messages, few) = count(rounds)?;
    let (many_messages, many) = count(3 * rounds)?;
    Ok((many - few) / (many_messages - few_messages))
}

fn allocations(workload: Workload, library: &str, cores: &[usize], rounds: usize) -> Result<f64> {
    let manner = Manner { count_allocations: true, ..Manner::default() };
    let mut pair = Pair::start(workload, library, cores, &manner)?;
    pair.run(&format!("rounds {rounds}"))?;
    let before: f64 = pair.measured.ask("allocations")?.parse()?;
    let run = pair.run(&format!("rounds {}", 3 * rounds))?;
    let after: f64 = pair.measured.ask("allocations")?.parse()?;
    Ok((after - before) / run.messages)
}

fn system_calls(workload: Workload, library: &str, cores: &[usize], rounds: usize) -> Result<(f64, f64)> {
    let output = Output::new("strace");
    let under = ["strace", "-f", "-c", "-o", &output.path()].map(str::to_owned).to_vec();
    let messages = run_under(under, workload, library, cores, rounds)?;
    let text = output.read()?;
    let total = text.lines().rev().find(|line| line.trim_end().ends_with(" total"));
    // The columns are: % time, seconds, microseconds per call, calls, possibly errors, name.
    let calls = total.and_then(|line| line.split_whitespace().nth(3)).context("strace printed no total")?;
    Ok((messages, calls.parse()?))
}

fn instructions(workload: Workload, library: &str, cores: &[usize], rounds: usize) -> Result<(f64, f64)> {
    let output = Output::new("callgrind");
    let log = format!("--log-file={}", output.path());
    let under = [
        "env",
        // The C library copies large blocks with one repeating instruction, and valgrind counts every
        // repetition.
        "GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1073741824:\
         glibc.cpu.x86_rep_stosb_threshold=1073741824",
        "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        &log,
    ];
    let messages = run_under(under.map(str::to_owned).to_vec(), workload, library, cores, rounds)?;
    let text = output.read()?;
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    let (_, count) = collected.context("valgrind printed no count")?;
    Ok((messages, count.trim().parse()?))
}

/// Runs a workload under a tool, and returns the number of messages.
fn run_under(
    under: Vec<String>,
    workload: Workload,
    library: &str,
    cores: &[usize],
    rounds: usize,
) -> Result<f64> {
    let mut pair = Pair::start(workload, library, cores, &Manner { under, count_allocations: false })?;
    let run = pair.run(&format!("rounds {rounds}"))?;
    pair.end()?;
    Ok(run.messages)
}

/// A temporary file for the output of a tool, removed on drop.
struct Output(PathBuf);

impl Output {
    fn new(tool: &str) -> Self {
        Self(std::env::temp_dir().join(format!("bowline-bench-{}-{tool}", std::process::id())))
    }

    fn path(&self) -> String {
        self.0.display().to_string()
    }

    fn read(&self) -> Result<String> {
        fs::read_to_string(&self.0).with_context(|| format!("could not read {}", self.0.display()))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
