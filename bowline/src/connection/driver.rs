//! The connection's task: what belongs to no caller.
//!
//! Keepalive, answering when nobody reads, writing what a cork or a full transport left behind, and the end.

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
struct Attendant {
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

pin_project! {
    /// The connection's task. A type of its own, as an `async fn` would hold the attendant twice.
    pub(crate) struct Attendance {
        attendant: Attendant,
        #[pin]
        timer: Sleep,
    }
}

impl Attendance {
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
        let attendant = Attendant {
            connection,
            close_timeout: close_timeout.into(),
            stage: Stage::Open(keepalive.map(|interval| Keepalive::new(interval.into(), &now))),
            patient_until: None,
            timer_at: moment,
        };
        Self { attendant, timer: sleep_until(instant) }
    }
}

impl Future for Attendance {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        this.attendant.poll(cx, this.timer)
    }
}

impl Attendant {
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        self.connection.signals.set_task(Some(cx.waker()));
        self.connection.write_held();
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
        self.patient_until.is_some() && !self.connection.transmit().needs_task()
    }

    /// Writes what a full transport left behind.
    fn write(&mut self, now: &Now) {
        let mut transmit = self.connection.transmit();
        if transmit.is_blocked() {
            self.connection.write_locked(&mut transmit);
        }
        if let Stage::Open(Some(keepalive)) = &mut self.stage {
            let progress = transmit.take_progress();
            keepalive.stalled = match keepalive.stalled {
                Some(verdict) if transmit.is_blocked() && !progress => Some(verdict),
                _ => transmit.is_blocked().then(|| Verdict::after(now, keepalive.interval)),
            };
            let pinging = keepalive.peer == PeerLife::Pinged;
            if pinging && keepalive.dead.is_none() && transmit.has_written_keepalive() {
                keepalive.dead = Some(Verdict::after(now, keepalive.interval));
            }
        }
        self.connection.signals.set_task_waits(transmit.needs_task());
    }

    /// Answers while nobody reads.
    fn read(&mut self, now: &Now, cx: &mut Context<'_>) {
        let connection = &self.connection;
        let transmit = connection.transmit();
        let asked_for = !transmit.pings.is_empty() || transmit.closed().is_some();
        drop(transmit);
        if !asked_for {
            // The timer is left to run out, not moved with every message.
            if self.patient_until.is_some_and(|until| !now.is_past(until)) {
                return;
            }
            let waited = self.patient_until.take().is_some();
            let busy = connection.receive().take_handed_out();
            let woken = connection.signals.is_watched() && !waited;
            // One that came while it was watched will again, and stays watched: not woken for the next message, too.
            let lively = busy && waited;
            if !woken && !lively && connection.signals.leave_to_reader() {
                return;
            }
            connection.signals.watch(busy || woken);
            if busy || woken {
                self.patient_until = Some(now.after(PATIENCE.into()));
                return;
            }
        }
        self.patient_until = None;
        connection.read_unattended(cx);
    }

    /// Takes the end of the connection as far as it can be taken now; ready when the transport has ended.
    fn poll_end(&mut self, now: &Now) -> Poll<()> {
        loop {
            let connection = &self.connection;
            self.stage = match self.stage {
                Stage::Open(_) => {
                    let Some(error) = connection.transmit().closed().cloned() else { return Poll::Pending };
                    if matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Io) {
                        events::connection_lost(connection.addresses.peer, &error);
                    }
                    connection.signals.set_task_waits(true);
                    Stage::Closing { deadline: Verdict::after(now, self.close_timeout) }
                }
                Stage::Closing { deadline } => {
                    let receive = connection.receive();
                    let (received_all, peer_closed) = (receive.has_ended(), receive.has_peer_close());
                    drop(receive);
                    let transmit = connection.transmit();
                    if !received_all {
                        return Poll::Pending;
                    }
                    if !transmit.is_written() {
                        drop(transmit);
                        let _ = connection.receive().poll_drain(&mut connection.context());
                        return Poll::Pending;
                    }
                    // RFC 6455 7.1.1: the server closes the TCP connection first; a client waits for it.
                    if transmit.role() == Role::Client && peer_closed {
                        Stage::Draining { deadline, shut_down: false }
                    } else {
                        Stage::ShuttingDown { deadline }
                    }
                }
                Stage::ShuttingDown { deadline } => {
                    if connection.transmit().poll_shutdown(&mut connection.context()).is_pending() {
                        let _ = connection.receive().poll_drain(&mut connection.context());
                        return Poll::Pending;
                    }
                    Stage::Draining { deadline, shut_down: true }
                }
                Stage::Draining { .. } => return connection.receive().poll_drain(&mut connection.context()),
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
            connection.lose(&error);
        }
    }

    fn finish(&self) {
        let read_half = self.connection.receive().release();
        drop(read_half);
        let mut transmit = self.connection.transmit();
        if !matches!(self.stage, Stage::Draining { shut_down: true, .. }) {
            transmit.end_transport(&mut self.connection.context());
        }
        transmit.finish();
        drop(transmit);
        self.connection.signals.wake_reader();
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        // Also when the runtime is shut down: nobody is to wait for a task that is gone.
        if !self.connection.transmit().is_finished() {
            self.connection.write_last();
            self.connection.lose(&Error::new(
                ErrorKind::Disconnected,
                "the connection ended without a Close frame: its runtime was shut down",
            ));
        }
        self.connection.signals.set_task(None);
    }
}

/// Why the end of a connection took too long.
fn close_timed_out(connection: &Connection, timeout: Span) -> Error {
    // If writing failed, that is why it ends.
    let is_cause = |error: &&Error| matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Io);
    let failed = connection.transmit().closed().filter(is_cause).cloned();
    failed.unwrap_or_else(|| {
        let text = format!("the peer did not end the connection within the close timeout of {timeout:?}");
        Error::new(ErrorKind::Timeout, text)
    })
}

fn earliest(one: Option<Moment>, other: Option<Moment>) -> Option<Moment> {
    one.into_iter().chain(other).reduce(Moment::min)
}
