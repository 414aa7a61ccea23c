//! The history of a topic.
//!
//! ```text
//!   entries, oldest first     [ 18 19 20 ]   top: 20
//!                               |
//!                               the tag of 17 is in 18, as that of its predecessor
//! ```

use std::collections::VecDeque;

use bowline::bytes::Bytes;
use bowline::{Message, Utf8Bytes};
use tokio::time::Instant;

use crate::engine::keys::Keys;
use crate::engine::{HistoryEntry, HistoryPage};
use crate::position::Position;
use crate::settings::rule::Retention;

/// The size below which a message in a history is copied, in bytes. A message that was received can hold a
/// block of up to 4 KiB, which it shares with others.
const COPIED: usize = 4096;

/// The messages of a topic, and the keys of those that have one.
pub(crate) struct History {
    top: Position,
    entries: VecDeque<(Instant, HistoryEntry)>,
    /// Without memory while no message has a key.
    pub(crate) keys: Option<Box<Keys>>,
    pub(crate) retention: Retention,
    pub(crate) last_use: Instant,
    /// The time of the entry in `Shard::expiry` that is about this history.
    pub(crate) look_at: Instant,
}

impl History {
    pub(crate) fn new(retention: Retention, now: Instant) -> Self {
        let (top, entries) = (Position::begin(), VecDeque::new());
        Self { top, entries, keys: None, retention, last_use: now, look_at: now + retention.age }
    }

    /// Returns the time from which on the history is forgotten, if nobody wants or uses it.
    pub(crate) fn unused_from(&self) -> Instant {
        self.last_use + self.retention.age
    }

    /// Appends a message, and removes the entries that are no longer kept. The caller drops these after the
    /// lock.
    pub(crate) fn append(
        &mut self,
        message: Message,
        tag: u64,
        now: Instant,
        dropped: &mut Vec<(Instant, HistoryEntry)>,
    ) -> HistoryEntry {
        let entry = HistoryEntry { position: self.top.next(tag), previous: self.top.tag(), message };
        self.top = entry.position;
        self.entries.push_back((now, entry.clone()));
        self.trim(now, dropped);
        entry
    }

    /// Removes the entries and the keys that are too many or too old.
    pub(crate) fn trim(&mut self, now: Instant, dropped: &mut Vec<(Instant, HistoryEntry)>) {
        self.keys.take_if(|keys| !keys.trim(self.retention, now));
        while let Some((at, _)) = self.entries.front() {
            if self.entries.len() <= self.retention.count && *at + self.retention.age > now {
                return;
            }
            dropped.extend(self.entries.pop_front());
        }
    }

    pub(crate) fn page(&self, after: u64, limit: usize) -> HistoryPage {
        let start = self.start_after(after);
        let entries = match start {
            Some(start) => self.entries.range(start..).take(limit).map(|(_, entry)| entry.clone()).collect(),
            None => Vec::new(),
        };
        let anchor = match start {
            Some(start) if start < self.entries.len() => Some(self.entries[start].1.previous),
            Some(_) => Some(self.top.tag()),
            None => None,
        };
        let newer = self.top.offset().saturating_sub(after);
        HistoryPage { top: self.top, anchor, newer, entries }
    }

    /// Returns the index of the entry after an offset, or `None` if messages in between are gone, or if the
    /// offset is not reached.
    fn start_after(&self, after: u64) -> Option<usize> {
        let newer = self.top.offset().checked_sub(after)?;
        self.entries.len().checked_sub(usize::try_from(newer).ok()?)
    }
}

/// Copies a small message, so that a history doesn't hold the memory that the message shares with others.
pub(crate) fn compact(message: Message) -> Message {
    if message.len() >= COPIED {
        return message;
    }
    match message {
        Message::Text(text) => Message::Text(Utf8Bytes::from(text.as_str())),
        Message::Binary(bytes) => Message::Binary(Bytes::copy_from_slice(&bytes)),
    }
}
