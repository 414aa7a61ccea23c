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
    pub(crate) fn close(&self, reason: &'static str) {
        let closing = self.sender.begin_close(CloseCode::TRY_AGAIN_LATER, reason);
        debug_assert!(closing.is_ok(), "1013 and a short reason may be sent");
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
