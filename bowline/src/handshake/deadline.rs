//! The deadline of an opening handshake.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Timeout, timeout_at};

use crate::error::{Error, ErrorKind};

/// A time so long that it makes no difference, and short enough that no clock overflows: 30 years.
pub(crate) const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// Panics unless the caller is in a tokio runtime with timers, in the words of tokio.
///
/// tokio tells nobody else that there are no timers: every timer of a connection would panic in the
/// connection's own task, where nobody sees why.
#[cfg(feature = "server")]
pub(crate) fn require_timers() {
    drop(tokio::time::sleep(Duration::ZERO));
}

/// The time at which an opening handshake has to be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// Creates a deadline that is `timeout` from now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout.min(FAR), timeout }
    }

    /// Runs `work` until the deadline. The error after the deadline contains `doing`, which describes the
    /// work.
    pub(crate) fn bound<T, F: Future<Output = Result<T, Error>>>(
        self,
        doing: &str,
        work: F,
    ) -> BoundedFuture<'_, F> {
        BoundedFuture { work: timeout_at(self.at, work), deadline: self, doing }
    }

    /// Creates the error after the deadline. `doing` describes the work that was not done in time.
    pub(crate) fn missed(self, doing: &str) -> Error {
        let timeout = self.timeout;
        let text = format!(
            "the opening handshake took longer than {timeout:?} (Limits::handshake_timeout) while {doing}"
        );
        Error::new(ErrorKind::Timeout, text)
    }
}

pin_project! {
    /// A future with a deadline. An `async fn` in its place would hold `work` twice.
    pub(crate) struct BoundedFuture<'a, F> {
        #[pin]
        work: Timeout<F>,
        deadline: Deadline,
        doing: &'a str,
    }
}

impl<T, F: Future<Output = Result<T, Error>>> Future for BoundedFuture<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let done = ready!(this.work.poll(cx));
        Poll::Ready(done.unwrap_or_else(|_| Err(this.deadline.missed(this.doing))))
    }
}
