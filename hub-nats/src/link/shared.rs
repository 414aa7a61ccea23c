//! The values that the handle and the task of a connection share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bowline_hub::EngineError;

use crate::connection::ServerInfo;

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
}

impl Shared {
    pub(crate) fn new(server: &ServerInfo) -> Result<Self, EngineError> {
        let random = getrandom::u64().map_err(EngineError::new)?;
        let shared = Self {
            answers: format!("_INBOX.bowline-{random:016x}."),
            max_payload: AtomicUsize::default(),
            is_clustered: AtomicBool::default(),
            changes: AtomicU64::default(),
        };
        shared.learn(server);
        Ok(shared)
    }

    /// Takes note of what a server says about itself.
    pub(crate) fn learn(&self, server: &ServerInfo) {
        self.max_payload.store(server.max_payload, Ordering::Relaxed);
        self.is_clustered.store(server.is_clustered, Ordering::Relaxed);
    }
}
