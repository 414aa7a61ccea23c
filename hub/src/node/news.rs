//! Telling the members of a topic who is present.

use std::mem;

use bowline::{Prepared, TrySendError};
use tokio::task::yield_now;

use crate::node::Core;
use crate::node::fan_out::MEMBERS_PER_POLL;
use crate::node::topic_state::TopicState;
use crate::node::topic_state::parcel::{Content, Parcel};
use crate::node::view::{Comparison, Outcome};
use crate::presence::{PresenceChange, Present};
use crate::stats::add;

/// The outcome of sending the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Introduction {
    /// Everybody is aware, or is told later.
    Complete,
    /// Some connections are full.
    Full,
}

impl TopicState {
    /// Begins to read who is present, and returns the number of the read. Returns `None` if members are not
    /// told who is present, and if a read is under way.
    pub(crate) fn look(&mut self, core: &Core) -> Option<u64> {
        self.view.as_mut()?.read(core)
    }

    /// Begins another read after one that is of no use, if it is that.
    pub(crate) fn look_again(&mut self, core: &Core, awaited: u64, outcome: Outcome) -> Option<u64> {
        self.view.as_mut().filter(|view| view.is_reading(awaited))?.read_again(core, outcome)
    }

    /// Handles a change that the engine reports.
    pub(crate) fn change(&mut self, core: &Core, change: PresenceChange) {
        let news = self.view.as_mut().and_then(|view| view.change(core, change));
        self.tell(news);
    }

    /// Handles the answer of a read.
    pub(crate) fn seen(&mut self, core: &Core, awaited: u64, answer: Vec<Present>) {
        let Some(view) = self.view.as_mut().filter(|view| view.is_reading(awaited)) else { return };
        match view.compare(core, &self.topic, answer) {
            Comparison::News(news) => self.tell(news),
            Comparison::Much => view.unaware.extend(self.live.iter().cloned()),
        }
    }

    /// Appends the frames of news to the run.
    fn tell(&mut self, news: impl IntoIterator<Item = Prepared>) {
        if !self.live.is_empty() {
            let before = self.top;
            self.run.extend(news.into_iter().map(|news| Parcel { before, content: Content::News(news) }));
        }
    }

    /// Sends the list to those that are unaware.
    pub(crate) async fn introduce(&mut self, core: &Core) -> Introduction {
        let Some(view) = &mut self.view else { return Introduction::Complete };
        if !view.is_current() || view.unaware.is_empty() {
            return Introduction::Complete;
        }
        debug_assert!(self.run.is_empty(), "a member would receive news that the list contains");
        let list = view.list(core, &self.topic);
        let mut delivered = 0;
        for (number, member) in mem::take(&mut view.unaware).into_iter().enumerate() {
            if number % MEMBERS_PER_POLL == MEMBERS_PER_POLL - 1 {
                yield_now().await;
            }
            let Some(list) = list.as_ref().filter(|_| !member.0.has_left()) else { continue };
            match member.0.sender.try_send(list) {
                Ok(()) => delivered += 1,
                Err(TrySendError::Full(_)) => {
                    view.unaware.insert(member);
                }
                // The reader of the connection finds out.
                Err(TrySendError::Closed(_)) => {}
            }
        }
        add(&core.counters.delivered, delivered);
        if view.unaware.is_empty() { Introduction::Complete } else { Introduction::Full }
    }
}
