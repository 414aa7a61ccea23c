//! Sending to all live members, and what becomes of those that don't keep up.

use std::sync::Arc;

use bowline::{Prepared, TrySendError};
use tokio::sync::mpsc::WeakUnboundedSender;
use tokio::task::yield_now;

use crate::node::Core;
use crate::node::command::Command;
use crate::node::membership::{Cause, MemberKey, Membership};
use crate::node::replay::{CatchUp, Debt};
use crate::node::topic_state::parcel::{Content, Parcel};
use crate::node::topic_state::{Behind, TopicState};
use crate::settings::rule::Slow;
use crate::stats::add;

/// The number of members after which other tasks run.
pub(crate) const MEMBERS_PER_POLL: usize = 256;

/// The reason for which a member ceases to be live.
enum Stop {
    /// The connection is full, and slow members catch up.
    Behind(Debt),
    /// The connection is full, and slow connections are closed.
    TooSlow,
    /// Messages are lost, and no frame tells so.
    Lost,
    /// The connection is closed.
    Closed,
}

/// The numbers of one run.
#[derive(Default)]
struct Tally {
    delivered: usize,
    skipped: usize,
    /// The members that have missed news about who is present.
    unaware: Vec<MemberKey>,
}

/// The state of a member in the view of its topic.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awareness {
    Aware,
    /// The member receives the list of all who are present, and no news before.
    Unaware,
}

impl TopicState {
    /// Sends the run to all live members, with one write for each.
    pub(crate) async fn flush(&mut self, core: &Arc<Core>, commands: &WeakUnboundedSender<Command>) {
        let run = std::mem::take(&mut self.run);
        if run.is_empty() {
            return;
        }
        let treatment = self.topic.rule().treatment();
        let messages = messages_of(&run);
        let mut tally = Tally::default();
        let mut stopped = Vec::new();
        for (number, member) in self.live.iter().enumerate() {
            if number % MEMBERS_PER_POLL == MEMBERS_PER_POLL - 1 {
                yield_now().await;
            }
            let awareness = match &self.view {
                Some(view) if view.unaware.contains(member) => Awareness::Unaware,
                _ => Awareness::Aware,
            };
            if let Some(stop) = send_run(member, &run, &messages, treatment, awareness, &mut tally) {
                stopped.push((member.clone(), stop));
            }
        }
        add(&core.counters.delivered, tally.delivered);
        add(&core.counters.skipped, tally.skipped);
        if let Some(view) = &mut self.view {
            view.unaware.extend(tally.unaware);
        }
        for (member, stop) in stopped {
            self.remove_live(core, &member);
            match stop {
                Stop::Behind(debt) => self.catch_up(core, commands, member, debt),
                Stop::TooSlow => close_slow(core, &member.0, Cause::TooSlow),
                Stop::Lost => member.0.close(Cause::Lost),
                Stop::Closed => {}
            }
        }
    }

    /// Lets a slow member receive from the history.
    fn catch_up(
        &mut self,
        core: &Arc<Core>,
        commands: &WeakUnboundedSender<Command>,
        member: MemberKey,
        debt: Debt,
    ) {
        let Ok(permit) = Arc::clone(&core.catch_ups).try_acquire_owned() else {
            return close_slow(core, &member.0, Cause::TooManySlow);
        };
        let ticket = core.ticket();
        let catch_up = CatchUp {
            core: Arc::clone(core),
            commands: commands.clone(),
            topic: self.topic.clone(),
            member: member.clone(),
            ticket,
        };
        add(&core.counters.catching_up, 1);
        let task = tokio::spawn(catch_up.run(debt, permit));
        self.behind.insert(member, Behind::CatchingUp { ticket, since: debt.since(), task });
    }
}

fn close_slow(core: &Core, member: &Membership, cause: Cause) {
    add(&core.counters.closed_slow, 1);
    member.close(cause);
}

/// Returns the frames of a run of several messages, or nothing if there is anything else in the run.
fn messages_of(run: &[Parcel]) -> Vec<Prepared> {
    let frames: Option<_> = run
        .iter()
        .map(|parcel| match &parcel.content {
            Content::Message(frame) => Some(frame.clone()),
            Content::News(_) | Content::Loss(..) | Content::End => None,
        })
        .collect();
    frames.filter(|_| run.len() > 1).unwrap_or_default()
}

/// Sends a run to one member. `messages` are its frames, if there are several and all are messages.
fn send_run(
    member: &MemberKey,
    run: &[Parcel],
    messages: &[Prepared],
    treatment: Slow,
    mut awareness: Awareness,
    tally: &mut Tally,
) -> Option<Stop> {
    if member.0.has_left() {
        // The worker will be told.
        return None;
    }
    // A batch costs something, and has nothing to gather for a single frame.
    let batch = (run.len() > 1).then(|| member.0.sender.batch());
    let mut sent = 0;
    if let (Some(batch), false) = (&batch, messages.is_empty()) {
        // Those for which there is no room are treated below.
        let rest = batch.try_send_all(messages).map_or_else(|error| error.into_inner().len(), |()| 0);
        sent = messages.len() - rest;
        tally.delivered += sent;
    }
    for parcel in &run[sent..] {
        let frame = match &parcel.content {
            Content::News(_) if awareness == Awareness::Unaware => continue,
            Content::Message(frame) | Content::News(frame) | Content::Loss(frame, _) => frame,
            Content::End => return Some(Stop::Lost),
        };
        let sent = match &batch {
            Some(batch) => batch.try_send(frame),
            None => member.0.sender.try_send(frame),
        };
        match (sent, treatment, &parcel.content) {
            (Ok(()), ..) => tally.delivered += 1,
            (Err(TrySendError::Closed(_)), ..) => return Some(Stop::Closed),
            (Err(TrySendError::Full(_)), Slow::Skip, Content::News(_)) => {
                awareness = Awareness::Unaware;
                tally.unaware.push(member.clone());
            }
            (Err(TrySendError::Full(_)), Slow::Skip, Content::Message(_)) => tally.skipped += 1,
            (Err(TrySendError::Full(_)), Slow::CatchUp, content) => {
                return Some(Stop::Behind(match content {
                    Content::Loss(_, now) => Debt::Loss { before: parcel.before, now: *now },
                    _ => Debt::Messages(parcel.before),
                }));
            }
            // A loss is never kept from a member.
            (Err(TrySendError::Full(_)), ..) => return Some(Stop::TooSlow),
        }
    }
    None
}
