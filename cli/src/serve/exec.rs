//! `--exec`: a program for each connection.
//!
//! ```text
//! Running --its output ends, or it exits--> Ending --> Ended: 1000 after status 0, else 1011
//!    |                                        ^
//!    '--the peer is gone: its input ends------'
//!
//! Ending: 3 s to exit, then SIGTERM, 2 s, then SIGKILL. Both reach the whole process group, and whoever is
//! left of the group when the connection has ended is killed.
//! ```

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bowline::http::request::Parts;
use bowline::{CloseCode, WebSocket};
use percent_encoding::percent_decode_str;
use tokio::io::BufReader;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::log::{ConnectionLog, HandlerError};
use super::pump::{self, End, Framing};
use crate::process_group::{ProcessGroup, Signal};

/// The time that a program has to exit after its input has ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);
/// The time in which output is still read after the program has exited.
const LAST_OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);
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
        let group = ProcessGroup::of(child.id());
        let stdin = child.stdin.take().expect("stdin is piped");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        // What a program has started may keep its output open.
        let exited = async {
            let _ = child.wait().await;
            sleep(LAST_OUTPUT_TIMEOUT).await;
        };
        let end = tokio::select! {
            end = pump::pump(&mut socket, &mut stdout, stdin, self.framing, log) => end,
            () = exited => End::Stream(Ok(())),
        };
        // The program learns from its pipes that nobody reads what it still writes.
        drop(stdout);
        let status = end_of(&mut child, &group).await;
        match end {
            End::Peer(ended) => Ok(ended?),
            End::Stream(Ok(())) => {
                let (code, reason) = close_frame(&status);
                pump::close(&socket, code, &reason).await;
                Ok(())
            }
            End::Stream(Err(error)) => {
                pump::close(&socket, CloseCode::INTERNAL_ERROR, "the program's output can't be sent").await;
                Err(error.into())
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
    let mut variables = Vec::new();
    for name in head.headers.keys() {
        // RFC 3875 4.1.18 leaves out what is secret. `Proxy` would be taken for HTTP_PROXY, and a name with
        // an underscore for one with a hyphen, perhaps of a trusted proxy.
        let name = name.as_str();
        if matches!(name, "authorization" | "proxy-authorization" | "proxy") || name.contains('_') {
            continue;
        }
        let values: Vec<&str> =
            head.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        let separator = if name == "cookie" { "; " } else { ", " };
        let variable = format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_"));
        variables.push((variable, values.join(separator)));
    }
    if let Some(authority) = head.uri.authority() {
        variables.push(("HTTP_HOST".to_owned(), authority.to_string()));
    }
    let mut set = |name: &str, value: String| variables.push((name.to_owned(), value));
    set("GATEWAY_INTERFACE", "CGI/1.1".into());
    set("REQUEST_METHOD", head.method.to_string());
    set("REQUEST_URI", head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned());
    set("PATH_INFO", percent_decode_str(head.uri.path()).decode_utf8_lossy().into_owned());
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
async fn end_of(child: &mut Child, group: &ProcessGroup) -> io::Result<ExitStatus> {
    if let Ok(status) = timeout(EXIT_TIMEOUT, child.wait()).await {
        return status;
    }
    group.signal(Signal::Terminate);
    if let Ok(status) = timeout(TERM_TIMEOUT, child.wait()).await {
        return status;
    }
    child.kill().await?;
    child.wait().await
}

fn close_frame(status: &io::Result<ExitStatus>) -> (CloseCode, String) {
    match status {
        Ok(status) if status.success() => (CloseCode::NORMAL, String::new()),
        Ok(status) => (CloseCode::INTERNAL_ERROR, format!("the program ended with {status}")),
        Err(_) => (CloseCode::INTERNAL_ERROR, "the program was lost".into()),
    }
}
