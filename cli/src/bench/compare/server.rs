//! A server as a process, with all that the process starts.
//!
//! ```text
//! bowline --- a pipe ---> guard (sh), which leads the process group
//!    |                      |  kills the group when the pipe ends
//!    '------- starts ---> server (sh -c COMMAND), and its children
//! ```
//!
//! [`Server::drop`] ends the group in order. If this program is killed itself, the pipe ends with it, and the
//! guard does the rest.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::sleep;

use super::arguments::ServerCommand;
use super::usage::{self, Usage};
use super::{Failure, within};
use crate::exit::Exit;
use crate::process_group::{ProcessGroup, Signal};

/// Kills its process group when its input ends, and lives until then.
const GUARD: &str = "trap '' TERM; read line; kill -s KILL 0";

/// The time that a server has to exit after SIGTERM.
const TERM_TIMEOUT: Duration = Duration::from_secs(1);

/// The distance of the attempts to reach a server that is starting, or ending.
const INTERVAL: Duration = Duration::from_millis(10);

/// A server that listens. Dropping it ends it.
pub(super) struct Server {
    name: String,
    command: String,
    port: u16,
    process: Process,
}

/// The processes of a server. Dropping it ends them.
struct Process {
    child: Child,
    guard: Child,
    /// Dropped before the processes are waited for.
    group: Option<ProcessGroup>,
}

impl Server {
    /// Starts a server, and waits until it listens.
    pub(super) async fn start(wanted: &ServerCommand, limit: Duration) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::new(Exit::Failure, format!("starting the server: {error}"));
        let port = free_port().map_err(failed)?;
        let command = wanted.command.replace("{port}", &port.to_string());
        let mut process = Process::start(&command, port).map_err(failed)?;
        within(limit, Exit::Unreachable, "listening (--start-timeout)", process.listens(port)).await??;
        Ok(Self { name: wanted.name.clone(), command: wanted.command.clone(), port, process })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The command as the user gave it.
    pub(super) fn command(&self) -> &str {
        &self.command
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the processor time and the memory of the server so far.
    pub(super) fn usage(&self) -> io::Result<Usage> {
        usage::of_group(self.process.guard.id())
    }
}

impl Process {
    fn start(command: &str, port: u16) -> io::Result<Self> {
        let mut guard = shell(GUARD);
        guard.stdin(Stdio::piped());
        lead_group(&mut guard, 0);
        let guard = guard.spawn()?;
        let group = ProcessGroup::of(Some(guard.id()));
        let mut server = shell(command);
        // Its complaints are for the user, and what it prints otherwise would be in the middle of the
        // results.
        server.env("PORT", port.to_string()).stdin(Stdio::null());
        lead_group(&mut server, guard.id());
        match server.spawn() {
            Ok(child) => Ok(Self { child, guard, group: Some(group) }),
            Err(error) => {
                drop(group);
                reap(guard);
                Err(error)
            }
        }
    }

    /// Waits until the server listens, or has ended.
    async fn listens(&mut self, port: u16) -> Result<(), Failure> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        loop {
            if let Some(status) = self.child.try_wait().map_err(|error| Failure::new(Exit::Failure, error))? {
                let text = format!("the server ended before it listened on {address}: {status}");
                return Err(Failure::new(Exit::Unreachable, text));
            }
            if TcpStream::connect(address).await.is_ok() {
                return Ok(());
            }
            sleep(INTERVAL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = self.group.take();
        if let Some(group) = &group {
            group.signal(Signal::Terminate);
        }
        let begun = Instant::now();
        while begun.elapsed() < TERM_TIMEOUT && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(INTERVAL);
        }
        // The guard is killed with the group, and nothing else has its number before it is waited for.
        drop(group);
        for child in [&mut self.child, &mut self.guard] {
            let _ = child.wait();
        }
    }
}

/// A command of the shell, whose output is none of this program's.
fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdout(Stdio::null());
    command
}

fn reap(mut child: Child) {
    let _ = child.wait();
}

/// Puts a process into a group: that with this leader, or its own if 0.
#[cfg(unix)]
fn lead_group(command: &mut Command, leader: u32) {
    use std::os::unix::process::CommandExt as _;

    command.process_group(i32::try_from(leader).expect("the id of a process"));
}

#[cfg(not(unix))]
fn lead_group(_: &mut Command, _: u32) {}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
