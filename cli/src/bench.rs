//! `bowline bench`.

use clap::Args;

use crate::exit::Exit;

/// The options of `bowline bench`.
#[derive(Args, Debug)]
pub(crate) struct BenchArguments {}

/// Runs `bowline bench`.
pub(crate) fn run(_: BenchArguments) -> Exit {
    Exit::Failure
}
