//! The point from which a subscription starts.

use crate::position::Position;

/// The point from which a member receives the messages of a topic, as
/// [`Member::subscribe`](crate::Member::subscribe) accepts it.
///
/// A [`Position`] and an `Option<Position>` convert into this type.
///
/// # Examples
///
/// ```
/// use bowline_hub::{Position, Since};
///
/// # fn stored() -> Option<Position> { None }
/// // A client that comes back continues, and a new one starts with the last 50 messages.
/// let since = stored().map_or(Since::Last(50), Since::Position);
/// assert_eq!(since, Since::Last(50));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Since {
    /// The next message is the first.
    #[default]
    Now,
    /// The message after this position is the first.
    Position(Position),
    /// The last messages of the history come first, at most so many, and then the next ones. A topic without
    /// history starts with the next message.
    Last(u64),
}

impl From<Position> for Since {
    fn from(position: Position) -> Self {
        Self::Position(position)
    }
}

impl From<Option<Position>> for Since {
    /// Converts `None` to [`Since::Now`].
    fn from(position: Option<Position>) -> Self {
        position.map_or(Self::Now, Self::Position)
    }
}
