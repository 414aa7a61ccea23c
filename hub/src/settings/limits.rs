//! The limits on what topics and members may cost.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::presence::Present;

/// The shortest and the longest lease of a node.
const MIN_LEASE: Duration = Duration::from_millis(100);
const MAX_LEASE: Duration = Duration::from_secs(60 * 60);

/// The limits of a hub. All of them are on by default, and [`HubBuilder::limits`] overrides them.
///
/// | limit | default | when it is exceeded |
/// |---|---|---|
/// | [`topics_per_member`](Self::topics_per_member) | 128 | `subscribe` and `appear` fail |
/// | [`topic_size`](Self::topic_size) | 255 bytes | `subscribe` and `publish` fail |
/// | [`message_size`](Self::message_size) | 64 KiB | `publish` fails |
/// | [`key_size`](Self::key_size) | 255 bytes | `publish_once` fails |
/// | [`replay`](Self::replay) | 1,000 messages | `subscribe` returns [`Start::Lost`] |
/// | [`catch_up_tasks`](Self::catch_up_tasks) | 1,000 | slow members are closed with 1013 |
/// | [`inbox`](Self::inbox) | 4,096 messages | see the setter |
/// | [`held_back`](Self::held_back) | 1 MiB a topic | see the setter |
/// | [`engine_timeout`](Self::engine_timeout) | 2 s | `subscribe`, `publish` and `appear` fail |
/// | [`presence_key`](Self::presence_key) | 255 bytes | `appear` fails |
/// | [`presence_info`](Self::presence_info) | 1 KiB | `appear` fails |
/// | [`presence_linger`](Self::presence_linger) | 15 s | somebody whose connection is lost leaves |
/// | [`presence_lease`](Self::presence_lease) | 30 s | everybody on a node that is gone leaves |
///
/// An error that reports an exceeded limit has the kind [`ErrorKind::Limit`](crate::ErrorKind::Limit), or
/// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) for the time, and names the setting.
///
/// Each setting is a field to read, and a method of the same name that sets the field. A setting out of its
/// range is reported by [`HubBuilder::build`].
///
/// [`HubBuilder::limits`]: crate::HubBuilder::limits
/// [`HubBuilder::build`]: crate::HubBuilder::build
/// [`Start::Lost`]: crate::Start::Lost
///
/// # Examples
///
/// ```
/// use bowline_hub::HubLimits;
///
/// let limits = HubLimits::default().topics_per_member(10).message_size(4096);
/// assert_eq!(limits.topics_per_member, 10);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HubLimits {
    /// The number of topics that a member may have: see [the setter](Self::topics_per_member).
    pub topics_per_member: usize,
    /// The size of the longest name of a topic, in bytes: see [the setter](Self::topic_size).
    pub topic_size: usize,
    /// The size of the largest message, in bytes: see [the setter](Self::message_size).
    pub message_size: usize,
    /// The size of the longest key of a message, in bytes: see [the setter](Self::key_size).
    pub key_size: usize,
    /// The number of missed messages that are sent again: see [the setter](Self::replay).
    pub replay: u64,
    /// The number of slow members that catch up at the same time: see [the setter](Self::catch_up_tasks).
    pub catch_up_tasks: usize,
    /// The number of messages that wait for a worker: see [the setter](Self::inbox).
    pub inbox: usize,
    /// The size of the messages of a topic that wait for its history: see [the setter](Self::held_back).
    pub held_back: usize,
    /// The time for an answer of the engine: see [the setter](Self::engine_timeout).
    pub engine_timeout: Duration,
    /// The size of the longest key of a presence, in bytes: see [the setter](Self::presence_key).
    pub presence_key: usize,
    /// The size of the largest information of a presence, in bytes: see [the setter](Self::presence_info).
    pub presence_info: usize,
    /// The time for which somebody stays present without a connection: see [the
    /// setter](Self::presence_linger).
    pub presence_linger: Duration,
    /// The time for which everybody on a node that is gone stays present: see [the
    /// setter](Self::presence_lease).
    pub presence_lease: Duration,
}

impl Default for HubLimits {
    fn default() -> Self {
        Self {
            topics_per_member: 128,
            topic_size: 255,
            message_size: 64 * 1024,
            key_size: 255,
            replay: 1000,
            catch_up_tasks: 1000,
            inbox: 4096,
            held_back: 1024 * 1024,
            engine_timeout: Duration::from_secs(2),
            presence_key: 255,
            presence_info: 1024,
            presence_linger: Duration::from_secs(15),
            presence_lease: Duration::from_secs(30),
        }
    }
}

impl HubLimits {
    /// Sets the number of topics that a member may have. Default: 128; at least 1.
    ///
    /// The same number bounds the topics in which the member is [present](crate::Member::appear), as it may
    /// be present in topics to which it is no longer subscribed.
    pub fn topics_per_member(mut self, topics: usize) -> Self {
        self.topics_per_member = topics;
        self
    }

    /// Sets the size of the longest name of a topic, in bytes. Default: 255; at least 1.
    pub fn topic_size(mut self, bytes: usize) -> Self {
        self.topic_size = bytes;
        self
    }

    /// Sets the size of the largest message to publish, in bytes. Default: 64 KiB; at least 1.
    pub fn message_size(mut self, bytes: usize) -> Self {
        self.message_size = bytes;
        self
    }

