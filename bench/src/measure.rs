//! The whole measurement: parses the options, runs the cases, prints and writes the results.

mod cases;
mod chart;
mod counts;
mod libraries;
mod matrix;
mod report;
mod sample;
mod versions;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::statistics::ROUNDS_FOR_VERDICT;
use cases::{Case, Group};
use counts::Tools;
use matrix::{Plan, Results};
use report::Table;

#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Run only this case, or all cases whose names contain this; may be given several times
    #[arg(long, value_name = "NAME")]
    case: Vec<String>,
    /// Run only this library; may be given several times
    #[arg(long, value_name = "NAME")]
    library: Vec<String>,
    /// Samples of each library in each case; fewer than 9 make no verdict
    #[arg(long, default_value_t = ROUNDS_FOR_VERDICT)]
    rounds: usize,
    /// The duration of a sample
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Count no system calls, allocations and instructions
    #[arg(long)]
    no_counts: bool,
    /// Count no instructions, which takes the longest
    #[arg(long)]
    no_instructions: bool,
    /// The file for the tables [default: bench/results.md if all cases and libraries run, none otherwise]
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// The file for the chart [default: bench/results.svg if all cases and libraries run, none otherwise]
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
    /// List the cases and the libraries that take part in them
    #[arg(long)]
    list: bool,
}

impl Options {
    /// Returns the path of a result, if the result is to be written.
    fn path(&self, chosen: &Option<PathBuf>, name: &str) -> Option<PathBuf> {
        let whole = self.case.is_empty() && self.library.is_empty();
        chosen.clone().or_else(|| whole.then(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)))
    }
}

pub fn run(options: &Options) -> Result<()> {
    let cases = cases::select(&options.case)?;
    let installed = Tools::installed();
    let plan = Plan {
        rounds: options.rounds,
        seconds: options.seconds,
        tools: (!options.no_counts)
            .then_some(Tools { valgrind: installed.valgrind && !options.no_instructions, ..installed }),
        cores: process::cores(),
        libraries: options.library.clone(),
    };
    if options.list {
        for case in &cases {
            println!("{:<30}{}", case.name, plan.libraries(case).join(" "));
        }
        return Ok(());
    }
    check(&plan, &cases)?;
    let markdown = options.path(&options.markdown, "results.md");
    let about = about(&plan, installed);
    println!("{about}");
    let mut tables = Vec::new();
    let mut all = Vec::new();
    let samples = cases.iter().map(|case| plan.libraries(case).len() * matrix::rounds(case, &plan)).sum();
    let progress = matrix::progress(samples)?;
    for group in groups(&cases) {
        let of_group = cases.iter().filter(|case| case.group == group);
        let results: Vec<_> = of_group.map(|case| matrix::run(case, &plan, &progress)).collect();
        let table = report::table(group, &results.iter().collect::<Vec<_>>());
        progress.suspend(|| println!("{}", table.to_text()));
        tables.push(table);
        all.extend(results);
        // Results are written after each group, so that an interrupted run leaves results.
        if let Some(path) = &markdown {
            write(path, &document(&about, &tables, &cases))?;
        }
    }
    progress.finish_and_clear();
    chart(options, &all)
}

fn chart(options: &Options, results: &[Results]) -> Result<()> {
    let Some(path) = options.path(&options.chart, "results.svg") else { return Ok(()) };
    let Some(chart) = chart::draw(results) else {
        eprintln!("Not all of the cases of the chart were run: there is none.");
        return Ok(());
    };
    write(&path, &chart)
}

fn check(plan: &Plan, cases: &[Case]) -> Result<()> {
    ensure!(plan.rounds > 0 && plan.seconds > 0.0, "rounds and seconds have to be more than 0");
    for library in &plan.libraries {
        ensure!(
            cases::all().iter().any(|case| libraries::of(case).contains(library)),
            "there is no library {library:?}: see --list"
        );
    }
    let files = cases.iter().map(|case| case.workload.files()).max().unwrap_or_default();
    process::allow_files(files)
}

fn groups(cases: &[Case]) -> Vec<Group> {
    let mut groups: Vec<_> = cases.iter().map(|case| case.group).collect();
    groups.dedup();
    groups
}

/// Describes the machine and the tools.
fn about(plan: &Plan, installed: Tools) -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(": ")?.1.to_owned())
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = format!(
        "{}, {} cores, Linux {}. {} rounds, {} s a sample.",
        processor.unwrap_or_else(|| "An unknown processor".to_owned()),
        plan.cores.len(),
        kernel.trim(),
        plan.rounds,
        plan.seconds,
    );
    text.push('\n');
    text.push_str(&versions::all());
    if plan.cores.len() < 2 {
        text.push_str(" The load has no core of its own: these figures are no good.");
    }
    if plan.rounds < ROUNDS_FOR_VERDICT {
        text.push_str(" Too few rounds for verdicts.");
    }
    for (exists, name) in [(installed.strace, "strace"), (installed.valgrind, "valgrind")] {
        if !exists && plan.tools.is_some() {
            text.push_str(&format!(" There is no {name} here."));
        }
    }
    text
}

fn document(about: &str, tables: &[Table], cases: &[Case]) -> String {
    let mut text = format!(
        "# Results\n\n{about}\n[README.md](README.md) says how to read them, and each row has [its \
         command](#commands).\n"
    );
    for table in tables {
        text.push('\n');
        text.push_str(&table.to_markdown());
    }
    text.push_str(
        "\n## Commands\n\nEach command measures the rows of a case again. `--library NAME`, which can be \
         repeated, selects rows.\n\n```sh\n",
    );
    for case in cases {
        text.push_str(&case.command());
        text.push('\n');
    }
    text.push_str("```\n");
    text
}

fn write(path: &PathBuf, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}
