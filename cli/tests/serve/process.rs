//! A running `bowline serve`.

use std::future::Future;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bowline::{Error, WebSocket};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// The time in which anything that a test waits for has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server, which ends with this value.
pub(crate) struct Running {
    pub(crate) url: String,
    child: Child,
    _stdout: BufReader<ChildStdout>,
}

/// Returns the command `bowline`.
pub(crate) fn bowline() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

impl Running {
    /// Starts a server on a free port.
    pub(crate) async fn start(options: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", options).await
    }

    /// Starts a server at an address.
    pub(crate) async fn start_at(address: &str, options: &[&str]) -> Self {
        let mut child = bowline()
            .args(["serve", address])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        within(stdout.read_line(&mut line)).await.unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { url, child, _stdout: stdout }
    }

    /// The URL with another path.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The host and port of the server.
    pub(crate) fn authority(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    pub(crate) async fn connect(&self) -> WebSocket {
        within(bowline::connect(&self.url)).await.unwrap()
    }

    /// Sends a signal.
    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// The memory of the process that is in use, in bytes.
    #[cfg(target_os = "linux")]
    pub(crate) fn resident(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Ends the process at once.
    #[cfg_attr(not(feature = "http3"), expect(dead_code, reason = "a test of HTTP/3 uses it"))]
    pub(crate) async fn kill(mut self) {
        within(self.child.kill()).await.unwrap();
    }

    /// Waits for the end of the process, and returns what it has written to stderr.
    pub(crate) async fn end(mut self) -> (ExitStatus, String) {
        let mut text = String::new();
        within(self.child.stderr.take().unwrap().read_to_string(&mut text)).await.unwrap();
        (within(self.child.wait()).await.unwrap(), text)
    }
}

/// The output of a future, which has to come in time.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("this should not take so long")
}

/// Receives a text message.
pub(crate) async fn text(socket: &mut WebSocket) -> String {
    let message = within(socket.recv()).await.unwrap().expect("the connection is open");
    message.into_text().unwrap().as_str().to_owned()
}

/// Waits for the end of a connection, and returns its error, if it has one.
pub(crate) async fn end_of(socket: &mut WebSocket) -> Option<Error> {
    loop {
        match within(socket.recv()).await {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}
