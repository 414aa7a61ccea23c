//! Nodes of the schedules of `chaos`: hubs of this process, and processes of their own.
//!
//! Both serve the same connections. The first message of a client is `subscribe` and a position, or
//! `publish`. A publisher then sends messages, and each is answered with its position, or with the word
//! `failed`.

use std::env::{current_exe, var};
use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bowline::{WebSocket, pair};
use bowline_hub::{Hub, HubLimits, Position, Rule, Start};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::support::server::TestResult;

const TOPIC: &str = "chat/a";
/// The number of messages in the history: more than a schedule publishes.
const WINDOW: usize = 100_000;
/// The text of messages that are published with a key begins so.
pub(crate) const ONCE: &str = "once";

const URL: &str = "BOWLINE_TEST_REDIS";

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

async fn hub(url: &str) -> Result<Hub, Box<dyn Error>> {
    let limits = HubLimits::default()
        .replay(u64::MAX)
        .message_size(256 * 1024)
        .engine_timeout(Duration::from_millis(300));
    Ok(Hub::builder(bowline_hub_redis::connect(url).await?)
        .workers(2)
        .rule("chat/", Rule::new().history(WINDOW, Duration::from_secs(300)))
        .limits(limits)
        .frame(|message| format!("message {} {}", message.position(), message.text().unwrap_or("?")).into())
        .lost(|_, now| format!("lost {now} ").into())
        .build()?)
}

/// Serves a client, or a publisher.
async fn serve(hub: Hub, mut socket: WebSocket) -> Outcome<()> {
    let first = socket.recv().await?.ok_or("no first message")?.into_text()?;
    let Some(since) = first.strip_prefix("subscribe ") else { return publish(hub, socket).await };
    let mut from = since.parse::<Position>().ok();
    let member = hub.join(socket.sender())?;
    loop {
        match member.subscribe(TOPIC, from).await? {
            Start::Live(position) if from.is_none() => {
                // The client ignores a late one.
                socket.send(format!("start {position} ")).await?;
                break;
            }
            Start::Live(_) => break,
            Start::Lost(now) => {
                socket.send(format!("lost {now} ")).await?;
                from = Some(now);
            }
        }
    }
    while socket.recv().await?.is_some() {}
    Ok(())
}

async fn publish(hub: Hub, mut socket: WebSocket) -> Outcome<()> {
    while let Some(message) = socket.recv().await? {
        let text = message.into_text()?;
        let published = match text.split_once(' ') {
            Some((key, _)) if key.starts_with(ONCE) => hub.publish_once(TOPIC, key, text.as_str()).await,
            _ => hub.publish(TOPIC, text).await,
        };
        let answer = published.map_or_else(|_| "failed".to_owned(), |position| position.to_string());
        socket.send(answer).await?;
    }
    Ok(())
}

/// A hub of this process. Its connections end with it.
pub(crate) struct LocalNode {
    hub: Hub,
    _alive: watch::Sender<()>,
    is_dropped: watch::Receiver<()>,
}

impl LocalNode {
    pub(crate) async fn start(url: &str) -> Result<Self, Box<dyn Error>> {
        let (alive, is_dropped) = watch::channel(());
        Ok(Self { hub: hub(url).await?, _alive: alive, is_dropped })
    }

    pub(crate) fn connect(&self) -> WebSocket {
        let (client, server) = pair();
        let (hub, mut is_dropped) = (self.hub.clone(), self.is_dropped.clone());
        tokio::spawn(async move {
            tokio::select! {
                // A client whose node fails comes back.
                _ = serve(hub, server) => {}
                _ = is_dropped.changed() => {}
            }
        });
        client
    }
}

/// A process of its own.
pub(crate) struct ProcessNode {
    process: Child,
    pub(crate) address: String,
}

impl ProcessNode {
    pub(crate) async fn start(url: &str) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(current_exe()?);
        command.args(["--ignored", "--exact", "--nocapture", "support::node::process"]).env(URL, url);
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut output = BufReader::new(process.stdout.take().ok_or("the process has no output")?);
        let address = spawn_blocking(move || {
            let mut line = String::new();
            while output.read_line(&mut line)? > 0 {
                if let Some((_, address)) = line.trim().split_once("listening on ") {
                    return Outcome::Ok(address.to_owned());
                }
                line.clear();
            }
            Err("the process listens nowhere".into())
        });
        let address = address.await?;
        let mut node = Self { process, address: String::new() };
        node.address = address.map_err(|error| error.to_string())?;
        Ok(node)
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: &str) -> TestResult {
        Command::new("kill").args([signal, &self.process.id().to_string()]).status()?;
        Ok(())
    }
}

impl Drop for ProcessNode {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves until the test that has started this process is gone, or kills it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the schedules run this one in a process of its own"]
async fn process() -> TestResult {
    let Ok(url) = var(URL) else { return Ok(()) };
    let hub = hub(&url).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    let serving = bowline::serve(listener, move |socket: WebSocket| serve(hub.clone(), socket));
    let orphaned = spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    tokio::select! {
        served = serving => drop(served?),
        _ = orphaned => {}
    }
    Ok(())
}
