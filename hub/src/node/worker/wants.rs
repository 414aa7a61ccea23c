//! The topics that a worker wants from the engine, from the first member to the last.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::HistoryPage;
use crate::error::Error;
use crate::node::Core;
use crate::node::command::Command;
use crate::node::topic_state::{Phase, Step, TopicState};
use crate::node::worker::{LINGER, Worker};
use crate::position::Position;
use crate::stats::{add, subtract};
use crate::topic::Topic;

impl Worker {
    /// Returns the topic as the worker holds it, and wants the topic if it is new.
    pub(super) fn open(&mut self, topic: Topic) -> Topic {
        if let Some(held) = self.topics.held(&topic) {
            return held;
        }
        add(&self.core.counters.topics, 1);
        self.topics.insert(TopicState::new(&self.core, topic.clone()));
        self.want(&topic);
        topic
    }

    pub(super) fn opened(&mut self, name: &Topic, outcome: Result<HistoryPage, Error>) {
        let Some(topic) = self.topics.wake(name) else { return };
        match outcome {
            Ok(page) => {
                if topic.opened(&self.core, &page) == Step::Read {
                    self.read(name, Duration::ZERO);
                }
                self.look(name, Duration::ZERO);
            }
            Err(error) => {
                topic.refuse(&error);
                self.close(name);
            }
        }
    }

    fn want(&self, topic: &Topic) {
        let (core, topic) = (Arc::clone(&self.core), topic.clone());
        self.spawn(async move {
            let outcome = want(&core, &topic).await;
            Command::Opened(topic, outcome)
        });
    }

    /// Wants a topic no longer, and forgets it after that.
    fn close(&mut self, name: &Topic) {
        let Some(topic) = self.topics.wake(name) else { return };
        topic.phase = Phase::Closing;
        let (core, topic) = (Arc::clone(&self.core), topic.topic.clone());
        self.spawn(async move {
            // An engine that fails delivers messages that nobody wants, which the worker ignores.
            let _ = core.engine.unwant(&topic).await;
            Command::Closed(topic)
        });
    }

    pub(super) fn closed(&mut self, name: &Topic) {
        let Some(topic) = self.topics.wake(name) else { return };
        if topic.is_empty() {
            self.topics.remove(name);
            subtract(&self.core.counters.topics, 1);
            return;
        }
        topic.phase = Phase::Opening(Box::default());
        topic.view = topic.view.take().map(|_| Box::default());
        self.want(name);
    }

    pub(super) fn close_idle(&mut self, now: Instant) {
        while self.idle.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, name)) = self.idle.pop_front() else { return };
            let Some(topic) = self.topics.awake(&name) else { continue };
            let is_due = topic.empty_since.is_some_and(|since| since + LINGER <= now);
            if !is_due || !topic.is_empty() {
                continue;
            }
            // A topic that is opened or closed at the moment is looked at again after that.
            topic.empty_since = None;
            if !matches!(topic.phase, Phase::Opening(_) | Phase::Closing) {
                self.close(&name);
            }
        }
    }
}

/// Wants a topic, and reads the top of its history.
async fn want(core: &Core, topic: &Topic) -> Result<HistoryPage, Error> {
    core.engine.want(topic).await?;
    match topic.retention() {
        Some(_) => core.engine.history(topic, 0, 0).await,
        None => Ok(HistoryPage { top: Position::UNTRACKED, anchor: None, newer: 0, entries: Vec::new() }),
    }
}
