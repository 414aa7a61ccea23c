//! The outbound half of a connection: messages in, bytes out.
//!
//! The path of a payload:
//!
//! ```text
//! send --> turn (wait_queue) --> compressor --> SendHalf (proto) --> write_queue --> transport
//!                                                encodes, masks         ^
//!                            large owned payloads, by reference --------'
//! ```
//!
//! - A message is accepted whole or not at all. Accepting never waits: callers wait before, in
//!   [`wait_queue`], until it is their turn and the queue has room.
//! - The queue is written by whoever has accepted something, in the same call. When the transport accepts no
//!   more, the half is *blocked*, and only the driver writes until it accepts bytes again.
//! - While the half is blocked, only the newest ping is owed a pong (RFC 6455 5.5.3), so a flood of pings
//!   takes no memory.
//! - Replies to a batch may stay in the queue for a while ([`held_replies`]): see
//!   [`cork`](crate::connection::cork).
//! - Foreign code that a locked half needs to run goes to [`deferred`]; the [`guard`] runs it after the lock.
//!
//! # The end
//!
//! [`Phase`] only goes forward. Accepting the Close frame, a violation by the peer, or a lost transport makes
//! it `Closed`: nothing more is accepted, and the queue is still written unless the transport is lost. The
//! driver makes it `Finished` once the transport is closed. Callers who wait for the end watch for that.

mod attachment;
mod compressor;
#[cfg_attr(not(feature = "client"), allow(unreachable_pub, reason = "only clients have a hook"))]
pub(crate) mod control;
pub(crate) mod deferred;
#[cfg(any(feature = "json", feature = "protobuf"))]
pub(crate) mod encoded;
pub(crate) mod fragment;
pub(crate) mod guard;
mod held_replies;
mod messages;
pub(crate) mod pings;
pub(crate) mod random;
pub(crate) mod wait_queue;
mod write_queue;

use std::io;
use std::mem;
use std::task::{Context, Poll, Waker};

use bowline_proto::{CloseCode, CloseFrame, Misuse, Role, SendHalf};
use bytes::Bytes;

use crate::connection::outbound::attachment::Attachment;
use crate::connection::outbound::compressor::Compressor;
use crate::connection::outbound::control::{ControlFrame, ControlHook};
use crate::connection::outbound::deferred::{Deferred, DeferredList};
use crate::connection::outbound::held_replies::{FREE, HeldReplies};
use crate::connection::outbound::pings::{PingId, Pings};
use crate::connection::outbound::random::random;
use crate::connection::outbound::wait_queue::{Manner, Place, Turn, WaitQueue};
use crate::connection::outbound::write_queue::WriteQueue;
use crate::error::{Error, ErrorKind};
use crate::message::tally::Tally;
use crate::transport::WriteTransport;

/// Replies gather up to this multiple of the high-water mark before they are written to a transport that
/// accepts everything. With the default mark, this is as much as is read at once. Measured: a third less time
/// for 16 KiB, 16 messages in flight.
const GATHERED: usize = 4;

/// Pongs gather up to this many bytes for one write. Up to this many bytes may remain queued if the peer
/// stops reading.
const PONGS_MAX: usize = 1024;

/// Everything that writing touches, behind one lock.
///
/// A thread that holds the lock of the inbound half may take this one too, so that answers keep the order of
/// what was received. The opposite order never occurs. See [`Deferred`] for what must not run under either
/// lock.
pub(crate) struct Outbound {
    transport: Option<WriteTransport>,
    half: SendHalf,
    queue: WriteQueue,
    /// The messages that were accepted.
    tally: Tally,
    /// Senders wait while at least this many bytes are in the queue.
    high_water_mark: usize,
    /// The senders that wait, in order of arrival.
    senders: WaitQueue,
    /// The callers that wait for a change of what is written: `flush`, `ping`, a `MessageWriter`.
    watchers: WaitQueue,
    /// Set if a `MessageWriter` has the exclusive right to send data.
    writer_open: bool,
    /// Set if the transport accepts nothing more for now. The driver waits until the transport accepts bytes
    /// again.
    blocked: bool,
    /// Set if the transport holds bytes back until it is flushed, or was lost before it had accepted all
    /// bytes.
    unflushed: bool,
    activity: Activity,
    held: HeldReplies,
    /// The pings that wait for their pongs.
    pub(crate) pings: Pings,
    /// In a box, as most connections never have any of this.
    rare: Option<Box<Rare>>,
    /// The end of the last ping of the keepalive, in bytes since the connection was opened.
    keepalive_end: u64,
    phase: Phase,
    /// Foreign code to be run once the lock is released: see [`OutboundGuard`](guard::OutboundGuard).
    pub(crate) deferred: DeferredList,
    /// Present if messages are compressed.
    compressor: Option<Box<Compressor>>,
}

