//! A real Redis, which the tests start, kill and start again.

use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bowline_hub_testing::process::{self, free_port};
use bowline_hub_testing::{PATIENCE, TestResult};
use redis::AsyncConnectionConfig;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// A server in a folder of its own.
pub(crate) struct Server {
    pub(crate) process: Child,
    port: u16,
    folder: TempDir,
    arguments: Vec<String>,
}

/// Nothing is kept.
pub(crate) const VOLATILE: &[&str] = &["--save", "", "--appendonly", "no"];
/// Everything is kept.
pub(crate) const DURABLE: &[&str] = &["--save", "", "--appendonly", "yes", "--appendfsync", "always"];
/// The data of the last `SAVE` is kept.
pub(crate) const SNAPSHOTS: &[&str] = &["--save", "3600 100000", "--appendonly", "no"];

impl Server {
    pub(crate) async fn start(arguments: &[&str]) -> Result<Option<Self>, Box<dyn Error>> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: there is no redis-server on this machine");
            return Ok(None);
        }
        let port = free_port();
        let folder = TempDir::new()?;
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let process = spawn(port, &folder, &arguments)?;
        let server = Self { process, port, folder, arguments };
        server.is_up().await?;
        Ok(Some(server))
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the URL of a database.
    pub(crate) fn database(&self, number: u8) -> String {
        format!("{}/{number}", self.url())
    }

    async fn is_up(&self) -> TestResult {
        let up = async {
            while self.command(&["PING"]).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        Ok(timeout(PATIENCE, up).await?)
    }

    pub(crate) async fn command(&self, words: &[&str]) -> redis::RedisResult<()> {
        self.query(words).await
    }

    /// Returns the number with which the server answers.
    pub(crate) async fn number(&self, words: &[&str]) -> redis::RedisResult<i64> {
        self.query(words).await
    }

    async fn query<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        // By default, the client gives up after half a second, which a busy machine may take.
        let patience = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&patience).await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async(&mut connection).await
    }

    /// Sends a signal to the process, such as `-STOP`.
    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: &str) -> TestResult {
        process::signal(&self.process, signal)
    }

    /// Kills the server without any warning.
    pub(crate) fn kill(&mut self) -> TestResult {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Removes the data of a server that was killed.
    #[cfg(unix)]
    pub(crate) fn forget(&mut self) -> TestResult {
        // Another folder is as empty.
        self.folder = TempDir::new()?;
        Ok(())
    }

    pub(crate) async fn restart(&mut self) -> TestResult {
        self.process = spawn(self.port, &self.folder, &self.arguments)?;
        self.is_up().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn spawn(port: u16, folder: &TempDir, arguments: &[String]) -> Result<Child, Box<dyn Error>> {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder.path());
    Ok(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}
