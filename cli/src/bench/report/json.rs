//! The report as JSON.

use serde_json::{Map, Value, json};

use super::{QUANTILES, Report};
use crate::bench::plan::{Mode, Pace};
use crate::bench::report::condition::Condition;
use crate::bench::tally::{Tally, Times};
use crate::bench::units::nanos;

/// Returns the report as one document. Times are in milliseconds, unless their name says otherwise.
pub(crate) fn document(report: &Report, conditions: &[Condition]) -> Value {
    let Report { plan, tally, .. } = report;
    json!({
        "url": plan.target.url().to_string(),
        "mode": mode_name(plan.mode),
        "pace": pace(plan.pace),
        "connections": { "asked": plan.connections, "opened": report.opened },
        "duration_s": seconds(report.elapsed),
        "messages": {
            "size": plan.message_size(),
            "sent": tally.sent.messages,
            "received": tally.received.messages,
            "ignored": tally.ignored,
            "bytes_sent": tally.sent.bytes,
            "bytes_received": tally.received.bytes,
            "rate": report.rate(),
        },
        "latency": times(&tally.latency),
        "connect": times(&tally.openings.total),
        "tcp": times(&tally.openings.tcp),
        "tls": times(&tally.openings.tls),
        "upgrade": times(&tally.openings.upgrade),
        "own_lag": times(&tally.lag),
        "errors": { "count": tally.error_count(), "kinds": tally.errors },
        "timeline": timeline(tally),
        "program": {
            "threads": plan.threads,
            "cpu_s": seconds(nanos(report.cpu_time)),
            "busy": report.utilization(),
        },
        "interrupted": report.is_interrupted,
        "warnings": report.warnings(),
        "failures": conditions.iter().filter_map(|condition| condition.failure(report)).collect::<Vec<_>>(),
    })
}

/// The latencies of the messages that were due in each slice of the run.
fn timeline(tally: &Tally) -> Vec<Value> {
    let slices = tally.slices().map(|(start, slice)| {
        json!({
            "at_s": start,
            "count": slice.count(),
            "p50": milliseconds(slice.quantile(0.5)),
            "p99": milliseconds(slice.quantile(0.99)),
            "max": milliseconds(slice.quantile(1.0)),
        })
    });
    slices.collect()
}

/// The name of a mode, as the user wrote it.
fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Echo => "echo",
        Mode::Broadcast => "broadcast",
        Mode::Connect => "connect",
        Mode::Idle => "idle",
    }
}

fn pace(pace: Pace) -> Value {
    match pace {
        Pace::Open(schedule) => json!({ "model": "open", "rate": schedule.rate.due_before(1_000_000_000) }),
        Pace::Closed { in_flight } => json!({ "model": "closed", "in_flight": in_flight }),
    }
}

fn times(times: &Times) -> Value {
    let mut map = Map::new();
    map.insert("count".into(), times.count().into());
    if times.count() > 0 {
        map.insert("min".into(), milliseconds(times.min()).into());
        map.insert("mean".into(), (times.mean() / 1e6).into());
        for (name, share) in QUANTILES {
            map.insert(name.into(), milliseconds(times.quantile(share)).into());
        }
        map.insert("max".into(), milliseconds(times.max()).into());
    }
    map.into()
}

#[expect(clippy::cast_precision_loss, reason = "a time of 100 days is exact to a nanosecond")]
fn milliseconds(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "a time of 100 days is exact to a nanosecond")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
