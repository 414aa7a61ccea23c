//! The driver: one task for each connection, which does everything that belongs to no caller.
//!
//! - It writes what a full transport left in the queue, and replies that are still held back when a poll of
//!   the application has ended.
//! - It reads while the application does not: pings are answered and Close frames echoed, up to the first
//!   message that nobody has asked for.
//! - It runs the [`keepalive`](crate::connection::keepalive).
//! - It ends the transport in the order of the RFC, within the close timeout.
//!
//! # When the driver runs
//!
//! The transport wakes the driver if the driver itself waits for something, or if the driver is not watching
//! the application (see [`waker`](crate::connection::waker)). A driver that watches finds out by its timer
//! whether an application that was woken actually reads. A connection whose application reads all the time
//! therefore costs the driver almost nothing. The driver has a single timer, for the earliest of the
//! keepalive, the close deadline and the end of the application's grace period.
//!
//! # Deadlines under load
//!
//! A peer that never stops sending keeps every poll of the driver busy until the budget of the task is spent.
//! A timer polled without budget is pending, whatever the time. The driver therefore compares the clock
//! itself with the deadline, and polls its timer outside of the budget. A [`Verdict`] forgives a deadline
//! that is handled late, for example after the process was stopped.
//!
//! # The end of a connection
//!
//! ```text
//! Open --outbound is closed--> Closing --all is written, and the peer has closed or is gone--.
//!                                                                                            |
//!   .-- client, and the peer's Close frame came: the server ends TCP first (RFC 6455 7.1.1) --+-- otherwise
//!   v                                                                                        v
//! Draining <------------------------ shut down ------------------------------------- ShuttingDown
//!   |
//!   '--the peer ends its direction, or the close timeout runs out--> finished
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bowline_proto::Role;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::connection::Connection;
use crate::connection::clock::{Moment, Now, Span};
use crate::connection::keepalive::{Keepalive, PeerLife, Reader};
use crate::connection::verdict::Verdict;
use crate::error::{Error, ErrorKind};
use crate::events;
use crate::transport::poll_without_budget;

/// The grace period for an application that was just handed something, or woken, before the driver reads in
/// its place.
///
/// The application may be about to answer, and the following bytes could be the peer's Close frame or a
/// violation, after which nothing can be sent. Pings wait for one grace period, or for two, which is less
/// than a second. An application that has not read for longer does not delay pings at all. The period is no
/// shorter, since each run of the driver costs about as much as a message.
const GRACE_PERIOD: Duration = Duration::from_millis(400);

/// The state of the driver of a connection.
///
/// Every connection has one, so its size counts.
struct Driver {
    connection: Arc<Connection>,
    close_timeout: Span,
    stage: Stage,
    /// The end of the grace period that was granted last. `None` once the driver has found the period
    /// expired.
    grace_until: Option<Moment>,
    /// The moment to which the timer was set.
    timer_at: Moment,
}

/// The progress of the connection towards its end: see the diagram in the module's docs.
enum Stage {
    /// Messages are sent and received; the keepalive runs, unless it is turned off.
    Open(Option<Keepalive>),
    /// Nothing more is accepted. The rest is written, and the peer's Close frame is awaited if ours was
    /// first.
    Closing { deadline: Verdict },
    /// Our direction of the transport is being shut down.
    ShuttingDown { deadline: Verdict },
    /// Bytes that still arrive are discarded until the peer ends the transport, so that no TCP reset
    /// overtakes our Close frame.
    Draining {
        deadline: Verdict,
        /// Set if our direction of the transport was shut down before.
        shut_down: bool,
    },
}

/// The next reader, chosen by [`Driver::next_reader`].
enum NextReader {
    Application,
    /// The application, if it reads within the [`GRACE_PERIOD`].
    ApplicationSoon,
    Driver,
}

pin_project! {
    /// The driver as a future. It is a type of its own, as an `async fn` would store the driver twice.
    pub(crate) struct DriverTask {
        driver: Driver,
        #[pin]
        timer: Sleep,
    }
}

impl DriverTask {
    /// Returns the task to be spawned for `connection`. The keepalive is off if its interval is `None`.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime, and in a runtime without a timer.
    pub(crate) fn new(
        connection: Arc<Connection>,
        keepalive: Option<Duration>,
        close_timeout: Duration,
    ) -> Self {
        let (instant, moment) = (Instant::now(), Moment::FIRST);
        let now = Now::by(instant, moment);
        let driver = Driver {
            connection,
            close_timeout: close_timeout.into(),
            stage: Stage::Open(keepalive.map(|interval| Keepalive::new(interval.into(), &now))),
            grace_until: None,
            timer_at: moment,
        };
        Self { driver, timer: sleep_until(instant) }
    }
}

