//! The status line on a terminal.

use std::io::{IsTerminal, Write as _, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::interval;

use crate::bench::load::progress::{Progress, Snapshot};
use crate::bench::plan::{Mode, Plan};
use crate::bench::units::{Grouped, Span, per_second};

const INTERVAL: Duration = Duration::from_secs(1);

/// The line on stderr that shows how the run is going, if that is a terminal.
pub(crate) struct StatusLine(Option<JoinHandle<()>>);

impl StatusLine {
    /// Shows the line until it is removed.
    pub(crate) fn show(plan: &Arc<Plan>, threads: &[Arc<Progress>]) -> Self {
        if !stderr().is_terminal() {
            return Self(None);
        }
        Self(Some(tokio::spawn(refresh(Arc::clone(plan), threads.to_vec()))))
    }

    pub(crate) fn remove(self) {
        if let Some(task) = self.0 {
            task.abort();
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

async fn refresh(plan: Arc<Plan>, threads: Vec<Arc<Progress>>) {
    let begin = Instant::now();
    let (mut last, mut last_time) = (Snapshot::default(), begin);
    let mut interval = interval(INTERVAL);
    loop {
        interval.tick().await;
        let now = Snapshot::of(threads.iter().map(|thread| &**thread));
        let nanos = u64::try_from(last_time.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let rate = |now: u64, before: u64| Grouped(per_second(now - before, nanos));
        let mut parts = vec![format!("{}s", begin.elapsed().as_secs())];
        parts.push(match plan.mode {
            Mode::Connect => format!("{} open", Grouped(now.open)),
            _ => format!("{}/{} open", Grouped(now.open), Grouped(plan.connections)),
        });
        if now.sent > 0 {
            parts.push(format!("{}/s sent", rate(now.sent, last.sent)));
            parts.push(format!("{}/s received", rate(now.received, last.received)));
            parts.push(format!("p99 {}", Span(now.p99)));
        }
        if now.errors > 0 {
            parts.push(format!("{} errors", Grouped(now.errors)));
        }
        let line = parts.join("  ");
        // A terminal that is gone changes nothing about the run.
        let _ = write!(stderr(), "\r\x1b[K{line}");
        (last, last_time) = (now, Instant::now());
    }
}
