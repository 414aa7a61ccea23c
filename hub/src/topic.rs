//! The names of topics.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::settings::rule::{Retention, Rule};

/// The name of a topic, with the rule that applies to it.
///
/// Engines receive topics from the hub, and return them in a [`Delivery`](crate::Delivery). Cloning is cheap.
///
/// Comparison and hashing agree with the name as `str`, so a map with keys of this type can be searched by
/// `&str`.
#[derive(Clone)]
// A thin pointer: each subscription holds one.
pub struct Topic(Arc<NamedRule>);

struct NamedRule {
    name: Box<str>,
    rule: Arc<Rule>,
}

impl Topic {
    pub(crate) fn new(name: &str, rule: &Arc<Rule>) -> Self {
        Self(Arc::new(NamedRule { name: name.into(), rule: Arc::clone(rule) }))
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns how much of the history is kept, or `None` for a topic without history.
    pub fn retention(&self) -> Option<Retention> {
        self.0.rule.retention()
    }

    /// Returns `true` if hubs keep account of who is present in the topic.
    pub fn has_presence(&self) -> bool {
        self.0.rule.has_presence()
    }

    /// # Errors
    ///
    /// Returns an error if the rule of the topic has no presence.
    pub(crate) fn require_presence(&self) -> Result<(), Error> {
        if self.has_presence() {
            return Ok(());
        }
        let text = format!("the rule of {:?} has no presence (Rule::presence)", self.name());
        Err(Error::new(ErrorKind::InvalidInput, text))
    }

    pub(crate) fn rule(&self) -> &Rule {
        &self.0.rule
    }
}

impl PartialEq for Topic {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.name() == other.name()
    }
}

impl Eq for Topic {}

impl Hash for Topic {
    /// Hashes like the name, as the contract of `Borrow<str>` requires.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        self.name()
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topic").field(&self.name()).finish()
    }
}
