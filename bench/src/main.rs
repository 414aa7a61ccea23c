//! The benchmark: bowline beside other libraries and beside the floor, in one run.

mod allocations;
mod control;
mod frames;
mod handshake;
mod latency;
mod load;
mod measure;
mod micro;
mod process;
mod servers;
mod soak;
mod statistics;
#[cfg(feature = "http2")]
mod windows;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures bowline beside its peers and beside the floor.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: measure::Options,
}

/// The subcommands. The hidden ones are parts of a measurement, each a process of its own.
#[derive(Subcommand)]
enum Command {
    /// Measures masking and UTF-8 validation alone
    Micro(micro::Micro),
    /// Lets thousands of connections talk, die, stall and misbehave, and accounts for every message
    Soak(soak::Soak),
    /// Holds as many idle connections as the process may have files, with keepalive
    Idle(soak::idle::Idle),
    /// Measures the time of messages from node to node, over a Redis
    Latency(latency::Latency),
    /// Sends over HTTP/2 with windows of several sizes
    #[cfg(feature = "http2")]
    Windows(windows::Windows),
    #[command(hide = true)]
    Serve(servers::serve::Serve),
    #[command(hide = true)]
    Connect(servers::connect::Connect),
    #[command(hide = true)]
    Load(load::echo::Echo),
    #[command(hide = true)]
    LoadHandshakes(load::handshakes::Handshakes),
    #[command(hide = true)]
    LoadIdle(load::idle::Idle),
    #[command(hide = true)]
    LoadBroadcast(load::broadcast::Broadcast),
    #[command(hide = true)]
    SoakServe(soak::serve::Serve),
    #[command(hide = true)]
    SoakClients(soak::clients::Clients),
}

fn main() -> Result<()> {
    process::stay_on_cores();
    let arguments = Arguments::parse();
    let Some(command) = arguments.command else { return measure::run(&arguments.options) };
    match command {
        Command::Micro(options) => {
            micro::run(&options);
            Ok(())
        }
        Command::Soak(options) => soak::run(&options),
        Command::Idle(options) => soak::idle::run(&options),
        Command::Latency(options) => latency::run(&options),
        #[cfg(feature = "http2")]
        Command::Windows(options) => windows::run(&options),
        Command::SoakServe(options) => soak::serve::run(&options),
        Command::SoakClients(options) => soak::clients::run(&options),
        Command::Serve(options) => servers::serve::run(&options),
        Command::Connect(options) => servers::connect::run(&options),
        Command::Load(options) => load::echo::run(&options),
        Command::LoadHandshakes(options) => load::handshakes::run(&options),
        Command::LoadIdle(options) => load::idle::run(&options),
        Command::LoadBroadcast(options) => load::broadcast::run(&options),
    }
}
