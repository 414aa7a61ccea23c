//! `bowline serve`.

use clap::Args;

use crate::exit::Exit;

/// The options of `bowline serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArguments {}

/// Runs `bowline serve`.
pub(crate) fn run(_: ServeArguments) -> Exit {
    Exit::Failure
}
