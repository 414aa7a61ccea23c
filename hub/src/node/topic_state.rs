//! A topic on one node: how far it has got, and who is live.
//!
//! ```text
//!                      requests wait                     requests wait
//!                 +-------------------+             +--------------------+
//!   first member  |                   |    gap      |                    |
//!  -------------> |      Opening      |  +--------> |      Filling       |
//!                 | want, read top    |  |          | read after the top |
//!                 +-------------------+  |          +--------------------+
//!                    |         |         |                    |
//!             failed |         v         |                    |
//!                    |      +-------------------+             |
//!                    |      |       Level       | <-----------+
//!                    |      +-------------------+   all read, or told of a loss
//!                    v         |
//!   requests wait +-------------------+
//!  <------------- |      Closing      |   5 s without a member
//!   Opening, or   |      unwant       |
//!   forgotten     +-------------------+
//! ```

pub(crate) mod held;
pub(crate) mod parcel;

use std::collections::HashMap;
use std::mem;

use bowline::Message;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::engine::{Delivery, HistoryPage};
use crate::events::HubEvent;
use crate::node::Core;
use crate::node::command::Request;
use crate::node::live_members::LiveMembers;
use crate::node::membership::MemberKey;
use crate::node::recent::{LastFrame, Recent};
use crate::node::topic_state::held::{Held, Worth};
use crate::node::topic_state::parcel::{Content, Parcel};
use crate::node::view::View;
use crate::position::Position;
use crate::settings::hooks::TopicMessage;
use crate::stats::add;
use crate::topic::Topic;

/// The number of messages from the history whose deliveries are recognised afterwards. Deliveries of older
/// messages cost another read.
const READ: usize = 64;

/// A topic, as its worker knows it.
pub(crate) struct TopicState {
    pub(crate) topic: Topic,
    pub(crate) phase: Phase,
    /// The position of the last message. Everybody in `live` has been sent everything up to here, as soon as
    /// `run` is sent.
    pub(crate) top: Position,
    pub(crate) live: LiveMembers,
    /// The members that receive from the history: those that subscribe, and slow ones.
    pub(crate) behind: HashMap<MemberKey, Behind>,
    /// The requests that wait for the phase to be `Level`.
    pub(crate) waiting: Vec<Request>,
    pub(crate) recent: Recent,
    /// The newest messages of the last page of the history. A broker may deliver them afterwards.
    read: Vec<Position>,
    /// The frames that the live members are sent next.
    pub(crate) run: Vec<Parcel>,
    /// The people in the topic, if members are told.
    pub(crate) view: Option<Box<View>>,
    /// The time from which on nobody was here.
    pub(crate) empty_since: Option<Instant>,
}

/// The part of a [`TopicState`] that is kept while nothing is under way: see
/// [`topic_table`](crate::node::topic_table).
pub(crate) struct Rest {
    pub(crate) top: Position,
    pub(crate) live: LiveMembers,
}

/// The phase of a topic: see the module.
pub(crate) enum Phase {
    Opening(Box<Held>),
    Level,
    Filling { number: u64, held: Box<Held> },
    Closing,
}

/// The state of a member that is not live yet, or no longer.
pub(crate) enum Behind {
    /// The future of `subscribe` reads from the history, after the position.
    Subscribing { ticket: u64, since: Position },
    /// A task reads from the history, after the position.
    CatchingUp { ticket: u64, since: Position, task: JoinHandle<()> },
}

/// The next step after something has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Step {
    Done,
    /// The history must be read after the top.
    Read,
}

impl Behind {
    pub(crate) fn ticket(&self) -> u64 {
        match self {
            Self::Subscribing { ticket, .. } | Self::CatchingUp { ticket, .. } => *ticket,
        }
    }

    /// Returns a position up to which the member has been sent everything.
    pub(crate) fn since(&self) -> Position {
        match self {
            Self::Subscribing { since, .. } | Self::CatchingUp { since, .. } => *since,
        }
    }
}

impl TopicState {
    pub(crate) fn new(core: &Core, topic: Topic) -> Self {
        let has_view = core.hooks.presence.is_some() && topic.rule().has_presence();
        Self { view: has_view.then(Box::default), ..Self::without_view(topic) }
    }

