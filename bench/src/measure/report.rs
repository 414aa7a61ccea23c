//! The tables, as text and as Markdown.

use std::fmt::Write;

use super::cases::Group;
use super::libraries;
use super::matrix::{Results, Row};
use super::sample::Figure;

/// A table with its title and note.
pub struct Table {
    pub title: String,
    pub note: String,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Returns the table of one group of cases.
pub fn table(group: Group, results: &[&Results]) -> Table {
    let mut figures: Vec<_> = results.iter().flat_map(|results| results.figures()).collect();
    figures.sort_unstable();
    figures.dedup();
    // The load's own cost matters only if it competes with the server.
    figures.retain(|figure| *figure != Figure::LoadCpu || group == Group::Threads);
    let cost = results.first().map(|results| results.cost());
    let mut header = vec!["case".to_owned(), "library".to_owned()];
    for figure in &figures {
        header.push(title(*figure).to_owned());
        if Some(*figure) == cost {
            header.extend(["x floor", "x best peer", "x best batch"].map(str::to_owned));
            if group.shows_growth() {
                header.push("growth".to_owned());
            }
        }
    }
    let has_parts = results.iter().any(|results| results.rows.iter().any(|row| row.parts.is_some()));
    if has_parts {
        header.push("allocations held, bytes".to_owned());
    }
    let mut rows = Vec::new();
    for one in results {
        for row in &one.rows {
            let mut cells = vec![one.case.name.clone(), row.library.clone()];
            if let Some(failure) = &row.failure {
                cells.push(format!("failed: {failure}"));
                rows.push(cells);
                continue;
            }
            for figure in &figures {
                cells.push(row.value(*figure).map_or_else(|| "-".to_owned(), |value| format(*figure, value)));
                if Some(*figure) == cost {
                    cells.push(comparison(one, row, one.floor()));
                    cells.push(comparison(
                        one,
                        row,
                        one.best_peer(|library| !libraries::is_batched(library)),
                    ));
                    cells.push(comparison(one, row, one.best_peer(libraries::is_batched)));
                    if group.shows_growth() {
                        cells.push(growth(results[0], one, row));
                    }
                }
            }
            if has_parts {
                cells.push(row.parts.clone().unwrap_or_default());
            }
            rows.push(cells);
        }
    }
    Table { title: group.title().to_owned(), note: group.note().to_owned(), header, rows }
}

/// Formats the ratio, its noise and the verdict.
fn comparison(results: &Results, row: &Row, with: Option<&Row>) -> String {
    let Some(with) = with else { return "-".to_owned() };
    if row.library == with.library {
        return if libraries::is_peer(&row.library) { "1 (the best)" } else { "1" }.to_owned();
    }
    let Some(comparison) = results.compare(row, with) else { return "-".to_owned() };
    let verdict = comparison.verdict().unwrap_or_default();
    format!("{:.2} ±{:.2} {verdict}", comparison.ratio, comparison.noise).trim_end().to_owned()
}

fn growth(first: &Results, results: &Results, row: &Row) -> String {
    let before = first.row(&row.library).and_then(|row| row.value(first.cost()));
    match (before, row.value(results.cost())) {
        (Some(before), Some(now)) => format!("{:.2}", now / before),
        _ => "-".to_owned(),
    }
}

fn title(figure: Figure) -> &'static str {
    match figure {
        Figure::Cpu => "CPU ns",
        Figure::Memory => "idle bytes",
        Figure::MemoryAfterEcho => "bytes after an echo",
        Figure::Rate => "messages/s",
        Figure::Median => "p50 µs",
        Figure::Tail => "p99 µs",
        Figure::LoadCpu => "load's CPU ns",
        Figure::PeakMemory => "peak KiB",
        Figure::SystemCalls => "system calls",
        Figure::Allocations => "allocations",
        Figure::Instructions => "instructions",
    }
}

fn format(figure: Figure, value: f64) -> String {
    match figure {
        Figure::Cpu | Figure::LoadCpu if value < 100.0 => format!("{value:.3}"),
        Figure::Instructions if value < 100.0 => format!("{value:.2}"),
        Figure::Median | Figure::Tail => format!("{:.0}", value / 1000.0),
        Figure::PeakMemory => whole(value / 1024.0),
        // Two digits, and no negative zero.
        Figure::SystemCalls | Figure::Allocations => format!("{:.2}", value.max(0.0)),
        _ => whole(value),
    }
}

/// Formats a whole number with thousands separators.
fn whole(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    if value < -0.5 {
        text.push('-');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Table {
    /// Formats the table for a terminal, with aligned columns.
    pub fn to_text(&self) -> String {
        let widths: Vec<usize> = (0..self.header.len())
            .map(|column| {
                let cells = self.rows.iter().filter(|row| row.len() == self.header.len());
                let cells = cells.chain([&self.header]).map(|row| row[column].chars().count());
                cells.max().unwrap_or_default()
            })
            .collect();
        let mut text = format!("{}\n{}\n\n", self.title, self.note);
        let mut last = "";
        for row in [&self.header].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // The name of a case is printed once.
                let cell = if column == 0 && cell == last { "" } else { cell };
                let _ = match column {
                    0 | 1 => write!(line, "{cell:<width$}  "),
                    _ => write!(line, "{cell:>width$}  "),
                };
            }
            last = &row[0];
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    pub fn to_markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.title, self.note);
        let _ = writeln!(text, "| {} |", self.header.join(" | "));
        let alignment = |column: usize| if column < 2 { "---" } else { "---:" };
        let alignments: Vec<_> = (0..self.header.len()).map(alignment).collect();
        let _ = writeln!(text, "| {} |", alignments.join(" | "));
        for row in &self.rows {
            let bold = row[1] == libraries::BOWLINE;
            let mut cells: Vec<_> = row.iter().map(|cell| cell.replace('|', "\\|")).collect();
            if bold {
                cells[1] = format!("**{}**", cells[1]);
            }
            cells.resize(self.header.len(), String::new());
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!(whole(999.4), "999");
        assert_eq!(whole(1_234_567.0), "1,234,567");
        assert_eq!(whole(-1000.0), "-1,000");
    }
}
