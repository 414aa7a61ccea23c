//! Operations of the server: messages, answers and confirmations.

use std::mem;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bowline_hub::bowline::bytes::{Buf, BytesMut};
use bowline_hub::{Delivery, EngineError, Position, Predecessor};

use crate::connection::{ServerInfo, is_forbidden};
use crate::link::request::Answer;
use crate::link::task::LinkTask;
use crate::presence::person::Person;
use crate::protocol::{Incoming, ServerOp, parse};
use crate::wire::{self, Content};

/// The news of a stream after which it may be another one, or may have published messages nowhere.
const CHANGES: [&str; 3] = ["DELETED.", "LEADER_ELECTED.", "RESTORE_COMPLETE."];

/// The time after which the servers of a cluster agree again. A leader without a majority gives up
/// after 10 s.
const SETTLED: Duration = Duration::from_secs(15);

/// The news of a stream after which it may keep less: of two nodes that raise limits, one may undo the
/// change of the other.
const UPDATED: &str = "UPDATED.";

impl LinkTask {
    /// Handles all operations that have arrived.
    pub(crate) fn handle_input(&mut self, input: &mut BytesMut) -> Result<(), String> {
        let mut used = 0;
        while let Some((op, size)) = parse(&input[used..]).map_err(|error| error.to_string())? {
            used += size;
            match op {
                ServerOp::Message(incoming) => self.receive(incoming),
                ServerOp::Ping => self.output.extend_from_slice(b"PONG\r\n"),
                ServerOp::Pong => self.confirm(),
                ServerOp::Info(json) => {
                    if let Some(info) = ServerInfo::again(json) {
                        self.learn(&info);
                    }
                }
                // A permission is missing: the connection stays.
                ServerOp::Error(reason) if is_forbidden(reason) => self.forbid(reason),
                ServerOp::Error(reason) => {
                    return Err(format!("the server has ended the connection: {reason}"));
                }
                ServerOp::Other => {}
            }
        }
        input.advance(used);
        Ok(())
    }

    fn receive(&mut self, incoming: Incoming<'_>) {
        if let Some(asked) = self.consumers.get(&incoming.sid) {
            // A consumer that is gone is forgotten with the next tick.
            let _ = asked.reply.send(Answer::of(incoming));
        } else if let Some(token) = incoming.subject.strip_prefix(wire::LIVE) {
            self.deliver(token, incoming);
        } else if let Some(tokens) = incoming.subject.strip_prefix(wire::WHO) {
            self.change(tokens, incoming);
        } else if let Some(number) = incoming.subject.strip_prefix(&self.shared.answers) {
            let waiting = number.parse().ok().and_then(|number: u64| self.answers.remove(&number));
            // A receiver that is gone has stopped waiting.
            let _ = waiting.map(|asked| asked.reply.send(Ok(Answer::of(incoming))));
        } else if let Some(news) = incoming.subject.strip_prefix(wire::ADVISORIES) {
            let is_change = CHANGES.iter().any(|change| news.starts_with(change));
            if is_change {
                self.notice_change();
                self.inbox.verify();
            } else if news.starts_with(UPDATED) {
                self.shared.changes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn deliver(&mut self, token: &str, incoming: Incoming<'_>) {
        let Some(name) = wire::topic(token) else { return };
        let Some((topic, sid)) = self.wanted.get_key_value(name.as_str()) else { return };
        if *sid != incoming.sid {
            // Of a subscription that has ended since.
            return;
        }
        let Some(header) = incoming.headers.value(wire::HEADER) else { return };
        let Some((content, tag)) = wire::decode(header, incoming.payload) else { return };
        let number = |name| incoming.headers.value(name).and_then(|value| value.parse().ok());
        let (position, previous) = match (number("Nats-Sequence"), number("Nats-Last-Sequence")) {
            (Some(sequence), Some(before)) => {
                if sequence <= self.last_sequence {
                    self.inbox.verify();
                }
                self.last_sequence = sequence;
                (Position::new(wire::EPOCH, sequence, tag), before)
            }
            _ => (Position::UNTRACKED, 0),
        };
        let Content::Message(message) = content else {
            // Not the first mark: a history that was broken, or begun again.
            if previous > 0 {
                self.inbox.verify_topic(topic.name());
            }
            return;
        };
        let (topic, previous) = (topic.clone(), Predecessor::Offset(previous));
        drop(self.inbox.deliver(Delivery { topic, position, previous, message }));
    }

    /// Delivers a change of presence.
    fn change(&self, tokens: &str, incoming: Incoming<'_>) {
        let name = tokens.split('.').next().and_then(wire::topic);
        let topic = name.and_then(|name| self.wanted.get_key_value(name.as_str()));
        let topic = topic.filter(|(_, sid)| **sid + 1 == incoming.sid);
        let (Some((topic, _)), Some(person)) = (topic, Person::parse(incoming.payload)) else { return };
        drop(person.into_change(topic.clone()).map(|change| self.inbox.change(change)));
    }

    /// Handles a `PONG`.
    fn confirm(&mut self) {
        for reply in self.confirmations.pop_front().into_iter().flatten() {
            // A receiver that is gone has stopped waiting.
            let _ = reply.send(Ok(()));
        }
    }

    /// Refuses what the user may not do.
    fn forbid(&mut self, reason: &str) {
        // The news of the streams are not asked for by a request.
        if reason.contains(wire::ADVISORIES) {
            return;
        }
        let subject = reason.split('"').nth(1).unwrap_or_default();
        let is_deaf = subject.starts_with(&self.shared.answers);
        let is_meant = |asked: &str| is_deaf || asked == subject;
        let before = self.consumers.len();
        // The receivers see the end.
        self.consumers.retain(|_, asked| !is_meant(&asked.subject));
        let meant = self.answers.iter().filter(|(_, asked)| is_meant(&asked.subject));
        let meant: Vec<_> = meant.map(|(number, _)| *number).collect();
        let is_found = !meant.is_empty() || self.consumers.len() < before;
        for asked in meant.into_iter().filter_map(|number| self.answers.remove(&number)) {
            // A receiver that is gone has stopped waiting.
            let _ = asked.reply.send(Err(EngineError::new(format!("the NATS server: {reason}"))));
        }
        if is_deaf {
            self.deaf = Some(format!("the NATS server: {reason}"));
        } else if !is_found {
            self.refuse_unconfirmed(reason);
        }
    }

    /// Refuses the requests before the next `PONG`, one of which was not permitted.
    fn refuse_unconfirmed(&mut self, reason: &str) {
        for reply in self.confirmations.front_mut().map(mem::take).into_iter().flatten() {
            let _ = reply.send(Err(EngineError::new(format!("the NATS server: {reason}"))));
        }
    }

    /// Notes that the streams may have changed. In a cluster, a server that was stopped may have answered the
    /// reads that follow, so the hub looks at all topics once more.
    pub(crate) fn notice_change(&mut self) {
        self.shared.change();
        if self.shared.is_clustered.load(Ordering::Relaxed) {
            self.look_next(SETTLED);
        }
    }

    pub(crate) fn learn(&mut self, info: &ServerInfo) {
        info.add_to(&mut self.addresses.servers);
        self.shared.learn(info);
    }
}
