//! The report as text: a line a finding.

use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::Tally;
use crate::check::examiner::Outcome;
use crate::check::finding::{Finding, Verdict};
use crate::check::script::{Case, Level};

const BAD: Style = AnsiColor::Red.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const DIM: Style = Style::new().dimmed();

pub(super) fn listed(case: &Case) -> String {
    format!("{:<44} {:<16} {:<6} {}", case.id, case.section, name_of(case.level), case.title)
}

pub(super) fn case(case: &Case, outcome: &Outcome) -> String {
    let Case { id, section, title, .. } = case;
    match &outcome.verdict {
        Verdict::Passed => format!("{GOOD}ok{GOOD:#}    {id} {DIM}({section}): {title}{DIM:#}"),
        Verdict::Skipped(why) => format!("{DIM}skip  {id} ({section}): {title}: {why}{DIM:#}"),
        Verdict::Failed(Finding { expected, observed }) => format!(
            "{BAD}FAIL{BAD:#}  {id} ({section}, {}): sent: {title}; expected: {expected}; came: {observed}",
            name_of(case.level)
        ),
    }
}

pub(super) fn summary(tally: Tally, took: Duration) -> String {
    let Tally { passed, failed, skipped } = tally;
    let findings = match failed {
        0 => format!("{GOOD}no findings{GOOD:#}"),
        1 => format!("{BAD}1 finding{BAD:#}"),
        count => format!("{BAD}{count} findings{BAD:#}"),
    };
    let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
    let cases = match passed + failed {
        1 => "1 case".to_owned(),
        count => format!("{count} cases"),
    };
    format!("{cases}, {findings}{skipped}, in {:.1} s", took.as_secs_f64())
}

pub(super) fn name_of(level: Level) -> &'static str {
    match level {
        Level::Must => "MUST",
        Level::Should => "SHOULD",
    }
}
