//! Measures how fast a node is back after its NATS was restarted.
//!
//! ```sh
//! cargo run --release -p bowline-hub-nats --example restore -- 100000 1000
//! ```
//!
//! The node has so many topics, with a member in each. NATS is killed. While the node can't reach it, so many
//! of the topics get a message: NATS runs at another port. Then NATS is back at its port, and the program
//! measures the time until all topics are live, and until each member has received what it missed.

use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline::pair;
use bowline_hub::{Hub, HubEvent, HubLimits, Rule, Start};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The number of topics of a member.
const TOPICS: usize = 100;
/// The number of calls at the same time.
const CALLS: usize = 256;
const PORT: u16 = 18_222;
const OTHER_PORT: u16 = 18_223;

/// A NATS that keeps its data.
struct Server(Child);

impl Server {
    async fn start(port: u16, folder: &TempDir) -> Outcome<Self> {
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"]).arg(folder.path());
        let server = Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        while !is_up(port).await {
            sleep(Duration::from_millis(5)).await;
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns `true` once the server greets its clients.
async fn is_up(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    stream.read_u8().await.is_ok()
}

async fn hub(port: u16) -> Outcome<Hub> {
    let engine = bowline_hub_nats::connect(&format!("nats://127.0.0.1:{port}")).await?;
    let limits = HubLimits::default().topics_per_member(TOPICS).engine_timeout(Duration::from_secs(60));
    let rule = Rule::new().history(100, Duration::from_secs(3600));
    Ok(Hub::builder(engine).rule("chat/", rule).limits(limits).build()?)
}

/// Publishes a message to each topic.
async fn publish_all(hub: &Hub, topics: usize) -> Outcome<()> {
    let (calls, mut tasks) = (Arc::new(Semaphore::new(CALLS)), JoinSet::new());
    for topic in 0..topics {
        let (hub, permit) = (hub.clone(), Arc::clone(&calls).acquire_owned().await?);
        tasks.spawn(async move {
            let published = hub.publish(&format!("chat/{topic}"), "a message").await;
            drop(permit);
            published.map(drop)
        });
        while let Some(published) = tasks.try_join_next() {
            published??;
        }
    }
    while let Some(published) = tasks.join_next().await {
        published??;
    }
    Ok(())
}

/// Joins members, each of which drops what it receives.
async fn join_all(hub: &Hub, topics: usize) -> Outcome<JoinSet<Outcome<()>>> {
    let (calls, mut members) = (Arc::new(Semaphore::new(16)), JoinSet::new());
    for number in 0..topics / TOPICS {
        let hub = hub.clone();
        let calls = Arc::clone(&calls);
        members.spawn(async move {
            let (mut client, server) = pair();
            let member = hub.join(server.sender())?;
            let permit = calls.acquire_owned().await?;
            for topic in number * TOPICS..(number + 1) * TOPICS {
                let start = member.subscribe(&format!("chat/{topic}"), None).await?;
                if let Start::Lost(_) = start {
                    return Err("a new member has lost messages".into());
                }
            }
            drop(permit);
            while client.recv().await?.is_some() {}
            Ok(())
        });
    }
    while hub.stats().subscriptions < topics as u64 {
        sleep(Duration::from_millis(20)).await;
    }
    Ok(members)
}

/// Returns the bytes of memory that this process has, on Linux.
fn resident_memory() -> Option<usize> {
    let pages: usize = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<usize>());
    let topics = numbers.next().unwrap_or(Ok(100_000))?.next_multiple_of(TOPICS);
    let missed = numbers.next().unwrap_or(Ok(1000))?.min(topics);
    let folder = TempDir::new()?;
    let server = Server::start(PORT, &folder).await?;
    let node = hub(PORT).await?;
    let mut events = node.events();
    let (began, memory) = (Instant::now(), resident_memory());
    let _members = join_all(&node, topics).await?;
    println!("{topics} topics are live after {:.2?}", began.elapsed());
    if let (Some(before), Some(now)) = (memory, resident_memory()) {
        println!("each takes {} bytes, with its share of a member", now.saturating_sub(before) / topics);
    }

    drop(server);
    let server = Server::start(OTHER_PORT, &folder).await?;
    let other = hub(OTHER_PORT).await?;
    publish_all(&other, missed).await?;
    drop(other);
    let delivered = node.stats().delivered;
    drop(server);

    let _server = Server::start(PORT, &folder).await?;
    let began = Instant::now();
    while events.recv().await != Some(HubEvent::Reconnected) {}
    println!("after the restart, all topics are live after {:.2?}", began.elapsed());
    while node.stats().delivered < delivered + missed as u64 {
        sleep(Duration::from_millis(5)).await;
    }
    println!("each member has received what it missed after {:.2?}", began.elapsed());
    println!("{:?}", node.stats());
    Ok(())
}
