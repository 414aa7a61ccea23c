//! Entries of nodes without a lease.
//!
//! A stream that was restored from a backup, or has lost its end, can have entries of a node and lack its
//! lease, or the index of an entry. No [`reaper`](super::reaper) would find such entries. So at its start,
//! and whenever the stream may have changed, a hub looks at all messages once, some of them each second. It
//! notes that a lease is missing, and adds what the index lacks. The reapers do the rest.
//!
//! ```text
//!   Looking --all messages are seen--> Over --the stream may have changed--> Looking
//! ```
//!
//! A node that is there finds that its lease is gone, and enters its members again before the old entries are
//! removed.

use std::collections::{HashMap, HashSet};
use std::sync::Weak;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::jetstream::Refusal;
use crate::link::Link;
use crate::message::{Batch, Part, RawMessage, last, scan};
use crate::presence::Presence;
use crate::presence::person::Person;
use crate::presence::subjects::lease_subject;
use crate::presence::term::Term;
use crate::wire;

/// The number of messages that are read at once. NATS takes about 10 us for each.
const AT_ONCE: usize = 500;

/// The time between two reads.
const PAUSE: Duration = Duration::from_secs(1);

/// The time for a read, and for what follows from it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A look at all messages of the stream.
#[derive(Default)]
struct Look {
    /// The number from [`Link::changes`] at the beginning.
    changes: u64,
    /// The number of the last message that was seen.
    after: u64,
    /// The nodes that have a lease.
    leased: HashSet<String>,
    stage: Stage,
}

#[derive(Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Looking,
    Over,
}

/// The nodes of entries, with the subjects that the index should have.
type Nodes = HashMap<String, Vec<String>>;

/// Looks for entries without a lease until the engine is dropped.
pub(crate) async fn run(link: Weak<Link>, presence: Weak<Presence>) {
    let mut look = Look::default();
    loop {
        sleep(PAUSE).await;
        let (Some(link), Some(presence)) = (link.upgrade(), presence.upgrade()) else { return };
        let changes = link.changes();
        if look.changes != changes {
            look = Look { changes, ..Look::default() };
        }
        // A server of a cluster may be late for a while.
        if look.stage == Stage::Looking && !link.is_restless() && presence.is_ensured(&link) {
            // After a failure, the same messages are read again.
            let _ = timeout(PATIENCE, look.go_on(&link, &presence)).await;
        }
    }
}

impl Look {
    async fn go_on(&mut self, link: &Link, presence: &Presence) -> Result<(), Refusal> {
        let (mut nodes, mut reached) = (Nodes::new(), None);
        // Without a subject: NATS 2.9 counts the messages of each subject before it begins.
        let (stream, after, limit) = (wire::PRESENCE, self.after, AT_ONCE);
        let batch = Batch { stream, subject: "", after, limit, part: Part::Everything };
        scan(link, &batch, |found| {
            reached = Some(found.sequence);
            note_nodes(&mut nodes, &found);
        })
        .await?;
        for (node, indexes) in nodes {
            if !self.leased.contains(&node) {
                self.look_after(link, presence, node, indexes).await?;
            }
        }
        match reached {
            Some(reached) => self.after = reached,
            None => self.stage = Stage::Over,
        }
        Ok(())
    }

    /// Lets the reapers find the entries of a node, if it has no lease.
    async fn look_after(
        &mut self,
        link: &Link,
        presence: &Presence,
        node: String,
        indexes: Vec<String>,
    ) -> Result<(), Refusal> {
        let lease = last(link, wire::PRESENCE, &lease_subject(&node)).await?;
        match lease.and_then(|lease| Term::parse(&lease.payload)) {
            Some(Term::Lasting(_)) => {
                self.leased.insert(node);
                return Ok(());
            }
            Some(Term::Missing(_) | Term::Over) => {}
            None => presence.miss_lease(link, &node).await?,
        }
        for index in indexes {
            if last(link, wire::PRESENCE, &index).await?.is_none() {
                presence.put(link, &index, "").await?;
            }
        }
        Ok(())
    }
}

/// Notes the nodes of a message of the stream.
fn note_nodes(nodes: &mut Nodes, found: &RawMessage) {
    if let Some(entry) = found.subject.strip_prefix(wire::NODE) {
        let node = entry.split('.').next().unwrap_or_default();
        nodes.entry(node.to_owned()).or_default();
    } else if let Some(who) = found.subject.strip_prefix(wire::PRESENT) {
        for node in Person::parse(&found.payload).iter().flat_map(Person::nodes) {
            nodes.entry(node.to_owned()).or_default().push(format!("{}{node}.{who}", wire::NODE));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn an_entry_names_its_node_and_its_place_in_the_index() {
        let found = |subject: &str, payload: &str| RawMessage {
            sequence: 1,
            header: None,
            payload: payload.as_bytes().to_vec(),
            time: SystemTime::now(),
            subject: subject.to_owned(),
        };
        let person = r#"{"key":"alice","info":"","nodes":["1","2","a.b >"],"change":true}"#;
        let mut nodes = Nodes::new();
        for found in [
            found("bowline.present.room/1%2e2.alice", person),
            found("bowline.node.1.room/1%2e2.bob", ""),
            found("bowline.node.3.room/1%2e2.bob", ""),
            found("bowline.lease.4", r#"{"milliseconds":1}"#),
            found("bowline.clock", ""),
        ] {
            note_nodes(&mut nodes, &found);
        }
        let index = |node| vec![format!("bowline.node.{node}.room/1%2e2.alice")];
        let expected = [("1", index("1")), ("2", index("2")), ("3", Vec::new())];
        assert_eq!(nodes, expected.map(|(node, index)| (node.to_owned(), index)).into());
    }
}
