//! `bowline`: a WebSocket tool.
//!
//! `main` reads the arguments and runs one command: [`talk`], [`serve`], [`check`] or [`bench`]. Each command
//! returns an [`Exit`], which is the status of the process. The commands share [`connect`], the options with
//! which a server is reached. [`http3`] is the part that needs QUIC, or its absence.

mod arguments;
mod bench;
mod check;
mod connect;
mod escape;
mod exit;
#[cfg_attr(not(feature = "http3"), path = "absent/http3.rs")]
mod http3;
mod manual;
mod process_group;
mod raw_stream;
mod serve;
mod talk;

use std::process::ExitCode;

fn main() -> ExitCode {
    arguments::run().into()
}
