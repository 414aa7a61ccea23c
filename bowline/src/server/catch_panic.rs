//! Panics of the application's code, caught and turned into errors.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

pin_project! {
    /// A future of the application's that returns its own panics as errors.
    ///
    /// The panic may come from the closure that makes the future, from a poll, or from the drop of the
    /// future.
    ///
    /// An async fn around the future would take twice its memory for as long as the connection is open.
    #[project = Projection]
    pub(crate) enum CatchPanic<F> {
        Called { #[pin] future: F },
        Panicked { panic: Option<Panicked> },
        Done,
    }
}

/// The text of a panic.
#[derive(Debug)]
pub(crate) struct Panicked(String);

impl<F: Future> CatchPanic<F> {
    pub(crate) fn call(closure: impl FnOnce() -> F) -> Self {
        match catch(closure) {
            Ok(future) => Self::Called { future },
            Err(panic) => Self::Panicked { panic: Some(panic) },
        }
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let output = match self.as_mut().project() {
            Projection::Called { future } => match catch(|| future.poll(cx)) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(output)) => Ok(output),
                Err(panic) => Err(panic),
            },
            Projection::Panicked { panic } => Err(panic.take().expect("the panic is taken once")),
            Projection::Done => unreachable!("a future is not polled after it is ready"),
        };
        let dropped = catch(|| self.set(Self::Done));
        Poll::Ready(output.and_then(|output| dropped.map(|()| output)))
    }
}

/// Calls a closure of the application's, and returns its panic as an error. The caller uses nothing again
/// that a panic may have left broken.
pub(crate) fn catch<T>(closure: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(closure)).map_err(|payload| {
        let panicked = Panicked::with(&*payload);
        // The drop of the payload may panic as well, and so may the drop of that panic's payload.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        dropped.unwrap_or_else(std::mem::forget);
        panicked
    })
}

impl Panicked {
    fn with(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("with a value that is not text").to_owned())
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked: {}", self.0)
    }
}
