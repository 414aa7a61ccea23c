//! The messages to send, in order, over as many connections as necessary.

use std::collections::VecDeque;

use bowline::ControlFrame;
use tokio::sync::mpsc::Receiver;

use crate::talk::input::Source;
use crate::talk::item::{Input, Item, Order, Step};

/// The orders that are to be carried out.
///
/// The items before stdin, such as a subscription, are sent at the beginning of each connection. Everything
/// else is sent at most once: a message that is lost with its connection is not sent again.
pub(in crate::talk) struct Outbox {
    opening: Vec<Order>,
    /// The number of items of the opening that were sent over this connection.
    opened: usize,
    steps: VecDeque<Step>,
    stdin: Stdin,
    /// The orders that were taken, but not carried out yet: a connection that ends leaves them to the next
    /// one.
    taken: VecDeque<Order>,
    /// The number of orders that were carried out.
    done: u64,
    /// The number of messages sent over this connection that no later connection sends again.
    sent_once: u64,
}

/// ```text
/// Unread --its step is reached--> Open --its end--> Ended
/// ```
enum Stdin {
    Unread(Source),
    Open(Receiver<Input>),
    Ended,
}

impl Outbox {
    pub(in crate::talk) fn new(mut steps: VecDeque<Step>, source: Source) -> Self {
        let mut opening = Vec::new();
        let items = steps.iter().take_while(|step| matches!(step, Step::Item(_))).count();
        for step in steps.drain(..items) {
            if let Step::Item(item) = step {
                opening.push(Order::Send(item));
            }
        }
        let (stdin, taken) = (Stdin::Unread(source), VecDeque::new());
        Self { opening, opened: 0, steps, stdin, taken, done: 0, sent_once: 0 }
    }

    /// Begins another connection.
    pub(in crate::talk) fn reconnect(&mut self) {
        self.opened = 0;
        self.sent_once = 0;
    }

    /// Waits for the next order, and returns it, or `None` after the last one. The order stays the next one
    /// until [`Self::was_done`].
    pub(in crate::talk) async fn peek(&mut self) -> Result<Option<&Order>, String> {
        if self.opened < self.opening.len() {
            return Ok(self.opening.get(self.opened));
        }
        while self.taken.is_empty() {
            match self.steps.front() {
                None => return Ok(None),
                Some(Step::Item(_)) => {
                    if let Some(Step::Item(item)) = self.steps.pop_front() {
                        self.taken.push_back(Order::Send(item));
                    }
                }
                Some(Step::Stdin) => match self.read_stdin().await {
                    Some(input) => self.taken = input?,
                    None => {
                        self.steps.pop_front();
                    }
                },
            }
        }
        Ok(self.taken.front())
    }

    /// Removes the order of [`Self::peek`].
    pub(in crate::talk) fn was_done(&mut self) {
        if self.opened < self.opening.len() {
            self.opened += 1;
        } else if let Some(Order::Send(Item::Message(_))) = self.taken.pop_front() {
            self.sent_once += 1;
        }
        self.done += 1;
    }

    /// Returns whether [`Self::peek`] returns an order at once.
    pub(in crate::talk) fn is_ready(&self) -> bool {
        self.opened < self.opening.len() || !self.taken.is_empty()
    }

    /// Returns whether the next order is to close the connection.
    pub(in crate::talk) fn is_at_close(&self) -> bool {
        let next = self.opening.get(self.opened).or_else(|| self.taken.front());
        matches!(next, Some(Order::Send(Item::Control(ControlFrame::Close(_)))))
    }

    /// The number of orders that were carried out.
    pub(in crate::talk) fn done(&self) -> u64 {
        self.done
    }

    /// Describes the messages that may be lost with a connection over which `received` messages came.
    pub(in crate::talk) fn loss(&self, received: u64) -> Option<String> {
        (self.sent_once > 0).then(|| {
            let sent = self.sent_once;
            format!(
                "messages sent over the connection that ended: {sent}, received: {received}; \
                 any that did not arrive are not sent again"
            )
        })
    }

    async fn read_stdin(&mut self) -> Option<Input> {
        self.stdin = match std::mem::replace(&mut self.stdin, Stdin::Ended) {
            Stdin::Unread(source) => Stdin::Open(source.read()),
            other => other,
        };
        let Stdin::Open(stdin) = &mut self.stdin else { return None };
        let input = stdin.recv().await;
        if input.is_none() {
            self.stdin = Stdin::Ended;
        }
        input
    }
}