/// The progress of our direction towards its end.
///
/// ```text
/// Open --a Close frame is accepted, or the transport is lost--> Closed --the transport is closed--> Finished
/// ```
enum Phase {
    Open,
    /// Nothing more may be sent, for this reason. Everything that was accepted before is still written,
    /// unless the transport was lost.
    Closed(Error),
    /// The transport is closed. The reason is that of `Closed`.
    Finished(Error),
}

/// Flags that record whether the transport accepted anything since each of them was read.
#[derive(Default)]
struct Activity {
    /// See [`take_progress`](Outbound::take_progress).
    progress: bool,
    /// See [`take_spoken`](Outbound::take_spoken).
    spoken: bool,
}

/// State that most connections never have.
#[derive(Default)]
struct Rare {
    /// The payload of the newest ping that could not be answered yet.
    owed_pong: Option<Box<[u8]>>,
    /// The reason why no pong will arrive any more.
    pings_ended: Option<Error>,
    /// The callers that wait for the end: `closed`, `close`.
    end_watchers: WaitQueue,
    /// The application's function for control frames.
    control_hook: Option<ControlHook>,
    /// The registration of a connection that an application's shutdown waits for.
    attachment: Attachment,
}

/// Something that a sender puts into the queue when it is its turn.
pub(crate) trait Outgoing: Unpin {
    /// The result for the sender.
    type Accepted;

    /// Puts this into the queue of an open connection, once.
    fn accept(&mut self, outbound: &mut Outbound) -> Result<Self::Accepted, Error>;
}

/// The queues of waiting callers.
#[derive(Clone, Copy)]
pub(crate) enum Queue {
    /// Senders that wait for their turn.
    Senders,
    /// Callers that wait for a change of what is written.
    Watchers,
    /// Callers that wait for the end.
    End,
}

impl Outbound {
    pub(crate) fn new(transport: WriteTransport, role: Role, high_water_mark: usize) -> Self {
        Self {
            transport: Some(transport),
            half: SendHalf::new(role),
            queue: WriteQueue::default(),
            tally: Tally::default(),
            high_water_mark,
            senders: WaitQueue::default(),
            watchers: WaitQueue::default(),
            writer_open: false,
            blocked: false,
            unflushed: false,
            activity: Activity::default(),
            held: HeldReplies::default(),
            pings: Pings::default(),
            rare: None,
            keepalive_end: 0,
            phase: Phase::Open,
            deferred: DeferredList::default(),
            compressor: None,
        }
    }

    // ---- accepting

    /// Returns whether a message may be accepted from the sender at `place`.
    #[inline]
    pub(crate) fn ask_turn(&mut self, place: &Place) -> Turn {
        if self.writer_open || !self.has_space() { Turn::Later } else { self.senders.ask_turn(place) }
    }

    /// Returns whether a `MessageWriter` has the exclusive right to send data.
    #[cfg(feature = "futures")]
    pub(crate) fn has_writer(&self) -> bool {
        self.writer_open
    }

    /// Returns whether the queue is below the size that makes senders wait.
    ///
    /// As long as the transport accepts everything, only replies to a batch wait in the queue. They may
    /// gather beyond the high-water mark, in order to leave with few writes.
    #[inline]
    pub(crate) fn has_space(&self) -> bool {
        let len = self.queue.len();
        len < self.high_water_mark || (!self.blocked && len / GATHERED < self.high_water_mark)
    }

    /// Accepts a ping with this payload, or with a random one.
    pub(crate) fn accept_ping(&mut self, payload: Option<&[u8]>) -> Result<PingId, Error> {
        let chosen: [u8; 8] = random();
        let payload = payload.unwrap_or(&chosen);
        self.pings.check_new(payload)?;
        let key = self.masking_key();
        self.half.ping(payload, key, self.queue.out()).map_err(misuse)?;
        Ok(self.pings.begin(payload))
    }

    /// Accepts a pong that answers no ping.
    pub(crate) fn accept_pong(&mut self, payload: &[u8]) -> Result<(), Error> {
        let key = self.masking_key();
        // RFC 6455 5.5.3: a pong may be sent unasked.
        self.half.pong(payload, key, self.queue.out()).map_err(misuse)
    }

