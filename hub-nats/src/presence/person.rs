//! The message about a key in a topic, for presence.

use bowline_hub::{PresenceChange, Present, Topic};
use serde_json::{Value, json};

/// The state of a key in a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) key: String,
    pub(crate) info: String,
    nodes: Vec<String>,
    is_change: bool,
}

impl Person {
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(json).ok()?;
        let nodes = value["nodes"].as_array()?.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Some(Self {
            key: value["key"].as_str()?.to_owned(),
            info: value["info"].as_str()?.to_owned(),
            nodes,
            is_change: value["change"].as_bool()?,
        })
    }

    /// Returns the change for the hubs that want a topic, or `None` if the message is no change for them.
    pub(crate) fn into_change(self, topic: Topic) -> Option<PresenceChange> {
        let info = (!self.is_gone()).then_some(self.info);
        self.is_change.then_some(PresenceChange { topic, key: self.key, info })
    }

    /// Returns `true` if nobody with this key is present.
    pub(crate) fn is_gone(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn encode(&self) -> String {
        json!({ "key": self.key, "info": self.info, "nodes": self.nodes, "change": self.is_change })
            .to_string()
    }

    /// The state of a key of which nobody has been present.
    pub(crate) fn nobody(key: &str) -> Self {
        Self { key: key.to_owned(), ..Self::default() }
    }

    /// Returns the nodes with an entry: one token of a subject each, as hubs write them.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &str> {
        let nodes = self.nodes.iter().map(String::as_str);
        nodes.filter(|node| !node.is_empty() && node.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    }

    pub(crate) fn has(&self, node: &str) -> bool {
        self.nodes.iter().any(|other| other == node)
    }

    /// Adds a node.
    pub(crate) fn with(&self, node: &str, present: &Present) -> Self {
        let is_change = self.nodes.is_empty() || self.info != present.info;
        let mut nodes = self.nodes.clone();
        nodes.extend((!self.has(node)).then(|| node.to_owned()));
        Self { key: present.key.clone(), info: present.info.clone(), nodes, is_change }
    }

    /// Removes a node, if it is there.
    pub(crate) fn without(&self, node: &str) -> Self {
        let nodes: Vec<_> = self.nodes.iter().filter(|other| *other != node).cloned().collect();
        let is_change = nodes.is_empty() && !self.nodes.is_empty();
        Self { nodes, is_change, ..self.clone() }
    }
}
