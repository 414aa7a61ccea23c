//! The task that keeps the lease of a node, and removes the entries of nodes that are gone.
//!
//! With a lease of 30 s, the keeper renews every 10 s, and looks for ended leases every 2 s. The broker is
//! told of 28 s, so that everything of a dead node is gone 30 s after its last renewal.
//!
//! ```text
//!              renewed, with a new number: all entries are told
//!   no lease ------------------------------------------------> lease --+ renewed
//!      ^                                                         | ^---+
//!      +---------------------------------------------------------+
//!           the broker answers that the lease has lapsed
//! ```
//!
//! A call that takes too long for the lease is given up, however patient the hub is otherwise: a renewal when
//! the lease is over.
//!
//! A broker that was away for long finds that all leases have ended. Nobody could renew, so nobody is dead. A
//! keeper therefore reaps only if its own lease was never in doubt for the time of one lease.
//!
//! When the hub ends, the lease of the node ends with the linger time. The clients may have gone to other
//! nodes by then. If not, the others reap the entries.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::engine::inbox::Inbox;
use crate::error::Error;
use crate::node::Core;
use crate::presence::{Lease, NodeId};
use crate::stats::add;

/// The number of renewals in the time of a lease.
const RENEWALS: u32 = 3;

/// The number of looks for ended leases in the time of a lease.
const LOOKS: u32 = 15;

/// The task: see the module.
pub(crate) struct Keeper {
    core: Arc<Core>,
    inbox: Inbox,
    /// Ends when the hub does.
    hub: oneshot::Receiver<()>,
    next_renewal: Instant,
    next_look: Instant,
    last_renewed: Instant,
    /// The time since which the lease was never in doubt.
    held_since: Option<Instant>,
}

impl Keeper {
    pub(crate) fn new(core: Arc<Core>, inbox: Inbox, hub: oneshot::Receiver<()>) -> Self {
        let now = Instant::now();
        Self { core, inbox, hub, next_renewal: now, next_look: now, last_renewed: now, held_since: None }
    }

    /// Works until the hub ends.
    pub(crate) async fn run(mut self) {
        loop {
            let next_end = self.core.roster.expire(&self.core, Instant::now());
            let next = match self.core.roster.node() {
                Some(_) => self.next_renewal.min(self.next_look),
                // Without a lease, there is nothing else to do.
                None => self.next_renewal,
            };
            tokio::select! {
                biased;
                _ = &mut self.hub => return self.end().await,
                () = self.inbox.returned() => {
                    self.held_since = None;
                    self.next_renewal = Instant::now();
                }
                () = self.core.roster.news() => {}
                () = sleep_until(next_end.map_or(next, |end| end.min(next))) => {}
            }
            let (now, node) = (Instant::now(), self.core.roster.node());
            // A scribe may have found that the lease has lapsed.
            let has_lapsed = node.is_none() && self.held_since.is_some();
            match node {
                _ if self.next_renewal <= now || has_lapsed => self.renew(node, now).await,
                Some(node) if self.next_look <= now => self.look(node, now).await,
                _ => {}
            }
        }
    }

    async fn renew(&mut self, node: Option<NodeId>, now: Instant) {
        let lease = self.core.limits.presence_lease;
        let end = (self.last_renewed + lease).max(now + lease / RENEWALS);
        let outcome = timeout_at(end, self.call(node, lease / LOOKS * (LOOKS - 1))).await;
        self.next_renewal = now + lease / LOOKS;
        match outcome {
            Err(_) | Ok(Err(_)) => {
                self.held_since = None;
                if self.last_renewed.elapsed() >= lease {
                    self.core.roster.set_cut_off(true);
                }
            }
            Ok(Ok((number, Lease::Lapsed))) => {
                self.held_since = None;
                self.next_renewal = now;
                self.core.roster.lapse(&self.core, number);
            }
            Ok(Ok((number, Lease::Held))) => {
                add(&self.core.counters.renewals, 1);
                self.next_renewal = now + lease / RENEWALS;
                let was_late = now.duration_since(mem::replace(&mut self.last_renewed, now)) >= lease;
                self.core.roster.set_cut_off(false);
                if node.is_none() {
                    self.held_since = Some(now);
                    self.core.roster.begin(&self.core, number);
                    self.inbox.all_changes_lost();
                } else if was_late {
                    // All nodes may have stood still together. The others renew their leases first.
                    self.held_since = Some(now);
                } else {
                    self.held_since.get_or_insert(now);
                }
            }
        }
    }

    /// Renews the lease of a node for a time, or begins one. Returns the number of the node.
    async fn call(&self, node: Option<NodeId>, time: Duration) -> Result<(NodeId, Lease), Error> {
        if let Some(node) = node {
            return Ok((node, self.core.engine.renew(node, time).await?));
        }
        let new = NodeId::new();
        self.core.engine.begin(new, time).await?;
        Ok((new, Lease::Held))
    }

    /// Tries again what has failed, and removes some entries of nodes that are gone.
    async fn look(&mut self, node: NodeId, now: Instant) {
        let lease = self.core.limits.presence_lease;
        self.next_look = now + lease / LOOKS;
        let Some(since) = self.held_since else { return };
        self.core.roster.retry(&self.core);
        if now.duration_since(since) < lease {
            return;
        }
        match timeout(lease / RENEWALS, self.core.engine.reap(node)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(reaped)) => {
                add(&self.core.counters.reaped, reaped);
                self.next_look = now;
            }
            Err(_) | Ok(Err(_)) => self.held_since = None,
        }
    }

    async fn end(self) {
        if let Some(node) = self.core.roster.node() {
            // Without an answer, the lease ends at its time.
            let _: Result<Lease, Error> =
                self.core.engine.renew(node, self.core.limits.presence_linger).await;
        }
    }
}
