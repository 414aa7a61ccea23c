//! Runs all libraries through all cases.

use std::collections::BTreeMap;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::cases::{Case, Workload};
use super::counts::{self, Tools};
use super::libraries;
use super::sample::{self, Figure, Figures};
use crate::statistics::{Comparison, median};

/// The options of a run of the matrix.
#[derive(Clone, Debug)]
pub struct Plan {
    pub rounds: usize,
    /// The duration of each sample, without its warm-up.
    pub seconds: f64,
    /// The tools for counting, if counts are requested.
    pub tools: Option<Tools>,
    pub cores: Vec<usize>,
    /// The only libraries to run; all if empty.
    pub libraries: Vec<String>,
}

impl Plan {
    /// Returns the libraries that take part in a case.
    pub fn libraries(&self, case: &Case) -> Vec<String> {
        let mut libraries = libraries::of(case);
        libraries.retain(|library| self.libraries.is_empty() || self.libraries.contains(library));
        libraries
    }
}

/// The results of one case.
pub struct Results {
    pub case: Case,
    pub rows: Vec<Row>,
}

/// The results of one library in one case.
pub struct Row {
    pub library: String,
    /// The figures of each round, until a failure.
    samples: Vec<Figures>,
    counts: Figures,
    pub failure: Option<String>,
    /// The sizes of the allocations that an idle connection holds.
    pub parts: Option<String>,
}

/// Runs one case. The libraries take turns within each round, and each round begins with another library.
pub fn run(case: &Case, plan: &Plan, progress: &ProgressBar) -> Results {
    let libraries = plan.libraries(case);
    let mut rows: Vec<_> = libraries
        .into_iter()
        .map(|library| Row {
            library,
            samples: Vec::new(),
            counts: Figures::default(),
            failure: None,
            parts: None,
        })
        .collect();
    let count = rows.len();
    for round in 0..rounds(case, plan) {
        for turn in 0..count {
            let row = &mut rows[(round + turn) % count];
            progress.set_message(format!("{}: {}", case.name, row.library));
            if row.failure.is_none() {
                match sample::take(case, &row.library, plan.seconds, &plan.cores) {
                    Ok(figures) => row.samples.push(figures),
                    Err(error) => row.failure = Some(format!("{error:#}")),
                }
            }
            progress.inc(1);
        }
    }
    if let Some(tools) = plan.tools {
        for row in rows.iter_mut().filter(|row| row.failure.is_none()) {
            progress.set_message(format!("{}: {}, counting", case.name, row.library));
            match counts::take(case, &row.library, &plan.cores, tools) {
                Ok((figures, parts)) => (row.counts, row.parts) = (figures, parts),
                Err(error) => {
                    progress.suspend(|| eprintln!("{}: {}: counting: {error:#}", case.name, row.library));
                }
            }
        }
    }
    Results { case: case.clone(), rows }
}

/// Returns the number of samples of each library.
///
/// Memory hardly varies, and opening 10,000 connections takes long.
pub fn rounds(case: &Case, plan: &Plan) -> usize {
    match case.workload {
        Workload::Idle { .. } => plan.rounds.min(3),
        _ => plan.rounds,
    }
}

/// Returns a progress bar for this many samples.
pub fn progress(samples: usize) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} left  {msg}")?;
    Ok(ProgressBar::new(samples as u64).with_style(style))
}

impl Row {
    /// Returns the median of the samples, or the count.
    pub fn value(&self, figure: Figure) -> Option<f64> {
        if let Some(count) = self.counts.0.get(&figure) {
            return Some(*count);
        }
        let values: Vec<f64> =
            self.samples.iter().filter_map(|sample| sample.0.get(&figure).copied()).collect();
        (!values.is_empty()).then(|| median(&values))
    }

    fn compared_with(&self, other: &Self, figure: Figure) -> Option<Comparison> {
        let values = |row: &Self| -> Vec<f64> {
            row.samples.iter().filter_map(|sample| sample.0.get(&figure).copied()).collect()
        };
        let pairs: Vec<_> = values(self).into_iter().zip(values(other)).collect();
        (!pairs.is_empty()).then(|| Comparison::new(&pairs))
    }
}

impl Results {
    /// Returns the figure that decides the comparison of libraries.
    pub fn cost(&self) -> Figure {
        match self.case.workload {
            Workload::Idle { .. } => Figure::Memory,
            _ => Figure::Cpu,
        }
    }

    /// Returns the cheapest of the peers that `wanted` accepts.
    pub fn best_peer(&self, wanted: impl Fn(&str) -> bool) -> Option<&Row> {
        self.rows
            .iter()
            .filter(|row| libraries::is_peer(&row.library) && wanted(&row.library))
            .filter_map(|row| Some((row.value(self.cost())?, row)))
            .min_by(|(left, _), (right, _)| left.total_cmp(right))
            .map(|(_, row)| row)
    }

    pub fn row(&self, library: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.library == library)
    }

    /// Returns the floor's row.
    pub fn floor(&self) -> Option<&Row> {
        self.row(libraries::FLOOR)
    }

    /// Compares two rows by the case's cost.
    pub fn compare(&self, row: &Row, with: &Row) -> Option<Comparison> {
        row.compared_with(with, self.cost())
    }

    /// Returns all figures that at least one row has.
    pub fn figures(&self) -> Vec<Figure> {
        let mut figures = BTreeMap::new();
        for row in &self.rows {
            for sample in row.samples.iter().chain([&row.counts]) {
                figures.extend(sample.0.keys().map(|figure| (*figure, ())));
            }
        }
        figures.into_keys().collect()
    }
}
