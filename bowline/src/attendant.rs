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
use crate::error::{Error, ErrorKind};

/// How long an application that was just handed something, or woken, is left alone before the task reads in its place.
///
/// It may be about to answer, and what follows could be the peer's Close frame or a violation, behind which nothing
/// can be sent. Pings wait as long, or twice; an application that has not read for longer does not delay them at all.
const PATIENCE: Duration = Duration::from_millis(250);

/// Looks after a connection until it has ended.
pub(crate) struct Attendant {
    connection: Arc<Connection>,
    keepalive: Option<Keepalive>,
    close_timeout: Duration,
    stage: Stage,
    /// Our direction of the transport was shut down.
    shut_down: bool,
    /// How often the application had been handed something when we last looked.
    handed_out: u32,
    /// Until then we do not look whether to read in the application's place.
    patient_until: Option<Instant>,
}

/// How far the end of the connection has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// Nothing more is accepted: the rest is written, and the peer's Close frame awaited if ours was first.
    Closing {
        deadline: Instant,
    },
    /// Our direction of the transport is being shut down.
    ShuttingDown {
        deadline: Instant,
    },
    /// Whatever still comes is thrown away until the peer ends the transport, so that no TCP reset overtakes our
    /// Close frame.
    Draining {
        deadline: Instant,
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
    pub(crate) fn new(attendant: Attendant) -> Self {
        Self { attendant, timer: sleep_until(Instant::now()) }
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
    pub(crate) fn new(
        connection: Arc<Connection>,
        keepalive: Option<Duration>,
        close_timeout: Duration,
    ) -> Self {
        let keepalive = keepalive.map(Keepalive::new);
        Self {
            connection,
            keepalive,
            close_timeout,
            stage: Stage::Open,
            shut_down: false,
            handed_out: 0,
            patient_until: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        self.connection.signals.set_task(Some(cx.waker()));
        loop {
            self.write();
            self.read(cx);
            if self.poll_end().is_ready() {
                self.finish();
                return Poll::Ready(());
            }
            let Some(deadline) = self.deadline() else { return Poll::Pending };
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.handle_timeout();
        }
    }

    /// Writes what a cork or a full transport left behind.
    fn write(&mut self) {
        self.connection.uncork();
        let mut transmit = self.connection.transmit();
        if transmit.is_blocked() {
            self.connection.write_locked(&mut transmit);
        }
        if let Some(keepalive) = &mut self.keepalive {
            let progress = transmit.take_progress();
            keepalive.stalled_at = match keepalive.stalled_at {
                Some(at) if transmit.is_blocked() && !progress => Some(at),
                _ => transmit.is_blocked().then(|| after(keepalive.interval)),
            };
            if keepalive.ping_end.is_some_and(|end| transmit.has_written(end)) {
                keepalive.ping_end = None;
                keepalive.dead_at = Some(after(keepalive.interval));
            }
        }
        let waits = transmit.is_blocked() || transmit.has_pings() || transmit.closed().is_some();
        self.connection.signals.set_task_waits(waits);
    }

    /// Answers while nobody reads.
    fn read(&mut self, cx: &mut Context<'_>) {
        let connection = &self.connection;
        let transmit = connection.transmit();
        let asked_for = transmit.has_pings() || transmit.closed().is_some();
        drop(transmit);
        if !asked_for {
            // The timer is left to run out, not moved with every message.
            if self.patient_until.is_some_and(|until| Instant::now() < until) {
                return;
            }
            let waited = self.patient_until.take().is_some();
            let handed_out = connection.receive().handed_out();
            let busy = std::mem::replace(&mut self.handed_out, handed_out) != handed_out;
            let woken = connection.signals.is_watched() && !waited;
            if !woken && connection.signals.leave_to_reader() {
                return;
            }
            connection.signals.watch(busy || woken);
            if busy || woken {
                self.patient_until = Some(after(PATIENCE));
                return;
            }
        }
        self.patient_until = None;
        connection.read_unattended(cx);
    }

    /// Takes the end of the connection as far as it can be taken now; ready when the transport has ended.
    fn poll_end(&mut self) -> Poll<()> {
        loop {
            let connection = &self.connection;
            self.stage = match self.stage {
                Stage::Open => {
                    if connection.transmit().closed().is_none() {
                        return Poll::Pending;
                    }
                    connection.signals.set_task_waits(true);
                    Stage::Closing { deadline: after(self.close_timeout) }
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
                        Stage::Draining { deadline }
                    } else {
                        Stage::ShuttingDown { deadline }
                    }
                }
                Stage::ShuttingDown { deadline } => {
                    if connection.transmit().poll_shutdown(&mut connection.context()).is_pending() {
                        let _ = connection.receive().poll_drain(&mut connection.context());
                        return Poll::Pending;
                    }
                    self.shut_down = true;
                    Stage::Draining { deadline }
                }
                Stage::Draining { .. } => return connection.receive().poll_drain(&mut connection.context()),
            };
        }
    }

    /// When to look again, whatever happens.
    fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Open => earliest(self.keepalive.as_ref().map(Keepalive::deadline), self.patient_until),
            Stage::Closing { deadline } | Stage::ShuttingDown { deadline } | Stage::Draining { deadline } => {
                Some(deadline)
            }
        }
    }

    fn handle_timeout(&mut self) {
        let now = Instant::now();
        if self.stage != Stage::Open {
            // If writing failed, that is why it ends.
            let failed =
                self.connection.transmit().closed().filter(|error| error.kind() == ErrorKind::Io).cloned();
            let timeout = self.close_timeout;
            self.connection.lose(&failed.unwrap_or_else(|| {
                let text =
                    format!("the peer did not end the connection within the close timeout of {timeout:?}");
                Error::new(ErrorKind::Timeout, text)
            }));
        } else if let Some(keepalive) =
            self.keepalive.as_mut().filter(|keepalive| keepalive.deadline() <= now)
        {
            if let Err(error) = keepalive.handle_timeout(now, &self.connection) {
                self.connection.lose(&error);
            }
        }
    }

    fn finish(&self) {
        self.connection.receive().release();
        let mut transmit = self.connection.transmit();
        if !self.shut_down {
            // As the stream has ended already, this is all the courtesy that TLS asks for.
            let _ = transmit.poll_shutdown(&mut self.connection.context());
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
            self.connection.lose(&Error::new(
                ErrorKind::Disconnected,
                "the connection ended without a Close frame: its runtime was shut down",
            ));
        }
        self.connection.signals.set_task(None);
    }
}

