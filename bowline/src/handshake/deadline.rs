//! When an opening handshake has to be done.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Timeout, timeout_at};

use crate::error::{Error, ErrorKind};

/// So far away that it makes no difference, and no clock overflows.
pub(crate) const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The end of the time that an opening handshake may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// The time begins now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout.min(FAR), timeout }
    }

    /// Does `work` until the deadline; `doing` says in an error what was under way.
    pub(crate) fn bound<T, F: Future<Output = Result<T, Error>>>(
        self,
        doing: &str,
        work: F,
    ) -> BoundedFuture<'_, F> {
        BoundedFuture { work: timeout_at(self.at, work), timeout: self.timeout, doing }
    }
}

pin_project! {
    /// Work that has to be done in time. An `async fn` would hold it twice.
    pub(crate) struct BoundedFuture<'a, F> {
        #[pin]
        work: Timeout<F>,
        timeout: Duration,
        doing: &'a str,
    }
}

impl<T, F: Future<Output = Result<T, Error>>> Future for BoundedFuture<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let done = ready!(this.work.poll(cx));
        Poll::Ready(done.unwrap_or_else(|_| {
            let (timeout, doing) = (this.timeout, this.doing);
            let text = format!(
                "the opening handshake took longer than {timeout:?} (Limits::handshake_timeout) while {doing}"
            );
            Err(Error::new(ErrorKind::Timeout, text))
        }))
    }
}