    /// Accepts a ping of the keepalive. Its pong only shows the round-trip time, since any byte that arrives
    /// is a sign of life.
    pub(crate) fn accept_keepalive(&mut self) {
        let payload = self.pings.begin_keepalive();
        self.encode_ping(&payload);
        self.keepalive_end = self.queue.end();
    }

    /// Notes a pong, which may answer one of our pings.
    pub(crate) fn ponged(&mut self, payload: &[u8]) {
        self.show(|| ControlFrame::Pong(Bytes::copy_from_slice(payload)));
        if self.pings.ponged(payload) {
            self.wake_watchers();
        }
    }

    /// Gives up all pings, since the peer will send no pong any more.
    pub(crate) fn end_pings(&mut self, error: Error) {
        self.rare.get_or_insert_default().pings_ended = Some(error);
        self.pings.clear();
        self.wake_watchers();
    }

    /// Returns the reason why a ping can't be sent, or why no pong will arrive, if there is one.
    pub(crate) fn pings_ended(&self) -> Option<&Error> {
        self.closed().or_else(|| self.rare.as_ref()?.pings_ended.as_ref())
    }

    /// Accepts the pong to a ping, or keeps it for later while the transport is blocked.
    pub(crate) fn answer(&mut self, payload: Box<[u8]>) {
        self.show(|| ControlFrame::Ping(payload.clone().into()));
        if self.closed().is_some() {
            return;
        }
        // RFC 6455 5.5.3: only the most recent ping has to be answered.
        if self.blocked {
            self.rare.get_or_insert_default().owed_pong = Some(payload);
        } else {
            self.encode_pong(&payload);
        }
    }

    /// Sets the application's function for control frames.
    pub(crate) fn set_control_hook(&mut self, hook: ControlHook) {
        self.rare.get_or_insert_default().control_hook = Some(hook);
    }

    /// Shows a control frame of the peer to the application's function, if there is one, after the lock.
    pub(crate) fn show(&mut self, frame: impl FnOnce() -> ControlFrame) {
        let hook = self.rare.as_ref().and_then(|rare| rare.control_hook.clone());
        self.deferred.extend(hook.map(|hook| Deferred::Control(Box::new((hook, frame())))));
    }

    /// Returns whether pongs may wait for other pongs, or for the transport.
    pub(crate) fn gathers_pongs(&self) -> bool {
        self.blocked || self.queue.len() < PONGS_MAX
    }

    /// Accepts the Close frame, after everything that was accepted before. Later senders receive `error`.
    pub(crate) fn close(&mut self, frame: &CloseFrame, error: Error) {
        if self.closed().is_none() {
            // RFC 6455 5.5.1: an endpoint that has not sent a Close frame before sends one in response.
            let key = self.masking_key();
            let encoded = self.half.close(frame, key, self.queue.out());
            debug_assert!(encoded.is_ok(), "the `SendHalf` is open as long as this half is");
            self.stop_accepting(error);
        }
    }

    /// Fails the connection with a close code of ours (RFC 6455 7.1.7).
    pub(crate) fn fail(&mut self, code: CloseCode, error: Error) {
        let frame = CloseFrame::new(code, "").expect("the code of a failure may be sent");
        self.close(&frame, error);
    }

    /// Accepts nothing more. Everything that was accepted before is still written.
    pub(crate) fn stop_accepting(&mut self, error: Error) {
        if self.closed().is_none() {
            self.phase = Phase::Closed(error);
        } else {
            self.deferred.push(Deferred::DropError(error));
        }
        self.senders.wake_all(&mut self.deferred);
        self.wake_end_watchers();
        self.wake_watchers();
    }

    /// Closes the transport at once, and discards everything that is not written.
    pub(crate) fn close_transport(&mut self, error: Error) {
        // A later flush must not take the discarded bytes for written ones.
        self.unflushed |= !self.queue.is_empty();
        self.queue.clear(&mut self.deferred);
        self.deferred.extend(self.transport.take().map(Deferred::Abort));
        self.blocked = false;
        self.stop_accepting(error);
    }

    /// Ends a transport whose peer has ended the stream, after which nothing more can be sent.
    pub(crate) fn end_transport(&mut self, cx: &mut Context<'_>) {
        let is_tcp = self.transport.as_ref().is_some_and(WriteTransport::is_tcp);
        if !is_tcp {
            // A single attempt is all that TLS asks for.
            let _ = self.poll_shutdown(cx);
        }
    }

