//! The inside of a hub: workers that own topics.
//!
//! The hash of a topic's name decides on its worker. A worker is a task that owns everything about its
//! topics: who is live, how far the topic has got, and what is under way. Everybody else sends commands to
//! the worker, so nothing about a topic needs a lock, and what happens to one topic has one order.
//!
//! ```text
//!   engine --deliveries--> queue --+
//!                                  +--> worker --try_send--> members that are live
//!   members, tasks --commands------+       |
//!                                          +--spawns--> want, unwant, fill (read the history after a gap)
//!                                          +--spawns--> catch-up of a slow member
//! ```
//!
//! # The invariant
//!
//! A member that is *live* in a topic has been sent everything up to the topic's `top`. A live subscription
//! therefore needs no position of its own. The invariant holds at three places:
//!
//! - **Delivery** ([`topic_state`]). Only the message that follows the top, by offset and by the tag of its
//!   predecessor, is sent to the live members, and becomes the top. Any other message is evidence of a gap or
//!   of a history that has changed: the worker reads the history after the top. Either the history contains
//!   the top, and the missing messages are sent in order, or the live members have lost messages and are told
//!   so.
//! - **Handover** ([`admission`]). A member that has received everything up to a position of its own becomes
//!   live only if this position is the top, in the same step of the worker. Until then it reads from the
//!   history ([`replay`]). The worker keeps the frames of the last few messages while somebody is behind, and
//!   sends these to the member at the handover: a busy topic can't move on each time.
//! - **Slow members** ([`fan_out`]). A member whose connection is full ceases to be live, and continues from
//!   the message that did not fit, on the same way as a member that subscribes.
//!
//! # The order of commands and deliveries
//!
//! A worker takes the commands first and the deliveries second, and handles them the other way round. Every
//! delivery that was made before a command was sent is therefore handled before this command. A member that
//! has read a message from the history of [`Memory`](crate::Memory) finds the topic at least as far.

pub(crate) mod admission;
pub(crate) mod command;
pub(crate) mod fan_out;
pub(crate) mod keeper;
pub(crate) mod live_members;
pub(crate) mod membership;
pub(crate) mod news;
pub(crate) mod recent;
pub(crate) mod replay;
pub(crate) mod roster;
pub(crate) mod topic_state;
pub(crate) mod topic_table;
pub(crate) mod view;
pub(crate) mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::engine::calls::EngineCalls;
use crate::engine::inbox::Inbox;
use crate::error::{Error, ErrorKind};
use crate::events::EventSource;
use crate::node::command::Command;
use crate::node::roster::Roster;
use crate::settings::hooks::Hooks;
use crate::settings::limits::HubLimits;
use crate::stats::Counters;
use crate::topic::Topic;

/// The number of histories that the workers of a hub read at the same time.
const FILLS: usize = 64;

/// Everything that workers, members and tasks share.
pub(crate) struct Core {
    pub(crate) engine: EngineCalls,
    pub(crate) hooks: Hooks,
    pub(crate) limits: HubLimits,
    pub(crate) counters: Counters,
    pub(crate) events: EventSource,
    pub(crate) roster: Roster,
    /// One permit for each member that catches up.
    catch_ups: Arc<Semaphore>,
    /// One permit for each history that a worker reads.
    fills: Semaphore,
    tickets: AtomicU64,
}

/// The workers of a hub. They end when the last handle of the hub and the last member are dropped.
pub(crate) struct Node {
    pub(crate) core: Arc<Core>,
    pub(crate) inbox: Inbox,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    /// Tells the keeper of the lease, if there is one, that the hub ends.
    _keeper: Option<oneshot::Sender<()>>,
}

impl Core {
    pub(crate) fn new(engine: EngineCalls, hooks: Hooks, limits: HubLimits, events: EventSource) -> Self {
        let catch_ups = Arc::new(Semaphore::new(limits.catch_up_tasks));
        let (counters, fills, tickets) = (Counters::default(), Semaphore::new(FILLS), AtomicU64::new(0));
        let roster = Roster::default();
        Self { engine, hooks, limits, counters, events, roster, catch_ups, fills, tickets }
    }

    /// Returns a number that no other read or admission has.
    pub(crate) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }
}

impl Node {
    pub(crate) fn new(
        core: Arc<Core>,
        inbox: Inbox,
        workers: Vec<mpsc::UnboundedSender<Command>>,
        keeper: Option<oneshot::Sender<()>>,
    ) -> Self {
        Self { core, inbox, workers, _keeper: keeper }
    }

    /// Checks the name of a topic, and finds its rule.
    pub(crate) fn topic(&self, name: &str) -> Result<Topic, Error> {
        let most = self.core.limits.topic_size;
        if name.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "the name of a topic must not be empty"));
        }
        if name.len() > most {
            let text = format!(
                "the name of the topic has {} bytes, more than {most} (raise it with HubLimits::topic_size)",
                name.len()
            );
            return Err(Error::new(ErrorKind::Limit, text));
        }
        Ok(self.inbox.topic(name))
    }

    /// Returns the worker of a topic.
    pub(crate) fn worker_of(&self, topic: &Topic) -> &mpsc::UnboundedSender<Command> {
        &self.workers[self.inbox.worker_of(topic.name())]
    }
}
