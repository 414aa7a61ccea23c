//! What waits on a connection: futures by hand, as they are polled for each message, and what is left to do if they are
//! dropped.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::task::coop::poll_proceed;

use crate::connection::Connection;
use crate::error::Error;
use crate::receive::Receive;
use crate::transmit::Transmit;
use crate::wait::Place;

/// See [`Connection::next`].
pub(crate) struct Next<'a, F> {
    connection: &'a Connection,
    take: F,
    waits: bool,
}

impl<'a, F> Next<'a, F> {
    pub(crate) fn new(connection: &'a Connection, take: F) -> Self {
        Self { connection, take, waits: false }
    }
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
    accept: Option<F>,
}

impl<'a, F> Send<'a, F> {
    pub(crate) fn new(connection: &'a Connection, accept: F) -> Self {
        Self { waiting: Waiting::new(connection, Queue::Senders), accept: Some(accept) }
    }
}

impl<T, F: FnOnce(&mut Transmit) -> Result<T, Error> + Unpin> Future for Send<'_, F> {
    type Output = Result<T, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { waiting, accept } = self.get_mut();
        let connection = waiting.connection;
        let progress = ready!(poll_proceed(cx));
        let mut transmit = connection.transmit();
        if let Some(error) = transmit.closed() {
            return Poll::Ready(Err(error.clone()));
        }
        if !transmit.has_room(&waiting.place) {
            transmit.senders.wait(&mut waiting.place, cx.waker());
            return Poll::Pending;
        }
        progress.made_progress();
        let accept = accept.take().expect("a future is not polled after it is ready");
        let result = accept(&mut transmit);
        if waiting.place.is_taken() {
            transmit.senders.leave(&mut waiting.place);
            transmit.wake_senders();
        }
        connection.write(transmit);
        Poll::Ready(result)
    }
}

/// A place in one of the queues, until it is dropped.
pub(crate) struct Waiting<'a> {
    connection: &'a Connection,
    queue: Queue,
    pub(crate) place: Place,
}

/// What is waited for.
#[derive(Clone, Copy)]
pub(crate) enum Queue {
    /// One's turn to send.
    Senders,
    /// Any change.
    Watchers,
}

impl<'a> Waiting<'a> {
    pub(crate) fn new(connection: &'a Connection, queue: Queue) -> Self {
        Self { connection, queue, place: Place::default() }
    }

    #[cold]
    fn leave(&mut self) {
        let mut transmit = self.connection.transmit();
        match self.queue {
            Queue::Senders => transmit.senders.leave(&mut self.place),
            Queue::Watchers => transmit.watchers.leave(&mut self.place),
        }
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
pub(crate) struct Pinged<'a> {
    connection: &'a Connection,
    payload: [u8; 8],
}

impl<'a> Pinged<'a> {
    pub(crate) fn new(connection: &'a Connection, payload: [u8; 8]) -> Self {
        Self { connection, payload }
    }
}

impl Drop for Pinged<'_> {
    fn drop(&mut self) {
        self.connection.transmit().forget_ping(self.payload);
    }
}