    fn without_view(topic: Topic) -> Self {
        Self {
            topic,
            phase: Phase::Opening(Box::default()),
            top: Position::UNTRACKED,
            live: LiveMembers::Nobody,
            behind: HashMap::new(),
            waiting: Vec::new(),
            recent: Recent::default(),
            read: Vec::new(),
            run: Vec::new(),
            view: None,
            empty_since: None,
        }
    }

    /// Creates the state of a topic that has rested. A topic with a view does not rest.
    pub(crate) fn awake(topic: Topic, Rest { top, live }: Rest) -> Self {
        Self { phase: Phase::Level, top, live, ..Self::without_view(topic) }
    }

    /// Takes out what is kept of the topic, if nothing is under way.
    pub(crate) fn rest(&mut self) -> Option<Rest> {
        let has_work = !self.run.is_empty() || !self.waiting.is_empty() || !self.behind.is_empty();
        let remembers = !self.read.is_empty() || !self.recent.is_empty() || self.view.is_some();
        if !self.is_level() || self.live.is_empty() || has_work || remembers {
            return None;
        }
        Some(Rest { top: self.top, live: mem::take(&mut self.live) })
    }

    pub(crate) fn is_tracked(&self) -> bool {
        self.topic.retention().is_some()
    }

    pub(crate) fn is_level(&self) -> bool {
        matches!(self.phase, Phase::Level)
    }

    /// Returns `true` while the topic waits for the page with a number.
    pub(crate) fn is_reading(&self, page: u64) -> bool {
        matches!(self.phase, Phase::Filling { number, .. } if number == page)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty() && self.behind.is_empty() && self.waiting.is_empty()
    }

    /// Handles a message from the engine.
    pub(crate) fn deliver(&mut self, core: &Core, delivery: Delivery) -> Step {
        match &mut self.phase {
            Phase::Opening(held) | Phase::Filling { held, .. } => held.push(delivery, core.limits.held_back),
            Phase::Closing => {}
            Phase::Level if self.topic.retention().is_none() => {
                self.append(core, Position::UNTRACKED, &delivery.message);
            }
            Phase::Level if delivery.follows(self.top) => {
                // A broker delivers in order, so the deliveries of older messages are over.
                self.read = Vec::new();
                self.append(core, delivery.position, &delivery.message);
            }
            Phase::Level if delivery.position == self.top || self.read.contains(&delivery.position) => {}
            // A message before this one is missing, or the history is not what it was, or this message is an
            // old one. Only the history knows.
            Phase::Level => {
                let held = Held { deliveries: vec![delivery], ..Held::default() };
                return self.fill(core, held);
            }
        }
        Step::Done
    }

    /// Compares the topic with its history, if the topic has one and that is not under way.
    pub(crate) fn verify(&mut self, core: &Core) -> Step {
        let is_tracked = self.is_tracked();
        match &mut self.phase {
            Phase::Level if is_tracked => self.fill(core, Held::default()),
            // A message that was dropped now may be missing in the page.
            Phase::Opening(held) | Phase::Filling { held, .. } => {
                held.worth = held.worth.max(Worth::Dropped);
                Step::Done
            }
            Phase::Level | Phase::Closing => Step::Done,
        }
    }

    /// Holds all deliveries from now on, because the history may have changed.
    pub(crate) fn doubt(&mut self, core: &Core) -> Step {
        let step = self.verify(core);
        if let Phase::Opening(held) | Phase::Filling { held, .. } = &mut self.phase {
            // A read that is under way may have been made before.
            held.worth = if step == Step::Read { Worth::Complete } else { Worth::Doubted };
        }
        step
    }

    /// Notes that the history is read from now on.
    pub(crate) fn begin_read(&mut self) {
        if let Phase::Filling { held, .. } = &mut self.phase {
            held.before_read = held.deliveries.len();
        }
    }

    /// Begins to read the history. All deliveries so far are in the page, or no longer in the history.
    pub(crate) fn fill(&mut self, core: &Core, mut held: Held) -> Step {
        held.before_read = held.deliveries.len();
        self.phase = Phase::Filling { number: core.ticket(), held: Box::new(held) };
        Step::Read
    }

