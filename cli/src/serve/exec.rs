//! `--exec`: a program for each connection.
//!
//! ```text
//! Running --the program's output ends--> Exiting (3 s) ----.
//!    |                                                      >--> Ended: 1000 after status 0, else 1011
//!    '--the peer is gone: its input ends--> Exiting (3 s) --'
//!                                              '--late: SIGTERM--> (2 s) --late: SIGKILL--> Ended
//! ```

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bowline::http::request::Parts;
use bowline::{CloseCode, WebSocket};
use tokio::io::BufReader;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::log::ConnectionLog;
use super::mode::HandlerError;
use super::pump::{self, End, Framing};

/// The time that a program has to exit after its input has ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);
/// The time that a program has to exit after SIGTERM.
const TERM_TIMEOUT: Duration = Duration::from_secs(2);

/// A program that runs once for each connection.
pub(crate) struct Program {
    command: Vec<String>,
    framing: Framing,
}

impl Program {
    pub(crate) fn new(command: Vec<String>, framing: Framing) -> Self {
        Self { command, framing }
    }

    /// Runs the program for a connection, until one of the two ends.
    pub(crate) async fn run(
        &self,
        head: &Parts,
        mut socket: WebSocket,
        log: &ConnectionLog,
    ) -> Result<(), HandlerError> {
        let mut child = match self.spawn(head, &socket) {
            Ok(child) => child,
            Err(error) => {
                pump::close(&socket, CloseCode::INTERNAL_ERROR, "the program can't be run").await;
                return Err(format!("--exec {}: {error}", self.command[0]).into());
            }
        };
        let stdin = child.stdin.take().expect("stdin is piped");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let end = pump::pump(&mut socket, &mut stdout, stdin, self.framing, log).await;
        // The program learns from its pipes that nobody reads what it still writes.
        drop(stdout);
        let status = end_of(&mut child).await;
        match end {
            End::Peer(ended) => Ok(ended?),
            End::Stream(result) => {
                let (code, reason) = close_frame(&status);
                pump::close(&socket, code, &reason).await;
                Ok(result?)
            }
        }
    }

    fn spawn(&self, head: &Parts, socket: &WebSocket) -> io::Result<Child> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        for (name, value) in variables(head, socket) {
            command.env(name, value);
        }
        // A group of its own: a signal for the server is none for its programs, and one for a program reaches
        // what the program has started.
        #[cfg(unix)]
        command.process_group(0);
        command.spawn()
    }
}

/// The variables of CGI (RFC 3875 4.1) that have a meaning here.
fn variables(head: &Parts, socket: &WebSocket) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = head
        .headers
        .iter()
        // RFC 3875 4.1.18 leaves out what is secret. Proxy-named headers would be taken for HTTP_PROXY.
        .filter(|(name, _)| !matches!(name.as_str(), "authorization" | "proxy-authorization" | "proxy"))
        .filter_map(|(name, value)| {
            let name = format!("HTTP_{}", name.as_str().to_ascii_uppercase().replace('-', "_"));
            Some((name, value.to_str().ok()?.to_owned()))
        })
        .collect();
    let mut set = |name: &str, value: String| variables.push((name.to_owned(), value));
    set("GATEWAY_INTERFACE", "CGI/1.1".into());
    set("REQUEST_METHOD", head.method.to_string());
    set("REQUEST_URI", head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned());
    set("PATH_INFO", head.uri.path().to_owned());
    set("QUERY_STRING", head.uri.query().unwrap_or_default().to_owned());
    set("SERVER_SOFTWARE", concat!("bowline/", env!("CARGO_PKG_VERSION")).into());
    set("WEBSOCKET_SUBPROTOCOL", socket.subprotocol().unwrap_or_default().to_owned());
    if let Some(peer) = socket.peer_addr() {
        set("REMOTE_ADDR", peer.ip().to_string());
        set("REMOTE_PORT", peer.port().to_string());
    }
    if let Some(local) = socket.local_addr() {
        set("SERVER_PORT", local.port().to_string());
    }
    variables
}

/// Waits for the end of the program, and ends it by signals if it takes too long.
async fn end_of(child: &mut Child) -> io::Result<ExitStatus> {
    if let Ok(status) = timeout(EXIT_TIMEOUT, child.wait()).await {
        return status;
    }
    signal_group(child, Signal::Terminate);
    if let Ok(status) = timeout(TERM_TIMEOUT, child.wait()).await {
        return status;
    }
    signal_group(child, Signal::Kill);
    child.kill().await?;
    child.wait().await
}

#[derive(Clone, Copy)]
enum Signal {
    Terminate,
    Kill,
}

#[cfg(unix)]
fn signal_group(child: &Child, signal: Signal) {
    use rustix::process::{Pid, Signal as Unix, kill_process_group};

    let signal = match signal {
        Signal::Terminate => Unix::TERM,
        Signal::Kill => Unix::KILL,
    };
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(group) = group {
        // It may have ended in this moment.
        let _ = kill_process_group(group, signal);
    }
}

#[cfg(not(unix))]
fn signal_group(_: &Child, _: Signal) {}

fn close_frame(status: &io::Result<ExitStatus>) -> (CloseCode, String) {
    match status {
        Ok(status) if status.success() => (CloseCode::NORMAL, String::new()),
        Ok(status) => (CloseCode::INTERNAL_ERROR, format!("the program ended with {status}")),
        Err(_) => (CloseCode::INTERNAL_ERROR, "the program was lost".into()),
    }
}
