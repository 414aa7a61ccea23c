//! The futures of a connection's callers, and the cleanup if one is dropped.
//!
//! A future that is polled for each message is written by hand, since its size and its instructions count.
//! The others are `async fn`s.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bowline_proto::{CloseCode, CloseFrame, MessageKind};
use tokio::task::coop::poll_proceed;

use crate::connection::Connection;
use crate::connection::inbound::batch::{Batch, Hold};
use crate::connection::outbound::wait_queue::{Manner, Place, Turn};
use crate::connection::outbound::{Outbound, Outgoing, Queue, misuse};
use crate::error::Error;

impl Connection {
    /// Waits for the next message, starts to read it, and returns its kind.
    pub(crate) fn next_start<'a>(self: &'a Arc<Self>, batch: &'a mut Batch) -> NextStart<'a> {
        NextStart { connection: self, batch, waits: false }
    }

    /// Waits for its turn and for room in the queue, then puts `message` into the queue.
    pub(crate) fn send<M: Outgoing>(self: &Arc<Self>, hold: Hold, message: M) -> SendMessage<'_, M> {
        SendMessage { connection: self, place: Place::default(), message, is_accepted: false, hold }
    }

    /// Waits until everything that was accepted before has been handed to the transport.
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

    /// Waits for room in the queue, and sends a pong that answers no ping.
    ///
    /// Senders are woken first and may take all the room each time. So a pong that has waited is accepted
    /// when something was written meanwhile, which bounds the pongs as room would.
    pub(crate) async fn pong(self: &Arc<Self>, payload: &[u8]) -> Result<(), Error> {
        let mut since = None;
        self.watch(|outbound| {
            let since = *since.get_or_insert_with(|| outbound.written());
            match outbound.closed() {
                Some(error) => Some(Err(error.clone())),
                None if outbound.has_space() || outbound.written() > since => {
                    Some(outbound.accept_pong(payload))
                }
                None => None,
            }
        })
        .await?;
        self.write(self.outbound(), Hold::Never);
        Ok(())
    }

    /// Waits until `check` returns something. It is called again after each change of what is written.
    async fn watch<T>(self: &Arc<Self>, check: impl FnMut(&mut Outbound) -> Option<T>) -> T {
        self.watch_in(Queue::Watchers, check).await
    }

    /// Waits until nothing more can be sent.
    pub(crate) async fn closed(self: &Arc<Self>) {
        self.watch_end(|outbound| outbound.closed().map(|_| ())).await;
    }

    /// Waits until `check` returns something. It is called again only when the connection is closed, and when
    /// it has ended.
    async fn watch_end<T>(self: &Arc<Self>, check: impl FnMut(&mut Outbound) -> Option<T>) -> T {
        self.watch_in(Queue::End, check).await
    }

    async fn watch_in<T>(
        self: &Arc<Self>,
        queue: Queue,
        mut check: impl FnMut(&mut Outbound) -> Option<T>,
    ) -> T {
        let mut waiting = PlaceGuard::new(self, queue);
        poll_fn(|cx| {
            // A loop over what is there at once must not starve the other tasks of its thread.
            let progress = ready!(poll_proceed(cx));
            let mut outbound = self.outbound();
            if let Some(result) = check(&mut outbound) {
                progress.made_progress();
                return Poll::Ready(result);
            }
            outbound.wait(queue, &mut waiting.place, Manner::Future, cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Gives up a place in a queue.
    #[cold]
    fn leave_place(&self, queue: Queue, place: &mut Place) {
        let mut outbound = self.outbound();
        outbound.leave(queue, place);
        // If it was the turn of this place, then the next sender has to be woken.
        outbound.wake_senders();
    }

    /// Starts the closing handshake with this code and this reason.
    pub(crate) fn begin_close(&self, code: CloseCode, reason: &str) -> Result<(), Error> {
        self.start_close(&CloseFrame::new(code, reason).map_err(misuse)?);
        Ok(())
    }

    /// Starts the closing handshake, and waits until the connection has ended.
    pub(crate) async fn close(self: &Arc<Self>, code: CloseCode, reason: &str) -> Result<CloseFrame, Error> {
        self.begin_close(code, reason)?;
        self.watch_end(|outbound| outbound.is_finished().then_some(())).await;
        self.inbound().closing_result()
    }
}

/// The future of [`Connection::next_start`].
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

/// The future of [`Connection::send`]. Its size counts, since it makes up much of the size of a task
/// that sends.
pub(crate) struct SendMessage<'a, M> {
    connection: &'a Arc<Connection>,
    place: Place,
    /// Accepted in place, since moving the message would cost as much as its frame.
    message: M,
    is_accepted: bool,
    hold: Hold,
}

impl<M: Outgoing> Future for SendMessage<'_, M> {
    type Output = Result<M::Accepted, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        assert!(!this.is_accepted, "a future must not be polled after it is ready");
        if this.connection.holds_back(this.hold) {
            if let Some(accepted) = this.connection.accept_free(&mut this.message) {
                this.is_accepted = true;
                return Poll::Ready(accepted);
            }
        }
        this.poll_turn(cx)
    }
}

impl<M: Outgoing> SendMessage<'_, M> {
    /// Waits for its turn and for room, then accepts the message.
    #[inline(never)]
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<M::Accepted, Error>> {
        let Self { connection, place, message, is_accepted, hold } = self;
        let progress = ready!(poll_proceed(cx));
        if *hold == Hold::InSendBatch {
            connection.cork_send_batch();
        }
        let mut outbound = connection.outbound();
        if let Some(error) = outbound.closed() {
            return Poll::Ready(Err(error.clone()));
        }
        let turn = outbound.ask_turn(place);
        if turn != Turn::Now {
            outbound.wait(Queue::Senders, place, Manner::Future, cx.waker());
            drop(outbound);
            if turn == Turn::Soon {
                // Yield once, so that the senders in front can be polled first.
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        progress.made_progress();
        *is_accepted = true;
        let result = message.accept(&mut outbound);
        if place.is_taken() {
            outbound.leave(Queue::Senders, place);
            outbound.wake_senders();
        }
        connection.write(outbound, *hold);
        Poll::Ready(result)
    }
}

impl<M> Drop for SendMessage<'_, M> {
    #[inline]
    fn drop(&mut self) {
        if self.place.is_taken() {
            self.connection.leave_place(Queue::Senders, &mut self.place);
        }
    }
}

/// A place in one of the queues, which is given up when the guard is dropped.
pub(crate) struct PlaceGuard<'a> {
    pub(crate) connection: &'a Arc<Connection>,
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
