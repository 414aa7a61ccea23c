//! The numbers of a hub.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The numbers of a hub at one moment. [`Hub::stats`](crate::Hub::stats) returns them.
        ///
        /// `members`, `subscriptions`, `topics`, `catching_up` and `entries` are gauges. All other numbers
        /// count from the creation of the hub.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct HubStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The counters behind the numbers, which all workers share.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            pub(crate) fn stats(&self) -> HubStats {
                HubStats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

numbers! {
    /// Members that exist.
    members,
    /// Subscriptions that are live.
    subscriptions,
    /// Topics that this hub receives from its engine.
    topics,
    /// Slow members that receive messages from a history.
    catching_up,
    /// Messages that this hub published.
    published,
    /// Messages sent to members, by all ways.
    delivered,
    /// Messages that slow members did not receive ([`Slow::Skip`](crate::Slow::Skip)).
    skipped,
    /// Slow members that are level again.
    caught_up,
    /// Slow members whose connections were closed.
    closed_slow,
    /// Times that a worker read the history of a topic, because messages had not arrived or might be missing.
    gaps,
    /// Times that a member lost messages of a topic with history.
    lost,
    /// Messages of topics without history that found no room in the inbox of a worker.
    overflowed,
    /// Entries of this hub in the account of who is where, one for each topic and key. Those that linger
    /// without a connection count, too.
    entries,
    /// Renewals of the lease of this hub.
    renewals,
    /// Times that the lease of this hub had lapsed.
    lapses,
    /// Entries of other hubs that were gone, which this hub has removed.
    reaped,
}

/// Adds to a counter, or to a gauge.
pub(crate) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

/// Subtracts from a gauge.
pub(crate) fn subtract(gauge: &AtomicU64, count: usize) {
    gauge.fetch_sub(count as u64, Ordering::Relaxed);
}
