//! The keys of topics in Redis.

use std::time::Duration;

use bowline_hub::Topic;

/// The beginning of all keys.
const PREFIX: &str = "bowline:";

/// Returns the keys of a history, as the scripts expect them: its head, its messages, and what it remembers
/// of keys of messages.
pub(crate) fn all(topic: &Topic) -> [String; 4] {
    [head(topic), key(topic, "messages"), key(topic, "keys"), key(topic, "order")]
}

/// Returns the key of the head of a history.
pub(crate) fn head(topic: &Topic) -> String {
    key(topic, "head")
}

/// Returns the key of those who are present in a topic.
pub(crate) fn present(topic: &Topic) -> String {
    key(topic, "present")
}

fn key(topic: &Topic, part: &str) -> String {
    format!("{PREFIX}{}:{part}", topic.name())
}

/// Returns a time as Redis expects it, at least 1.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
