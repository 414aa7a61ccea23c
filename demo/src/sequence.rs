//! The check that a client has received an unbroken sequence of messages.

use std::collections::HashMap;

use serde::Serialize;

use crate::protocol::{Place, Published};

/// The messages that a client has received.
#[derive(Default)]
pub(crate) struct Sequence {
    last: Option<Place>,
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
    /// Returns the position from which a subscription continues.
    pub(crate) fn position(&self) -> Option<String> {
        self.last.as_ref().map(|last| last.position.clone())
    }

    /// Starts the sequence, unless a message was faster than the welcome.
    pub(crate) fn start(&mut self, at: Place) {
        self.last.get_or_insert(at);
    }

    /// Continues after a loss. Anything may be missing before this place.
    pub(crate) fn lose(&mut self, at: Place) {
        self.counts.losses += 1;
        self.last = Some(at);
        self.numbers.clear();
    }

    /// Checks that the next message follows the last one of the room, and the last one of its publisher.
    pub(crate) fn receive(&mut self, at: Place, message: &Published) {
        self.counts.received += 1;
        let by_place = match &self.last {
            Some(last) if last.epoch == at.epoch => Step::between(last.offset, at.offset),
            Some(_) => Step::Gap,
            None => Step::Next,
        };
        let last = self.numbers.insert(message.publisher.clone(), message.number);
        let by_number = last.map_or(Step::Next, |last| Step::between(last, message.number));
        match (by_place, by_number) {
            (Step::Next, Step::Next) => {}
            (Step::Double, _) | (_, Step::Double) => self.counts.doubles += 1,
            (Step::Gap, _) | (_, Step::Gap) => self.counts.gaps += 1,
        }
        self.last = Some(at);
    }
}

enum Step {
    Next,
    Double,
    Gap,
}

impl Step {
    fn between(last: u64, number: u64) -> Self {
        match number {
            _ if number == last + 1 => Self::Next,
            _ if number <= last => Self::Double,
            _ => Self::Gap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(sequence: &mut Sequence, offset: u64, number: u64) {
        let message =
            Published { publisher: "ada".to_owned(), name: "Ada".to_owned(), number, text: String::new() };
        sequence.receive(place("1", offset), &message);
    }

    fn place(epoch: &str, offset: u64) -> Place {
        Place { position: format!("{epoch}-{offset}"), offset, epoch: epoch.to_owned() }
    }

    #[test]
    fn an_unbroken_sequence_has_no_findings() {
        let mut sequence = Sequence::default();
        sequence.start(place("1", 6));
        receive(&mut sequence, 7, 1);
        receive(&mut sequence, 8, 2);
        assert_eq!(sequence.counts, Counts { received: 2, ..Counts::default() });
        assert_eq!(sequence.position().as_deref(), Some("1-8"));
    }

    #[test]
    fn gaps_and_doubles_of_places_are_found() {
        let mut sequence = Sequence::default();
        receive(&mut sequence, 7, 1);
        receive(&mut sequence, 9, 2);
        receive(&mut sequence, 9, 3);
        assert_eq!(sequence.counts, Counts { received: 3, gaps: 1, doubles: 1, losses: 0 });
    }

    #[test]
    fn gaps_and_doubles_of_numbers_are_found() {
        let mut sequence = Sequence::default();
        receive(&mut sequence, 7, 1);
        receive(&mut sequence, 8, 3);
        receive(&mut sequence, 9, 3);
        assert_eq!(sequence.counts, Counts { received: 3, gaps: 1, doubles: 1, losses: 0 });
    }

    #[test]
    fn a_loss_is_no_gap_and_another_history_without_a_loss_is_one() {
        let mut sequence = Sequence::default();
        sequence.start(place("1", 6));
        sequence.lose(place("1", 20));
        receive(&mut sequence, 21, 100);
        assert_eq!(sequence.counts, Counts { received: 1, gaps: 0, doubles: 0, losses: 1 });
        sequence.last = Some(place("2", 21));
        receive(&mut sequence, 22, 101);
        assert_eq!(sequence.counts.gaps, 1);
    }
}
