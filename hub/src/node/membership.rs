//! A member, as the workers know it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bowline::{CloseCode, Sender};

/// A connection in the hub, shared by its handle and the workers of its topics.
pub(crate) struct Membership {
    pub(crate) sender: Sender,
    has_left: AtomicBool,
}

impl Membership {
    pub(crate) fn new(sender: Sender) -> Self {
        Self { sender, has_left: AtomicBool::new(false) }
    }

    /// Stops all sending, before the workers have learnt of it.
    pub(crate) fn leave(&self) {
        self.has_left.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Relaxed)
    }

    /// Closes the connection, so that the client connects again and subscribes from its last position.
    pub(crate) fn close(&self, cause: Cause) {
        let (code, reason) = cause.code_and_reason();
        let closing = self.sender.begin_close(code, reason);
        debug_assert!(closing.is_ok(), "these codes and short reasons may be sent");
    }
}

/// The cause for which a hub closes a connection.
///
/// 1013 means that the service is overloaded, and asks clients to stay away for a while (the registry of RFC
/// 6455 11.7). A single member that is too slow is no such case. Its client comes back after a short pause,
/// and catches up from its position.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause {
    /// The connection is full, and the rule of the topic says that it is closed.
    TooSlow,
    /// The connection is full, and as many members catch up as are allowed.
    TooManySlow,
    /// Messages are lost, and no frame tells so.
    Lost,
    /// The history can't be read, and the member has received a part of it.
    Unreadable,
    /// A worker or a task has panicked, or the runtime of the hub has ended.
    HubEnded,
}

impl Cause {
    fn code_and_reason(self) -> (CloseCode, &'static str) {
        match self {
            Self::TooSlow => (CloseCode::POLICY_VIOLATION, "too slow"),
            Self::TooManySlow => (CloseCode::TRY_AGAIN_LATER, "too many members are slow"),
            Self::Lost => (CloseCode::TRY_AGAIN_LATER, "messages were lost"),
            Self::Unreadable => (CloseCode::TRY_AGAIN_LATER, "the history can't be read"),
            Self::HubEnded => (CloseCode::TRY_AGAIN_LATER, "the hub has ended"),
        }
    }
}

/// A member as the key of a map, by identity.
#[derive(Clone)]
pub(crate) struct MemberKey(pub(crate) Arc<Membership>);

impl PartialEq for MemberKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for MemberKey {}

impl Hash for MemberKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}
