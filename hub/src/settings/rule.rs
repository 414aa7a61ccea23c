//! The rules of topics.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// The largest number of messages in a history. An engine may hold all of them in memory.
const MAX_HISTORY: usize = 1_000_000;

/// The longest age of a message in a history: 366 days.
const MAX_AGE: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The smallest number of keys that a topic remembers.
const MIN_KEYS: usize = 1000;

/// The longest time for which a topic must remember a key.
const KEY_AGE: Duration = Duration::from_secs(120);

/// The rule of all topics that begin with a prefix: their history, presence, and the treatment of slow
/// members.
///
/// [`HubBuilder::rule`](crate::HubBuilder::rule) sets a rule. Of several rules that apply to a topic, the one
/// with the longest prefix counts. A topic without a rule has the default of this type: no history, and slow
/// members skip messages.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use bowline_hub::{Rule, Slow};
///
/// // Clients that come back within five minutes receive up to 100 missed messages.
/// let chat = Rule::new().history(100, Duration::from_secs(300));
/// // The next price makes up for a lost one.
/// let prices = Rule::new().slow(Slow::Skip);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    retention: Option<Retention>,
    slow: Option<Slow>,
    presence: Presence,
}

/// The account of who is in a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Presence {
    #[default]
    Off,
    On,
}

/// The part of a history that is kept: at most so many messages, for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// The number of messages.
    pub count: usize,
    /// The age of the oldest message.
    pub age: Duration,
}

impl Retention {
    /// Returns the number of keys of [`Hub::publish_once`](crate::Hub::publish_once) that a topic remembers:
    /// as many as messages, and at least 1,000.
    pub fn key_count(self) -> usize {
        self.count.max(MIN_KEYS)
    }

    /// Returns the time for which a topic remembers a key of [`Hub::publish_once`](crate::Hub::publish_once):
    /// two minutes, or the age of the history if that is less.
    pub fn key_age(self) -> Duration {
        self.age.min(KEY_AGE)
    }
}

/// The treatment of a member whose connection doesn't take a message at once.
///
/// A connection is slow once its write buffer is full: see [`bowline::Sender::try_send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Slow {
    /// The member receives the messages from the history, as fast as the connection takes them, and then
    /// joins the others again. The default for topics with history, which this treatment requires.
    ///
    /// A member that falls behind the history has lost messages, and is told so: see
    /// [`HubBuilder::lost`](crate::HubBuilder::lost).
    CatchUp,
    /// The member doesn't receive the message, and is not told. The default for topics without history.
    Skip,
    /// The connection is closed with 1008, because 1013 would mean that the server is overloaded. A client
    /// such as `bowline::Reconnecting` comes back after a short, random pause that grows if the client is
    /// closed again. With a history, it then continues from the position of its last message.
    Close,
}

impl Rule {
    /// Creates a rule without history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a history: at most `count` messages, none of them older than `age`.
    ///
    /// Members of a topic with history receive an unbroken sequence of messages, each once, or are told that
    /// messages are lost. The history of a topic is forgotten after `age` without a message or a member.
    ///
    /// The count is 1 to 1,000,000, and the age is positive and at most 366 days.
    pub fn history(mut self, count: usize, age: Duration) -> Self {
        self.retention = Some(Retention { count, age });
        self
    }

    /// Sets the treatment of slow members. Default: [`Slow::CatchUp`] with a history, and [`Slow::Skip`]
    /// without.
    pub fn slow(mut self, slow: Slow) -> Self {
        self.slow = Some(slow);
        self
    }

    /// Keeps account of who is in the topics: see [`Member::appear`](crate::Member::appear),
    /// [`Hub::present`](crate::Hub::present) and [`HubBuilder::presence`](crate::HubBuilder::presence).
    pub fn presence(mut self) -> Self {
        self.presence = Presence::On;
        self
    }

    pub(crate) fn has_presence(&self) -> bool {
        self.presence == Presence::On
    }

    pub(crate) fn retention(&self) -> Option<Retention> {
        self.retention
    }

    pub(crate) fn treatment(&self) -> Slow {
        self.slow.unwrap_or(if self.retention.is_some() { Slow::CatchUp } else { Slow::Skip })
    }

    fn validate(&self, prefix: &str) -> Result<(), Error> {
        let invalid = |what: String| {
            Err(Error::new(ErrorKind::InvalidInput, format!("the rule for {prefix:?}: {what}")))
        };
        match (self.retention, self.slow) {
            (Some(Retention { count, .. }), _) if !(1..=MAX_HISTORY).contains(&count) => {
                invalid(format!("Rule::history keeps 1 to {MAX_HISTORY} messages, and not {count}"))
            }
            (Some(Retention { age, .. }), _) if age.is_zero() || age > MAX_AGE => {
                invalid(format!("the age in Rule::history is positive and at most 366 days, and not {age:?}"))
            }
            (None, Some(Slow::CatchUp)) => invalid("Slow::CatchUp requires Rule::history".to_owned()),
            _ => Ok(()),
        }
    }
}

/// The rules of a hub.
#[derive(Default)]
pub(crate) struct Rules {
    /// Sorted by the length of the prefix, the longest first.
    rules: Vec<(String, Arc<Rule>)>,
    fallback: Arc<Rule>,
}

impl Rules {
    /// # Errors
    ///
    /// Returns an error if a rule is invalid, or if two rules have the same prefix.
    pub(crate) fn new(mut rules: Vec<(String, Rule)>) -> Result<Self, Error> {
        rules.sort_by(|(one, _), (other, _)| other.len().cmp(&one.len()).then(one.cmp(other)));
        if let Some(twins) = rules.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let text = format!("HubBuilder::rule was called twice for {:?}", twins[0].0);
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        for (prefix, rule) in &rules {
            rule.validate(prefix)?;
        }
        let rules = rules.into_iter().map(|(prefix, rule)| (prefix, Arc::new(rule))).collect();
        Ok(Self { rules, fallback: Arc::default() })
    }

    /// Returns `true` if some topics have presence.
    pub(crate) fn have_presence(&self) -> bool {
        self.rules.iter().any(|(_, rule)| rule.has_presence())
    }

    pub(crate) fn of(&self, topic: &str) -> &Arc<Rule> {
        let found = self.rules.iter().find(|(prefix, _)| topic.starts_with(prefix));
        found.map_or(&self.fallback, |(_, rule)| rule)
    }
}
