//! Nodes of the schedules of `chaos`: hubs of this process, and processes of their own.
//!
//! Both serve the same connections. The first message of a client is `subscribe` and a position, or
//! `publish`. A publisher then sends messages, and each is answered with its position, or with the word
//! `failed`.

use std::env::var;
use std::error::Error;
use std::time::Duration;

use bowline::{WebSocket, pair};
use bowline_hub::{Hub, HubLimits, Rule};
use bowline_hub_testing::process::{NodeProcess, announce, orphaned};
use bowline_hub_testing::{Outcome, TestResult, notes};
use tokio::net::TcpListener;
use tokio::sync::watch;

const TOPIC: &str = "chat/a";
/// The number of messages in the history: more than a schedule publishes.
const WINDOW: usize = 100_000;
/// The text of messages that are published with a key begins so.
pub(crate) const ONCE: &str = "once";

const URL: &str = "BOWLINE_TEST_REDIS";

async fn hub(url: &str) -> Result<Hub, Box<dyn Error>> {
    let limits = HubLimits::default()
        .replay(u64::MAX)
        .message_size(256 * 1024)
        .engine_timeout(Duration::from_millis(300));
    let builder = Hub::builder(bowline_hub_redis::connect(url).await?);
    Ok(notes::tell(builder)
        .workers(2)
        .rule("chat/", Rule::new().history(WINDOW, Duration::from_secs(300)))
        .limits(limits)
        .build()?)
}

/// Serves a client, or a publisher.
async fn serve(hub: Hub, mut socket: WebSocket) -> Outcome<()> {
    let first = socket.recv().await?.ok_or("no first message")?.into_text()?;
    let Some(since) = first.strip_prefix("subscribe ") else { return publish(hub, socket).await };
    let member = hub.join(socket.sender())?;
    notes::subscribe(&member, &socket.sender(), TOPIC, since.parse().ok()).await?;
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

/// Starts a node in a process of its own, which announces its address.
pub(crate) async fn start_process(url: &str) -> Result<NodeProcess, Box<dyn Error>> {
    NodeProcess::start("support::node::process", &[(URL, url)]).await
}

/// Serves until the test that has started this process is gone, or kills it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the schedules run this one in a process of its own"]
async fn process() -> TestResult {
    let Ok(url) = var(URL) else { return Ok(()) };
    let hub = hub(&url).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&listener.local_addr()?.to_string());
    let serving = bowline::serve(listener, move |socket: WebSocket| serve(hub.clone(), socket));
    tokio::select! {
        served = serving => drop(served?),
        () = orphaned() => {}
    }
    Ok(())
}
