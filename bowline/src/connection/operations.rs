//! What callers of a connection wait for: futures by hand where one is polled for each message, and what is left to do if
//! they are dropped.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bowline_proto::{CloseCode, CloseFrame};
use tokio::task::coop::poll_proceed;

use crate::connection::inbound::Receive;
use crate::connection::outbound::{Queue, Transmit, misuse};
use crate::connection::wait_queue::{Manner, Place, Turn};
use crate::connection::{Connection, Hold};
use crate::error::Error;

impl Connection {
    /// Waits until `take` finds what it wants in what has arrived, reading as needed.
    pub(crate) fn next<T, F: FnMut(&mut Receive) -> Option<T> + Unpin>(
        self: &Arc<Self>,
        take: F,
    ) -> Next<'_, F> {
        Next { connection: self, take, waits: false }
    }

    /// Waits for its turn and for room, then lets `accept`, which is called once, put something into the write buffer.
    pub(crate) fn send_with<T, F>(&self, hold: Hold, accept: F) -> Send<'_, F>
    where
        F: FnMut(&mut Transmit) -> Result<T, Error> + Unpin,
    {
        Send { waiting: Waiting::new(self, Queue::Senders), accept, is_accepted: false, hold }
    }

    /// Waits until all that was accepted before was handed to the transport.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let end = {
            let mut transmit = self.transmit();
            if !transmit.is_blocked() {
                self.write_locked(&mut transmit);
            }
            transmit.end()
        };
        self.watch(|transmit| {
            if transmit.has_written(end) {
                return Some(Ok(()));
            }
            // Behind our Close frame, the end of the connection says whether everything went out.
            let error = transmit.closed().filter(|_| !transmit.has_transport())?;
            Some(Err(error.clone()))
        })
        .await
    }

    /// Waits until `check`, which is called again after each change, gives something.
    async fn watch<T>(&self, check: impl FnMut(&mut Transmit) -> Option<T>) -> T {
        self.watch_in(Queue::Watchers, check).await
    }

    /// The same for what only the end of the connection changes.
    pub(crate) async fn watch_end<T>(&self, check: impl FnMut(&mut Transmit) -> Option<T>) -> T {
        self.watch_in(Queue::End, check).await
    }

    async fn watch_in<T>(&self, queue: Queue, mut check: impl FnMut(&mut Transmit) -> Option<T>) -> T {
        let mut waiting = Waiting::new(self, queue);
        poll_fn(|cx| {
            let mut transmit = self.transmit();
            if let Some(result) = check(&mut transmit) {
                return Poll::Ready(result);
            }
            transmit.wait(queue, &mut waiting.place, Manner::Future, cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Measures a round trip.
    pub(crate) async fn ping(&self) -> Result<Duration, Error> {
        let payload = self
            .watch(|transmit| {
                if let Some(error) = transmit.pings_ended() {
                    return Some(Err(error.clone()));
                }
                transmit.has_space().then(|| Ok(transmit.accept_ping()))
            })
            .await?;
        let _forget = Pinged { connection: self, payload };
        self.write(self.transmit(), Hold::Never);
        self.signals.set_task_waits(true);
        self.signals.wake_task();
        self.watch(|transmit| {
            let ended = || transmit.pings_ended().map(|error| Err(error.clone()));
            transmit.pings.round_trip(payload).map(Ok).or_else(ended)
        })
        .await
    }

    /// Begins the closing handshake, and waits until the connection has ended.
    pub(crate) async fn close(&self, code: CloseCode, reason: &str) -> Result<Option<CloseFrame>, Error> {
        let frame = CloseFrame::new(code, reason).map_err(misuse)?;
        self.begin_close(&frame);
        self.watch_end(|transmit| transmit.is_finished().then_some(())).await;
        self.receive().peer_close()
    }
}

/// See [`Connection::next`].
pub(crate) struct Next<'a, F> {
    connection: &'a Arc<Connection>,
    take: F,
    waits: bool,
}

impl<T, F: FnMut(&mut Receive) -> Option<T> + Unpin> Future for Next<'_, F> {
    type Output = T;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = self.get_mut();
        let poll = this.connection.poll_next(cx, &mut this.take);
        this.waits = poll.is_pending();
        poll
    }
}

impl<F> Drop for Next<'_, F> {
    #[inline]
    fn drop(&mut self) {
        if self.waits {
            self.connection.stop_waiting();
        }
    }
}

/// See [`Connection::send_with`].
pub(crate) struct Send<'a, F> {
    waiting: Waiting<'a>,
    /// Called where it is: it holds the message, which would have to be moved.
    accept: F,
    is_accepted: bool,
    hold: Hold,
}

impl<T, F: FnMut(&mut Transmit) -> Result<T, Error> + Unpin> Future for Send<'_, F> {
    type Output = Result<T, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { waiting, accept, is_accepted, hold } = self.get_mut();
        assert!(!*is_accepted, "a future is not polled after it is ready");
        let connection = waiting.connection;
        let progress = ready!(poll_proceed(cx));
        let mut transmit = connection.transmit();
        if let Some(error) = transmit.closed() {
            return Poll::Ready(Err(error.clone()));
        }
        let turn = transmit.turn(&waiting.place);
        if turn != Turn::Now {
            transmit.wait(Queue::Senders, &mut waiting.place, Manner::Future, cx.waker());
            drop(transmit);
            if turn == Turn::Soon {
                // Those in front have until all others who are to run now have run.
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        progress.made_progress();
        *is_accepted = true;
        let result = accept(&mut transmit);
        if waiting.place.is_taken() {
            transmit.leave(Queue::Senders, &mut waiting.place);
            transmit.wake_senders();
        }
        connection.write(transmit, *hold);
        Poll::Ready(result)
    }
}

/// A place in one of the queues, until it is dropped.
pub(crate) struct Waiting<'a> {
    connection: &'a Connection,
    queue: Queue,
    pub(crate) place: Place,
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(connection: &'a Connection, queue: Queue) -> Self {
        Self { connection, queue, place: Place::default() }
    }

    #[cold]
    fn leave(&mut self) {
        let mut transmit = self.connection.transmit();
        transmit.leave(self.queue, &mut self.place);
        // It may have been its turn.
        transmit.wake_senders();
    }
}

impl Drop for Waiting<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.place.is_taken() {
            self.leave();
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
        self.connection.transmit().pings.forget(self.payload);
    }
}
