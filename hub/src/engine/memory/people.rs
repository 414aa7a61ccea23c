//! The people in a topic.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::presence::{NodeId, Present};

/// The people in a topic, by their keys.
#[derive(Default)]
pub(crate) struct People(HashMap<Arc<str>, Person>);

/// Somebody who is present.
struct Person {
    info: String,
    /// The nodes with an entry. Never empty.
    nodes: Vec<NodeId>,
}

/// The outcome for all who look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Unchanged,
    Changed,
}

impl People {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Present> {
        self.0.iter().map(|(key, person)| Present::new(&**key).info(person.info.as_str()))
    }

    /// Adds the entry of a node. The last information counts.
    pub(crate) fn enter(&mut self, node: NodeId, key: &Arc<str>, info: &str) -> Effect {
        match self.0.entry(Arc::clone(key)) {
            Entry::Vacant(place) => {
                place.insert(Person { info: info.to_owned(), nodes: vec![node] });
            }
            Entry::Occupied(mut person) => {
                let person = person.get_mut();
                if !person.nodes.contains(&node) {
                    person.nodes.push(node);
                }
                if person.info == info {
                    return Effect::Unchanged;
                }
                info.clone_into(&mut person.info);
            }
        }
        Effect::Changed
    }

    /// Removes the entry of a node. The last one takes the person along.
    pub(crate) fn exit(&mut self, node: NodeId, key: &str) -> Effect {
        let Some(person) = self.0.get_mut(key) else { return Effect::Unchanged };
        person.nodes.retain(|other| *other != node);
        if !person.nodes.is_empty() {
            return Effect::Unchanged;
        }
        self.0.remove(key);
        Effect::Changed
    }
}
