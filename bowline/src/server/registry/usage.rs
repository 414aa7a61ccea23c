//! The use that one client makes of a connection with many streams, and the bound on its work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The use that a client makes of its connection, measured by open WebSockets and by answers of the
/// application's fallback that were sent. Such answers are no use of a connection that has no permit.
///
/// A request alone is no use, as requests cost a client nothing.
#[derive(Default)]
pub(crate) struct Usage {
    open: AtomicUsize,
    /// A WebSocket has opened, or a page was sent, since the last look at the clock.
    noted: AtomicBool,
}

impl Usage {
    /// Counts a WebSocket until the result is dropped.
    pub(crate) fn count_one(self: &Arc<Self>) -> CountedUse {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.note();
        CountedUse(Arc::clone(self))
    }

    /// Notes a use that has no duration.
    pub(crate) fn note(&self) {
        self.noted.store(true, Ordering::Relaxed);
    }

    /// Returns `true` if a WebSocket is open, or has opened since the last call, or a page was sent since.
    pub(crate) fn was_used(&self) -> bool {
        self.noted.swap(false, Ordering::Relaxed) || self.open.load(Ordering::Relaxed) > 0
    }
}

pub(crate) struct CountedUse(Arc<Usage>);

impl Drop for CountedUse {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to work on one request of a connection.
///
/// A request waits for its slot in order of arrival, as long as its stream lives and a handshake may take.
/// The slot is held until all work for the request is done, even if the stream ends before. So a client that
/// resets its streams receives no more work than another.
pub(crate) struct Slot {
    _permit: OwnedSemaphorePermit,
    /// The use of the connection by the WebSocket of the request, if the transport does not count it.
    _use: Option<CountedUse>,
}

impl Slot {
    /// Counts a use of the connection for as long as the slot is held.
    pub(crate) fn counting(self, counted: CountedUse) -> Self {
        Self { _use: Some(counted), ..self }
    }
}

/// The slots of a connection, for as many requests as [`Limits::max_streams`](crate::Limits::max_streams)
/// allows.
#[derive(Clone)]
pub(crate) struct Slots(Arc<Semaphore>);

impl Slots {
    pub(crate) fn new(max_streams: u32) -> Self {
        let streams = usize::try_from(max_streams).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(streams)))
    }

    /// Waits for a slot, in order of arrival.
    pub(crate) async fn take(&self) -> Slot {
        let permit = Arc::clone(&self.0).acquire_owned().await;
        Slot { _permit: permit.expect("the semaphore is never closed"), _use: None }
    }
}