    /// Sets the size of the longest key of [`Hub::publish_once`](crate::Hub::publish_once), in bytes.
    /// Default: 255; at least 1.
    pub fn key_size(mut self, bytes: usize) -> Self {
        self.key_size = bytes;
        self
    }

    /// Sets the number of missed messages that [`Member::subscribe`](crate::Member::subscribe) sends.
    /// Default: 1,000. With 0, a member that missed a message has lost it, unless the node still holds the
    /// message for a member that is behind.
    pub fn replay(mut self, messages: u64) -> Self {
        self.replay = messages;
        self
    }

    /// Sets the number of slow members that receive messages from the history at the same time. Default:
    /// 1,000. The connections of further slow members are closed with 1013.
    pub fn catch_up_tasks(mut self, tasks: usize) -> Self {
        self.catch_up_tasks = tasks;
        self
    }

    /// Sets the size of the messages of a topic that may wait while the hub reads the topic's history, in
    /// bytes. Default: 1 MiB. Messages beyond that size, and beyond 1,024, are read from the history
    /// afterwards.
    ///
    /// The same size bounds the last messages of a topic that the hub keeps while some members receive from
    /// the history: at most 64.
    pub fn held_back(mut self, bytes: usize) -> Self {
        self.held_back = bytes;
        self
    }

    /// Sets the number of messages from the engine that may wait for each worker. Default: 4,096; at least 1.
    ///
    /// A topic with history whose messages found no room is read again from the history. Without history,
    /// these messages are lost, and [`Hub::events`](crate::Hub::events) reports how many.
    /// Publishers of the same hub wait for a while when half of the room is taken.
    pub fn inbox(mut self, messages: usize) -> Self {
        self.inbox = messages;
        self
    }

    /// Sets the time within which the engine must answer. Default: 2 s; positive.
    pub fn engine_timeout(mut self, timeout: Duration) -> Self {
        self.engine_timeout = timeout;
        self
    }

    /// Sets the size of the longest key of a presence, in bytes. Default: 255; at least 1.
    pub fn presence_key(mut self, bytes: usize) -> Self {
        self.presence_key = bytes;
        self
    }

    /// Sets the size of the largest [information](crate::Present::info) of a presence, in bytes. Default: 1
    /// KiB.
    pub fn presence_info(mut self, bytes: usize) -> Self {
        self.presence_info = bytes;
        self
    }

    /// Sets the time for which somebody stays present after the [`Member`](crate::Member) was dropped.
    /// Default: 15 s; at most the lease.
    ///
    /// A client that connects again within this time, to the same node or to another one, neither leaves nor
    /// joins. With 0, everybody leaves at once.
    pub fn presence_linger(mut self, time: Duration) -> Self {
        self.presence_linger = time;
        self
    }

    /// Sets the time after which everybody on a node that is gone has left. Default: 30 s; 100 ms to one
    /// hour. All hubs on one broker should have the same setting.
    ///
    /// The hub renews its lease in the broker three times as often. A node that can't reach the broker for
    /// this time is [unhealthy](crate::Hub::is_healthy), and its members count as gone.
    pub fn presence_lease(mut self, time: Duration) -> Self {
        self.presence_lease = time;
        self
    }

    /// Checks the size of a presence.
    ///
    /// # Errors
    ///
    /// Returns an error that names the limit that is exceeded.
    pub(crate) fn check(&self, present: &Present) -> Result<(), Error> {
        if present.key.is_empty() {
            return Err(Error::new(ErrorKind::InvalidInput, "the key of a presence must not be empty"));
        }
        let sizes =
            [("key", present.key.len(), self.presence_key), ("info", present.info.len(), self.presence_info)];
        match sizes.iter().find(|(_, size, most)| size > most) {
            Some((what, size, most)) => {
                let text = format!(
                    "the {what} of the presence has {size} bytes, more than {most} (raise it with \
                     HubLimits::presence_{what})"
                );
                Err(Error::new(ErrorKind::Limit, text))
            }
            None => Ok(()),
        }
    }

    /// # Errors
    ///
    /// Returns an error that names the first setting out of its range.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let settings = [
            ("topics_per_member", self.topics_per_member == 0),
            ("topic_size", self.topic_size == 0),
            ("message_size", self.message_size == 0),
            ("key_size", self.key_size == 0),
            ("inbox", self.inbox == 0),
            ("engine_timeout", self.engine_timeout.is_zero()),
            ("presence_key", self.presence_key == 0),
        ];
        match settings.iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => {
                Err(Error::new(ErrorKind::InvalidInput, format!("HubLimits::{name} must not be 0")))
            }
            None => self.validate_ranges(),
        }
    }

    fn validate_ranges(&self) -> Result<(), Error> {
        let most = tokio::sync::Semaphore::MAX_PERMITS;
        let text = if self.catch_up_tasks > most {
            format!("HubLimits::catch_up_tasks is at most {most}")
        } else if !(MIN_LEASE..=MAX_LEASE).contains(&self.presence_lease) {
            format!(
                "HubLimits::presence_lease is {MIN_LEASE:?} to {MAX_LEASE:?}, and not {:?}",
                self.presence_lease
            )
        } else if self.presence_linger > self.presence_lease {
            let lease = self.presence_lease;
            format!("HubLimits::presence_linger is at most presence_lease ({lease:?})")
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::InvalidInput, text))
    }
}
