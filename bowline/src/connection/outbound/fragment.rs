//! Fragments of a message that is written piece by piece.

/// What comes behind a fragment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FragmentEnd {
    /// More of the message, soon.
    More,
    /// More of the message, some time: the peer is to see what there is.
    Flush,
    /// The next message.
    Last,
}
