//! Brokers and nodes in processes of their own.
//!
//! A node is a test of the same program, which is ignored and does nothing without its environment. It calls
//! [`announce`] when it is ready, and ends with [`orphaned`].

use std::env::current_exe;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
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
/// out, and another one for each broker of all test programs that run.
pub fn free_port() -> u16 {
    static BLOCKS: Mutex<Vec<PortBlock>> = Mutex::new(Vec::new());
    let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(port) = blocks.last_mut().and_then(PortBlock::next_free) {
            return port;
        }
        blocks.push(PortBlock::claim());
    }
}

/// Successive ports of this process, to which they belong while it listens at the first of them.
struct PortBlock {
    _first: TcpListener,
    ports: Range<u16>,
}

impl PortBlock {
    const COUNT: u16 = 220;
    const SIZE: u16 = 100;

    /// Claims a block that no other process has.
    fn claim() -> Self {
        let own = usize::try_from(std::process::id()).expect("a number of 32 bits fits");
        let blocks = (0..Self::COUNT).cycle().skip(own % usize::from(Self::COUNT));
        let claim = |number| {
            let start = 10_000 + number * Self::SIZE;
            let first = TcpListener::bind(("127.0.0.1", start)).ok()?;
            Some(Self { _first: first, ports: start + 1..start + Self::SIZE })
        };
        blocks.take(Self::COUNT.into()).find_map(claim).expect("fewer than 220 blocks are in use")
    }

    /// Returns the next port at which nobody listens.
    fn next_free(&mut self) -> Option<u16> {
        self.ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{PortBlock, free_port};

    /// Two programs may prefer the same block.
    #[test]
    fn a_block_of_ports_is_claimed_once() {
        let (one, other) = (PortBlock::claim(), PortBlock::claim());
        let ports: HashSet<_> = one.ports.chain(other.ports).collect();
        assert_eq!(ports.len(), 2 * usize::from(PortBlock::SIZE - 1));
    }

    #[test]
    fn each_port_is_handed_out_once() {
        let count = 2 * usize::from(PortBlock::SIZE) + 1;
        let ports: HashSet<_> = (0..count).map(|_| free_port()).collect();
        assert_eq!(ports.len(), count);
    }
}
