//! The values that the handle and the task of a connection share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bowline_hub::EngineError;
use tokio::time::Instant;

use crate::connection::{INBOX, ServerInfo};

/// The time after a change within which the servers of a cluster may disagree.
const UNREST: Duration = Duration::from_secs(60);

/// The values that the handle and the task share.
pub(crate) struct Shared {
    /// The beginning of the subjects of answers.
    pub(crate) answers: String,
    /// The size of the largest message that the server accepts, in bytes.
    pub(crate) max_payload: AtomicUsize,
    /// `true` if the server belongs to a cluster.
    pub(crate) is_clustered: AtomicBool,
    /// The number of times that the stream of the histories may have become another one.
    pub(crate) changes: AtomicU64,
    /// The time of the last such change.
    changed: Mutex<Option<Instant>>,
}

impl Shared {
    pub(crate) fn new(server: &ServerInfo) -> Result<Self, EngineError> {
        let random = getrandom::u64().map_err(EngineError::new)?;
        let shared = Self {
            answers: format!("{INBOX}bowline-{random:016x}."),
            max_payload: AtomicUsize::default(),
            is_clustered: AtomicBool::default(),
            changes: AtomicU64::default(),
            changed: Mutex::default(),
        };
        shared.learn(server);
        Ok(shared)
    }

    /// Takes note that the stream may have become another one.
    pub(crate) fn change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns `true` if the servers of a cluster may disagree.
    pub(crate) fn is_restless(&self) -> bool {
        let changed = *self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_clustered.load(Ordering::Relaxed) && changed.is_some_and(|changed| changed.elapsed() < UNREST)
    }

    /// Takes note of what a server says about itself.
    pub(crate) fn learn(&self, server: &ServerInfo) {
        self.max_payload.store(server.max_payload, Ordering::Relaxed);
        self.is_clustered.store(server.is_clustered, Ordering::Relaxed);
    }
}
