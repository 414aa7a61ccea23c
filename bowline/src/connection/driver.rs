//! The driver: one task for each connection, which does everything that belongs to no caller.
//!
//! - It writes what a full transport left in the queue, and replies that are still held back when a poll of the application has ended.
//! - It reads while the application does not: pings are answered and Close frames echoed, up to the first message that nobody has
//!   asked for.
//! - It runs the [`keepalive`](crate::connection::keepalive).
//! - It ends the transport in the order of the RFC, within the close timeout.
//!
//! # When the driver runs
//!
//! The transport wakes the driver only if no `recv` waits, or if the driver itself waits for something (see
//! [`waker`](crate::connection::waker)). A connection whose application reads all the time therefore costs the driver almost nothing.
//! The driver has a single timer, the earliest of the keepalive, the close deadline and its patience with the application.
//!
//! # Deadlines under load
//!
//! A peer that never stops sending keeps every poll of the driver busy until the budget of the task is spent. A timer polled
//! without budget is pending, whatever the time. The driver therefore compares the clock itself with the deadline, and polls its
//! timer outside of the budget. A deadline that is handled late, as after a stop of the process, is no [`Verdict`] on the peer.
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
use crate::connection::keepalive::{Keepalive, PeerLife};
use crate::connection::verdict::Verdict;
use crate::error::{Error, ErrorKind};
use crate::events;
use crate::transport::poll_without_budget;

/// How long an application that was just handed something, or woken, is left alone before the task reads in its place.
///
/// It may be about to answer, and what follows could be the peer's Close frame or a violation, behind which nothing
/// can be sent. Pings wait as long, or twice, which is less than a second; an application that has not read for longer
/// does not delay them at all. It is no shorter, as each look of the task costs about as much as a message.
const PATIENCE: Duration = Duration::from_millis(400);

/// Looks after a connection until it has ended.
///
/// Every connection has one, so that its size counts.
struct Driver {
    connection: Arc<Connection>,
    close_timeout: Span,
    stage: Stage,
    /// Until then we do not look whether to read in the application's place.
    patient_until: Option<Moment>,
    /// What the timer was set to.
    timer_at: Moment,
}

/// How far the end of the connection has come.
enum Stage {
    Open(Option<Keepalive>),
    /// Nothing more is accepted: the rest is written, and the peer's Close frame awaited if ours was first.
    Closing {
        deadline: Verdict,
    },
    /// Our direction of the transport is being shut down.
    ShuttingDown {
        deadline: Verdict,
    },
    /// Whatever still comes is thrown away until the peer ends the transport, so that no TCP reset overtakes our
    /// Close frame.
    Draining {
        deadline: Verdict,
        /// Our direction of the transport was shut down.
        shut_down: bool,
    },
}

/// Who reads next: see [`Driver::next_reader`].
enum NextReader {
    Application,
    /// The application has [`PATIENCE`] to come.
    ApplicationSoon,
    Driver,
}

pin_project! {
    /// The connection's task. A type of its own, as an `async fn` would hold the attendant twice.
    pub(crate) struct DriverTask {
        attendant: Driver,
        #[pin]
        timer: Sleep,
    }
}

impl DriverTask {
    /// # Panics
    ///
    /// Outside of a tokio runtime, or in one without a timer.
    pub(crate) fn new(
        connection: Arc<Connection>,
        keepalive: Option<Duration>,
        close_timeout: Duration,
    ) -> Self {
        let (instant, moment) = (Instant::now(), Moment::FIRST);
        let now = Now::by(instant, moment);
        let attendant = Driver {
            connection,
            close_timeout: close_timeout.into(),
            stage: Stage::Open(keepalive.map(|interval| Keepalive::new(interval.into(), &now))),
            patient_until: None,
            timer_at: moment,
        };
        Self { attendant, timer: sleep_until(instant) }
    }
}

