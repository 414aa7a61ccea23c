//! The report as text.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::{QUANTILES, Report};
use crate::bench::plan::Mode;
use crate::bench::units::{Bytes, Grouped, Span, per_second};

const HEAD: Style = Style::new().bold();
const BAD: Style = AnsiColor::Red.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default();
const DIM: Style = Style::new().dimmed();

/// Writes the report as text.
pub(crate) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{HEAD}{}{HEAD:#}", report.plan.target.url())?;
    writeln!(out, "{}, for {}\n", report.plan, report.duration())?;
    write_table(report, out)?;
    write_counts(report, out)?;
    for (kind, count) in &report.tally.errors {
        writeln!(out, "  {BAD}{:>9}{BAD:#}  {kind}", Grouped(*count))?;
    }
    for warning in report.warnings() {
        writeln!(out, "\n{WARNING}warning{WARNING:#}: {warning}")?;
    }
    Ok(())
}

fn write_table(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let rows = report.rows();
    if rows.is_empty() {
        return Ok(());
    }
    write!(out, "{DIM}{:<10}{:>10}", "", "count")?;
    for (name, _) in QUANTILES {
        write!(out, "{name:>9}")?;
    }
    writeln!(out, "{:>9}{DIM:#}", "max")?;
    for (name, times) in rows {
        write!(out, "{name:<10}{:>10}", Grouped(times.count()))?;
        for (_, share) in QUANTILES {
            write!(out, "{:>9}", Span(times.quantile(share)))?;
        }
        writeln!(out, "{:>9}", Span(times.max()))?;
    }
    writeln!(out)
}

fn write_counts(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let tally = &report.tally;
    let (sent, received) = (Grouped(tally.sent.messages), Grouped(tally.received.messages));
    let rate = Grouped(report.rate());
    match report.plan.mode {
        Mode::Idle => {
            writeln!(out, "opened    {}", Grouped(report.opened))?;
            writeln!(out, "received  {received}, {rate}/s")?;
        }
        Mode::Connect => writeln!(out, "opened    {received} of {sent}, {rate}/s")?,
        Mode::Echo | Mode::Broadcast => {
            let bytes = Bytes(per_second(tally.received.bytes, report.busy()));
            writeln!(out, "sent      {sent}")?;
            writeln!(out, "received  {received}, {rate}/s, {bytes}/s")?;
        }
    }
    if tally.ignored > 0 {
        writeln!(out, "ignored   {}, which --match does not match", Grouped(tally.ignored))?;
    }
    let used = report.utilization() * 100.0;
    writeln!(out, "program   {}, {used:.0} % busy", report.threads())?;
    let errors = Grouped(tally.error_count());
    match tally.error_count() {
        0 => writeln!(out, "errors    0"),
        _ => writeln!(out, "errors    {BAD}{errors}{BAD:#}"),
    }
}
