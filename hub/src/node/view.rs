//! The people in a topic, as the members of a node know them.
//!
//! ```text
//!                        the topic is wanted                 answer
//!   (none) ---> Unread ---------------------> Reading ------------------> Current
//!                                             ^  | ^                         |
//!                                             |  +-+ changes are held        | changes may be lost
//!                                             |                              |
//!                                             +------------------------------+
//! ```
//!
//! Changes that arrive during a read are held, and applied to the answer in their order: those that the
//! answer contains already change nothing in the end, as each says how things are, and not what has happened.
//!
//! A member that is *aware* was told everything that the view contains. A member that becomes live, or that
//! could not take a frame, is unaware: it is sent the list of all who are present, and then the news.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::mem;

use bowline::Prepared;
use tokio::time::Instant;

use crate::events::HubEvent;
use crate::node::Core;
use crate::node::membership::MemberKey;
use crate::presence::{PresenceChange, Present};
use crate::settings::hooks::PresenceNews;
use crate::topic::Topic;

/// The number of changes, found by a read, from which on members receive the list instead.
const MANY: usize = 32;

/// The people in a topic.
#[derive(Default)]
pub(crate) struct View {
    here: HashSet<ByKey>,
    phase: ViewPhase,
    pub(crate) unaware: HashSet<MemberKey>,
    list: List,
    /// The time of the next attempt to send the list.
    pub(crate) next_attempt: Option<Instant>,
}

/// The phase of a view: see the module.
#[derive(Default)]
enum ViewPhase {
    #[default]
    Unread,
    Reading {
        number: u64,
        /// Set if changes may be lost that are older than the answer.
        again: bool,
        /// The last state of each key.
        held: HashMap<String, Option<String>>,
        purpose: Purpose,
    },
    Current,
}

/// The reason for a read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Nothing is known, and nobody is aware.
    Begin,
    /// Changes may be lost.
    Compare,
}

/// The outcome of a read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered,
    Failed,
}

/// The frame with all who are present.
#[derive(Default)]
enum List {
    /// The frame is to be made.
    #[default]
    Unmade,
    Made(Option<Prepared>),
}

/// Somebody, as the element of a set in which keys are searched.
struct ByKey(Present);

impl Borrow<str> for ByKey {
    fn borrow(&self) -> &str {
        &self.0.key
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl Hash for ByKey {
    /// Hashes like the key, as the contract of `Borrow<str>` requires.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.as_str().hash(state);
    }
}

/// The outcome of a comparison of the view with the broker.
pub(crate) enum Comparison {
    /// The frames that lead the members from the earlier view to the view.
    News(Vec<Prepared>),
    /// There is too much news, and members should receive the list instead.
    Much,
}

impl View {
    /// Returns `true` if a read has begun, and its answer is not here.
    pub(crate) fn is_reading(&self, awaited: u64) -> bool {
        matches!(self.phase, ViewPhase::Reading { number, .. } if number == awaited)
    }

    /// Begins a read, and returns its number. If a read is under way, another one follows it.
    pub(crate) fn read(&mut self, core: &Core) -> Option<u64> {
        let purpose = match &mut self.phase {
            ViewPhase::Reading { again, .. } => {
                *again = true;
                return None;
            }
            ViewPhase::Unread => Purpose::Begin,
            ViewPhase::Current => Purpose::Compare,
        };
        Some(self.begin(core, purpose))
    }

    /// Begins a read in place of the one whose answer is of no use, if it must be. Returns its number.
    ///
    /// Changes that were held are dropped: they are older than the new answer, and a later change of the same
    /// person may be lost.
    pub(crate) fn read_again(&mut self, core: &Core, outcome: Outcome) -> Option<u64> {
        match self.phase {
            ViewPhase::Reading { again, purpose, .. } if again || outcome == Outcome::Failed => {
                Some(self.begin(core, purpose))
            }
            _ => None,
        }
    }

    fn begin(&mut self, core: &Core, purpose: Purpose) -> u64 {
        let number = core.ticket();
        self.phase = ViewPhase::Reading { number, again: false, held: HashMap::new(), purpose };
        number
    }

