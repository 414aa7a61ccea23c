//! The frames of the last messages of a topic, for members that are about to be live.

use std::collections::VecDeque;

use bowline::Prepared;

use crate::position::Position;

/// The number of frames that are kept.
const CAPACITY: usize = 64;

/// The last frames of a topic, without a gap. Empty and without memory while nobody is behind.
#[derive(Default)]
pub(crate) struct Recent {
    /// Each frame with the position before its message.
    frames: VecDeque<(Position, Prepared)>,
}

impl Recent {
    pub(crate) fn push(&mut self, before: Position, frame: Prepared) {
        if self.frames.len() == CAPACITY {
            self.frames.pop_front();
        }
        self.frames.push_back((before, frame));
    }

    /// Forgets all frames, because the next one does not follow them or because nobody is behind.
    pub(crate) fn clear(&mut self) {
        self.frames = VecDeque::new();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns the frames after a position, each with the position before its message. Returns `None` if the
    /// position is not known.
    pub(crate) fn after(&self, position: Position) -> Option<impl Iterator<Item = &(Position, Prepared)>> {
        let start = self.frames.iter().position(|(before, _)| *before == position)?;
        Some(self.frames.range(start..))
    }
}
