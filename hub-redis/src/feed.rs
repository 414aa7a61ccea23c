//! The way of messages from a connection to the hub.
//!
//! The task that reads the connection delivers each message itself, and nothing waits in between: a message
//! for which the inbox of the hub has no room is turned away there, and read from the history later.

use std::collections::HashSet;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bowline_hub::{Delivery, Inbox, Predecessor, PresenceChange, Topic};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc;

use crate::wire::{decode, decode_change};

/// Receives the end of a connection.
pub(crate) type Ending = mpsc::UnboundedReceiver<()>;

/// The topics that the hub wants from a server, and the way to their members.
pub(crate) struct Feed {
    /// The beginning of all channels.
    channels: String,
    /// Unset until the hub is built. Nothing is wanted before that.
    inbox: OnceLock<Inbox>,
    wanted: RwLock<HashSet<Topic>>,
}

impl Feed {
    pub(crate) fn new(channels: String) -> Self {
        Self { channels, inbox: OnceLock::new(), wanted: RwLock::default() }
    }

    pub(crate) fn start(&self, inbox: Inbox) {
        // An engine starts once.
        let _ = self.inbox.set(inbox);
    }

    pub(crate) fn want(&self, topic: Topic) {
        self.wanted_mut().insert(topic);
    }

    pub(crate) fn unwant(&self, topic: &Topic) {
        self.wanted_mut().remove(topic);
    }

    /// Returns all topics that are wanted.
    pub(crate) fn all(&self) -> Vec<Topic> {
        self.wanted().iter().cloned().collect()
    }

    /// Handles what a connection pushes. Its end is told to `ended`.
    pub(crate) fn accept(&self, push: PushInfo, ended: &mpsc::UnboundedSender<()>) {
        match push.kind {
            PushKind::Message => self.deliver(push.data),
            PushKind::Disconnection => {
                // A task that is gone has given up the connection.
                let _ = ended.send(());
            }
            _ => {}
        }
    }

    fn deliver(&self, data: Vec<Value>) {
        let mut data = data.into_iter();
        let (Some(Value::BulkString(channel)), Some(Value::BulkString(message))) = (data.next(), data.next())
        else {
            return;
        };
        let Ok(channel) = std::str::from_utf8(&channel) else { return };
        let (Some(name), Some(inbox)) = (channel.strip_prefix(&*self.channels), self.inbox.get()) else {
            return;
        };
        let Some(topic) = self.wanted().get(name).cloned() else { return };
        if let Some((key, info)) = decode_change(&message) {
            drop(inbox.change(PresenceChange { topic, key, info }));
            return;
        }
        let Some(entry) = decode(message) else { return };
        let (position, previous, message) = (entry.position, Predecessor::Tag(entry.previous), entry.message);
        drop(inbox.deliver(Delivery { topic, position, previous, message }));
    }

    fn wanted(&self) -> RwLockReadGuard<'_, HashSet<Topic>> {
        self.wanted.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn wanted_mut(&self) -> RwLockWriteGuard<'_, HashSet<Topic>> {
        self.wanted.write().unwrap_or_else(PoisonError::into_inner)
    }
}