    /// Records that the connection has ended entirely.
    pub(crate) fn finish(&mut self) {
        self.deferred.extend(self.transport.take().map(Deferred::Forget));
        self.phase = match mem::replace(&mut self.phase, Phase::Open) {
            Phase::Closed(error) => Phase::Finished(error),
            phase => phase,
        };
        debug_assert!(self.is_finished(), "a connection is closed before it is finished");
        self.release_attachment();
        self.wake_end_watchers();
        self.wake_watchers();
    }

    // ---- writing

    /// Counts a reply to a batch. Returns whether it has to be written, together with those before it,
    /// instead of being held back.
    pub(crate) fn note_reply(&mut self) -> bool {
        // Replies are free as long as each of them would find that it may be accepted at once.
        let is_free = self.closed().is_none() && !self.writer_open && self.senders.is_empty();
        self.held.add(if is_free { FREE - 1 } else { 0 }) || !self.has_space()
    }

    /// Counts a reply to a batch that is [free](HeldReplies). Returns `false` if it is not.
    #[inline]
    pub(crate) fn note_free_reply(&mut self) -> bool {
        self.held.add_free()
    }

    /// Ends the free replies, since something may change now.
    #[inline]
    pub(crate) fn end_free_replies(&mut self) {
        self.held.end_free();
    }

