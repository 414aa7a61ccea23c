//! Reading histories: after a gap, and whenever a topic may not be what its history is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::engine::HistoryPage;
use crate::error::Error;
use crate::events::HubEvent;
use crate::node::command::Command;
use crate::node::topic_state::{Phase, Step};
use crate::node::worker::{PAUSE, Worker};
use crate::stats::add;
use crate::topic::Topic;

/// The number of messages that are read at once from a history.
const PAGE: usize = 500;

impl Worker {
    pub(super) fn page(&mut self, name: &Topic, number: u64, outcome: Result<HistoryPage, Error>) {
        let Some(topic) = self.topics.wake(name) else { return };
        match outcome {
            Ok(page) => {
                if topic.page(&self.core, number, &page) == Step::Read {
                    topic.send_to_history(&self.core, Some(page.top));
                    self.read(name, Duration::ZERO);
                }
            }
            Err(_) if !topic.is_reading(number) => {}
            Err(error) => {
                // Those that ask are told, and those that are live stay.
                topic.refuse(&error);
                self.read(name, PAUSE);
            }
        }
    }

    /// A message of a topic found no room.
    pub(super) fn overflow(&mut self, topic: &Topic, count: u64) {
        if topic.retention().is_some() {
            return self.verify(topic);
        }
        if self.topics.held(topic).is_none() {
            return;
        }
        let messages = usize::try_from(count).unwrap_or(usize::MAX);
        add(&self.core.counters.overflowed, messages);
        let topic = topic.name().to_owned();
        self.core.events.emit(HubEvent::InboxOverflow { topic, messages: count });
    }

    /// Holds the deliveries of topics whose histories may have changed. Returns the topics whose histories
    /// are to be read.
    pub(super) fn doubt(&mut self, mut topics: Vec<Topic>) -> Vec<Topic> {
        topics.retain(|topic| {
            self.topics.wake(topic).is_some_and(|state| state.doubt(&self.core) == Step::Read)
        });
        topics
    }

    fn verify(&mut self, name: &Topic) {
        let Some(topic) = self.topics.wake(name) else { return };
        if topic.verify(&self.core) == Step::Read {
            self.read(name, Duration::ZERO);
        }
    }

    /// Reads the history after the top.
    pub(super) fn read(&mut self, name: &Topic, pause: Duration) {
        let Some(topic) = self.topics.awake(name) else { return };
        let Phase::Filling { number, .. } = topic.phase else { return };
        add(&self.core.counters.gaps, 1);
        let (core, name, after) = (Arc::clone(&self.core), topic.topic.clone(), topic.top.offset());
        self.spawn(async move {
            sleep(pause).await;
            let _permit = core.fills.acquire().await;
            let page = core.engine.history(&name, after, PAGE).await;
            Command::Page(name, number, page)
        });
    }
}
