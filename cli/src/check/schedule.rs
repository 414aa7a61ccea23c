//! Many cases at once, reported in order.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::examiner::{Examiner, Outcome};
use super::script::Case;

/// Runs cases, at most `jobs` at once, and hands out each with its outcome, in order. Cases that may keep the
/// server from answering run alone, after all others. Ends early if `report` returns an error.
pub(super) async fn run<E>(
    examiner: Examiner,
    cases: Vec<Case>,
    jobs: usize,
    mut report: impl FnMut(&Case, Outcome) -> Result<(), E>,
) -> Result<(), E> {
    let examiner = Arc::new(examiner);
    let (alone, together): (Vec<Case>, Vec<Case>) = cases.into_iter().partition(Case::runs_alone);
    let permits = Arc::new(Semaphore::new(jobs));
    let mut running: VecDeque<(Arc<Case>, JoinHandle<Option<Outcome>>)> = VecDeque::new();
    for case in together {
        let case = Arc::new(case);
        let (examiner, permits) = (Arc::clone(&examiner), Arc::clone(&permits));
        let task = Arc::clone(&case);
        let handle = tokio::spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await.ok()?;
            Some(examiner.examine(&task).await)
        });
        running.push_back((case, handle));
    }
    while let Some((case, handle)) = running.pop_front() {
        // A task ends without an outcome only if the runtime is being shut down.
        let Ok(Some(outcome)) = handle.await else { continue };
        report(&case, outcome)?;
    }
    for case in alone {
        let outcome = examiner.examine(&case).await;
        report(&case, outcome)?;
    }
    Ok(())
}
