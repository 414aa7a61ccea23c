//! A real NATS, which the tests start, kill and start again.

use std::error::Error;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bowline_hub_testing::process::{self, free_port};
use bowline_hub_testing::{PATIENCE, TestResult};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A server in a folder of its own.
pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) port: u16,
    folder: TempDir,
}

impl Server {
    /// Starts a server with more lines for its configuration.
    pub(crate) async fn start(settings: &str) -> Result<Option<Self>, Box<dyn Error>> {
        if Command::new("nats-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: there is no nats-server on this machine");
            return Ok(None);
        }
        let port = free_port();
        let folder = TempDir::new()?;
        let store = folder.path().join("store");
        let jetstream =
            format!("jetstream {{ store_dir: \"{}\", max_mem: 256M, max_file: 1G }}", store.display());
        let settings = format!("listen: \"127.0.0.1:{port}\"\n{jetstream}\n{settings}\n");
        fs::write(folder.path().join("server.conf"), settings)?;
        let process = spawn(&folder)?;
        let server = Self { process, port, folder };
        server.is_up().await?;
        Ok(Some(server))
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the version of the server on this machine, without the last part.
    pub(crate) fn version() -> Option<(u32, u32)> {
        let output = Command::new("nats-server").arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let mut parts = text.trim().rsplit_once('v')?.1.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Waits for the greeting of the server.
    async fn is_up(&self) -> TestResult {
        let up = async {
            loop {
                if let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)).await {
                    let mut line = String::new();
                    if matches!(BufReader::new(stream).read_line(&mut line).await, Ok(size) if size > 0) {
                        return;
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        Ok(timeout(PATIENCE, up).await.map_err(|_| "the server does not start")?)
    }

    /// Publishes a request to the API of JetStream, and waits until the server has answered.
    pub(crate) async fn api(&self, name: &str, request: &str) -> Result<String, Box<dyn Error>> {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).await?);
        let publication = format!("PUB $JS.API.{name} answer {}\r\n{request}\r\n", request.len());
        let operations = format!("CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\n{publication}");
        stream.write_all(operations.as_bytes()).await?;
        answer(stream).await
    }

    /// Returns what the server has logged.
    pub(crate) fn log(&self) -> std::io::Result<String> {
        fs::read_to_string(self.folder.path().join("server.log"))
    }

    /// Publishes a message to a stream, on the condition that the last one on its subject has a number.
    /// Returns the answer of the server.
    pub(crate) async fn publish_after(
        &self,
        subject: &str,
        last: u64,
        payload: &str,
    ) -> Result<String, Box<dyn Error>> {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).await?);
        let head = format!("NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {last}\r\n\r\n");
        let (size, both) = (head.len(), head.len() + payload.len());
        let publication = format!("HPUB {subject} answer {size} {both}\r\n{head}{payload}\r\n");
        let operations =
            format!("CONNECT {{\"verbose\":false,\"headers\":true}}\r\nSUB answer 1\r\n{publication}");
        stream.write_all(operations.as_bytes()).await?;
        answer(stream).await
    }

    /// Counts the searches for the next message of a history from now on.
    pub(crate) async fn count_searches(&self) -> Result<Arc<AtomicUsize>, Box<dyn Error>> {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).await?);
        let subscription = "SUB $JS.API.STREAM.MSG.GET.bowline 1\r\nPING\r\n";
        stream.write_all(format!("CONNECT {{\"verbose\":false}}\r\n{subscription}").as_bytes()).await?;
        let (count, mut lines) = (Arc::<AtomicUsize>::default(), stream.lines());
        let counter = Arc::clone(&count);
        while lines.next_line().await?.ok_or("the end")? != "PONG" {}
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains("next_by_subj") {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(count)
    }

    /// Returns the number of the last message of presence on a subject.
    pub(crate) async fn last_of(&self, subject: &str) -> Result<u64, Box<dyn Error>> {
        let request = format!("{{\"last_by_subj\":\"{subject}\"}}");
        let answer = self.api("STREAM.MSG.GET.bowline-presence", &request).await?;
        let (_, rest) = answer.split_once("\"seq\":").ok_or("no number")?;
        Ok(rest.split(',').next().unwrap_or_default().parse()?)
    }

    /// Returns the folder of the data.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// Kills the server without any warning.
    pub(crate) fn kill(&mut self) -> TestResult {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    pub(crate) async fn restart(&mut self) -> TestResult {
        self.process = spawn(&self.folder)?;
        self.is_up().await
    }

    /// Stops the server with `-STOP`, or lets it continue with `-CONT`.
    pub(crate) fn signal(&self, signal: &str) -> TestResult {
        process::signal(&self.process, signal)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Reads up to the answer to a request.
async fn answer(stream: BufReader<TcpStream>) -> Result<String, Box<dyn Error>> {
    let answer = async {
        let mut lines = stream.lines();
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("MSG answer") {
                return Ok(lines.next_line().await?.unwrap_or_default());
            }
        }
        Err("no answer".into())
    };
    timeout(PATIENCE, answer).await?
}

fn spawn(folder: &TempDir) -> Result<Child, Box<dyn Error>> {
    let mut command = Command::new("nats-server");
    command.arg("-c").arg(folder.path().join("server.conf"));
    let log = folder.path().join("server.log");
    command.arg("-l").arg(&log);
    // A server that crashes says so there.
    let errors = File::options().create(true).append(true).open(&log)?;
    Ok(command.stdout(Stdio::null()).stderr(errors).spawn()?)
}
