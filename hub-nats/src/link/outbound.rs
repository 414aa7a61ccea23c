//! Requests, as operations to the server.

use bowline_hub::{EngineError, Topic};

use crate::link::request::{Reply, Request};
use crate::link::task::{ADVISORIES, ANSWERS, LinkTask};
use crate::wire;

/// The number of bytes that may wait for the server, beyond which requests are refused.
const MAX_OUTPUT: usize = 8 * 1024 * 1024;

impl LinkTask {
    pub(crate) fn handle_requests(&mut self, requests: &mut Vec<Request>) {
        let mut unconfirmed = Vec::new();
        for request in requests.drain(..) {
            // A subscription that stays would deliver each message twice, once the topic is wanted again.
            if self.output.len() > MAX_OUTPUT && !matches!(request, Request::Unwant(..)) {
                self.refuse(request, "the NATS server takes no more data");
                continue;
            }
            if let (Some(reason), Request::Ask(..) | Request::Consume(..)) = (&self.deaf, &request) {
                let reason = reason.clone();
                self.refuse(request, &reason);
                continue;
            }
            match request {
                // Whoever asked has stopped waiting.
                Request::Want(_, reply) | Request::Send(_, reply) if reply.is_closed() => {}
                Request::Ask(_, _, asked) if asked.reply.is_closed() => {}
                Request::Consume(_, _, asked) if asked.reply.is_closed() => {}
                Request::Ask(number, operation, asked) => {
                    self.output.extend_from_slice(&operation);
                    self.answers.insert(number, asked);
                }
                Request::Consume(subject, operation, answers) => {
                    self.last_sid += 1;
                    self.subscribe(self.last_sid, &subject);
                    self.output.extend_from_slice(&operation);
                    self.consumers.insert(self.last_sid, answers);
                }
                Request::Want(topic, reply) => {
                    let sid = self.last_sid + 1;
                    self.last_sid += 2;
                    self.output.extend_from_slice(subscription(&topic, sid).as_bytes());
                    self.cease(&topic);
                    self.wanted.insert(topic, sid);
                    unconfirmed.push(reply);
                }
                Request::Unwant(topic, reply) => {
                    self.cease(&topic);
                    unconfirmed.push(reply);
                }
                Request::Send(operation, reply) => {
                    self.output.extend_from_slice(&operation);
                    unconfirmed.push(reply);
                }
            }
        }
        if !unconfirmed.is_empty() {
            self.ping(unconfirmed);
        }
    }

    /// Ends the subscriptions to a topic, if there are any.
    fn cease(&mut self, topic: &Topic) {
        if let Some((topic, sid)) = self.wanted.remove_entry(topic) {
            self.unsubscribe(sid);
            if topic.has_presence() {
                self.unsubscribe(sid + 1);
            }
        }
    }

    pub(crate) fn subscribe(&mut self, sid: u64, subject: &str) {
        self.output.extend_from_slice(format!("SUB {subject} {sid}\r\n").as_bytes());
    }

    pub(crate) fn unsubscribe(&mut self, sid: u64) {
        self.output.extend_from_slice(format!("UNSUB {sid}\r\n").as_bytes());
    }

    pub(crate) fn ping(&mut self, unconfirmed: Vec<Reply<()>>) {
        self.output.extend_from_slice(b"PING\r\n");
        self.confirmations.push_back(unconfirmed);
    }

    pub(crate) fn refuse(&mut self, request: Request, reason: &str) {
        let error = EngineError::new(reason);
        // A receiver that is gone has stopped waiting.
        match request {
            Request::Want(_, reply) | Request::Send(_, reply) => drop(reply.send(Err(error))),
            Request::Ask(_, _, asked) => drop(asked.reply.send(Err(error))),
            // The receiver sees the end.
            Request::Consume(..) => {}
            Request::Unwant(topic, reply) => {
                if let Some(sid) = self.wanted.remove(&topic) {
                    // The server ignores the number of a subscription that there never was.
                    self.abandoned.extend([sid, sid + 1]);
                }
                drop(reply.send(Ok(())));
            }
        }
    }

    /// Returns the operations that subscribe to everything.
    pub(crate) fn subscriptions(&self) -> Vec<u8> {
        let mut subscriptions = format!("SUB {}* {ANSWERS}\r\n", self.shared.answers);
        for (sid, stream) in [(ADVISORIES, wire::STREAM), (ADVISORIES + 1, wire::PRESENCE)] {
            let news = format!("SUB {}*.{stream} {sid}\r\n", wire::ADVISORIES);
            subscriptions.push_str(&news);
        }
        for (topic, sid) in &self.wanted {
            subscriptions.push_str(&subscription(topic, *sid));
        }
        subscriptions.into_bytes()
    }
}

/// Returns the operations that subscribe to a topic, with one number or two.
fn subscription(topic: &Topic, sid: u64) -> String {
    let messages = format!("SUB {} {sid}\r\n", wire::subject(wire::LIVE, topic.name()));
    if !topic.has_presence() {
        return messages;
    }
    format!("{messages}SUB {}.* {}\r\n", wire::subject(wire::WHO, topic.name()), sid + 1)
}
