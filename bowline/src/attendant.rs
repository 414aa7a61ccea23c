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

use crate::batch::Hold;
use crate::connection::Connection;
use crate::error::{Error, ErrorKind};
use crate::events;
use crate::moment::{Moment, Now, Span};
use crate::transport::poll_without_budget;
use crate::verdict::Verdict;

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

/// Finds out whether a silent peer is still there, and lets the peer know that we are.
struct Keepalive {
    interval: Span,
    /// When to look what has happened since the last look.
    tick: Moment,
    /// A ping was written; the peer is dead if nothing arrives until then.
    dead: Option<Verdict>,
    /// The transport takes nothing; the peer is dead if that goes on until then.
    stalled: Option<Verdict>,
    /// At the last look, unread data kept us from reading.
    suspended: bool,
    peer: PeerLife,
}

/// What the peer has shown of itself.
///
/// ```text
/// Silent --tick--> Pinged
///   ^ '---.          |
///  tick   '- shows --+
///   |         life   |
/// Heard <------------'
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
enum PeerLife {
    /// Nothing since the last tick.
    Silent,
    /// Since the last tick, the peer has shown life, or could not.
    Heard,
    /// A ping was accepted, and nothing has arrived since.
    Pinged,
}

impl Keepalive {
    fn new(interval: Span, now: &Now) -> Self {
        Self {
            interval,
            tick: now.after(interval),
            dead: None,
            stalled: None,
            suspended: false,
            peer: PeerLife::Silent,
        }
    }

    fn deadline(&self) -> Moment {
        let verdicts = [self.dead, self.stalled].into_iter().flatten();
        verdicts.map(Verdict::next_look).fold(self.tick, Moment::min)
    }

    /// `Err` if the peer is dead.
    fn handle_timeout(
        &mut self,
        now: &Now,
        connection: &Arc<Connection>,
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        let interval = self.interval;
        if self.stalled.as_mut().is_some_and(|verdict| verdict.is_up(now, interval)) {
            let text = format!("the peer is gone: it took no byte for {interval:?}");
            return Err(Error::new(ErrorKind::Timeout, text));
        }
        self.listen(connection);
        if self.dead.as_mut().is_some_and(|verdict| verdict.is_up(now, interval)) {
            // A reader that was woken may not have come yet.
            connection.read_unattended(cx);
            self.listen(connection);
            if self.dead.is_some() {
                let text = format!("the peer is gone: nothing came within {interval:?} after a ping");
                // Of one that has ended its direction, nothing could come: it had the time to take our replies.
                let ended = connection.receive().half_open();
                return Err(ended.unwrap_or_else(|| Error::new(ErrorKind::Timeout, text)));
            }
        }
        if now.is_past(self.tick) {
            self.tick = now.after(interval);
            let is_silent = self.peer == PeerLife::Silent;
            if self.peer == PeerLife::Heard {
                self.peer = PeerLife::Silent;
            }
            let mut transmit = connection.transmit();
            // Servers and balancers drop clients that they don't hear. What waits to be written will be heard.
            let are_silent = !transmit.take_spoken() && !transmit.is_blocked();
            if is_silent || are_silent {
                // Only the silence of the peer is held against the peer.
                if is_silent {
                    self.peer = PeerLife::Pinged;
                }
                transmit.accept_keepalive();
                connection.write(transmit, Hold::Never);
            }
        }
        Ok(())
    }

    /// Takes note of what the peer has done since the last look.
    fn listen(&mut self, connection: &Connection) {
        let mut receive = connection.receive();
        let received = receive.take_received();
        // While unread data keeps us from reading, silence proves nothing.
        let suspended = !connection.signals.has_reader() && receive.is_stopped_by_data();
        drop(receive);
        // When reading resumes, silence begins afresh.
        let resumed = std::mem::replace(&mut self.suspended, suspended);
        if received || suspended || resumed {
            self.peer = PeerLife::Heard;
            self.dead = None;
        }
    }
}
