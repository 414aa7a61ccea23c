//! Messages that are prepared once, and sent to all connections of a group.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bowline::{Message, MessageKind, Prepared};

use super::record::Record;

/// What a group has prepared, by its number, the sender, the number of the message and its kind.
#[derive(Default)]
pub struct Stock(Mutex<HashMap<(u32, u8, u32, bool), Arc<Prepared>>>);

impl Stock {
    /// A message as it is for all, of a kind if there is only one that may be sent.
    pub fn get(&self, group: u32, sender: u8, number: u32, kind: Option<MessageKind>) -> Arc<Prepared> {
        let any = if number % 2 == 0 { MessageKind::Text } else { MessageKind::Binary };
        let kind = kind.unwrap_or(any);
        let size = (number as usize * 97 + usize::from(sender) * 1543) % (40 << (number % 11));
        let mut stock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = stock.entry((group, sender, number, kind == MessageKind::Text)).or_insert_with(|| {
            let bytes = Record::new(kind, group, sender, number, size).encode();
            Arc::new(Prepared::new(match kind {
                MessageKind::Text => String::from_utf8(bytes).expect("the record is of text").into(),
                MessageKind::Binary => Message::from(bytes),
            }))
        });
        Arc::clone(prepared)
    }

    /// Forgets what was for a group.
    pub fn forget(&self, group: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, ..), _| *of != group);
    }
}
