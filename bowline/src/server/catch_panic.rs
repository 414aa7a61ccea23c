//! What an application's code panics with is an error like others.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

pin_project! {
    /// The future of an application's closure, or what that panicked with when it was called. It ends with the future's output,
    /// or with what the future panicked with, also when it was dropped.
    ///
    /// An async fn around the future would need twice its memory, for as long as the connection is open.
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
            Projection::Panicked { panic } => Err(panic.take().expect("it is taken once")),
            Projection::Done => unreachable!("a future is not polled after it is ready"),
        };
        let dropped = catch(|| self.set(Self::Done));
        Poll::Ready(output.and_then(|output| dropped.map(|()| output)))
    }
}

/// Calls a closure of the application's. Nothing that a panic may have left broken is used again.
pub(crate) fn catch<T>(closure: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(closure)).map_err(|payload| Panicked::with(&*payload))
}

impl Panicked {
    fn with(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("with something that is no text").to_owned())
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked: {}", self.0)
    }
}
