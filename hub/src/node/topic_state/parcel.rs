//! The frames that the live members of a topic are sent.

use bowline::Prepared;

use crate::position::Position;

/// A frame for all live members.
pub(crate) struct Parcel {
    /// The position before the message.
    pub(crate) before: Position,
    pub(crate) content: Content,
}

/// The content of a [`Parcel`].
pub(crate) enum Content {
    Message(Prepared),
    /// News about who is present.
    News(Prepared),
    /// The frame that tells of a loss, and the position after it.
    Loss(Prepared, Position),
    /// The connections are closed, because no frame tells of a loss.
    End,
}
