//! `bowline check`.

use clap::Args;

use crate::exit::Exit;

/// The options of `bowline check`.
#[derive(Args, Debug)]
pub(crate) struct CheckArguments {}

/// Runs `bowline check`.
pub(crate) fn run(_: CheckArguments) -> Exit {
    Exit::Failure
}
