//! What callers of a connection wait for: futures by hand where one is polled for each message, and what is left to do if
//! they are dropped.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bowline_proto::{CloseCode, CloseFrame, MessageKind};
use tokio::task::coop::poll_proceed;

use crate::connection::Connection;
use crate::connection::inbound::batch::{Batch, Hold};
use crate::connection::outbound::wait_queue::{Manner, Place, Turn};
use crate::connection::outbound::{Outbound, Queue, misuse};
use crate::error::Error;

impl Connection {
    /// Waits for the next message, and begins to read it.
    pub(crate) fn next_start<'a>(self: &'a Arc<Self>, batch: &'a mut Batch) -> NextStart<'a> {
        NextStart { connection: self, batch, waits: false }
    }

    /// Waits for its turn and for room, then lets `accept`, which is called once, put something into the write buffer.
    pub(crate) fn send_with<T, F>(self: &Arc<Self>, hold: Hold, accept: F) -> SendMessage<'_, F>
    where
        F: FnMut(&mut Outbound) -> Result<T, Error> + Unpin,
    {
        SendMessage { connection: self, place: Place::default(), accept, is_accepted: false, hold }
    }

    /// Waits until all that was accepted before was handed to the transport.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), Error> {
        let end = {
            let mut outbound = self.outbound();
            if !outbound.is_blocked() {
                self.write_locked(&mut outbound);
            }
            outbound.end()
        };
        self.watch(|outbound| outbound.flushed(end)).await
    }

    /// Waits until `check`, which is called again after each change, gives something.
    async fn watch<T>(self: &Arc<Self>, check: impl FnMut(&mut Outbound) -> Option<T>) -> T {
        self.watch_in(Queue::Watchers, check).await
    }

    /// The same for what only the end of the connection changes.
    pub(crate) async fn watch_end<T>(self: &Arc<Self>, check: impl FnMut(&mut Outbound) -> Option<T>) -> T {
        self.watch_in(Queue::End, check).await
    }

    async fn watch_in<T>(
        self: &Arc<Self>,
        queue: Queue,
        mut check: impl FnMut(&mut Outbound) -> Option<T>,
    ) -> T {
        let mut waiting = PlaceGuard::new(self, queue);
        poll_fn(|cx| {
            let mut outbound = self.outbound();
            if let Some(result) = check(&mut outbound) {
                return Poll::Ready(result);
            }
            outbound.wait(queue, &mut waiting.place, Manner::Future, cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Measures a round trip.
    pub(crate) async fn ping(self: &Arc<Self>) -> Result<Duration, Error> {
        let payload = self
            .watch(|outbound| {
                if let Some(error) = outbound.pings_ended() {
                    return Some(Err(error.clone()));
                }
                outbound.has_space().then(|| Ok(outbound.accept_ping()))
            })
            .await?;
        let _forget = Pinged { connection: self, payload };
        self.write(self.outbound(), Hold::Never);
        self.waker.set_task_waits(true);
        self.waker.wake_task();
        self.watch(|outbound| {
            let ended = || outbound.pings_ended().map(|error| Err(error.clone()));
            outbound.pings.round_trip(payload).map(Ok).or_else(ended)
        })
        .await
    }

    /// Gives a place up.
    #[cold]
    fn leave_place(&self, queue: Queue, place: &mut Place) {
        let mut outbound = self.outbound();
        outbound.leave(queue, place);
        // It may have been its turn.
        outbound.wake_senders();
    }

    /// Begins the closing handshake, and waits until the connection has ended.
    pub(crate) async fn close(
        self: &Arc<Self>,
        code: CloseCode,
        reason: &str,
    ) -> Result<Option<CloseFrame>, Error> {
        let frame = CloseFrame::new(code, reason).map_err(misuse)?;
        self.start_close(&frame);
        self.watch_end(|outbound| outbound.is_finished().then_some(())).await;
        self.inbound().peer_close()
    }
}

/// See [`Connection::next_start`].
pub(crate) struct NextStart<'a> {
    connection: &'a Arc<Connection>,
    batch: &'a mut Batch,
    waits: bool,
}

impl Future for NextStart<'_> {
    type Output = Result<Option<MessageKind>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let poll = this.connection.poll_start(cx, this.batch);
        this.waits = poll.is_pending();
        poll
    }
}

impl Drop for NextStart<'_> {
    fn drop(&mut self) {
        if self.waits {
            self.connection.stop_waiting();
        }
    }
}

/// See [`Connection::send_with`].
///
/// It makes up much of what a task takes that sends, so that its size counts.
pub(crate) struct SendMessage<'a, F> {
    connection: &'a Arc<Connection>,
    place: Place,
    /// Called where it is: it holds the message, which would have to be moved.
    accept: F,
    is_accepted: bool,
    hold: Hold,
}

impl<T, F: FnMut(&mut Outbound) -> Result<T, Error> + Unpin> Future for SendMessage<'_, F> {
    type Output = Result<T, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { connection, place, accept, is_accepted, hold } = self.get_mut();
        assert!(!*is_accepted, "a future is not polled after it is ready");
        let progress = ready!(poll_proceed(cx));
        let mut outbound = connection.outbound();
        if let Some(error) = outbound.closed() {
            return Poll::Ready(Err(error.clone()));
        }
        let turn = outbound.turn(place);
        if turn != Turn::Now {
            outbound.wait(Queue::Senders, place, Manner::Future, cx.waker());
            drop(outbound);
            if turn == Turn::Soon {
                // Those in front have until all others who are to run now have run.
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        progress.made_progress();
        *is_accepted = true;
        let result = accept(&mut outbound);
        if place.is_taken() {
            outbound.leave(Queue::Senders, place);
            outbound.wake_senders();
        }
        connection.write(outbound, *hold);
        Poll::Ready(result)
    }
}

impl<F> Drop for SendMessage<'_, F> {
    #[inline]
    fn drop(&mut self) {
        if self.place.is_taken() {
            self.connection.leave_place(Queue::Senders, &mut self.place);
        }
    }
}

/// A place in one of the queues, until it is dropped.
pub(crate) struct PlaceGuard<'a> {
    connection: &'a Arc<Connection>,
    queue: Queue,
    pub(crate) place: Place,
}

impl<'a> PlaceGuard<'a> {
    pub(crate) fn new(connection: &'a Arc<Connection>, queue: Queue) -> Self {
        Self { connection, queue, place: Place::default() }
    }
}

impl Drop for PlaceGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.place.is_taken() {
            self.connection.leave_place(self.queue, &mut self.place);
        }
    }
}

/// A ping whose pong is waited for, until it is dropped.
struct Pinged<'a> {
    connection: &'a Connection,
    payload: [u8; 8],
}

impl Drop for Pinged<'_> {
    fn drop(&mut self) {
        self.connection.outbound().pings.forget(self.payload);
    }
}
