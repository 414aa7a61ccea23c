//! Cancellation: futures that are dropped before they are ready.

use std::future::{Future, IntoFuture, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use crate::soak::peer::Random;

/// Polls a future at most this many times, and then drops it.
pub async fn at_most<T>(polls: usize, future: impl IntoFuture<Output = T>) -> Option<T> {
    let mut future = pin!(future.into_future());
    let mut left = polls;
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            left -= 1;
            if left == 0 { Poll::Ready(None) } else { Poll::Pending }
        }
    })
    .await
}

/// A random choice of the futures to drop.
pub struct Cancels {
    one_in: u64,
    pub random: Random,
    count: Arc<AtomicU64>,
}

impl Cancels {
    pub fn new(one_in: u64, random: Random, count: Arc<AtomicU64>) -> Self {
        Self { one_in, random, count }
    }

    /// Returns the number of polls after which the next future is dropped.
    pub fn polls(&mut self) -> usize {
        if self.one_in == 0 || self.random.below(self.one_in) > 0 {
            return usize::MAX;
        }
        1 + self.random.below(4) as usize
    }

    pub fn note(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Awaits a future, which may be dropped and created again several times before.
macro_rules! cancelling {
    ($cancels:expr, $future:expr) => {
        loop {
            let polls = $cancels.polls();
            if let Some(output) = $crate::soak::mix::cancel::at_most(polls, $future).await {
                break output;
            }
            $cancels.note();
        }
    };
}
pub(super) use cancelling;
