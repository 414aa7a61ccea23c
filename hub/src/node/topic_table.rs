//! The topics of a worker, most of which rest.
//!
//! A topic rests while it is level, somebody is live, and nothing else is under way. All that has to be known
//! then is who is live, and the top. A worker has many topics and works on few of them, so a topic that rests
//! is kept in this small form, and has its whole state only while something happens to it.
//!
//! ```text
//!             wake: a delivery or a command
//!          +------------------------------------+
//!          |                                    v
//!   +--------------+                     +--------------+
//!   |  One, Rest   |                     |    Awake     | <-- insert, --> remove
//!   +--------------+                     +--------------+
//!          ^                                    |
//!          +------------------------------------+
//!             rest: level, and nothing is left to do
//! ```
//!
//! A topic that rests with one member takes about 115 bytes, with the engine [`Memory`](crate::Memory) and a
//! name of 10 bytes:
//!
//! | part | bytes |
//! |---|---:|
//! | [`Topic`]: counts, rule, and the place of the name, shared by all parts | 40 |
//! | the name | 10 |
//! | the slot of this table: 25, and the places that are empty | 38 |
//! | the set of `Memory`: 9, and the places that are empty | 16 |
//! | the list of the member: 8, and its reserve | 11 |

use std::collections::HashMap;
use std::mem;

use crate::node::live_members::LiveMembers;
use crate::node::membership::MemberKey;
use crate::node::topic_state::{Rest, TopicState};
use crate::position::Position;
use crate::topic::Topic;

/// The topics of a worker, by their names.
#[derive(Default)]
pub(crate) struct TopicTable {
    slots: HashMap<Topic, Slot>,
}

/// The state of a topic: see the module. Two words, as a map has many places that are empty.
enum Slot {
    /// A topic without history that rests, with one member.
    One(MemberKey),
    /// Any other topic that rests.
    Rest(Box<Rest>),
    Awake(Box<TopicState>),
}

impl TopicTable {
    pub(crate) fn insert(&mut self, state: TopicState) {
        self.slots.insert(state.topic.clone(), Slot::Awake(Box::new(state)));
    }

    pub(crate) fn remove(&mut self, name: &Topic) {
        self.slots.remove(name);
    }

    /// Returns a topic as this table holds it.
    pub(crate) fn held(&self, name: &Topic) -> Option<Topic> {
        self.slots.get_key_value(name).map(|(held, _)| held.clone())
    }

    /// Returns the topics with history.
    pub(crate) fn tracked(&self) -> Vec<Topic> {
        self.slots.keys().filter(|topic| topic.retention().is_some()).cloned().collect()
    }

    /// Returns the topics with presence.
    pub(crate) fn with_presence(&self) -> Vec<Topic> {
        self.slots.keys().filter(|topic| topic.rule().has_presence()).cloned().collect()
    }

    /// Returns all members of all topics. A member of several topics occurs several times.
    pub(crate) fn members(&self) -> Vec<MemberKey> {
        self.slots.values().flat_map(Slot::members).collect()
    }

    /// Returns the whole state of a topic. The caller then calls [`rest`](Self::rest).
    pub(crate) fn wake(&mut self, name: &Topic) -> Option<&mut TopicState> {
        let (held, slot) = self.slots.get_key_value(name)?;
        // The name may be a copy, of a publisher or an engine. All members share the one that is held.
        let held = (!matches!(slot, Slot::Awake(_))).then(|| held.clone());
        let slot = self.slots.get_mut(name)?;
        if let Some(held) = held {
            slot.wake(held);
        }
        slot.awake()
    }

    /// Returns the state of a topic that is awake. A topic that rests has members and nothing to do.
    pub(crate) fn awake(&mut self, name: &Topic) -> Option<&mut TopicState> {
        self.slots.get_mut(name)?.awake()
    }

    /// Lets a topic rest, if nothing is left to do.
    pub(crate) fn rest(&mut self, name: &Topic) {
        let Some(slot) = self.slots.get_mut(name) else { return };
        let Some(rest) = slot.awake().and_then(TopicState::rest) else { return };
        *slot = match rest.live {
            LiveMembers::One(member) if rest.top == Position::UNTRACKED => Slot::One(member),
            _ => Slot::Rest(Box::new(rest)),
        };
    }
}

impl Slot {
    fn members(&self) -> Vec<MemberKey> {
        match self {
            Self::One(member) => vec![member.clone()],
            Self::Rest(rest) => rest.live.iter().cloned().collect(),
            Self::Awake(state) => state.live.iter().chain(state.behind.keys()).cloned().collect(),
        }
    }

    fn awake(&mut self) -> Option<&mut TopicState> {
        match self {
            Self::Awake(state) => Some(state),
            Self::One(_) | Self::Rest(_) => None,
        }
    }

    fn wake(&mut self, topic: Topic) {
        let rest = match self {
            Self::One(member) => Rest { top: Position::UNTRACKED, live: LiveMembers::One(member.clone()) },
            Self::Rest(rest) => Rest { top: rest.top, live: mem::take(&mut rest.live) },
            Self::Awake(_) => return,
        };
        *self = Self::Awake(Box::new(TopicState::awake(topic, rest)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_two_words() {
        assert_eq!(size_of::<Slot>(), 16);
        assert_eq!(size_of::<Rest>(), 40);
    }
}
