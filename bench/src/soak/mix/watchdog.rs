//! A watchdog that names hanging tasks. Each task notes its current operation, and the start of it.

use std::collections::HashMap;
use std::fmt::Write;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub struct Watchdog {
    tasks: Mutex<HashMap<u64, Label>>,
    count: AtomicU64,
}

/// A unit of several tasks, such as a connection.
pub trait Watched: Send + Sync {
    /// Reports that one of the tasks hangs.
    fn blame(&self, what: String);

    /// Returns the token that is cancelled when a task hangs. All tasks are then dropped.
    fn given_up(&self) -> &CancellationToken;
}

/// The current operation of a task.
struct Label {
    connection: Arc<dyn Watched>,
    task: String,
    operation: &'static str,
    since: Instant,
}

impl Watchdog {
    pub fn probe(self: &Arc<Self>, connection: Arc<dyn Watched>, task: String) -> Probe {
        let id = self.count.fetch_add(1, Ordering::Relaxed);
        let label = Label { connection, task, operation: IDLE, since: Instant::now() };
        self.tasks().insert(id, label);
        Probe { watchdog: Arc::clone(self), id }
    }

    /// Blames each connection with a task that has spent longer than the limit in one operation, and gives
    /// that connection up.
    pub fn look(&self, bound: Duration) {
        let mut overdue: Vec<(Arc<dyn Watched>, String)> = Vec::new();
        let tasks = self.tasks();
        for label in tasks.values() {
            let is_late = label.operation != IDLE && label.since.elapsed() > bound;
            if !is_late || overdue.iter().any(|(other, _)| Arc::ptr_eq(other, &label.connection)) {
                continue;
            }
            let mut all: Vec<_> =
                tasks.values().filter(|other| Arc::ptr_eq(&other.connection, &label.connection)).collect();
            all.sort_by_key(|label| label.since);
            let mut text = format!("hangs for more than {bound:?}:");
            for Label { task, operation, since, .. } in all {
                let _ = write!(text, "\n    {task}: {operation}, for {:.1?}", since.elapsed());
            }
            overdue.push((Arc::clone(&label.connection), text));
        }
        drop(tasks);
        for (connection, text) in overdue {
            if !connection.given_up().is_cancelled() {
                connection.blame(text);
                connection.given_up().cancel();
            }
        }
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<u64, Label>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const IDLE: &str = "between two operations";

/// The entry of a task.
pub struct Probe {
    watchdog: Arc<Watchdog>,
    id: u64,
}

impl Probe {
    /// Runs an operation under the watchdog.
    pub async fn during<T>(&self, operation: &'static str, future: impl Future<Output = T>) -> T {
        self.set(operation);
        let output = future.await;
        self.set(IDLE);
        output
    }

    fn set(&self, operation: &'static str) {
        if let Some(label) = self.watchdog.tasks().get_mut(&self.id) {
            (label.operation, label.since) = (operation, Instant::now());
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // The label holds the connection, which is dropped after the lock.
        let label = self.watchdog.tasks().remove(&self.id);
        drop(label);
    }
}