    /// Returns `true` if the view is that of the broker.
    pub(crate) fn is_current(&self) -> bool {
        matches!(self.phase, ViewPhase::Current)
    }

    /// Handles a change that the engine reports, and returns the frame of the news.
    pub(crate) fn change(&mut self, core: &Core, change: PresenceChange) -> Option<Prepared> {
        match &mut self.phase {
            // The read begins after this change.
            ViewPhase::Unread => None,
            ViewPhase::Reading { held, .. } => {
                held.insert(change.key, change.info);
                None
            }
            ViewPhase::Current => self.apply(core, &change.topic, &change.key, change.info),
        }
    }

    /// Handles the answer of a read.
    pub(crate) fn compare(&mut self, core: &Core, topic: &Topic, answer: Vec<Present>) -> Comparison {
        let ViewPhase::Reading { held, purpose, .. } = mem::replace(&mut self.phase, ViewPhase::Current)
        else {
            return Comparison::News(Vec::new());
        };
        if purpose == Purpose::Begin {
            self.here = answer.into_iter().map(ByKey).collect();
            self.list = List::Unmade;
            for (key, info) in held {
                // Nobody is aware yet, so nobody is told.
                self.here.take(key.as_str());
                self.here.extend(info.map(|info| ByKey(Present::new(key).info(info))));
            }
            return Comparison::News(Vec::new());
        }
        let mut changes = self.differences(answer);
        changes.extend(held);
        let is_much = changes.len() > MANY;
        let frames = changes.into_iter().map(|(key, info)| self.apply(core, topic, &key, info));
        let frames: Vec<_> = frames.collect();
        if is_much { Comparison::Much } else { Comparison::News(frames.into_iter().flatten().collect()) }
    }

    /// Applies a change to the view, and returns the frame of the news.
    fn apply(&mut self, core: &Core, topic: &Topic, key: &str, info: Option<String>) -> Option<Prepared> {
        let earlier = self.here.take(key).map(|earlier| earlier.0);
        let frame = match (earlier, info) {
            (None, None) => return None,
            (Some(earlier), Some(info)) if earlier.info == info => {
                self.here.insert(ByKey(earlier));
                return None;
            }
            (Some(gone), None) => news(core, topic, PresenceNews::Left(&gone)),
            (earlier, Some(info)) => {
                let present = Present::new(key).info(info);
                let what = match earlier {
                    Some(_) => PresenceNews::Updated(&present),
                    None => PresenceNews::Joined(&present),
                };
                let frame = news(core, topic, what);
                self.here.insert(ByKey(present));
                frame
            }
        };
        self.list = List::Unmade;
        frame
    }

    /// Returns the changes that lead from the view to the answer of a read.
    fn differences(&self, answer: Vec<Present>) -> Vec<(String, Option<String>)> {
        let answer: HashSet<ByKey> = answer.into_iter().map(ByKey).collect();
        let gone = self.here.difference(&answer).map(|gone| (gone.0.key.clone(), None));
        let mut differences: Vec<_> = gone.collect();
        for ByKey(present) in answer {
            if self.here.get(present.key.as_str()).is_none_or(|earlier| earlier.0 != present) {
                differences.push((present.key, Some(present.info)));
            }
        }
        differences
    }

    /// Returns the frame with all who are present.
    pub(crate) fn list(&mut self, core: &Core, topic: &Topic) -> Option<Prepared> {
        if let List::Made(frame) = &self.list {
            return frame.clone();
        }
        let here: Vec<_> = self.here.iter().map(|present| &present.0).collect();
        let frame = news(core, topic, PresenceNews::Here(&here));
        self.list = List::Made(frame.clone());
        frame
    }
}

/// Makes the frame of news.
fn news(core: &Core, topic: &Topic, news: PresenceNews<'_>) -> Option<Prepared> {
    match core.hooks.presence(topic.name(), news) {
        Ok(frame) => frame,
        Err(panicked) => {
            let (topic, panic) = (topic.name().to_owned(), panicked.to_string());
            core.events.emit(HubEvent::PresencePanicked { topic, panic });
            None
        }
    }
}
