//! When an opening handshake has to be done.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::error::{Error, ErrorKind};

/// The end of the time that an opening handshake may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    /// `None` if it is too far away to be told.
    at: Option<Instant>,
    timeout: Duration,
}

impl Deadline {
    /// The time begins now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self { at: Instant::now().checked_add(timeout), timeout }
    }

    /// Does `work` until the deadline; `doing` says in an error what was under way.
    pub(crate) async fn bound<T>(
        self,
        doing: &str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(at) = self.at else { return work.await };
        timeout_at(at, work).await.unwrap_or_else(|_| {
            let timeout = self.timeout;
            Err(Error::new(
                ErrorKind::Timeout,
                format!(
                    "the opening handshake took longer than {timeout:?} (Limits::handshake_timeout) while {doing}"
                ),
            ))
        })
    }
}
