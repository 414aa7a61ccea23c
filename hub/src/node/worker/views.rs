//! Reading who is present, for the topics whose members are told.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::Error;
use crate::node::command::Command;
use crate::node::topic_state::Phase;
use crate::node::view::Outcome;
use crate::node::worker::{PAUSE, Worker};
use crate::presence::Present;
use crate::topic::Topic;

/// The part of the time of a lease that nodes have to enter their entries into a broker that was away.
const SETTLING: u32 = 6;

impl Worker {
    /// Reads who is present, if members are told.
    pub(super) fn look(&mut self, name: &Topic, pause: Duration) {
        let Some(topic) = self.topics.awake(name) else { return };
        if matches!(topic.phase, Phase::Opening(_) | Phase::Closing) {
            // The topic is read once it is wanted.
            return;
        }
        let Some(number) = topic.look(&self.core) else { return };
        self.ask_who_is_present(name, number, pause);
    }

    /// Makes the call of a read that has begun.
    fn ask_who_is_present(&mut self, name: &Topic, number: u64, pause: Duration) {
        let Some(topic) = self.topics.awake(name) else { return };
        let (core, name) = (Arc::clone(&self.core), topic.topic.clone());
        self.spawn(async move {
            sleep(pause).await;
            let _permit = core.fills.acquire().await;
            let outcome = core.engine.present(&name).await;
            Command::Seen(name, number, outcome)
        });
    }

    pub(super) fn seen(&mut self, name: &Topic, number: u64, outcome: Result<Vec<Present>, Error>) {
        let Some(topic) = self.topics.awake(name) else { return };
        let (kind, pause) = match outcome {
            Ok(_) => (Outcome::Answered, Duration::ZERO),
            Err(_) => (Outcome::Failed, PAUSE),
        };
        if let Some(number) = topic.look_again(&self.core, number, kind) {
            self.ask_who_is_present(name, number, pause);
        } else if let Ok(present) = outcome {
            topic.seen(&self.core, number, present);
        }
    }

    /// Reads who is present in all topics, after a while: a broker that was away may have lost all entries,
    /// and the nodes enter them again.
    pub(super) fn look_around_later(&mut self) {
        if mem::replace(&mut self.looks_around_soon, true) {
            return;
        }
        let settling = self.core.limits.presence_lease / SETTLING;
        self.spawn(async move {
            sleep(settling).await;
            Command::LookAround
        });
    }

    pub(super) fn look_around(&mut self) {
        self.looks_around_soon = false;
        for topic in self.topics.with_presence() {
            self.look(&topic, Duration::ZERO);
        }
    }

    pub(super) fn introduce_later(&mut self, name: &Topic) {
        let Some(topic) = self.topics.awake(name) else { return };
        let Some(view) = topic.view.as_mut().filter(|view| view.next_attempt.is_none()) else { return };
        let at = Instant::now() + PAUSE;
        view.next_attempt = Some(at);
        self.unaware.push_back((at, topic.topic.clone()));
    }

    /// Sends the list of who is present to members whose connections were full.
    pub(super) async fn introduce_again(&mut self, now: Instant) {
        while self.unaware.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, name)) = self.unaware.pop_front() else { return };
            if let Some(view) = self.topics.awake(&name).and_then(|topic| topic.view.as_mut()) {
                view.next_attempt = None;
                self.settle(&name).await;
            }
        }
    }
}
