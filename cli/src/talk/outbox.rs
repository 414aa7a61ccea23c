//! What is to be sent, in order, over as many connections as it takes.

use std::collections::VecDeque;

use tokio::sync::mpsc::Receiver;

use crate::talk::encoding::{Encoding, Item};
use crate::talk::input::{self, Input, Split};

/// A part of what is to be sent.
#[derive(Debug)]
pub(super) enum Step {
    Item(Item),
    /// Everything that comes from stdin.
    Stdin,
}

/// What is to be sent.
pub(super) struct Outbox {
    steps: VecDeque<Step>,
    stdin: Stdin,
    encoding: Encoding,
    split: Split,
    /// An item that was taken, but not sent yet: a connection that ends leaves it to the next one.
    next: Option<Item>,
    /// The number of items that were sent.
    sent: u64,
}

/// ```text
/// Unread --its step is reached--> Open --its end--> Ended
/// ```
enum Stdin {
    Unread,
    Open(Receiver<Input>),
    Ended,
}

impl Outbox {
    pub(super) fn new(steps: Vec<Step>, encoding: Encoding, split: Split) -> Self {
        Self { steps: steps.into(), stdin: Stdin::Unread, encoding, split, next: None, sent: 0 }
    }

    /// Waits for the next item, and returns it, or `None` after the last one. The item stays the next one
    /// until [`Self::was_sent`].
    pub(super) async fn peek(&mut self) -> Result<Option<&Item>, String> {
        while self.next.is_none() {
            match self.steps.front() {
                None => return Ok(None),
                Some(Step::Item(_)) => {
                    if let Some(Step::Item(item)) = self.steps.pop_front() {
                        self.next = Some(item);
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

    /// Marks the item of [`Self::peek`] as sent.
    pub(super) fn was_sent(&mut self) {
        self.next = None;
        self.sent += 1;
    }

    /// The number of items that were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    async fn read_stdin(&mut self) -> Option<Input> {
        if let Stdin::Unread = self.stdin {
            self.stdin = Stdin::Open(input::read(self.split, self.encoding));
        }
        let Stdin::Open(stdin) = &mut self.stdin else { return None };
        let input = stdin.recv().await;
        if input.is_none() {
            self.stdin = Stdin::Ended;
        }
        input
    }
}
