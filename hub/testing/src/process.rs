//! Brokers and nodes in processes of their own.
//!
//! A node is a test of the same program, which is ignored and does nothing without its environment. It calls
//! [`announce`] when it is ready, and ends with [`orphaned`].

use std::env::current_exe;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::{PATIENCE, TestResult};

/// The beginning of the lines that a node announces.
const READY: &str = "the node says: ";

/// The process of a node. Dropping the value kills the process.
pub struct NodeProcess {
    process: Child,
    /// The text that the node has announced first.
    pub announced: String,
    announcements: mpsc::UnboundedReceiver<String>,
}

impl NodeProcess {
    /// Runs an ignored test of this program, such as `support::node::process`, with an environment. Returns
    /// once the node is ready.
    pub async fn start(test: &str, environment: &[(&str, &str)]) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(current_exe()?);
        command.args(["--ignored", "--exact", "--nocapture", test]).envs(environment.iter().copied());
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (sender, announcements) = mpsc::unbounded_channel();
        let mut node = Self { process, announced: String::new(), announcements };
        let output = BufReader::new(node.process.stdout.take().ok_or("the process has no output")?);
        // Ends with the process.
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, announced)) = line.split_once(READY) {
                    // A test that is over wants to know nothing more.
                    let _ = sender.send(announced.to_owned());
                }
            }
        });
        node.announced = node.hear().await?;
        Ok(node)
    }

    /// Waits for the next text that the node announces.
    pub async fn hear(&mut self) -> Result<String, Box<dyn Error>> {
        let announced = timeout(PATIENCE, self.announcements.recv()).await?;
        announced.ok_or_else(|| "the process has ended".into())
    }

    /// Writes a line, which the node reads from its standard input.
    pub fn tell(&mut self, line: &str) -> TestResult {
        Ok(writeln!(self.process.stdin.as_mut().ok_or("the process has no input")?, "{line}")?)
    }

    /// Sends a signal to the process, such as `-STOP`.
    pub fn signal(&self, name: &str) -> TestResult {
        signal(&self.process, name)
    }

    /// Kills the process without any warning.
    pub fn kill(&mut self) -> TestResult {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // A process that has ended is as good.
        let _ = self.kill();
    }
}

/// Tells the test that has started this process something. The first text says that the node is ready.
pub fn announce(text: &str) {
    println!("{READY}{text}");
}

/// Returns a receiver of the lines that the test writes, which ends with the test.
pub fn lines() -> mpsc::UnboundedReceiver<String> {
    let (sender, lines) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            // A node that ends reads nothing more.
            let _ = sender.send(line);
        }
    });
    lines
}

/// Waits until the test that has started this process is gone.
pub async fn orphaned() {
    let end = spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    // An error is the end, too.
    let _ = end.await;
}

/// Sends a signal to a process, such as `-STOP`.
pub fn signal(process: &Child, name: &str) -> TestResult {
    Command::new("kill").args([name, &process.id().to_string()]).status()?;
    Ok(())
}

/// Returns a port that nobody takes while a broker is down: not one of those that the operating system hands
/// out, and another one for each broker of this process.
pub fn free_port() -> u16 {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    let start = 10_000 + u16::try_from(std::process::id() % 220).expect("the number is small") * 100;
    loop {
        let port = start + COUNT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
