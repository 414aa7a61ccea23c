//! Brokers and nodes in processes of their own.
//!
//! A node is a test of the same program, which is ignored and does nothing without its environment. It calls
//! [`announce`] when it is ready, and ends with [`orphaned`].

use std::env::current_exe;
use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::task::spawn_blocking;

use crate::{Outcome, TestResult};

/// The beginning of the line that says that a node is ready.
const READY: &str = "the node is ready: ";

/// The process of a node. Dropping the value kills the process.
pub struct NodeProcess {
    process: Child,
    /// The text that the node has announced.
    pub announced: String,
}

impl NodeProcess {
    /// Runs an ignored test of this program, such as `support::node::process`, with an environment. Returns
    /// once the node is ready.
    pub async fn start(test: &str, environment: &[(&str, &str)]) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(current_exe()?);
        command.args(["--ignored", "--exact", "--nocapture", test]).envs(environment.iter().copied());
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut node = Self { process, announced: String::new() };
        let output = BufReader::new(node.process.stdout.take().ok_or("the process has no output")?);
        let announced = spawn_blocking(|| {
            for line in output.lines() {
                if let Some((_, announced)) = line?.split_once(READY) {
                    return Outcome::Ok(announced.to_owned());
                }
            }
            Err("the process has ended".into())
        });
        node.announced = announced.await?.map_err(|error| error.to_string())?;
        Ok(node)
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

/// Tells the test that has started this process that the node is ready.
pub fn announce(text: &str) {
    println!("{READY}{text}");
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