impl Future for DriverTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        this.driver.poll(cx, this.timer)
    }
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        self.connection.waker.set_driver(Some(cx.waker()));
        self.connection.uncork();
        self.connection.gather();
        if self.is_in_grace_period() && !timer.is_elapsed() {
            return Poll::Pending;
        }
        let reader = if self.connection.waker.has_reader() { Reader::Waits } else { Reader::Absent };
        loop {
            let now = Now::by(timer.deadline(), self.timer_at);
            self.write(&now);
            self.read(&now, cx);
            if self.poll_end(&now).is_ready() {
                self.finish();
                return Poll::Ready(());
            }
            let Some(deadline) = self.deadline() else { return Poll::Pending };
            if self.timer_at != deadline {
                self.timer_at = deadline;
                timer.as_mut().reset(now.instant(deadline));
            }
            // The clock itself decides: if the budget is spent, as under a peer that never stops sending, a
            // timer is pending whatever the time.
            let is_waiting =
                !now.is_past(deadline) && poll_without_budget(cx, |cx| timer.as_mut().poll(cx)).is_pending();
            if is_waiting {
                return Poll::Pending;
            }
            self.handle_timeout(&Now::by(timer.deadline(), self.timer_at), reader, cx);
        }
    }

    /// Returns whether a grace period is running and nothing else is to be done before it ends. This is the
    /// usual case of a driver that is woken for each batch.
    fn is_in_grace_period(&self) -> bool {
        self.grace_until.is_some() && !self.connection.outbound().needs_driver()
    }

    /// Writes the bytes that a full transport left in the queue, and starts or ends the deadlines of the
    /// keepalive that depend on writing.
    fn write(&mut self, now: &Now) {
        let mut outbound = self.connection.outbound();
        if outbound.is_blocked() {
            self.connection.write_locked(&mut outbound);
        }
        if let Stage::Open(Some(keepalive)) = &mut self.stage {
            let progress = outbound.take_progress();
            keepalive.stalled = match keepalive.stalled {
                Some(verdict) if outbound.is_blocked() && !progress => Some(verdict),
                _ => outbound.is_blocked().then(|| Verdict::after(now, keepalive.interval)),
            };
            let pinging = keepalive.peer == PeerLife::Pinged;
            if pinging && keepalive.dead.is_none() && outbound.has_written_keepalive() {
                keepalive.dead = Some(Verdict::after(now, keepalive.interval));
            }
        }
        self.connection.waker.set_driver_waits(outbound.needs_driver());
    }

    /// Reads in the application's place if the application does not read.
    fn read(&mut self, now: &Now, cx: &mut Context<'_>) {
        match self.next_reader(now) {
            NextReader::Application => {}
            NextReader::ApplicationSoon => self.grace_until = Some(now.after(GRACE_PERIOD.into())),
            NextReader::Driver => {
                self.grace_until = None;
                self.connection.read_unattended(cx);
            }
        }
    }

    /// Decides who reads next.
    ///
    /// A wake-up of the application counts only if no grace period was running. The driver grants one grace
    /// period for each wake-up, and another one if the application was handed something meanwhile.
    ///
    /// | ping or close waits | grace period | since the last look, the application | `recv` | next reader |
    /// |---|---|---|---|---|
    /// | yes | any | any | any | the driver |
    /// | no | running | any | any | the application |
    /// | no | none | was woken to read | any | the application, soon |
    /// | no | expired | was handed something | any | the application, soon |
    /// | no | any | neither | waits | the application |
    /// | no | none | was handed something | waits | the application |
    /// | no | none | was handed something | does not wait | the application, soon |
    /// | no | any | neither | does not wait | the driver |
    fn next_reader(&mut self, now: &Now) -> NextReader {
        let connection = &self.connection;
        let outbound = connection.outbound();
        let is_awaited = outbound.pings.are_awaited() || outbound.closed().is_some();
        drop(outbound);
        if is_awaited {
            return NextReader::Driver;
        }
        // The timer is left to expire instead of being reset for every message.
        if self.grace_until.is_some_and(|until| !now.is_past(until)) {
            return NextReader::Application;
        }
        let waited = self.grace_until.take().is_some();
        let was_handed = connection.inbound().take_handed_out();
        let was_woken = connection.waker.is_watched() && !waited;
        // An application that has read while it was watched is likely to read again. It stays watched, so
        // that the next message does not wake the driver, too.
        let keeps_coming = was_handed && waited;
        if !was_woken && !keeps_coming && connection.waker.leave_to_reader() {
            return NextReader::Application;
        }
        let comes_soon = was_handed || was_woken;
        connection.waker.watch(comes_soon);
        if comes_soon { NextReader::ApplicationSoon } else { NextReader::Driver }
    }

    /// Advances the end of the connection as far as possible now. Ready when the transport has ended.
    fn poll_end(&mut self, now: &Now) -> Poll<()> {
        loop {
            let connection = &self.connection;
            self.stage = match self.stage {
                Stage::Open(_) => {
                    let Some(error) = connection.outbound().closed().cloned() else { return Poll::Pending };
                    if matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Io) {
                        events::connection_lost(connection.addresses.peer, &error);
                    }
                    connection.waker.set_driver_waits(true);
                    Stage::Closing { deadline: Verdict::after(now, self.close_timeout) }
                }
                Stage::Closing { deadline } => {
                    let inbound = connection.inbound();
                    let (received_all, peer_closed) = (inbound.has_ended(), inbound.has_peer_close());
                    drop(inbound);
                    let outbound = connection.outbound();
                    if !received_all {
                        return Poll::Pending;
                    }
                    if !outbound.is_written() {
                        drop(outbound);
                        let _ = connection.inbound().poll_drain(&mut connection.context());
                        return Poll::Pending;
                    }
                    // RFC 6455 7.1.1: the server closes the TCP connection first, and a client waits for
                    // that.
                    if outbound.role() == Role::Client && peer_closed {
                        Stage::Draining { deadline, shut_down: false }
                    } else {
                        Stage::ShuttingDown { deadline }
                    }
                }
                Stage::ShuttingDown { deadline } => {
                    if connection.outbound().poll_shutdown(&mut connection.context()).is_pending() {
                        let _ = connection.inbound().poll_drain(&mut connection.context());
                        return Poll::Pending;
                    }
                    Stage::Draining { deadline, shut_down: true }
                }
                Stage::Draining { .. } => return connection.inbound().poll_drain(&mut connection.context()),
            };
        }
    }

    /// Returns when the driver has to run again even if nothing happens.
    fn deadline(&self) -> Option<Moment> {
        match &self.stage {
            Stage::Open(keepalive) => earliest(keepalive.as_ref().map(Keepalive::deadline), self.grace_until),
            Stage::Closing { deadline }
            | Stage::ShuttingDown { deadline }
            | Stage::Draining { deadline, .. } => Some(deadline.next_look()),
        }
    }

    /// Handles the deadline that has passed. A connection whose peer is gone, or does not end it in time,
    /// loses its transport.
    fn handle_timeout(&mut self, now: &Now, reader: Reader, cx: &mut Context<'_>) {
        let connection = &self.connection;
        let timeout = self.close_timeout;
        let lost = match &mut self.stage {
            Stage::Open(Some(keepalive)) if now.is_past(keepalive.deadline()) => {
                keepalive.handle_timeout(now, connection, reader, cx)
            }
            Stage::Open(_) => Ok(()),
            Stage::Closing { deadline }
            | Stage::ShuttingDown { deadline }
            | Stage::Draining { deadline, .. } => {
                if deadline.check_expired(now, timeout) {
                    Err(close_timed_out(connection, timeout))
                } else {
                    Ok(())
                }
            }
        };
        if let Err(error) = lost {
            if matches!(self.stage, Stage::Open(_)) {
                events::keepalive_lost(connection.addresses.peer, &error);
            } else {
                events::connection_lost(connection.addresses.peer, &error);
            }
            connection.close_transport(&error);
        }
    }

    /// Releases the transport, and reports the end to all who wait for it.
    fn finish(&self) {
        let read_half = self.connection.inbound().release();
        drop(read_half);
        let mut outbound = self.connection.outbound();
        if !matches!(self.stage, Stage::Draining { shut_down: true, .. }) {
            outbound.end_transport(&mut self.connection.context());
        }
        outbound.finish();
        drop(outbound);
        self.connection.waker.wake_reader();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A runtime that is shut down drops the driver early. Nobody may then wait for a task that is gone.
        if !self.connection.outbound().is_finished() {
            let text = "the connection ended without a Close frame: its runtime was shut down";
            let error = Error::new(ErrorKind::Disconnected, text);
            self.connection.write_last(error.clone());
            self.connection.close_transport(&error);
        }
        self.connection.waker.set_driver(None);
    }
}

/// Returns the error of a connection that did not end within the close timeout.
fn close_timed_out(connection: &Connection, timeout: Span) -> Error {
    // An earlier failure of writing is the reason why the connection ends.
    let is_cause = |error: &&Error| matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Io);
    let failed = connection.outbound().closed().filter(is_cause).cloned();
    failed.unwrap_or_else(|| {
        let text = format!("the peer did not end the connection within {timeout:?} (Limits::close_timeout)");
        Error::new(ErrorKind::Timeout, text)
    })
}

/// Returns the earlier of two moments that may be missing.
fn earliest(one: Option<Moment>, other: Option<Moment>) -> Option<Moment> {
    one.into_iter().chain(other).reduce(Moment::min)
}
