//! The message of a lease.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::message::RawMessage;

/// The state of a lease in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    Lasting(Duration),
    /// A hub has begun to reap the entries.
    Over,
}

impl Term {
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(json).ok()?;
        Some(match value["milliseconds"].as_u64() {
            Some(time) => Self::Lasting(Duration::from_millis(time)),
            None => Self::Over,
        })
    }

    pub(crate) fn encode(self) -> String {
        match self {
            Self::Lasting(time) => {
                json!({ "milliseconds": u64::try_from(time.as_millis()).unwrap_or(u64::MAX) }).to_string()
            }
            Self::Over => json!({}).to_string(),
        }
    }

    /// Returns `true` if a message is that of a lease which lasts at a time of the server.
    pub(crate) fn lasts(lease: &RawMessage, now: SystemTime) -> bool {
        matches!(Self::parse(&lease.payload), Some(Self::Lasting(time)) if lease.time + time > now)
    }
}
