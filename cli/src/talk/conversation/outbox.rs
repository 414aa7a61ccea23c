//! What is to be sent, in order, over as many connections as it takes.

use std::collections::VecDeque;

use tokio::sync::mpsc::Receiver;

use crate::talk::input::Source;
use crate::talk::item::{Input, Order, Step};

/// What is to be sent.
pub(in crate::talk) struct Outbox {
    steps: VecDeque<Step>,
    stdin: Stdin,
    /// An order that was taken, but not carried out yet: a connection that ends leaves it to the next one.
    next: Option<Order>,
    /// The number of orders that were carried out.
    done: u64,
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
    pub(in crate::talk) fn new(steps: Vec<Step>, source: Source) -> Self {
        Self { steps: steps.into(), stdin: Stdin::Unread(source), next: None, done: 0 }
    }

    /// Waits for the next order, and returns it, or `None` after the last one. The order stays the next one
    /// until [`Self::was_done`].
    pub(in crate::talk) async fn peek(&mut self) -> Result<Option<&Order>, String> {
        while self.next.is_none() {
            match self.steps.front() {
                None => return Ok(None),
                Some(Step::Item(_)) => {
                    if let Some(Step::Item(item)) = self.steps.pop_front() {
                        self.next = Some(Order::Send(item));
                    }
                }
                Some(Step::Stdin) => match self.read_stdin().await {
                    Some(input) => self.next = Some(input?),
                    None => {
                        self.steps.pop_front();
                    }
                },
            }
        }
        Ok(self.next.as_ref())
    }

    /// Removes the order of [`Self::peek`].
    pub(in crate::talk) fn was_done(&mut self) {
        self.next = None;
        self.done += 1;
    }

    /// The number of orders that were carried out.
    pub(in crate::talk) fn done(&self) -> u64 {
        self.done
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
