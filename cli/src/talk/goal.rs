//! The goal of a conversation: `--count` and `--until`.

use bowline::Message;
use regex_lite::Regex;

use crate::talk::item::Item;

/// The messages that a conversation waits for.
#[derive(Debug, Default)]
pub(super) struct Goal {
    pub(super) count: Option<u64>,
    pub(super) until: Option<Regex>,
}

impl Goal {
    /// Returns whether the conversation waits for certain messages.
    pub(super) fn is_set(&self) -> bool {
        self.count.is_some() || self.until.is_some()
    }

    /// Returns whether the conversation ends once everything is sent.
    pub(super) fn is_to_send(&self) -> bool {
        self.count == Some(0)
    }

    /// Returns whether enough was received. `item` is the last one of them.
    pub(super) fn is_met_by(&self, received: u64, item: &Item) -> bool {
        let is_enough = self.count.is_some_and(|count| count > 0 && received >= count);
        let is_the_one = match (&self.until, item) {
            (Some(pattern), Item::Message(Message::Text(text))) => pattern.is_match(text),
            _ => false,
        };
        is_enough || is_the_one
    }

    /// Describes what was waited for in vain, if anything was.
    pub(super) fn missing(&self, received: u64) -> Option<String> {
        match (self.count, &self.until) {
            (Some(count), _) if received < count => {
                Some(format!("received {received} of {count} messages (--count)"))
            }
            (_, Some(pattern)) => Some(format!("no message matched {} (--until)", pattern.as_str())),
            _ => None,
        }
    }
}
