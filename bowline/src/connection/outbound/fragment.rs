//! Fragments of a message that is written piece by piece.

/// The continuation after a fragment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FragmentEnd {
    /// More of the message follows soon.
    More,
    /// More of the message follows at some time. The peer has to see everything so far.
    Flush,
    /// Nothing: the fragment ends its message.
    Last,
}
