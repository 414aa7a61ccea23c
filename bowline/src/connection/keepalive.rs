//! Keepalive: pings, and the end of connections whose peers are gone.

use std::sync::Arc;
use std::task::Context;

use crate::connection::Connection;
use crate::connection::clock::{Moment, Now, Span};
use crate::connection::inbound::batch::Hold;
use crate::connection::verdict::Verdict;
use crate::error::{Error, ErrorKind};

/// The keepalive of a connection: it detects that a silent peer is gone, and shows the peer that our side is
/// still there.
pub(crate) struct Keepalive {
    /// The time between two ticks, and the time limit for signs of life.
    pub(crate) interval: Span,
    /// The next tick, at which the keepalive checks what has happened since the last one.
    tick: Moment,
    /// Present after a ping was written: the peer is dead if nothing arrives within this time.
    pub(crate) dead: Option<Verdict>,
    /// Present while the transport accepts nothing: the peer is dead if that goes on for this time.
    pub(crate) stalled: Option<Verdict>,
    /// Set if unread data kept our side from reading at the last check.
    suspended: bool,
    pub(crate) peer: PeerLife,
}

/// The state of the reader when this poll of the driver began.
///
/// A later look would be wrong: when the driver itself reads, it wakes the reader, who has not run yet. A
/// part of a message would count as unread data, and a peer that dies in the middle of a message would never
/// be found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Waits,
    Absent,
}

/// The signs of life that the peer has shown.
///
/// ```text
/// Silent --tick: nothing has arrived, a ping is accepted--> Pinged
/// Silent --a sign of life---------------------------------> Heard
/// Pinged --a sign of life---------------------------------> Heard
/// Heard  --tick-------------------------------------------> Silent
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerLife {
    /// Nothing has arrived since the last tick.
    Silent,
    /// The peer has shown life since the last tick, or could not, since our side did not read.
    Heard,
    /// A ping was accepted for sending, and nothing has arrived since.
    Pinged,
}

impl Keepalive {
    /// Returns a keepalive whose first tick is one interval from now.
    pub(crate) fn new(interval: Span, now: &Now) -> Self {
        Self {
            interval,
            tick: now.after(interval),
            dead: None,
            stalled: None,
            suspended: false,
            peer: PeerLife::Silent,
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) has to be called next.
    pub(crate) fn deadline(&self) -> Moment {
        let verdicts = [self.dead, self.stalled].into_iter().flatten();
        verdicts.map(Verdict::next_look).fold(self.tick, Moment::min)
    }

    /// Pings a peer that was silent, or that has heard nothing from our side. Returns an error if the peer is
    /// gone.
    pub(crate) fn handle_timeout(
        &mut self,
        now: &Now,
        connection: &Arc<Connection>,
        reader: Reader,
        cx: &mut Context<'_>,
    ) -> Result<(), Error> {
        let interval = self.interval;
        if self.stalled.as_mut().is_some_and(|verdict| verdict.check_expired(now, interval)) {
            let text = format!("the peer is gone: it accepted no byte for {interval:?} (keepalive)");
            return Err(Error::new(ErrorKind::Timeout, text));
        }
        self.note_life(connection, reader);
        if self.dead.as_mut().is_some_and(|verdict| verdict.check_expired(now, interval)) {
            // A reader that was woken may not have run yet: the transport is read before the verdict.
            connection.read_unattended(cx);
            self.note_life(connection, reader);
            if self.dead.is_some() {
                let text =
                    format!("the peer is gone: nothing arrived within {interval:?} after a ping (keepalive)");
                // A peer that has ended its direction can't send anything. It had the time to take our
                // replies.
                let ended = connection.inbound().half_open();
                return Err(ended.unwrap_or_else(|| Error::new(ErrorKind::Timeout, text)));
            }
        }
        if now.is_past(self.tick) {
            self.tick = now.after(interval);
            let is_silent = self.peer == PeerLife::Silent;
            if self.peer == PeerLife::Heard {
                self.peer = PeerLife::Silent;
            }
            let mut outbound = connection.outbound();
            // Servers and balancers drop clients that they don't hear. Bytes that wait to be written will be
            // heard.
            let are_silent = !outbound.take_spoken() && !outbound.is_blocked();
            if is_silent || are_silent {
                // Only the peer's own silence starts its time limit.
                if is_silent {
                    self.peer = PeerLife::Pinged;
                }
                outbound.accept_keepalive();
                connection.write(outbound, Hold::Never);
            }
        }
        Ok(())
    }

    /// Notes the signs of life since the last check.
    fn note_life(&mut self, connection: &Connection, reader: Reader) {
        let mut inbound = connection.inbound();
        let received = inbound.take_received();
        // While unread data keeps our side from reading, silence proves nothing.
        let suspended = reader == Reader::Absent && inbound.is_stopped_by_data();
        drop(inbound);
        // When reading resumes, the silence is counted from that moment.
        let resumed = std::mem::replace(&mut self.suspended, suspended);
        if received || suspended || resumed {
            self.peer = PeerLife::Heard;
            self.dead = None;
        }
    }
}
