//! The check that a client has received an unbroken sequence of messages.

use std::collections::HashMap;

use serde::Serialize;

use crate::protocol::Published;

/// The messages that a client has received.
#[derive(Default)]
pub(crate) struct Sequence {
    /// The position of the last message.
    pub(crate) last: Option<String>,
    /// The last number of each publisher.
    numbers: HashMap<String, u64>,
    pub(crate) counts: Counts,
}

/// The findings of a [`Sequence`].
#[derive(Clone, Copy, Default, PartialEq, Serialize, Debug)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    /// Messages that are missing, without a word about it. There must be none.
    pub(crate) gaps: u64,
    /// Messages that came twice. There must be none.
    pub(crate) doubles: u64,
    /// Times that messages were lost, and the client was told.
    pub(crate) losses: u64,
}

impl Sequence {
    /// Starts the sequence, unless a message was faster than the welcome.
    pub(crate) fn start(&mut self, at: String) {
        self.last.get_or_insert(at);
    }

    /// Continues after a loss, and after a position if there is one. Anything may be missing before.
    pub(crate) fn lose(&mut self, at: Option<String>) {
        self.counts.losses += 1;
        self.last = at;
        self.numbers.clear();
    }

    /// Checks that a message follows the last one of the room, and the last one of its publisher.
    pub(crate) fn receive(&mut self, at: String, before: &str, message: &Published) {
        self.counts.received += 1;
        let last = self.last.replace(at);
        let number = self.numbers.insert(message.publisher.clone(), message.number);
        if number.is_some_and(|number| message.number <= number) {
            self.counts.doubles += 1;
        } else if last.is_some_and(|last| last != before)
            || number.is_some_and(|number| message.number > number + 1)
        {
            self.counts.gaps += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives a message by its number in the room, and by that of its publisher.
    fn receive(sequence: &mut Sequence, place: u64, number: u64) {
        let message =
            Published { publisher: "ada".to_owned(), name: "Ada".to_owned(), number, text: String::new() };
        sequence.receive(place.to_string(), &(place - 1).to_string(), &message);
    }

    #[test]
    fn an_unbroken_sequence_has_no_findings() {
        let mut sequence = Sequence::default();
        sequence.start("6".to_owned());
        receive(&mut sequence, 7, 1);
        receive(&mut sequence, 8, 2);
        sequence.start("6".to_owned());
        assert_eq!(sequence.counts, Counts { received: 2, ..Counts::default() });
        assert_eq!(sequence.last.as_deref(), Some("8"));
    }

    #[test]
    fn gaps_and_doubles_are_found() {
        let mut sequence = Sequence::default();
        sequence.start("6".to_owned());
        // A message of the room is missing, then one of the publisher, then a message comes again.
        for (place, number) in [(7, 1), (9, 2), (10, 4), (10, 4)] {
            receive(&mut sequence, place, number);
        }
        assert_eq!(sequence.counts, Counts { received: 4, gaps: 2, doubles: 1, losses: 0 });
    }

    #[test]
    fn a_loss_is_no_gap() {
        let mut sequence = Sequence::default();
        sequence.start("6".to_owned());
        sequence.lose(Some("20".to_owned()));
        receive(&mut sequence, 21, 100);
        sequence.lose(None);
        receive(&mut sequence, 15, 94);
        assert_eq!(sequence.counts, Counts { received: 2, gaps: 0, doubles: 0, losses: 2 });
    }
}
