//! The failures, and all that they befall: a Redis, nodes, and the connections between them.

use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bowline::WebSocket;
use bowline_hub_testing::process::NodeProcess;
use bowline_hub_testing::proxy::{Line, Proxy};
use bowline_hub_testing::random::Random;
use tokio::time::{sleep, timeout};

use crate::support::node::{LocalNode, start_process};
use crate::support::server::{DURABLE, SNAPSHOTS, Server, VOLATILE};

const LOCAL_NODES: usize = 2;
const NODES: usize = LOCAL_NODES + 1;

/// The data after a restart of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Kept,
    Saved,
    Forgotten,
}

/// A failure. Times are in milliseconds.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    KillServer {
        away: u64,
    },
    StopServer {
        time: u64,
    },
    Line {
        node: usize,
        line: Line,
        time: u64,
        then: Line,
    },
    /// Of the kind that `CLIENT KILL TYPE` knows.
    KillClients(&'static str),
    /// A command that changes the data.
    Data(&'static [&'static str]),
    /// A setting, its value, and its default.
    Config {
        name: &'static str,
        value: &'static str,
        default: &'static str,
        time: u64,
    },
    DropNode(usize),
    KillProcess,
    StopProcess {
        time: u64,
    },
}

impl Event {
    pub(crate) fn random(random: &mut Random, data: Data) -> Self {
        const LINES: [Line; 4] = [Line::Cut, Line::Stalled, Line::StalledToServer, Line::StalledToClient];
        let time = random.below(150);
        match random.below(14) {
            0 | 1 => Self::KillServer { away: time },
            2 => Self::StopServer { time },
            3..=5 => {
                let then = if random.permille(500) { Line::Open } else { Line::Cut };
                Self::Line { node: random.index(NODES), line: LINES[random.index(4)], time, then }
            }
            6 => Self::KillClients(["normal", "pubsub"][random.index(2)]),
            7 => {
                let (name, value, default) = [
                    ("maxmemory", "1", "0"),
                    ("min-replicas-to-write", "1", "0"),
                    ("client-output-buffer-limit", "pubsub 1 1 0", "pubsub 33554432 8388608 60"),
                ][random.index(3)];
                Self::Config { name, value, default, time }
            }
            8 => Self::DropNode(random.index(LOCAL_NODES)),
            9 => Self::KillProcess,
            10 => Self::StopProcess { time },
            11 => Self::Data(&["SCRIPT", "FLUSH"]),
            _ if data == Data::Kept => Self::Data(&["BGREWRITEAOF"]),
            12 => Self::Data(&["SAVE"]),
            _ => Self::Data(
                [&["FLUSHALL"][..], &["DEL", "bowline:chat/a:messages"], &["DEL", "bowline:chat/a:head"]]
                    [random.index(3)],
            ),
        }
    }
}

/// The nodes as clients know them. One that is being replaced is `None`.
#[derive(Default)]
pub(crate) struct Nodes {
    local: [Mutex<Option<LocalNode>>; LOCAL_NODES],
    process: Mutex<Option<String>>,
}

impl Nodes {
    pub(crate) async fn connect(&self, random: &mut Random) -> Option<WebSocket> {
        let index = random.index(NODES);
        if let Some(node) = self.local.get(index) {
            return node.lock().unwrap().as_ref().map(LocalNode::connect);
        }
        let address = self.process.lock().unwrap().clone()?;
        timeout(Duration::from_secs(1), bowline::connect(format!("ws://{address}"))).await.ok()?.ok()
    }
}

/// Everything that a schedule changes.
pub(crate) struct World {
    server: Server,
    proxies: Vec<Proxy>,
    pub(crate) nodes: Arc<Nodes>,
    process: Option<NodeProcess>,
}

impl World {
    pub(crate) async fn start(data: Data) -> Result<Option<Self>, Box<dyn Error>> {
        let persistence = match data {
            Data::Kept => DURABLE,
            Data::Saved => SNAPSHOTS,
            Data::Forgotten => VOLATILE,
        };
        let Some(server) = Server::start(persistence).await? else { return Ok(None) };
        let mut proxies = Vec::new();
        for _ in 0..NODES {
            proxies.push(Proxy::start(server.address()).await?);
        }
        let mut world = Self { server, proxies, nodes: Arc::default(), process: None };
        world.repair().await;
        Ok(Some(world))
    }

    pub(crate) async fn happen(&mut self, event: &Event) -> Result<(), Box<dyn Error>> {
        let wait = |time| sleep(Duration::from_millis(time));
        match *event {
            Event::KillServer { away } => {
                self.server.kill()?;
                wait(away).await;
                self.server.restart().await?;
            }
            Event::StopServer { time } => {
                self.server.signal("-STOP")?;
                wait(time).await;
                self.server.signal("-CONT")?;
            }
            Event::Line { node, line, time, then } => {
                self.proxies[node].set(line);
                wait(time).await;
                self.proxies[node].set(then);
                if then == Line::Cut {
                    wait(time).await;
                    self.proxies[node].set(Line::Open);
                }
            }
            Event::KillClients(kind) => self.command(&["CLIENT", "KILL", "TYPE", kind]).await,
            Event::Data(command) => self.command(command).await,
            Event::Config { name, value, default, time } => {
                self.command(&["CONFIG", "SET", name, value]).await;
                wait(time).await;
                // A machine that is busy may take longer than the connection waits.
                while self.server.command(&["CONFIG", "SET", name, default]).await.is_err() {}
            }
            Event::DropNode(node) => drop(self.nodes.local[node].lock().unwrap().take()),
            Event::KillProcess => {
                self.nodes.process.lock().unwrap().take();
                self.process = None;
            }
            Event::StopProcess { time } => {
                if let Some(process) = &self.process {
                    process.signal("-STOP")?;
                    wait(time).await;
                    process.signal("-CONT")?;
                }
            }
        }
        Ok(())
    }

    /// Runs a command on a connection of its own. The command may end this connection, too.
    async fn command(&self, words: &[&str]) {
        let _ = self.server.command(words).await;
    }

    /// Replaces the nodes that are gone.
    pub(crate) async fn repair(&mut self) {
        for (node, proxy) in self.nodes.local.iter().zip(&self.proxies) {
            while node.lock().unwrap().is_none() {
                let started = LocalNode::start(&proxy.url("redis")).await.ok();
                *node.lock().unwrap() = started;
            }
        }
        while self.process.is_none() {
            self.process = start_process(&self.proxies[LOCAL_NODES].url("redis")).await.ok();
        }
        *self.nodes.process.lock().unwrap() = self.process.as_ref().map(|process| process.announced.clone());
    }
}