    /// Writes as much as the transport accepts.
    ///
    /// # Errors
    ///
    /// Returns an error if the transport fails.
    #[inline]
    pub(crate) fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.write_queued(cx)? {}
        Ok(())
    }

    /// Writes as much as the transport accepts. Returns whether more was queued meanwhile.
    #[inline]
    fn write_queued(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let Some(transport) = &mut self.transport else { return Ok(false) };
        self.held.clear();
        let (was_blocked, mut progress) = (self.blocked, false);
        self.blocked = loop {
            if self.queue.is_empty() {
                break self.unflushed && transport.poll_flush(cx)?.is_pending();
            }
            let written = match transport {
                WriteTransport::Http2(stream) => {
                    let len = self.queue.len();
                    stream.poll_write(cx, len, |count| self.queue.take(count, &mut self.deferred))
                }
                _ => self.queue.with_slices(|slices| transport.poll_write(cx, slices)).map_ok(|count| {
                    self.queue.advance(count, &mut self.deferred);
                    count
                }),
            };
            let Poll::Ready(count) = written? else { break true };
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.unflushed = true;
            progress = true;
        };
        self.unflushed &= self.blocked;
        // The end of a flush that was pending also counts as progress.
        if progress || (was_blocked && !self.blocked) {
            self.activity = Activity { progress: true, spoken: true };
            self.wake_senders();
            self.wake_watchers();
            if let Some(payload) = self.rare.as_mut().and_then(|rare| rare.owed_pong.take()) {
                self.encode_pong(&payload);
                return Ok(!self.blocked);
            }
        }
        Ok(false)
    }

    /// Ends our direction of the stream.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.transport {
            // An error means that the stream has ended already.
            Some(transport) => transport.poll_shutdown(cx).map(drop),
            None => Poll::Ready(()),
        }
    }

    // ---- waiting

    /// Registers the caller at `place` of `queue` to be woken.
    pub(crate) fn wait(&mut self, queue: Queue, place: &mut Place, manner: Manner, waker: &Waker) {
        let (queue, deferred) = self.queue_and_deferred(queue);
        queue.wait(place, manner, waker, deferred);
    }

    /// Removes the caller at `place` from its queue.
    pub(crate) fn leave(&mut self, queue: Queue, place: &mut Place) {
        if place.is_taken() {
            let (queue, deferred) = self.queue_and_deferred(queue);
            queue.leave(place, deferred);
        }
    }

    /// Returns a queue, and the list for wakers that the queue has to wake or drop.
    fn queue_and_deferred(&mut self, queue: Queue) -> (&mut WaitQueue, &mut DeferredList) {
        let queue = match queue {
            Queue::Senders => &mut self.senders,
            Queue::Watchers => &mut self.watchers,
            Queue::End => &mut self.rare.get_or_insert_default().end_watchers,
        };
        (queue, &mut self.deferred)
    }

    /// Wakes the first sender if a message would be accepted from it.
    #[inline]
    pub(crate) fn wake_senders(&mut self) {
        if !self.senders.is_empty() && !self.writer_open && self.has_space() {
            self.senders.wake_first(&mut self.deferred);
        }
    }

    #[inline]
    fn wake_watchers(&mut self) {
        if !self.watchers.is_empty() {
            self.watchers.wake_all(&mut self.deferred);
        }
    }

    fn wake_end_watchers(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.end_watchers.wake_all(&mut self.deferred);
        }
    }

    // ---- getters

    /// Returns the reason why nothing can be sent, if there is one.
    #[inline]
    pub(crate) fn closed(&self) -> Option<&Error> {
        match &self.phase {
            Phase::Open => None,
            Phase::Closed(error) | Phase::Finished(error) => Some(error),
        }
    }

    /// Returns whether the connection has ended entirely.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished(_))
    }

    /// Returns whether the transport accepts nothing more for now.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Returns whether everything that was accepted has been handed to the transport.
    pub(crate) fn is_written(&self) -> bool {
        self.transport.is_none() || (self.queue.is_empty() && !self.unflushed)
    }

    /// Returns the messages that were accepted.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    /// Returns the number of bytes that the transport has taken.
    pub(crate) fn written(&self) -> u64 {
        self.queue.written()
    }

    /// Returns the number of bytes that were accepted and that the transport has not taken.
    pub(crate) fn pending(&self) -> usize {
        self.queue.len()
    }

    /// Returns the number of bytes that will have been written once everything accepted so far is.
    pub(crate) fn end(&self) -> u64 {
        self.queue.end()
    }

    /// Returns whether the bytes up to `end` were handed to the transport.
    pub(crate) fn has_written(&self, end: u64) -> bool {
        self.queue.written() >= end && (self.queue.written() > end || !self.unflushed)
    }

    /// Returns the result of a flush of the bytes before `end`, or `None` if it is not known yet.
    pub(crate) fn flushed(&self, end: u64) -> Option<Result<(), Error>> {
        if self.has_written(end) {
            return Some(Ok(()));
        }
        // After our Close frame, only the end of the connection tells whether everything was written.
        let error = self.closed().filter(|_| self.transport.is_none())?;
        Some(Err(error.clone()))
    }

    /// Returns whether the ping of the keepalive was handed to the transport.
    pub(crate) fn has_written_keepalive(&self) -> bool {
        self.has_written(self.keepalive_end)
    }

    /// Returns whether the transport accepted anything since the last call.
    pub(crate) fn take_progress(&mut self) -> bool {
        mem::take(&mut self.activity.progress)
    }

    /// Returns whether the transport accepted anything since the last call. In that case the peer, and
    /// everything on the way to it, has heard of our side.
    pub(crate) fn take_spoken(&mut self) -> bool {
        mem::take(&mut self.activity.spoken)
    }

    /// Returns whether the driver has something to wait for: the transport, a pong, or the end.
    pub(crate) fn needs_driver(&self) -> bool {
        self.blocked || self.pings.are_awaited() || self.closed().is_some()
    }

    pub(crate) fn has_transport(&self) -> bool {
        self.transport.is_some()
    }

    pub(crate) fn role(&self) -> Role {
        self.half.role()
    }

    pub(crate) fn is_tcp(&self) -> bool {
        self.transport.as_ref().is_some_and(WriteTransport::is_tcp)
    }

    // ---- helpers

    /// Returns the masking key of the next frame.
    #[inline]
    fn masking_key(&self) -> [u8; 4] {
        // RFC 6455 5.3: a client selects a fresh, unpredictable masking key for each frame.
        match self.half.role() {
            Role::Client => random(),
            Role::Server => [0; 4],
        }
    }

    fn encode_ping(&mut self, payload: &[u8]) {
        let key = self.masking_key();
        // This fails only after a Close frame, when no ping is needed.
        let _ = self.half.ping(payload, key, self.queue.out());
    }

    fn encode_pong(&mut self, payload: &[u8]) {
        let key = self.masking_key();
        // RFC 6455 5.5.2, 5.5.3: a ping is answered with its own payload, unless a Close frame was sent.
        let _ = self.half.pong(payload, key, self.queue.out());
    }
}

/// Returns the error of a call that asked for something that may not be sent.
#[cold]
pub(crate) fn misuse(misuse: Misuse) -> Error {
    misuse.into()
}

/// Returns the error that senders receive on a connection that our side has closed.
pub(crate) fn closed_by_us() -> Error {
    Error::new(ErrorKind::Closed, "the connection is closed: close() was called")
}
