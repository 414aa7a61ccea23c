//! The limits on what topics and members may cost.

use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// The limits of a hub. All of them are on by default, and [`HubBuilder::limits`] overrides them.
///
/// | limit | default | when it is exceeded |
/// |---|---|---|
/// | [`topics_per_member`](Self::topics_per_member) | 128 | `subscribe` fails |
/// | [`topic_size`](Self::topic_size) | 255 bytes | `subscribe` and `publish` fail |
/// | [`message_size`](Self::message_size) | 64 KiB | `publish` fails |
/// | [`key_size`](Self::key_size) | 255 bytes | `publish_once` fails |
/// | [`replay`](Self::replay) | 1,000 messages | `subscribe` returns [`Start::Lost`] |
/// | [`catch_up_tasks`](Self::catch_up_tasks) | 1,000 | slow members are closed with 1013 |
/// | [`inbox`](Self::inbox) | 4,096 messages | see the setter |
/// | [`engine_timeout`](Self::engine_timeout) | 2 s | `subscribe` and `publish` fail |
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
    /// The time for an answer of the engine: see [the setter](Self::engine_timeout).
    pub engine_timeout: Duration,
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
            engine_timeout: Duration::from_secs(2),
        }
    }
}

impl HubLimits {
    /// Sets the number of topics that a member may have. Default: 128; at least 1.
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
    /// Default: 1,000. With 0, a member that missed a message has always lost messages.
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
        ];
        match settings.iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => {
                Err(Error::new(ErrorKind::InvalidInput, format!("HubLimits::{name} must not be 0")))
            }
            None => self.validate_tasks(),
        }
    }

    fn validate_tasks(&self) -> Result<(), Error> {
        let most = tokio::sync::Semaphore::MAX_PERMITS;
        if self.catch_up_tasks > most {
            let text = format!("HubLimits::catch_up_tasks is at most {most}");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Ok(())
    }
}