/// So much later than now, or so far away that it makes no difference.
fn after(duration: Duration) -> Instant {
    const YEARS: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    Instant::now() + duration.min(YEARS)
}

fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// Finds out whether a silent peer is still there.
struct Keepalive {
    interval: Duration,
    /// When to look whether anything has arrived since the last look.
    tick: Instant,
    /// A ping was accepted, and is written once so many bytes are.
    ping_end: Option<u64>,
    /// A ping was written; the peer is dead if nothing arrives until then.
    dead_at: Option<Instant>,
    /// The transport takes nothing; the peer is dead if that goes on until then.
    stalled_at: Option<Instant>,
    /// At the last look, unread data kept us from reading.
    suspended: bool,
    /// Since the last tick, the peer has shown life, or could not.
    heard: bool,
}

impl Keepalive {
    fn new(interval: Duration) -> Self {
        let tick = after(interval);
        Self {
            interval,
            tick,
            ping_end: None,
            dead_at: None,
            stalled_at: None,
            suspended: false,
            heard: false,
        }
    }

    fn deadline(&self) -> Instant {
        earliest(self.dead_at, self.stalled_at).map_or(self.tick, |at| at.min(self.tick))
    }

    /// `Err` if the peer is dead.
    fn handle_timeout(&mut self, now: Instant, connection: &Connection) -> Result<(), Error> {
        let interval = self.interval;
        if self.stalled_at.is_some_and(|at| at <= now) {
            let text = format!("the peer is gone: it took no byte for {interval:?}");
            return Err(Error::new(ErrorKind::Timeout, text));
        }
        let mut receive = connection.receive();
        let received = receive.take_received();
        // While unread data keeps us from reading, silence proves nothing.
        let suspended = !connection.signals.has_reader() && receive.is_stopped_by_data();
        drop(receive);
        // When reading resumes, silence begins afresh.
        let resumed = std::mem::replace(&mut self.suspended, suspended);
        if received || suspended || resumed {
            self.heard = true;
            self.ping_end = None;
            self.dead_at = None;
        }
        if self.dead_at.is_some_and(|at| at <= now) {
            let text = format!("the peer is gone: nothing came within {interval:?} after a ping");
            return Err(Error::new(ErrorKind::Timeout, text));
        }
        if self.tick <= now {
            self.tick = after(interval);
            let pinging = self.ping_end.is_some() || self.dead_at.is_some();
            if !std::mem::take(&mut self.heard) && !pinging {
                let mut transmit = connection.transmit();
                self.ping_end = Some(transmit.accept_keepalive());
                connection.write(transmit);
            }
        }
        Ok(())
    }
}
