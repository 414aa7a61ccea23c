//! Failover: a replica takes over, and writes are missing there.

use std::error::Error;
use std::time::Duration;

use bowline_hub::{Hub, HubEvent, Position, Start};
use bowline_hub_redis::connect;
use bowline_hub_testing::client::{Client, builder_with_loss, publish, until};
use bowline_hub_testing::proxy::{Line, Proxy};
use bowline_hub_testing::{PATIENCE, TestResult};
use tokio::time::{sleep, timeout};

use crate::support::server::{Server, VOLATILE};

/// A primary with a replica, and an address that follows the primary, as a proxy or a platform provides.
struct Pair {
    primary: Server,
    replica: Server,
    address: Proxy,
}

impl Pair {
    async fn start() -> Result<Option<Self>, Box<dyn Error>> {
        let at_once = ["--repl-diskless-sync-delay", "0"];
        let Some(primary) = Server::start(&[VOLATILE, &at_once].concat()).await? else { return Ok(None) };
        let Some(replica) = Server::start(VOLATILE).await? else { return Ok(None) };
        let (host, port) = split(&primary.address());
        replica.command(&["REPLICAOF", &host, &port]).await?;
        let address = Proxy::start(primary.address()).await?;
        let pair = Self { primary, replica, address };
        pair.is_level().await?;
        Ok(Some(pair))
    }

    /// Waits until the replica has everything.
    async fn is_level(&self) -> TestResult {
        let now = self.primary.number(&["INCR", "level"]).await?;
        let level = async {
            while self.replica.number(&["GET", "level"]).await.unwrap_or_default() < now {
                sleep(Duration::from_millis(10)).await;
            }
        };
        Ok(timeout(PATIENCE, level).await?)
    }

    /// Cuts the replica off, which then misses all further writes.
    async fn cut_replica(&self) -> TestResult {
        Ok(self.replica.command(&["REPLICAOF", "NO", "ONE"]).await?)
    }

    /// Kills the primary, and leads its clients to the replica.
    fn fail_over(&mut self) -> TestResult {
        self.primary.kill()?;
        self.address.lead_to(self.replica.address());
        self.address.set(Line::Cut);
        self.address.set(Line::Open);
        Ok(())
    }

    async fn hub(&self) -> Result<Hub, Box<dyn Error>> {
        Ok(builder_with_loss(connect(&self.address.url("redis")).await?).build()?)
    }
}

#[tokio::test]
async fn a_replica_that_has_everything_takes_over_without_a_loss() -> TestResult {
    let Some(mut pair) = Pair::start().await? else { return Ok(()) };
    let hub = pair.hub().await?;
    let mut events = hub.events();
    let mut client = Client::live(&hub, "chat/a").await?;
    publish(&hub, "chat/a", "1").await?;
    publish(&hub, "chat/a", "2").await?;
    let since = client.expect(&["1", "2"]).await?;
    pair.is_level().await?;
    pair.cut_replica().await?;
    pair.fail_over()?;
    until(&mut events, |event| *event == HubEvent::Reconnected).await?;
    publish(&hub, "chat/a", "3").await?;
    let next = client.expect(&["3"]).await?;
    assert_eq!((next.epoch(), next.offset()), (since.epoch(), 3));
    assert_eq!(hub.stats().lost, 0);
    Ok(())
}

/// Epoch and offsets go on as if nothing had happened. Only the tags tell that messages are missing.
#[tokio::test]
async fn a_replica_that_lacks_messages_is_a_loss_that_is_told() -> TestResult {
    let Some(mut pair) = Pair::start().await? else { return Ok(()) };
    let hub = pair.hub().await?;
    let mut client = Client::live(&hub, "chat/a").await?;
    publish(&hub, "chat/a", "1").await?;
    let old = client.expect(&["1"]).await?;
    pair.is_level().await?;
    pair.cut_replica().await?;
    publish(&hub, "chat/a", "2").await?;
    publish(&hub, "chat/a", "3").await?;
    let newest = client.expect(&["2", "3"]).await?;
    pair.fail_over()?;
    // Those who are live are told, once.
    client.expect(&["lost"]).await?;
    for text in ["2 again", "3 again", "4"] {
        publish(&hub, "chat/a", text).await?;
    }
    let last = client.expect(&["2 again", "3 again", "4"]).await?;
    assert_eq!((last.epoch(), last.offset()), (newest.epoch(), 4));

    // Those who come back are told if they have seen what is missing, and only then.
    let returning = Client::join(&hub)?;
    assert_eq!(returning.member.subscribe("chat/a", Some(newest)).await?, Start::Lost(last));
    let mut other = Client::join(&hub)?;
    assert_eq!(other.member.subscribe("chat/a", Some(old)).await?, Start::Live(last));
    other.expect(&["2 again", "3 again", "4"]).await?;
    Ok(())
}

/// A replica that is not promoted takes no messages, and a node says so.
#[tokio::test]
async fn a_replica_that_is_not_promoted_is_an_error() -> TestResult {
    let Some(mut pair) = Pair::start().await? else { return Ok(()) };
    let hub = pair.hub().await?;
    let mut client = Client::live(&hub, "chat/a").await?;
    pair.is_level().await?;
    pair.primary.kill()?;
    pair.address.lead_to(pair.replica.address());
    while hub.is_healthy() {
        sleep(Duration::from_millis(10)).await;
    }
    let error = hub.publish("chat/a", "1").await.unwrap_err();
    assert_eq!(error.kind(), bowline_hub::ErrorKind::Unavailable);
    pair.cut_replica().await?;
    publish(&hub, "chat/a", "2").await?;
    assert_ne!(client.expect(&["2"]).await?, Position::UNTRACKED);
    Ok(())
}

/// The connections to it stay open, and it still pushes messages.
#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_noticed() -> TestResult {
    let Some(pair) = Pair::start().await? else { return Ok(()) };
    let hub = pair.hub().await?;
    let mut events = hub.events();
    let mut client = Client::live(&hub, "chat/a").await?;
    publish(&hub, "chat/a", "1").await?;
    client.expect(&["1"]).await?;
    pair.is_level().await?;
    pair.cut_replica().await?;
    pair.address.lead_to(pair.replica.address());
    let (host, port) = split(&pair.replica.address());
    pair.primary.command(&["REPLICAOF", &host, &port]).await?;
    let is_noticed =
        |event: &HubEvent| matches!(event, HubEvent::Disconnected(why) if why.contains("read only replica"));
    until(&mut events, is_noticed).await?;
    publish(&hub, "chat/a", "2").await?;
    client.expect(&["2"]).await?;
    assert_eq!(hub.stats().lost, 0);
    Ok(())
}

/// Returns host and port.
fn split(address: &str) -> (String, String) {
    let (host, port) = address.split_once(':').expect("an address has a port");
    (host.to_owned(), port.to_owned())
}
