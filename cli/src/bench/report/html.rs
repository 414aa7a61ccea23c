//! The report as a page: one file, which loads nothing.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::svg::{Chart, Line};
use super::{QUANTILES, Report};
use crate::bench::plan::Mode;
use crate::bench::report::condition::Condition;
use crate::bench::tally::Tally;
use crate::bench::units::{Bytes, Grouped, Span, per_second, ratio};

const STYLE: &str = include_str!("page.css");

/// The points of the curve of percentiles.
const CURVE: u32 = 300;

/// Writes the report as a page.
pub(crate) fn write_page(report: &Report, conditions: &[Condition], out: &mut dyn Write) -> io::Result<()> {
    let url = escaped(&report.plan.target.url().to_string());
    writeln!(out, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">")?;
    writeln!(out, "<meta name=\"viewport\" content=\"width=device-width\">")?;
    writeln!(out, "<title>bowline bench {url}</title>\n<style>\n{STYLE}</style>")?;
    writeln!(out, "<main>\n<h1>{url}</h1>")?;
    writeln!(out, "<p class=\"plan\">{}, for {}</p>", report.plan, report.duration())?;
    write_notes(report, conditions, out)?;
    write_tiles(report, out)?;
    if report.tally.latency.count() > 0 {
        writeln!(out, "<h2>Latency over time</h2>\n{}{}", over_time(&report.tally), legend())?;
        writeln!(out, "<h2>Latency by percentile</h2>\n{}", by_percentile(&report.tally))?;
    }
    write_table(report, out)?;
    write_errors(report, out)?;
    writeln!(out, "<footer>bowline {}</footer>\n</main>\n</html>", env!("CARGO_PKG_VERSION"))
}

fn write_notes(report: &Report, conditions: &[Condition], out: &mut dyn Write) -> io::Result<()> {
    for failure in conditions.iter().filter_map(|condition| condition.failure(report)) {
        writeln!(out, "<p class=\"note bad\">{}</p>", escaped(&failure))?;
    }
    for warning in report.warnings() {
        writeln!(out, "<p class=\"note\">{}</p>", escaped(&warning))?;
    }
    Ok(())
}

fn write_tiles(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let tally = &report.tally;
    let mut tiles = Vec::new();
    if tally.latency.count() > 0 {
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            tiles.push((name, Span(tally.latency.quantile(share)).to_string()));
        }
        tiles.push(("max", Span(tally.latency.max()).to_string()));
        let name = if report.plan.mode == Mode::Connect { "opened/s" } else { "replies/s" };
        tiles.push((name, Grouped(report.rate()).to_string()));
    }
    if tally.received.bytes > 0 {
        tiles.push(("received/s", Bytes(per_second(tally.received.bytes, report.busy())).to_string()));
    }
    tiles.push(("errors", Grouped(tally.error_count()).to_string()));
    writeln!(out, "<dl class=\"tiles\">")?;
    for (name, value) in tiles {
        let class = if name == "errors" && tally.error_count() > 0 { " class=\"bad\"" } else { "" };
        writeln!(out, "<div{class}><dt>{name}</dt><dd>{value}</dd></div>")?;
    }
    writeln!(out, "</dl>")
}

/// The diagram of the latencies of the messages that were due at each time.
fn over_time(tally: &Tally) -> Chart {
    let full: Vec<_> = tally.slices().filter(|(_, slice)| slice.count() > 0).collect();
    let end = tally.slices().last().map_or(1.0, |(start, _)| start) + tally.slice_seconds();
    let middle = tally.slice_seconds() / 2.0;
    let line = |name, share| {
        let points = full.iter().map(|(start, slice)| (start + middle, slice.quantile(share))).collect();
        Line { name, points }
    };
    Chart {
        x_label: "latency over time",
        x_range: (0.0, end),
        x_ticks: time_ticks(end),
        lines: vec![line("max", 1.0), line("p99", 0.99), line("p50", 0.5)],
    }
}

/// At most ten times of a run of so many seconds, at a distance of 1, 2 or 5 in some unit.
fn time_ticks(end: f64) -> Vec<(f64, String)> {
    let distances = (-2..7).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
    let distance = distances.into_iter().find(|distance| end / distance <= 10.0).unwrap_or(end);
    let times = (0..=10_u32).map(|tick| f64::from(tick) * distance).take_while(|&time| time <= end);
    times.map(|time| (time, seconds(time))).collect()
}

fn seconds(time: f64) -> String {
    let text = format!("{time:.2}");
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

fn legend() -> &'static str {
    "<p class=\"legend\"><span class=\"p50\">p50</span><span class=\"p99\">p99</span><span \
     class=\"max\">max</span></p>\n"
}

/// The diagram of the latency within which each share of the messages is. Each step to the right of the same
/// length leaves out a tenth of the messages that were left.
fn by_percentile(tally: &Tally) -> Chart {
    let nines = ratio(tally.latency.count(), 1).log10().max(1.0);
    let points = (0..=CURVE).map(|step| {
        let at = nines * f64::from(step) / f64::from(CURVE);
        (at, tally.latency.quantile(1.0 - 10_f64.powf(-at)))
    });
    let mut ticks = vec![(0.0, "0 %".to_owned()), (0.5_f64.log10().abs(), "50 %".to_owned())];
    for nine in 1..=9_u8 {
        if f64::from(nine) <= nines {
            let digits = usize::from(nine.saturating_sub(2));
            ticks.push((f64::from(nine), format!("{:.digits$} %", 100.0 - 10_f64.powi(2 - i32::from(nine)))));
        }
    }
    Chart {
        x_label: "latency by percentile",
        x_range: (0.0, nines),
        x_ticks: ticks,
        lines: vec![Line { name: "p99", points: points.collect() }],
    }
}

fn write_table(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let rows = report.rows();
    if rows.is_empty() {
        return Ok(());
    }
    let mut head = String::from("<th></th><th>count</th>");
    for (name, _) in QUANTILES {
        let _ = write!(head, "<th>{name}</th>");
    }
    writeln!(out, "<h2>Distributions</h2>\n<table>\n<tr>{head}<th>max</th></tr>")?;
    for (name, times) in rows {
        write!(out, "<tr><th>{}</th><td>{}</td>", name.trim(), Grouped(times.count()))?;
        for (_, share) in QUANTILES {
            write!(out, "<td>{}</td>", Span(times.quantile(share)))?;
        }
        writeln!(out, "<td>{}</td></tr>", Span(times.max()))?;
    }
    writeln!(out, "</table>")?;
    writeln!(out, "<p class=\"plan\">The own lag is the lateness of the measuring program itself.</p>")
}

fn write_errors(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    if report.tally.errors.is_empty() {
        return Ok(());
    }
    writeln!(out, "<h2>Errors</h2>\n<table>")?;
    for (kind, count) in &report.tally.errors {
        writeln!(out, "<tr><th>{}</th><td>{}</td></tr>", escaped(kind), Grouped(*count))?;
    }
    writeln!(out, "</table>")
}

/// Escapes text, some of which is the server's.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
