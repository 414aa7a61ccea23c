//! Keeping the positions of idle topics valid.
//!
//! Redis forgets the head of a history that nobody uses. While a node has members in a topic, it puts the
//! end off, a few times within the life of a head, so that these members and their positions are not
//! told of a loss when the next message comes.

use std::time::Duration;

use bowline_hub::{Retention, Topic};
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::keys::{self, milliseconds};

/// The number of renewals within the time for which positions are kept.
const RENEWALS: u32 = 4;

/// The number of heads that are renewed with one round trip.
const BATCH: usize = 256;

/// The shortest time between two renewals.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// The time for which Redis keeps the head of a history longer than its messages.
#[derive(Clone, Copy)]
pub(crate) struct Keep(pub(crate) Duration);

impl Keep {
    /// A week.
    pub(crate) const DEFAULT: Self = Self(Duration::from_secs(7 * 24 * 60 * 60));

    /// The longest time.
    pub(crate) const MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

    /// Returns the life of a head, in milliseconds.
    pub(crate) fn head_age(self, retention: Retention) -> u64 {
        milliseconds(retention.age + self.0)
    }
}

/// The schedule of the renewals.
pub(crate) struct Renewal {
    keep: Keep,
    interval: Interval,
    task: Option<JoinHandle<()>>,
}

impl Renewal {
    pub(crate) fn new(keep: Keep) -> Self {
        let mut interval = interval((keep.0 / RENEWALS).max(MIN_PAUSE));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { keep, interval, task: None }
    }

    /// Waits until it is time. The future is cancel safe.
    pub(crate) async fn due(&mut self) {
        self.interval.tick().await;
    }

    /// Renews the heads of all topics with history, in a task, unless the task before is not through.
    pub(crate) fn begin(&mut self, mut commands: MultiplexedConnection, wanted: &[Topic]) {
        if self.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let keep = self.keep;
        let head = |topic: &Topic| Some((keys::head(topic), keep.head_age(topic.retention()?)));
        let heads: Vec<_> = wanted.iter().filter_map(head).collect();
        self.task = Some(tokio::spawn(async move {
            for heads in heads.chunks(BATCH) {
                let mut pipeline = redis::pipe();
                for (head, age) in heads {
                    pipeline.cmd("PEXPIRE").arg(head).arg(age).ignore();
                }
                // A connection that is lost is made again, and then it is time again.
                if pipeline.exec_async(&mut commands).await.is_err() {
                    return;
                }
            }
        }));
    }
}
