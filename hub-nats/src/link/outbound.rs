//! Requests, as operations to the server.

use bowline_hub::EngineError;

use crate::link::request::{Reply, Request};
use crate::link::task::{ADVISORIES, ANSWERS, LinkTask};
use crate::wire;

/// The number of bytes that may wait for the server, beyond which requests are refused.
const MAX_OUTPUT: usize = 8 * 1024 * 1024;

impl LinkTask {
    pub(crate) fn handle_requests(&mut self, requests: &mut Vec<Request>) {
        let mut unconfirmed = Vec::new();
        for request in requests.drain(..) {
            if self.output.len() > MAX_OUTPUT {
                self.refuse(request, "the NATS server takes no more data");
                continue;
            }
            match request {
                // Whoever asked has stopped waiting.
                Request::Want(_, reply) | Request::Send(_, reply) if reply.is_closed() => {}
                Request::Ask(_, _, reply) if reply.is_closed() => {}
                Request::Consume(_, _, answers) if answers.is_closed() => {}
                Request::Ask(number, operation, reply) => {
                    self.output.extend_from_slice(&operation);
                    self.answers.insert(number, reply);
                }
                Request::Consume(subject, operation, answers) => {
                    self.last_sid += 1;
                    self.subscribe(self.last_sid, &subject);
                    self.output.extend_from_slice(&operation);
                    self.consumers.insert(self.last_sid, answers);
                }
                Request::Want(topic, reply) => {
                    self.last_sid += 1;
                    self.subscribe(self.last_sid, &wire::subject(wire::LIVE, topic.name()));
                    self.wanted.insert(topic, self.last_sid);
                    unconfirmed.push(reply);
                }
                Request::Unwant(topic, reply) => {
                    if let Some(sid) = self.wanted.remove(&topic) {
                        self.unsubscribe(sid);
                    }
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
            Request::Ask(_, _, reply) => drop(reply.send(Err(error))),
            // The receiver sees the end.
            Request::Consume(..) => {}
            Request::Unwant(topic, reply) => {
                self.abandoned.extend(self.wanted.remove(&topic));
                drop(reply.send(Ok(())));
            }
        }
    }

    /// Returns the operations that subscribe to everything.
    pub(crate) fn subscriptions(&self) -> Vec<u8> {
        let answers = &self.shared.answers;
        let mut subscriptions = format!(
            "SUB {answers}* {ANSWERS}\r\nSUB {}*.{} {ADVISORIES}\r\n",
            wire::ADVISORIES,
            wire::STREAM
        )
        .into_bytes();
        for (topic, sid) in &self.wanted {
            let subject = wire::subject(wire::LIVE, topic.name());
            subscriptions.extend_from_slice(format!("SUB {subject} {sid}\r\n").as_bytes());
        }
        subscriptions
    }
}
