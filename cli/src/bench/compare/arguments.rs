//! The options of `bowline bench compare`, and the plan that they make.

use std::str::FromStr;
use std::time::Duration;

use bowline::http::Uri;
use clap::Args;

use super::Failure;
use crate::bench::arguments::Time;
use crate::bench::plan::template::Template;
use crate::bench::plan::{Mode, Pace, Plan};
use crate::connect::{Size, Target, UsageError};
use crate::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  bowline bench compare --server 'mine=./server {port}' --server 'bowline=bowline serve :{port}'
  bowline bench compare --server 'node=node server.mjs' --in-flight 16 --json

Each server is started by sh, and has to send back all messages. It is checked before it is measured. \
The servers take turns: each round has one sample of each. The CPU time and the memory are those of all \
processes in the server's process group. All of them are killed in the end.";

/// Start echo servers as processes, and compare their speed, processor time and memory
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompareArguments {
    /// A server: a name, and the command that starts it, in which {port} becomes its port. The variable PORT
    /// has the port, too; may be repeated
    #[arg(short, long = "server", value_name = "NAME=COMMAND", required = true)]
    servers: Vec<ServerCommand>,
    /// The path of the URL
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,
    /// The time that a server has to listen
    #[arg(long, value_name = "TIME", default_value = "10s")]
    start_timeout: Time,
    /// The number of connections
    #[arg(short, long, value_name = "NUMBER", default_value_t = 50, help_heading = "Load")]
    connections: u32,
    /// The number of messages that each connection keeps under way
    #[arg(long, value_name = "NUMBER", default_value_t = 1, help_heading = "Load")]
    in_flight: u32,
    /// The size of a message in bytes, or with K or M
    #[arg(long, value_name = "SIZE", default_value = "16", help_heading = "Load")]
    size: Size,
    /// Send binary messages
    #[arg(long, help_heading = "Load")]
    binary: bool,
    /// The number of samples of each server
    #[arg(long, value_name = "NUMBER", default_value_t = 5, help_heading = "Load")]
    rounds: usize,
    /// The time of a sample
    #[arg(short, long, value_name = "TIME", default_value = "2s", help_heading = "Load")]
    duration: Time,
    /// The number of threads of the load, which should leave a processor to the servers
    #[arg(long, value_name = "NUMBER", default_value_t = 1, help_heading = "Load")]
    threads: u16,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// A server as the user gives it.
#[derive(Clone, Debug)]
pub(super) struct ServerCommand {
    pub(super) name: String,
    pub(super) command: String,
}

impl FromStr for ServerCommand {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, command) = text.split_once('=').ok_or("expected NAME=COMMAND")?;
        if name.trim().is_empty() || command.trim().is_empty() {
            return Err("neither the name nor the command may be empty".into());
        }
        if name.chars().any(char::is_control) {
            return Err("the name contains a control character".into());
        }
        Ok(Self { name: name.trim().to_owned(), command: command.trim().to_owned() })
    }
}

impl CompareArguments {
    /// Checks what the types of the options leave open.
    pub(super) fn check(&self) -> Result<(), UsageError> {
        let wrong = if !cfg!(target_os = "linux") {
            "bench compare reads the figures of the servers from /proc, which only Linux has"
        } else if self.connections == 0 {
            "--connections is at least 1"
        } else if self.in_flight == 0 {
            "--in-flight is at least 1"
        } else if self.rounds == 0 || self.rounds > 1_000 {
            "--rounds is between 1 and 1000"
        } else if self.duration.0.is_zero() {
            "--duration is more than 0s"
        } else if self.threads == 0 {
            "--threads is at least 1"
        } else if !self.path.starts_with('/') {
            "--path begins with a slash"
        } else {
            let is_named_before = |(at, server): &(usize, &ServerCommand)| {
                self.servers[..*at].iter().any(|other| other.name == server.name)
            };
            let twice = self.servers.iter().enumerate().find(is_named_before);
            return match twice {
                Some((_, server)) => {
                    Err(UsageError(format!("--server: there are two of the name {}", server.name)))
                }
                None => self.url(80).map(drop),
            };
        };
        Err(UsageError(wrong.into()))
    }

    fn url(&self, port: u16) -> Result<Uri, UsageError> {
        let url = format!("ws://127.0.0.1:{port}{}", self.path);
        url.parse().map_err(|error| UsageError(format!("--path {}: {error}", self.path)))
    }

    /// The plan of a sample of the server at this port.
    pub(super) fn plan(&self, port: u16) -> Result<Plan, Failure> {
        let url = self.url(port).map_err(|error| Failure::new(Exit::Usage, error))?;
        let connections = u64::from(self.connections);
        Ok(Plan {
            target: Target::local(url),
            mode: Mode::Echo,
            pace: Pace::Closed { in_flight: self.in_flight },
            connections,
            duration: self.duration.0,
            ramp: Duration::ZERO,
            grace: Duration::from_secs(2),
            sources: Vec::new(),
            threads: usize::from(self.threads).min(self.connections as usize),
            template: Template::of_size(self.size.0),
            first: None,
            binary: self.binary,
        })
    }

    pub(super) fn servers(&self) -> &[ServerCommand] {
        &self.servers
    }

    pub(super) fn start_timeout(&self) -> Duration {
        self.start_timeout.0
    }

    pub(super) fn connections(&self) -> u64 {
        self.connections.into()
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(super) fn size(&self) -> usize {
        self.size.0
    }

    pub(super) fn is_binary(&self) -> bool {
        self.binary
    }

    pub(super) fn rounds(&self) -> usize {
        self.rounds
    }

    pub(super) fn duration(&self) -> Duration {
        self.duration.0
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }
}
