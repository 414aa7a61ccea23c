//! Stopping a replay from outside, between two of its sends.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use tokio::sync::Notify;

/// The state of a replay that another task may stop.
///
/// ```text
///         +--a send is polled--> Sending --stop--> Stopping
///         v                         |                 |
///       Waiting <--polled-----------+                 | polled
///         |                                           v
///         +-----------------stop-----------------> Stopped
/// ```
///
/// A message is accepted within a poll only. So nothing is sent after `Stopped`, and `stop` waits for the end
/// of one poll at most. The replay itself may never be polled again.
#[derive(Default)]
pub(crate) struct Stop {
    state: AtomicU8,
    stopped: Notify,
}

const WAITING: u8 = 0;
const SENDING: u8 = 1;
const STOPPING: u8 = 2;
const STOPPED: u8 = 3;

/// The replay was stopped, and has sent nothing.
pub(crate) struct Stopped;

impl Stop {
    /// Waits for a send, unless the replay is stopped before it.
    pub(crate) async fn send<T>(&self, send: impl Future<Output = T>) -> Result<T, Stopped> {
        let mut send = pin!(send);
        poll_fn(|cx| self.poll_send(send.as_mut(), cx)).await
    }

    fn poll_send<T>(
        &self,
        send: Pin<&mut impl Future<Output = T>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<T, Stopped>> {
        if !self.turn(WAITING, SENDING) {
            return Poll::Ready(Err(Stopped));
        }
        // A send that panics ends the replay, too.
        let _polled = Polled(self);
        send.poll(cx).map(Ok)
    }

    /// Stops the replay, and returns once nothing more is sent.
    ///
    /// # Cancel safety
    ///
    /// Once the future has been polled, the replay stops, also if the future is dropped.
    pub(crate) async fn stop(&self) {
        loop {
            let mut stopped = pin!(self.stopped.notified());
            // Registers before the look, so that no wakeup in between is missed.
            stopped.as_mut().enable();
            if self.turn(WAITING, STOPPED) || self.state.load(Ordering::Acquire) == STOPPED {
                return;
            }
            if self.turn(SENDING, STOPPING) || self.state.load(Ordering::Acquire) == STOPPING {
                stopped.await;
            }
        }
    }

    /// The orderings make what was sent before `Stopped` happen before `stop` returns.
    fn turn(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// The end of a poll.
struct Polled<'a>(&'a Stop);

impl Drop for Polled<'_> {
    fn drop(&mut self) {
        if !self.0.turn(SENDING, WAITING) {
            self.0.state.store(STOPPED, Ordering::Release);
            self.0.stopped.notify_waiters();
        }
    }
}
