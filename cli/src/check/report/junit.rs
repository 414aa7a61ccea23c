//! The report as JUnit XML, for CI.

use std::fmt::Write as _;
use std::time::Duration;

use super::Tally;
use crate::check::examiner::Outcome;
use crate::check::finding::Verdict;
use crate::check::script::Case;

/// The element of a case.
pub(super) fn element(case: &Case, outcome: &Outcome) -> String {
    let chapter = case.id.split('.').next().unwrap_or_default();
    let mut xml = format!(
        "  <testcase classname=\"bowline.{}\" name=\"{} ({}): {}\" time=\"{:.3}\"",
        escaped(chapter),
        escaped(&case.id),
        escaped(case.section),
        escaped(&case.title),
        outcome.duration.as_secs_f64()
    );
    let _ = match &outcome.verdict {
        Verdict::Passed => write!(xml, "/>"),
        Verdict::Skipped(why) => write!(xml, "><skipped message=\"{}\"/></testcase>", escaped(why)),
        Verdict::Failed(finding) => write!(
            xml,
            "><failure message=\"expected: {}; came: {}\">{}</failure></testcase>",
            escaped(&finding.expected),
            escaped(&finding.observed),
            escaped(&outcome.transcript.lines().join("\n"))
        ),
    };
    xml
}

pub(super) fn document(elements: &[String], tally: Tally, took: Duration) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        xml,
        "<testsuite name=\"bowline check\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
        elements.len(),
        tally.failed,
        tally.skipped,
        took.as_secs_f64()
    );
    for element in elements {
        xml.push_str(element);
        xml.push('\n');
    }
    xml.push_str("</testsuite>\n");
    xml
}

/// The text as an attribute or element has it. Characters that XML has no way to write become U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(char),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(char),
        }
    }
    out
}
