//! The message of a lease.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::message::RawMessage;

/// The state of a lease in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    Lasting(Duration),
    /// A hub has found entries without a lease, and reaps them after a time.
    Missing(Duration),
    /// A hub has begun to reap the entries.
    Over,
}

impl Term {
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(json).ok()?;
        let time = |name: &str| value[name].as_u64().map(Duration::from_millis);
        Some(match (time("milliseconds"), time("missing")) {
            (Some(time), _) => Self::Lasting(time),
            (None, Some(time)) => Self::Missing(time),
            (None, None) => Self::Over,
        })
    }

    pub(crate) fn encode(self) -> String {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let value = match self {
            Self::Lasting(time) => json!({ "milliseconds": milliseconds(time) }),
            Self::Missing(time) => json!({ "missing": milliseconds(time) }),
            Self::Over => json!({}),
        };
        value.to_string()
    }

    /// Returns `true` if a message is that of a lease which lasts at a time of the server.
    pub(crate) fn lasts(lease: &RawMessage, now: SystemTime) -> bool {
        matches!(Self::parse(&lease.payload), Some(Self::Lasting(time)) if lease.time + time > now)
    }
}
