//! Presence: the words that hubs and engines share.

use std::fmt;

use crate::position::random;
use crate::topic::Topic;

/// Somebody who is present in a topic, as [`Member::appear`](crate::Member::appear) accepts and
/// [`Hub::present`](crate::Hub::present) returns it.
///
/// # Examples
///
/// ```
/// use bowline_hub::Present;
///
/// let alice = Present::new("user-17").info(r#"{"name":"Alice"}"#);
/// assert_eq!(alice.key, "user-17");
/// // Without further information, the key is enough.
/// assert_eq!(Present::from("user-17"), Present::new("user-17"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Present {
    /// The identity, such as the name of a user. Several connections may have the same key, and count as one.
    pub key: String,
    /// The information about the identity, in the words of the application. Empty by default.
    pub info: String,
}

impl Present {
    /// Creates the presence of an identity, without further information.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), info: String::new() }
    }

    /// Sets the information that others receive, such as a name to show, or a state.
    pub fn info(mut self, info: impl Into<String>) -> Self {
        self.info = info.into();
        self
    }
}

impl From<&str> for Present {
    fn from(key: &str) -> Self {
        Self::new(key)
    }
}

impl From<&String> for Present {
    fn from(key: &String) -> Self {
        Self::new(key)
    }
}

impl From<String> for Present {
    fn from(key: String) -> Self {
        Self::new(key)
    }
}

/// A change that an [`Engine`](crate::Engine) reports with [`Inbox::change`](crate::Inbox::change): the state
/// of one key in a topic from now on.
#[derive(Clone, Debug)]
pub struct PresenceChange {
    /// The topic.
    pub topic: Topic,
    /// The identity.
    pub key: String,
    /// The information about the identity, or `None` if nobody with this key is present any more.
    pub info: Option<String>,
}

/// The number of a hub as the owner of entries, random and never used again.
///
/// A hub whose lease has lapsed continues with another number, so that its old entries and its new ones can't
/// be mistaken for each other. As text, the number has 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u64);

impl NodeId {
    pub(crate) fn new() -> Self {
        Self(random())
    }

    /// Returns the number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    /// Writes 16 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:016x}", self.0))
    }
}

/// The state of the lease of a node, as an [`Engine`](crate::Engine) finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// The node has a lease, and its entries are as the hub entered them.
    Held,
    /// The node has no lease, or its entries may be lost or out of date.
    Lapsed,
}