impl Future for DriverTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        this.attendant.poll(cx, this.timer)
    }
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        self.connection.waker.set_task(Some(cx.waker()));
        self.connection.write_held();
        #[cfg(feature = "http2")]
        self.connection.gather();
        if self.is_patient() && !timer.is_elapsed() {
            return Poll::Pending;
        }
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
            // By the clock itself: if the budget is spent, as it is when the peer never stops sending, a timer tells nothing.
            let is_waiting =
                !now.is_past(deadline) && poll_without_budget(cx, |cx| timer.as_mut().poll(cx)).is_pending();
            if is_waiting {
                return Poll::Pending;
            }
            self.handle_timeout(&Now::by(timer.deadline(), self.timer_at), cx);
        }
    }

    /// Whether there is nothing to do before the timer runs out: what a task that is woken for each batch finds most often.
    fn is_patient(&self) -> bool {
        self.patient_until.is_some() && !self.connection.outbound().needs_task()
    }

    /// Writes what a full transport left behind.
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
        self.connection.waker.set_task_waits(outbound.needs_task());
    }

    /// Reads in the application's place, if the application does not.
    fn read(&mut self, now: &Now, cx: &mut Context<'_>) {
        match self.next_reader(now) {
            NextReader::Application => {}
            NextReader::ApplicationSoon => self.patient_until = Some(now.after(PATIENCE.into())),
            NextReader::Driver => {
                self.patient_until = None;
                self.connection.read_unattended(cx);
            }
        }
    }

    /// Decides who reads next.
    ///
    /// | a ping or a close waits | patience | since the last look, the application | `recv` | next reader |
    /// |---|---|---|---|---|
    /// | yes | any | any | any | the driver |
    /// | no | has not run out | any | any | the application |
    /// | no | had not begun | was woken to read | any | the application, soon |
    /// | no | has run out | was handed something | any | the application, soon |
    /// | no | any | neither | waits | the application |
    /// | no | had not begun | was handed something | waits | the application |
    /// | no | had not begun | was handed something | does not wait | the application, soon |
    /// | no | any | neither | does not wait | the driver |
    fn next_reader(&mut self, now: &Now) -> NextReader {
        let connection = &self.connection;
        let outbound = connection.outbound();
        let is_awaited = !outbound.pings.is_empty() || outbound.closed().is_some();
        drop(outbound);
        if is_awaited {
            return NextReader::Driver;
        }
        // The timer is left to run out, not moved with every message.
        if self.patient_until.is_some_and(|until| !now.is_past(until)) {
            return NextReader::Application;
        }
        let waited = self.patient_until.take().is_some();
        let was_handed = connection.inbound().take_handed_out();
        let was_woken = connection.waker.is_watched() && !waited;
        // An application that came while it was watched will come again. It stays watched, so that the next message does not
        // wake the driver, too.
        let keeps_coming = was_handed && waited;
        if !was_woken && !keeps_coming && connection.waker.leave_to_reader() {
            return NextReader::Application;
        }
        let comes_soon = was_handed || was_woken;
        connection.waker.watch(comes_soon);
        if comes_soon { NextReader::ApplicationSoon } else { NextReader::Driver }
    }

    /// Takes the end of the connection as far as it can be taken now; ready when the transport has ended.
    fn poll_end(&mut self, now: &Now) -> Poll<()> {
        loop {
            let connection = &self.connection;
            self.stage = match self.stage {
                Stage::Open(_) => {
                    let Some(error) = connection.outbound().closed().cloned() else { return Poll::Pending };
                    if matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Io) {
                        events::connection_lost(connection.addresses.peer, &error);
                    }
                    connection.waker.set_task_waits(true);
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
                    // RFC 6455 7.1.1: the server closes the TCP connection first; a client waits for it.
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

    /// When to look again, whatever happens.
    fn deadline(&self) -> Option<Moment> {
        match &self.stage {
            Stage::Open(keepalive) => {
                earliest(keepalive.as_ref().map(Keepalive::deadline), self.patient_until)
            }
            Stage::Closing { deadline }
            | Stage::ShuttingDown { deadline }
            | Stage::Draining { deadline, .. } => Some(deadline.next_look()),
        }
    }

    fn handle_timeout(&mut self, now: &Now, cx: &mut Context<'_>) {
        let connection = &self.connection;
        let timeout = self.close_timeout;
        let lost = match &mut self.stage {
            Stage::Open(Some(keepalive)) if now.is_past(keepalive.deadline()) => {
                keepalive.handle_timeout(now, connection, cx)
            }
            Stage::Open(_) => Ok(()),
            Stage::Closing { deadline }
            | Stage::ShuttingDown { deadline }
            | Stage::Draining { deadline, .. } => {
                if deadline.is_up(now, timeout) {
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
        // Also when the runtime is shut down: nobody is to wait for a task that is gone.
        if !self.connection.outbound().is_finished() {
            self.connection.write_last();
            self.connection.close_transport(&Error::new(
                ErrorKind::Disconnected,
                "the connection ended without a Close frame: its runtime was shut down",
            ));
        }
        self.connection.waker.set_task(None);
    }
}

/// Why the end of a connection took too long.
fn close_timed_out(connection: &Connection, timeout: Span) -> Error {
    // If writing failed, that is why it ends.
    let is_cause = |error: &&Error| matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Io);
    let failed = connection.outbound().closed().filter(is_cause).cloned();
    failed.unwrap_or_else(|| {
        let text = format!("the peer did not end the connection within the close timeout of {timeout:?}");
        Error::new(ErrorKind::Timeout, text)
    })
}

fn earliest(one: Option<Moment>, other: Option<Moment>) -> Option<Moment> {
    one.into_iter().chain(other).reduce(Moment::min)
}
