//! The handover: how a member becomes live.
//!
//! | the member asks | its position is | answer |
//! |---|---|---|
//! | for the next message | | live, after the top; at once if the member is here already |
//! | since a position | the top | live |
//! | since a position | among the last frames | these frames, then live |
//! | since a position | any other | behind, with a ticket: `replay` checks the position |
//! | behind, with its ticket | the top, or among the last frames | as above |
//! | behind, with its ticket | any other | waits for a comparison of topic and history, then as below |
//! | the same, compared | the top, or among the last frames | as above |
//! | the same, compared | any other | behind, with the same ticket |
//!
//! While the topic reads its history, members that subscribe are sent to the history at once. Members that
//! have read everything there wait.
//!
//! A member that has waited for too long asks for its request back. If the request is answered already, the
//! answer counts: the member may have been sent the last frames, and must not read them again.
//!
//! The comparison has two reasons. The member may have read a message whose delivery was lost, so the topic
//! is behind the member. Or the history has rolled back, and the topic stands on a line of messages that no
//! longer exists.

use bowline::TrySendError;

use crate::error::{Error, ErrorKind};
use crate::node::Core;
use crate::node::command::{Admission, Origin, Request};
use crate::node::membership::MemberKey;
use crate::node::recent::LastFrame;
use crate::node::topic_state::{Behind, Step, TopicState};
use crate::position::Position;
use crate::stats::{add, subtract};

/// The outcome of sending the last frames to a member.
enum Handover {
    /// The member has received everything up to the top.
    Level,
    /// The connection is full, and the member has received everything up to the position.
    Full(Position),
    /// The position is not among the last frames.
    Unknown,
}

impl TopicState {
    /// Accepts a request, which is answered at once or when the topic is level.
    pub(crate) fn request(&mut self, request: Request) {
        let member = &request.member;
        let is_here = self.live.contains(member) || self.behind.contains_key(member);
        if request.origin == Origin::Now && is_here && !member.0.sender.is_closed() {
            // The subscription goes on. A slow member goes on with the messages that it has missed.
            let reached = self.behind.get(member).map_or(self.top, Behind::since);
            // A receiver that is gone sends `Leave`.
            let _ = request.reply.send(Ok((Admission::Live(reached), self.topic.clone())));
        } else {
            self.waiting.push(request);
        }
    }

    /// Answers a request. The topic is level, and its run is sent.
    pub(crate) fn admit(&mut self, core: &Core, request: Request) -> Step {
        debug_assert!(self.run.is_empty(), "a member that becomes live would receive the run twice");
        if request.reply.is_closed() || request.member.0.has_left() {
            return Step::Done;
        }
        let member = &request.member;
        if member.0.sender.is_closed() {
            // A receiver that is gone sends `Leave`. So does one that is told.
            let _ = request.reply.send(Err(Error::closed_already()));
            return Step::Done;
        }
        let admission = match request.origin {
            Origin::Now => self.enter(core, member),
            Origin::Since(position) if !self.is_tracked() && position == Position::UNTRACKED => {
                self.enter(core, member)
            }
            Origin::Since(_) if !self.is_tracked() => Admission::Lost(Position::UNTRACKED),
            Origin::Since(at) => match self.hand_over(core, member, at) {
                Handover::Level => self.enter(core, member),
                Handover::Full(at) => self.admit_behind(core, member, at),
                Handover::Unknown => self.admit_behind(core, member, at),
            },
            Origin::Behind { ticket, at } | Origin::Verified { ticket, at } => {
                if self.behind.get(member).map(Behind::ticket) != Some(ticket) {
                    // The member has left in the meantime.
                    return Step::Done;
                }
                match self.hand_over(core, member, at) {
                    Handover::Level => self.enter(core, member),
                    Handover::Full(at) => Admission::Behind { ticket, at },
                    Handover::Unknown if matches!(request.origin, Origin::Verified { .. }) => {
                        Admission::Behind { ticket, at }
                    }
                    Handover::Unknown => {
                        let origin = Origin::Verified { ticket, at };
                        self.waiting.push(Request { origin, ..request });
                        return self.verify(core);
                    }
                }
            }
        };
        // A receiver that is gone sends `Leave`.
        let _ = request.reply.send(Ok((admission, self.topic.clone())));
        Step::Done
    }

    /// Sends those that wait to the history, if they find messages there: the topic reads its history, and
    /// may not be level for a while. `history` is the top of the history, if the topic has just seen it.
    pub(crate) fn send_to_history(&mut self, core: &Core, history: Option<Position>) {
        for request in std::mem::take(&mut self.waiting) {
            if request.reply.is_closed() || request.member.0.has_left() {
                continue;
            }
            let admission = match (request.origin, history) {
                (Origin::Since(at), _) | (Origin::Now, Some(at)) => {
                    self.admit_behind(core, &request.member, at)
                }
                (Origin::Behind { ticket, at } | Origin::Verified { ticket, at }, Some(history))
                    if at.epoch() == history.epoch() && at.offset() < history.offset() =>
                {
                    Admission::Behind { ticket, at }
                }
                _ => {
                    self.waiting.push(request);
                    continue;
                }
            };
            // A receiver that is gone sends `Leave`.
            let _ = request.reply.send(Ok((admission, self.topic.clone())));
        }
    }

    /// Answers the requests that wait with the error of an engine.
    pub(crate) fn refuse(&mut self, error: &Error) {
        for request in self.waiting.drain(..) {
            // A receiver that is gone wants no answer.
            let _ = request.reply.send(Err(Error::new(ErrorKind::Unavailable, error.to_string())));
        }
    }

    /// Sends the last frames after a position.
    fn hand_over(&self, core: &Core, member: &MemberKey, at: Position) -> Handover {
        if at == self.top {
            return Handover::Level;
        }
        let Some(frames) = self.recent.after(at) else { return Handover::Unknown };
        let batch = member.0.sender.batch();
        for LastFrame { before, frame, .. } in frames {
            match batch.try_send(frame) {
                Ok(()) => add(&core.counters.delivered, 1),
                Err(TrySendError::Full(_)) => return Handover::Full(*before),
                // The reader of the connection finds out.
                Err(TrySendError::Closed(_)) => return Handover::Level,
            }
        }
        Handover::Level
    }

    fn enter(&mut self, core: &Core, member: &MemberKey) -> Admission {
        self.remove_behind(core, member);
        if let Some(view) = &mut self.view {
            view.unaware.insert(member.clone());
        }
        if self.live.insert(member.clone()) {
            add(&core.counters.subscriptions, 1);
        }
        Admission::Live(self.top)
    }

    fn admit_behind(&mut self, core: &Core, member: &MemberKey, at: Position) -> Admission {
        let ticket = core.ticket();
        self.behind.insert(member.clone(), Behind::Subscribing { ticket, since: at });
        Admission::Behind { ticket, at }
    }

    /// Removes a member that is behind, and returns its state.
    pub(crate) fn remove_behind(&mut self, core: &Core, member: &MemberKey) -> Option<Behind> {
        let removed = self.behind.remove(member)?;
        if matches!(removed, Behind::CatchingUp { .. }) {
            subtract(&core.counters.catching_up, 1);
        }
        if self.behind.is_empty() {
            self.recent.clear();
        }
        Some(removed)
    }

    /// Removes a member that is live.
    pub(crate) fn remove_live(&mut self, core: &Core, member: &MemberKey) {
        if let Some(view) = &mut self.view {
            view.unaware.remove(member);
        }
        if self.live.remove(member) {
            subtract(&core.counters.subscriptions, 1);
        }
    }
}
