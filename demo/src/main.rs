//! A chat on three nodes behind HAProxy, whose nodes and broker may be killed while it runs.
//!
//! Run `cargo run -p bowline-demo`, and open the address that it prints in several windows. README.md shows
//! the page, and explains what there is to see.
//!
//! ```text
//!   page, robots ---> HAProxy ---> /rooms/NAME: one of the nodes, by the hash of the name ---> broker
//!                        |
//!                        '-------> all else: this program (the page, and the buttons)
//! ```
//!
//! | module | is |
//! |---|---|
//! | `node` | a server of rooms: the part to copy |
//! | `protocol` | the messages between clients and nodes |
//! | `robot`, `sequence` | clients that publish, and check what they receive |
//! | `cluster` | the programs that run, and are started again |
//! | `control` | the page and its buttons |

mod cluster;
mod control;
mod node;
mod protocol;
mod robot;
mod sequence;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cluster::{Broker, Cluster};
use crate::node::NodeArguments;
use crate::robot::Robots;

#[derive(Parser)]
#[command(about = "A chat on several nodes that may be killed, and misses nothing")]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    demo: DemoArguments,
}

#[derive(Subcommand)]
enum Role {
    /// One of the nodes.
    #[command(hide = true)]
    Node(NodeArguments),
}

#[derive(clap::Args)]
struct DemoArguments {
    /// The port of the page. Default: the first one from 8080 on that is free.
    #[arg(long)]
    port: Option<u16>,
    /// The broker.
    #[arg(long, default_value = "redis")]
    broker: Broker,
    /// The number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// The number of messages that each robot publishes in a second, at the beginning.
    #[arg(long, default_value_t = 0, value_parser = robot::rates())]
    load: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.role {
        Some(Role::Node(arguments)) => node::run(arguments).await,
        None => demonstrate(arguments.demo).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything until this process ends. The guard then ends all others, also after Ctrl-C and SIGKILL.
async fn demonstrate(arguments: DemoArguments) -> Result<(), Box<dyn Error>> {
    let control = control::bind().await?;
    let control_port = control.local_addr()?.port();
    let (cluster, _guard) = Cluster::start(&arguments, control_port).await?;
    let robots = Robots::start(cluster.port(), arguments.load);
    println!("files in {}", cluster.folder().display());
    println!("listening on http://127.0.0.1:{}/", cluster.port());
    control::serve(control, cluster, robots).await?;
    Ok(())
}
