//! Running the program, and servers for it.

use std::error::Error;
use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use bowline::{Handler, Server, WebSocket};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The time that a run may take. One that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// Serves on a free port, and returns the URL.
pub(crate) async fn serve<H: Handler<M>, M: 'static>(handler: H) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(async move { Server::new().serve(listener, handler).await });
    format!("ws://{address}/")
}

/// Serves an echo on a free port, and returns the URL.
pub(crate) async fn serve_echo() -> String {
    serve(echo).await
}

/// Sends each message back.
pub(crate) async fn echo(mut socket: WebSocket) -> Result<(), Box<dyn Error + Send + Sync>> {
    while let Some(message) = socket.recv().await? {
        socket.send(message).await?;
    }
    Ok(())
}

/// Starts `bowline bench`.
pub(crate) fn start(url: &str, options: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_bowline"))
        .args(["bench", url])
        .args(options)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Runs `bowline bench` to its end.
pub(crate) async fn bench(url: &str, options: &[&str]) -> Ran {
    Ran::of(start(url, options)).await
}

/// A run that has ended.
pub(crate) struct Ran(Output);

impl Ran {
    /// Waits for the end of a run.
    pub(crate) async fn of(child: Child) -> Self {
        Self::within(LIMIT, child).await
    }

    /// Waits for the end of a run that takes longer than others.
    pub(crate) async fn within(limit: Duration, child: Child) -> Self {
        Self(timeout(limit, child.wait_with_output()).await.expect("the run hangs").unwrap())
    }

    pub(crate) fn status(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    pub(crate) fn stdout(&self) -> &str {
        str::from_utf8(&self.0.stdout).unwrap()
    }

    pub(crate) fn stderr(&self) -> &str {
        str::from_utf8(&self.0.stderr).unwrap()
    }

    /// The report of a run with `--json` that was successful.
    pub(crate) fn report(&self) -> Value {
        assert_eq!(self.status(), 0, "{}{}", self.stdout(), self.stderr());
        self.json()
    }

    /// The report of a run with `--json`.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.stdout()).unwrap_or_else(|error| panic!("{error}: {}", self.stderr()))
    }
}
