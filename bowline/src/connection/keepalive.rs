//! Keepalive: pings, and the end of connections whose peers are gone.

use std::sync::Arc;
use std::task::Context;

use crate::connection::Connection;
use crate::connection::clock::{Moment, Now, Span};
use crate::connection::inbound::batch::Hold;
use crate::connection::verdict::Verdict;
use crate::error::{Error, ErrorKind};

/// Finds out whether a silent peer is still there, and lets the peer know that we are.
pub(crate) struct Keepalive {
    pub(crate) interval: Span,
    /// When to look what has happened since the last look.
    tick: Moment,
    /// A ping was written; the peer is dead if nothing arrives until then.
    pub(crate) dead: Option<Verdict>,
    /// The transport takes nothing; the peer is dead if that goes on until then.
    pub(crate) stalled: Option<Verdict>,
    /// At the last look, unread data kept us from reading.
    suspended: bool,
    pub(crate) peer: PeerLife,
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
pub(crate) enum PeerLife {
    /// Nothing since the last tick.
    Silent,
    /// Since the last tick, the peer has shown life, or could not.
    Heard,
    /// A ping was accepted, and nothing has arrived since.
    Pinged,
}

impl Keepalive {
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

    pub(crate) fn deadline(&self) -> Moment {
        let verdicts = [self.dead, self.stalled].into_iter().flatten();
        verdicts.map(Verdict::next_look).fold(self.tick, Moment::min)
    }

    /// `Err` if the peer is dead.
    pub(crate) fn handle_timeout(
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
            // Servers and balancers drop clients that they don't hear. What waits to be written will be heard.
            let are_silent = !outbound.take_spoken() && !outbound.is_blocked();
            if is_silent || are_silent {
                // Only the silence of the peer is held against the peer.
                if is_silent {
                    self.peer = PeerLife::Pinged;
                }
                outbound.accept_keepalive();
                connection.write(outbound, Hold::Never);
            }
        }
        Ok(())
    }

    /// Takes note of what the peer has done since the last look.
    fn listen(&mut self, connection: &Connection) {
        let mut inbound = connection.inbound();
        let received = inbound.take_received();
        // While unread data keeps us from reading, silence proves nothing.
        let suspended = !connection.waker.has_reader() && inbound.is_stopped_by_data();
        drop(inbound);
        // When reading resumes, silence begins afresh.
        let resumed = std::mem::replace(&mut self.suspended, suspended);
        if received || suspended || resumed {
            self.peer = PeerLife::Heard;
            self.dead = None;
        }
    }
}
