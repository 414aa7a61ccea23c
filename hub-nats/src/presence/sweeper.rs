//! Removing the messages of keys without entries.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use crate::jetstream::{Refusal, all, purge};
use crate::link::Link;
use crate::message::{RawMessage, last};
use crate::presence::Presence;
use crate::presence::person::Person;
use crate::wire;

/// The time for which the message of a key without entries stays, so that replicas have seen it.
const GONE: Duration = Duration::from_secs(10);

/// The age of such a message after which its node is taken to have ended. Clocks may differ: a message that
/// is noted too early stays for [`GONE`] nonetheless.
const OLD: Duration = Duration::from_secs(60);

/// The time between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// The number of messages that are removed at once.
const BATCH: usize = 64;

/// The messages that are to be removed, by their subjects: their numbers, and the times of their notes.
#[derive(Default)]
pub(crate) struct Gone(Mutex<HashMap<String, (u64, Instant)>>);

impl Gone {
    /// Notes the message of a key without entries.
    pub(crate) fn note(&self, subject: &str, sequence: u64) {
        self.messages().insert(subject.to_owned(), (sequence, Instant::now()));
    }

    /// Notes a message that was found, if its node seems to have ended.
    pub(crate) fn note_old(&self, found: &RawMessage) {
        let is_old = SystemTime::now().duration_since(found.time).is_ok_and(|age| age >= OLD);
        if is_old && !self.messages().contains_key(&found.subject) {
            self.note(&found.subject, found.sequence);
        }
    }

    /// Forgets the message of a key that has entries again.
    pub(crate) fn forget(&self, subject: &str) {
        self.messages().remove(subject);
    }

    /// Takes some messages whose time is over.
    fn due(&self, now: Instant) -> Vec<(String, u64)> {
        let mut messages = self.messages();
        let is_due = |(_, (_, noted)): &(&String, &(u64, Instant))| now.duration_since(*noted) >= GONE;
        let due = messages.iter().filter(is_due).take(BATCH);
        let due: Vec<_> = due.map(|(subject, (sequence, _))| (subject.clone(), *sequence)).collect();
        for (subject, _) in &due {
            messages.remove(subject);
        }
        due
    }

    fn messages(&self) -> MutexGuard<'_, HashMap<String, (u64, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes messages until the engine is dropped.
pub(crate) async fn run(link: Weak<Link>, presence: Weak<Presence>) {
    loop {
        sleep(PAUSE).await;
        loop {
            let (Some(link), Some(presence)) = (link.upgrade(), presence.upgrade()) else { return };
            if !presence.is_ensured(&link) {
                break;
            }
            let due = presence.gone.due(Instant::now());
            if due.is_empty() {
                break;
            }
            remove(&link, &presence.gone, &due).await;
        }
    }
}

/// Removes messages, all at once. Failed removals are noted again.
async fn remove(link: &Link, gone: &Gone, due: &[(String, u64)]) {
    let one = async |(subject, sequence): &(String, u64)| match remove_one(link, subject, *sequence).await {
        Ok(()) | Err(Refusal::NoStream) => {}
        Err(_) => gone.note(subject, *sequence),
    };
    all(due.iter().map(one)).await;
}

/// Removes a message, if it is still the last one of its key. Its number alone does not tell: a stream that
/// has lost its data counts anew, and somebody who is there would be removed.
async fn remove_one(link: &Link, subject: &str, sequence: u64) -> Result<(), Refusal> {
    let found = last(link, wire::PRESENCE, subject).await?;
    let is_gone = |found: &RawMessage| {
        found.sequence == sequence && Person::parse(&found.payload).is_some_and(|person| person.is_gone())
    };
    if found.as_ref().is_some_and(is_gone) {
        purge(link, wire::PRESENCE, subject, sequence).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(subject: &str, age: Duration) -> RawMessage {
        let time = SystemTime::now() - age;
        RawMessage { sequence: 7, header: None, payload: Vec::new(), time, subject: subject.to_owned() }
    }

    #[test]
    fn messages_stay_for_a_while_also_those_of_nodes_that_have_ended() {
        let gone = Gone::default();
        gone.note("own", 1);
        gone.note("back", 2);
        gone.forget("back");
        gone.note_old(&found("old", OLD));
        gone.note_old(&found("young", OLD / 2));
        let now = Instant::now();
        assert!(gone.due(now).is_empty());
        let mut due = gone.due(now + GONE);
        due.sort();
        assert_eq!(due, [("old".to_owned(), 7), ("own".to_owned(), 1)]);
        assert!(gone.due(now + GONE).is_empty());
    }
}
