//! The measurement of how fast a node is back after its broker was restarted.
//!
//! The node has many topics, with a member in each. The broker is killed. While the node can't reach it, some
//! of the topics get a message: the broker runs at another port. Then the broker is back at its port, and
//! [`measure`] prints the time until all topics are live, and until each member has received what it missed.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline::pair;
use bowline_hub::{Engine, EngineError, Hub, HubEvent, HubLimits, Rule, Start};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Outcome;
use crate::process::free_port;

/// The number of topics of a member.
const TOPICS: usize = 100;
/// The number of calls at the same time.
const CALLS: usize = 256;

/// A broker that keeps its data. Dropping the value kills its process.
pub trait Broker: Sized {
    /// The engine for this broker.
    type Engine: Engine;

    /// Starts a broker on a port, with a folder for its data. Returns once it answers.
    fn start(port: u16, folder: &Path) -> impl Future<Output = Outcome<Self>>;

    /// Stops the broker after it has written its data.
    fn stop(self) -> impl Future<Output = ()>;

    /// Connects to the broker on a port.
    fn connect(port: u16) -> impl Future<Output = Result<Self::Engine, EngineError>>;
}

/// The numbers of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// The topics of the node.
    pub topics: usize,
    /// The topics that get a message.
    pub missed: usize,
}

impl Numbers {
    /// Reads the numbers from the arguments of the program.
    pub fn from_arguments(default: Self) -> Outcome<Self> {
        let mut arguments = std::env::args().skip(1).map(|number| number.parse::<usize>());
        let topics = arguments.next().unwrap_or(Ok(default.topics))?.next_multiple_of(TOPICS);
        let missed = arguments.next().unwrap_or(Ok(default.missed))?.min(topics);
        Ok(Self { topics, missed })
    }
}

/// Measures, and prints the results.
pub async fn measure<B: Broker>(Numbers { topics, missed }: Numbers) -> Outcome<()> {
    let folder = TempDir::new()?;
    let (port, other_port) = (free_port(), free_port());
    let server = B::start(port, folder.path()).await?;
    let node = hub::<B>(port).await?;
    let mut events = node.events();
    let (began, memory) = (Instant::now(), resident_memory());
    let _members = join_all(&node, topics).await?;
    println!("{topics} topics are live after {:.2?}", began.elapsed());
    if let (Some(before), Some(now)) = (memory, resident_memory()) {
        println!("each takes {} bytes, with its share of a member", now.saturating_sub(before) / topics);
    }

    drop(server);
    let server = B::start(other_port, folder.path()).await?;
    let other = hub::<B>(other_port).await?;
    publish_all(&other, missed).await?;
    drop(other);
    let delivered = node.stats().delivered;
    server.stop().await;

    let _server = B::start(port, folder.path()).await?;
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

async fn hub<B: Broker>(port: u16) -> Outcome<Hub> {
    let limits = HubLimits::default().topics_per_member(TOPICS).engine_timeout(Duration::from_secs(60));
    let rule = Rule::new().history(100, Duration::from_secs(3600));
    Ok(Hub::builder(B::connect(port).await?).rule("chat/", rule).limits(limits).build()?)
}

/// Publishes a message to each of so many topics.
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
        let (hub, calls) = (hub.clone(), Arc::clone(&calls));
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
