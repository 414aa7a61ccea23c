//! The deliveries that arrive while the history of a topic is read.
//!
//! ```text
//!   Complete --no room--> Dropped --the history may have changed--> Doubted
//!      |                                                               ^
//!      +---------------------------------------------------------------+
//! ```

use crate::engine::Delivery;

/// The number of deliveries that are kept while the history is read. Later ones are read from the history.
const HELD: usize = 1024;

/// The deliveries that arrive while the history is read.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) deliveries: Vec<Delivery>,
    /// The size of the messages of all deliveries, in bytes.
    pub(crate) size: usize,
    /// The number of deliveries that were here before the read began. The page contains all of these that
    /// still are in the history.
    pub(crate) before_read: usize,
    pub(crate) worth: Worth,
}

/// The worth of the deliveries that are held. The worst counts.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Worth {
    #[default]
    Complete,
    /// Deliveries are missing. The history is read again once these are handled.
    Dropped,
    /// The history may have changed since the read began, so that the next message would only look as if it
    /// were that. The history is read again first.
    Doubted,
}

impl Held {
    /// Holds a delivery, as long as all of them have room in `most` bytes.
    pub(crate) fn push(&mut self, delivery: Delivery, most: usize) {
        let size = self.size + delivery.message.len();
        if self.deliveries.len() < HELD && size <= most {
            self.size = size;
            self.deliveries.push(delivery);
        } else {
            self.worth = self.worth.max(Worth::Dropped);
        }
    }
}
