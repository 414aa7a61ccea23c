//! The plan of a run, made of the options and checked.

pub(crate) mod schedule;
pub(crate) mod template;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use clap::ValueEnum;

use crate::bench::plan::schedule::Schedule;
use crate::bench::plan::template::Template;
use crate::bench::units::Grouped;
use crate::connect::Target;

/// The plan of a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) mode: Mode,
    pub(crate) pace: Pace,
    pub(crate) connections: u64,
    /// The time of the run, from when all connections are open.
    pub(crate) duration: Duration,
    pub(crate) ramp: Duration,
    /// The time to wait for missing replies.
    pub(crate) grace: Duration,
    /// The local addresses to connect from; if empty, the system chooses.
    pub(crate) sources: Vec<IpAddr>,
    pub(crate) threads: usize,
    pub(crate) template: Template,
    /// The message that each connection sends once it is open.
    pub(crate) first: Option<String>,
    pub(crate) binary: bool,
}

/// The load: what the connections do.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Mode {
    /// The server replies to each message
    Echo,
    /// The server sends each message to all connections
    Broadcast,
    /// Connections are opened and closed
    Connect,
    /// Connections are held
    Idle,
}

/// The decision when the next message is sent, or the next connection opened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// The open model: a schedule decides, whatever the server does.
    Open(Schedule),
    /// The closed model: the server's replies decide.
    Closed { in_flight: u32 },
}

impl Mode {
    /// The error of a run in which nothing was measured.
    pub(crate) fn silence(self) -> &'static str {
        match self {
            Self::Echo => {
                "no reply arrived: does the server answer each message? See --mode, --message and --match"
            }
            Self::Broadcast => {
                "no message arrived: does the server send each to all connections? See --match"
            }
            Self::Connect | Self::Idle => "no connection was opened",
        }
    }
}

impl Plan {
    /// The time of the run in nanoseconds.
    pub(crate) fn nanos(&self) -> u64 {
        u64::try_from(self.duration.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The size of the first message.
    pub(crate) fn message_size(&self) -> usize {
        let mut message = String::new();
        self.template.write(0, &mut message);
        message.len()
    }
}

impl fmt::Display for Plan {
    /// Writes the plan in one line, for the head of the report.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = Grouped(self.connections);
        match self.mode {
            Mode::Echo => write!(f, "echo on {connections} connections, {} bytes", self.message_size())?,
            Mode::Broadcast => {
                write!(f, "broadcast to {connections} connections, {} bytes", self.message_size())?;
            }
            Mode::Connect => write!(f, "handshakes, at most {connections} at once")?,
            Mode::Idle => write!(f, "{connections} idle connections")?,
        }
        match self.pace {
            _ if self.mode == Mode::Idle => Ok(()),
            Pace::Open(schedule) => write!(f, ", {} by a schedule (open model)", schedule.rate),
            Pace::Closed { in_flight } if self.mode == Mode::Echo => {
                write!(f, ", {in_flight} in flight on each (closed model)")
            }
            Pace::Closed { .. } => write!(f, ", one after the other (closed model)"),
        }
    }
}