    /// Handles the top of the history of a topic that is wanted now.
    pub(crate) fn opened(&mut self, core: &Core, page: &HistoryPage) -> Step {
        let Phase::Opening(held) = &mut self.phase else { return Step::Done };
        let held = mem::take(&mut **held);
        self.top = page.top;
        self.level(core, page, held)
    }

    /// Handles a page of the history after the top.
    pub(crate) fn page(&mut self, core: &Core, number: u64, page: &HistoryPage) -> Step {
        let held = match &mut self.phase {
            Phase::Filling { number: awaited, held } if *awaited == number => mem::take(&mut **held),
            _ => return Step::Done,
        };
        if self.live.is_empty() {
            // Nobody is to be sent anything. Those that are behind read the history themselves.
            self.top = page.top;
            self.recent.clear();
        } else if page.contains(self.top) {
            for entry in &page.entries {
                if !entry.follows(self.top) {
                    break;
                }
                self.append(core, entry.position, &entry.message);
            }
            let is_behind = self.top.epoch() == page.top.epoch() && self.top.offset() < page.top.offset();
            if is_behind && page.entries.last().is_some_and(|last| last.position == self.top) {
                // The page was not the last.
                return self.fill(core, held);
            }
        }
        if self.top != page.top {
            self.lose(core, page.top);
        }
        let newest = page.entries.iter().rev().take(READ);
        self.read = newest.map(|entry| entry.position).collect();
        self.level(core, page, held)
    }

    /// Handles what arrived while the history was read up to the top.
    fn level(&mut self, core: &Core, page: &HistoryPage, held: Held) -> Step {
        if held.worth == Worth::Doubted {
            return self.fill(core, Held { worth: Worth::Complete, ..held });
        }
        self.phase = Phase::Level;
        let mut step = Step::Done;
        let mut vanished = 0;
        for (index, delivery) in held.deliveries.into_iter().enumerate() {
            let position = delivery.position;
            // What arrived before the history was read is in the history, or lost.
            let is_next = index >= held.before_read && delivery.follows(self.top);
            if !self.is_level() || !self.is_tracked() || is_next {
                // In the first case, the delivery is held again.
            } else if page.entries.iter().any(|entry| entry.position == position) {
                continue;
            } else if index < held.before_read {
                // The history was read after this message arrived. If the message is not in the history,
                // then the history has lost it.
                if position.epoch() != page.top.epoch() || position.offset() > page.top.offset() {
                    vanished += 1;
                }
                continue;
            }
            if self.deliver(core, delivery) == Step::Read {
                step = Step::Read;
            }
        }
        if vanished > 0 {
            self.lose(core, self.top);
        }
        if step == Step::Read {
            self.begin_read();
        } else if held.worth == Worth::Dropped {
            step = self.verify(core);
        }
        step
    }

    /// Appends a message to the run.
    fn append(&mut self, core: &Core, position: Position, message: &Message) {
        let before = mem::replace(&mut self.top, position);
        if self.live.is_empty() && self.behind.is_empty() {
            return;
        }
        match core.hooks.frame(TopicMessage::new(self.topic.name(), before, position, message)) {
            Ok(frame) => {
                if self.is_tracked() && !self.behind.is_empty() {
                    let last = LastFrame { before, frame: frame.clone(), size: message.len() };
                    self.recent.push(last, core.limits.held_back);
                }
                self.run.push(Parcel { before, content: Content::Message(frame) });
            }
            Err(panicked) => {
                let (topic, panic) = (self.topic.name().to_owned(), panicked.to_string());
                core.events.emit(HubEvent::FramePanicked { topic, panic });
                if self.is_tracked() {
                    self.top = before;
                    self.lose(core, position);
                }
            }
        }
    }

    /// Tells the live members that messages before a position are lost. The topic continues after it.
    fn lose(&mut self, core: &Core, now: Position) {
        let before = mem::replace(&mut self.top, now);
        self.recent.clear();
        if self.live.is_empty() {
            return;
        }
        add(&core.counters.lost, self.live.len());
        let (topic, members) = (self.topic.name().to_owned(), self.live.len());
        core.events.emit(HubEvent::Lost { topic, members });
        let content = match core.hooks.lost(self.topic.name(), now) {
            Some(frame) => Content::Loss(frame, now),
            None => Content::End,
        };
        self.run.push(Parcel { before, content });
    }
}
