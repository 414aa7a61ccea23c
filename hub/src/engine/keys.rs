//! The keys of messages that a history remembers.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use crate::position::Position;
use crate::settings::rule::Retention;

/// The keys of the newest messages that have one, in the order in which these were published.
#[derive(Default)]
pub(crate) struct Keys {
    positions: HashMap<Arc<str>, Position>,
    order: VecDeque<(Instant, Arc<str>)>,
}

impl Keys {
    /// Returns the position of the message that was published with a key.
    pub(crate) fn position(&self, key: &str) -> Option<Position> {
        self.positions.get(key).copied()
    }

    /// Remembers a key that is not known.
    pub(crate) fn remember(&mut self, key: &str, position: Position, now: Instant) {
        let key = Arc::<str>::from(key);
        self.positions.insert(Arc::clone(&key), position);
        self.order.push_back((now, key));
    }

    /// Forgets the keys that are too many or too old. Returns `false` if none is left.
    pub(crate) fn trim(&mut self, retention: Retention, now: Instant) -> bool {
        while let Some((at, key)) = self.order.front() {
            if self.order.len() <= retention.key_count() && *at + retention.key_age() > now {
                return true;
            }
            self.positions.remove(key);
            self.order.pop_front();
        }
        false
    }
}
