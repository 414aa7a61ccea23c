//! A handler that panics fails like one that returns an error.

use std::any::Any;
use std::error::Error;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

pin_project! {
    /// The future of a handler, or what it panicked with when it was called.
    ///
    /// An async fn around the handler's future would need twice its memory, for as long as the connection is open.
    #[project = Projection]
    pub(crate) enum CatchPanic<F> {
        Called { #[pin] future: F },
        Panicked { error: Option<Box<dyn Error + Send + Sync>> },
    }
}

impl<F: Future> CatchPanic<F> {
    pub(crate) fn call(handler: impl FnOnce() -> F) -> Self {
        // Nothing that the panic may have left broken is used again.
        match catch_unwind(AssertUnwindSafe(handler)) {
            Ok(future) => Self::Called { future },
            Err(payload) => Self::Panicked { error: Some(panicked(&*payload)) },
        }
    }
}

impl<F: Future<Output = Result<(), Box<dyn Error + Send + Sync>>>> Future for CatchPanic<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projection::Called { future } => catch_unwind(AssertUnwindSafe(|| future.poll(cx)))
                .unwrap_or_else(|payload| Poll::Ready(Err(panicked(&*payload)))),
            Projection::Panicked { error } => {
                Poll::Ready(Err(error.take().expect("a future is not polled after it is ready")))
            }
        }
    }
}

fn panicked(payload: &(dyn Any + Send)) -> Box<dyn Error + Send + Sync> {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("with something that is no text")).into()
}
