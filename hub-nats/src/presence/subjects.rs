//! The subjects of the stream: see [`presence`](crate::presence).

use crate::wire;

pub(crate) fn lease_subject(node: &str) -> String {
    format!("{}{node}", wire::LEASE)
}

/// Returns the subjects of all entries of a node.
pub(crate) fn index_of(node: &str) -> String {
    format!("{}{node}.>", wire::NODE)
}

pub(crate) fn index_subject(node: &str, topic: &str, key: &str) -> String {
    let topic = wire::subject(&format!("{}{node}.", wire::NODE), topic);
    wire::subject(&format!("{topic}."), key)
}

pub(crate) fn key_subject(topic: &str, key: &str) -> String {
    wire::subject(&format!("{}.", wire::subject(wire::PRESENT, topic)), key)
}
