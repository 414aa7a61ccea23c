//! An entry of this node: what should be, what the broker was told, and whose turn it is.
//!
//! | members | lost connections | the broker should know |
//! |---|---|---|
//! | some | | the entry, with the last information |
//! | none | some, less than the linger time ago | the same |
//! | none | none | nothing |
//!
//! ```text
//!   Told:                     a call has failed
//!              +------------------------------------------+
//!              |                                          v
//!           Nothing --entered--> Entered --failed--> Unclear --entered--> Entered
//!              ^                    |                     |
//!              +------ exited ------+----- exited --------+
//!              (from anywhere, if the lease has lapsed)
//!
//!   Turn:     something should be told, or no longer
//!     Idle <-----------------------------------> Queued <---------+
//!      ^                                          |   ^           |
//!      |                                    scribe|   | more to   | the keeper, once the broker answers,
//!      |   both are equal                         v   | tell      | or a new wish
//!      +--------------------------------------- Underway ----> Failed
//! ```

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::error::Error;
use crate::topic::Topic;

/// A topic and the key of somebody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EntryKey {
    pub(crate) topic: Topic,
    pub(crate) key: Arc<str>,
}

/// An entry: see the module. An entry is removed once it is `Idle`, nobody is here, and the broker was told
/// so.
pub(crate) struct Entry {
    pub(crate) members: usize,
    /// The ends of the linger times of connections that were lost and have not come back, in order.
    pub(crate) lost: Vec<Instant>,
    /// The key of this entry in `lingering`, if it is there.
    pub(crate) expiry: Option<(Instant, u64)>,
    pub(crate) info: String,
    /// The number of the information.
    pub(crate) version: u64,
    pub(crate) told: Told,
    pub(crate) turn: Turn,
    pub(crate) waiting: Vec<oneshot::Sender<Result<(), Error>>>,
}

/// The state of an entry in the broker, as far as this node knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    /// A call has failed, and may have been carried out nevertheless.
    Unclear,
    /// The entry, with the information of this number.
    Entered(u64),
}

/// The turn of an entry among all that have something to tell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Idle,
    /// With the place in the queue.
    Queued(u64),
    Underway,
    Failed,
}

impl Entry {
    pub(crate) fn new() -> Self {
        Self {
            members: 0,
            lost: Vec::new(),
            expiry: None,
            info: String::new(),
            version: 0,
            told: Told::Nothing,
            turn: Turn::Idle,
            waiting: Vec::new(),
        }
    }

    /// Adds a caller that waits until the entry is settled.
    pub(crate) fn add_waiting(&mut self, reply: oneshot::Sender<Result<(), Error>>) {
        if self.waiting.len() == self.waiting.capacity() {
            // While the broker is away, callers give up and come again.
            self.waiting.retain(|reply| !reply.is_closed());
        }
        self.waiting.push(reply);
    }

    /// Returns `true` if the broker should know the entry.
    pub(crate) fn is_here(&self, now: Instant) -> bool {
        self.members > 0 || self.lost.iter().any(|until| *until > now)
    }

    /// Returns `true` if the broker knows what it should.
    pub(crate) fn is_settled(&self, now: Instant) -> bool {
        match self.told {
            Told::Nothing => !self.is_here(now),
            Told::Unclear => false,
            Told::Entered(version) => self.is_here(now) && version == self.version,
        }
    }
}
