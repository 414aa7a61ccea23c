//! The cases: one file a chapter.
//!
//! A chapter is the part of an id before the first dot, and has the name of its file; `streams` has the cases
//! that two chapters share. Users know the ids, so an id keeps its meaning.

mod close;
mod compression;
mod control;
mod echo;
mod fragment;
mod frame;
mod handshake;
mod http2;
mod http3;
mod limit;
mod negotiation;
mod streams;
mod text;

use super::script::Case;

/// All cases, in the order in which they are reported.
pub(super) fn all() -> Vec<Case> {
    [
        handshake::cases(),
        negotiation::cases(),
        frame::cases(),
        fragment::cases(),
        control::cases(),
        text::cases(),
        close::cases(),
        compression::cases(),
        echo::cases(),
        http2::cases(),
        http3::cases(),
        limit::cases(),
    ]
    .concat()
}
