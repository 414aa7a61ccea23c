//! The frames of the last messages of a topic, for members that are about to be live.

use std::collections::VecDeque;

use bowline::Prepared;

use crate::position::Position;

/// The number of frames that are kept.
const CAPACITY: usize = 64;

/// The last frames of a topic, without a gap. Empty and without memory while nobody is behind.
#[derive(Default)]
pub(crate) struct Recent {
    frames: VecDeque<LastFrame>,
    /// The size of the messages of all frames, in bytes.
    size: usize,
}

/// A frame that is kept.
pub(crate) struct LastFrame {
    /// The position before the message.
    pub(crate) before: Position,
    pub(crate) frame: Prepared,
    /// The size of the message, in bytes.
    pub(crate) size: usize,
}

impl Recent {
    /// Keeps a frame, and as many of those before it as have room in `most` bytes.
    pub(crate) fn push(&mut self, last: LastFrame, most: usize) {
        self.size += last.size;
        self.frames.push_back(last);
        while self.frames.len() > CAPACITY || self.size > most {
            let Some(first) = self.frames.pop_front() else { return };
            self.size -= first.size;
        }
    }

    /// Forgets all frames, because the next one does not follow them or because nobody is behind.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns the frames after a position. Returns `None` if the position is not known.
    pub(crate) fn after(&self, position: Position) -> Option<impl Iterator<Item = &LastFrame>> {
        let start = self.frames.iter().position(|first| first.before == position)?;
        Some(self.frames.range(start..))
    }
}
