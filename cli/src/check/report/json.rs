//! The report as JSON lines: an object a case, and one for the sum.

use std::time::Duration;

use serde_json::{Value, json};

use super::Tally;
use super::text::name_of;
use crate::check::examiner::Outcome;
use crate::check::finding::Verdict;
use crate::check::script::Case;

pub(super) fn listed(case: &Case) -> String {
    described(case).to_string()
}

pub(super) fn case(case: &Case, outcome: &Outcome, bytes: &[String]) -> String {
    let mut value = described(case);
    match &outcome.verdict {
        Verdict::Passed => value["verdict"] = "passed".into(),
        Verdict::Skipped(why) => {
            value["verdict"] = "skipped".into();
            value["reason"] = why.as_str().into();
        }
        Verdict::Failed(finding) => {
            value["verdict"] = "failed".into();
            value["expected"] = finding.expected.as_str().into();
            value["observed"] = finding.observed.as_str().into();
        }
    }
    value["seconds"] = outcome.duration.as_secs_f64().into();
    if !bytes.is_empty() {
        value["transcript"] = bytes.into();
    }
    value.to_string()
}

pub(super) fn summary(tally: Tally, took: Duration) -> String {
    let Tally { passed, failed, skipped } = tally;
    let seconds = took.as_secs_f64();
    json!({ "summary": { "passed": passed, "failed": failed, "skipped": skipped, "seconds": seconds } })
        .to_string()
}

fn described(case: &Case) -> Value {
    json!({ "id": case.id, "section": case.section, "level": name_of(case.level), "title": case.title })
}
