//! Removing the entries of nodes that are gone.
//!
//! ```text
//!   Lasting --its time is over, and nobody renews it--> Over --entries are removed, after 30 s--> gone
//!                                                        ^
//!   Missing --its time is over---------------------------+
//! ```

use std::time::{Duration, SystemTime};

use bowline_hub::{EngineError, NodeId};

use crate::jetstream::{self, Refusal, all, purge};
use crate::link::Link;
use crate::message::{Batch, Part, RawMessage, consume, last, next};
use crate::presence::Presence;
use crate::presence::subjects::{index_of, lease_subject};
use crate::presence::term::Term;
use crate::wire;

/// The number of entries that are reaped at once.
const REAPED: usize = 100;

/// The number of leases that have not ended, after which no older one is expected.
const LIVE: usize = 3;

/// The time for which a lease that is over stays: longer than anybody takes to enter.
const OVER: Duration = Duration::from_secs(30);

impl Presence {
    /// Removes some entries of nodes whose leases have ended.
    pub(crate) async fn reap(&self, link: &Link, caller: NodeId) -> Result<usize, EngineError> {
        if !self.leases().held.contains_key(&caller) {
            return Ok(0);
        }
        let Some(now) = self.now(link).await? else { return Ok(0) };
        let own = last(link, wire::PRESENCE, &lease_subject(&caller.to_string())).await?;
        if !own.is_some_and(|own| Term::lasts(&own, now)) {
            return Ok(0);
        }
        self.find_ended(link, now).await?;
        let (reaping, mut reaped) = (self.leases().reaping.clone(), 0);
        for node in reaping {
            let count = self.reap_node(link, &node, REAPED - reaped).await?;
            reaped += count;
            if reaped == REAPED {
                break;
            }
            // All entries are gone.
            self.leases().reaping.retain(|other| *other != node);
        }
        Ok(reaped)
    }

    /// Finds leases that have ended. The oldest renewals come first, as a renewal replaces the one before.
    async fn find_ended(&self, link: &Link, now: SystemTime) -> Result<(), Refusal> {
        let (mut after, mut live) = (0, 0);
        while live < LIVE {
            let found = next(link, wire::PRESENCE, &format!("{}*", wire::LEASE), after + 1).await?;
            let Some(lease) = found else { return Ok(()) };
            after = lease.sequence;
            let (Some(node), Some(term)) =
                (lease.subject.strip_prefix(wire::LEASE), Term::parse(&lease.payload))
            else {
                continue;
            };
            match term {
                Term::Lasting(_) if Term::lasts(&lease, now) => live += 1,
                Term::Missing(time) if lease.time + time > now => {}
                Term::Lasting(_) | Term::Missing(_) => {
                    match self.replace(link, &lease.subject, lease.sequence, &Term::Over.encode()).await {
                        Ok(_) => self.begin_reaping(node),
                        // The node has renewed its lease, or another hub was faster.
                        Err(Refusal::Overtaken) => {}
                        Err(refusal) => return Err(refusal),
                    }
                }
                Term::Over => {
                    self.begin_reaping(node);
                    let is_empty = next(link, wire::PRESENCE, &index_of(node), 1).await?.is_none();
                    if is_empty && lease.time + OVER <= now {
                        purge(link, wire::PRESENCE, &lease.subject, lease.sequence).await?;
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_reaping(&self, node: &str) {
        let mut leases = self.leases();
        if !leases.reaping.iter().any(|other| other == node) {
            leases.reaping.push(node.to_owned());
        }
    }

    /// Removes entries of a node, all at once, and returns their number.
    async fn reap_node(&self, link: &Link, node: &str, most: usize) -> Result<usize, Refusal> {
        let (stream, subject, part) = (wire::PRESENCE, &*index_of(node), Part::Headers);
        let (mut found, _) = consume(link, &Batch { stream, subject, after: 0, limit: most, part }).await?;
        if found.is_empty() {
            // The consumer may be on a replica that is late. The leader is not.
            found.extend(next(link, wire::PRESENCE, subject, 1).await?);
        }
        let entry = |found: &RawMessage| {
            let mut tokens = found.subject.rsplit('.').map(wire::topic);
            let key = tokens.next().flatten();
            tokens.next().flatten().zip(key)
        };
        let entries: Vec<_> = found.iter().filter_map(entry).collect();
        let removals = entries.iter().map(|(topic, key)| self.remove(link, topic, node, key));
        all(removals).await.into_iter().collect::<Result<(), _>>()?;
        Ok(entries.len())
    }

    /// Returns the time of the server.
    async fn now(&self, link: &Link) -> Result<Option<SystemTime>, Refusal> {
        let before = self.leases().last.sequence;
        // All nodes replace this message, so it proves nothing about those before.
        if jetstream::publish(link, wire::CLOCK, &[], b"").await?.sequence <= before {
            self.leases().held.clear();
        }
        Ok(last(link, wire::PRESENCE, wire::CLOCK).await?.map(|clock| clock.time))
    }
}
