//! The programs of the cluster, each of which is started again when it has ended.

mod broker;
mod haproxy;
mod ports;
mod program;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::DemoArguments;
pub(crate) use crate::cluster::broker::Broker;
pub(crate) use crate::cluster::program::{Data, Status};
use crate::cluster::program::{Program, Running};

/// The time within which everything must be up at the beginning.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends all programs when this one has ended, however that happened: the standard input is at its end then.
/// All programs are in the process group of this command.
const GUARD: &str = r#"cat >/dev/null; rm -rf -- "$0"; kill -KILL 0"#;

/// A broker, nodes, and HAProxy before them. Clones are handles of the same cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    port: u16,
    folder: PathBuf,
    programs: Vec<Running>,
    board: watch::Receiver<Vec<Status>>,
}

/// The process that ends all others, once this value is dropped or this process has ended.
pub(crate) struct Guard {
    group: i32,
    _input: ChildStdin,
}

impl Cluster {
    /// Starts all programs, and returns once the nodes can be reached through HAProxy.
    ///
    /// # Errors
    ///
    /// Returns an error if a program is missing on this machine, or does not start. The error contains what
    /// the program has printed.
    pub(crate) async fn start(
        arguments: &DemoArguments,
        control_port: u16,
    ) -> Result<(Self, Guard), Box<dyn Error>> {
        let folder = TempDir::with_prefix("bowline-demo-")?.keep();
        let guard = Guard::start(&folder)?;
        let (boarding, board) = watch::channel(Vec::new());
        let port = arguments.port.map_or_else(|| ports::free_from(8080), Ok)?;
        let mut cluster = Self { port, folder: folder.clone(), programs: Vec::new(), board };

        let (broker, broker_port) = (arguments.broker, ports::free()?);
        cluster.run(broker.program(broker_port, &folder)?, guard.group, &boarding).await?;
        let mut servers = Vec::new();
        for number in 1..=arguments.nodes {
            let (name, port) = (format!("node{number}"), ports::free()?);
            let node = node(&name, port, &broker.url(broker_port), &folder)?;
            servers.push((name, port));
            cluster.run(node, guard.group, &boarding).await?;
        }
        let haproxy = haproxy::program(port, &servers, control_port, &folder)?;
        cluster.run(haproxy, guard.group, &boarding).await?;
        Ok((cluster, guard))
    }

    /// Starts a program, and waits until it accepts connections.
    async fn run(
        &mut self,
        program: Program,
        group: i32,
        board: &watch::Sender<Vec<Status>>,
    ) -> Result<(), Box<dyn Error>> {
        let (name, port, log) = (program.name.clone(), program.port, program.log.clone());
        self.programs.push(program.start(group, board).map_err(|error| missing(&name, &error))?);
        let mut ended = board.subscribe();
        let ended = ended.wait_for(|board| board.last().is_some_and(Status::has_ended));
        let up = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = up => return Ok(()),
            _ = ended => {}
            () = sleep(PATIENCE) => {}
        }
        let said = std::fs::read_to_string(log).unwrap_or_default();
        Err(format!("{name} does not start; it says:\n{said}").into())
    }

    /// Returns the port of HAProxy, at which everything is.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the folder of all data and logs, which lasts as long as the cluster.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the state of all programs, and its changes.
    pub(crate) fn board(&self) -> watch::Receiver<Vec<Status>> {
        self.board.clone()
    }

    /// Ends a program with SIGKILL, if there is one of this name. It is started again a few seconds later.
    pub(crate) fn kill(&self, name: &str, data: Data) {
        if let Some(program) = self.programs.iter().find(|program| program.name == name) {
            program.kill(data);
        }
    }
}

impl Guard {
    fn start(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new("sh");
        let mut process =
            in_group(&mut command, 0)?.args(["-c", GUARD]).arg(folder).stdin(Stdio::piped()).spawn()?;
        let input = process.stdin.take().expect("the standard input is piped");
        let group = process.id().ok_or("the guard of the cluster has ended")?.try_into()?;
        Ok(Self { group, _input: input })
    }
}

/// Makes a command run in a process group, where 0 is a new one.
#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere, there are no process groups")]
fn in_group(command: &mut Command, group: i32) -> io::Result<&mut Command> {
    Ok(command.process_group(group))
}

#[cfg(not(unix))]
fn in_group(_: &mut Command, _: i32) -> io::Result<&mut Command> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "the demonstration needs the process groups of Unix"))
}

/// This program, as a node.
fn node(name: &str, port: u16, broker: &str, folder: &Path) -> io::Result<Program> {
    let program = std::env::current_exe()?;
    let arguments = ["node", "--name", name, "--port", &port.to_string(), "--broker", broker];
    Ok(Program::new(name, port, folder, program, arguments.map(str::to_owned)))
}

fn missing(name: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{name} is not installed; on Debian: apt-get install haproxy redis-server nats-server")
        }
        _ => format!("{name} can't be started: {error}"),
    }
}
