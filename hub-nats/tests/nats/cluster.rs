//! A cluster of three servers, of which one fails.

use std::error::Error;
use std::time::Duration;

use bowline_hub::{HubEvent, Start};
use bowline_hub_testing::client::{Client, publish, until};
use bowline_hub_testing::process::free_port;
use bowline_hub_testing::{PATIENCE, TestResult};
use tokio::time::{sleep, timeout};

use crate::client::{builder, hub};
use crate::server::Server;

const SERVERS: usize = 3;

/// Starts the servers of a cluster. A majority of them keeps every message.
pub(crate) async fn start() -> Result<Option<Vec<Server>>, Box<dyn Error>> {
    start_with("").await
}

/// Starts a cluster with another setting.
pub(crate) async fn start_with(setting: &str) -> Result<Option<Vec<Server>>, Box<dyn Error>> {
    let ports: Vec<_> = (0..SERVERS).map(|_| free_port()).collect();
    let routes: Vec<_> = ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
    let mut servers = Vec::new();
    for (number, port) in ports.iter().enumerate() {
        let cluster = format!("name: test, listen: \"127.0.0.1:{port}\", routes: {routes:?}\n{setting}");
        let settings = format!("server_name: server{number}\ncluster {{ {cluster} }}");
        let Some(server) = Server::start(&settings).await? else { return Ok(None) };
        servers.push(server);
    }
    Ok(Some(servers))
}

/// Each node is connected to another server. One of these is killed, which may be the leader of the stream.
#[tokio::test]
async fn a_cluster_loses_nothing_when_one_server_is_killed() -> TestResult {
    let Some(mut servers) = start().await? else { return Ok(()) };
    let mut nodes = Vec::new();
    for server in &servers {
        nodes.push(hub(&server.url()).await?);
    }
    publish(&nodes[0], "chat/a", "0").await?;
    let info = servers[0].api("STREAM.INFO.bowline", "").await?;
    assert!(info.contains("\"num_replicas\":3"), "{info}");
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(Client::live(node, "chat/a").await?);
    }
    let mut number = 0;
    for killed in 0..SERVERS {
        let mut events = nodes[killed].events();
        servers[killed].kill()?;
        until(&mut events, |event| *event == HubEvent::Reconnected).await?;
        for node in &nodes {
            number += 1;
            // An acknowledgement may be lost with the leader. The key keeps the message from coming twice.
            while node.publish_once("chat/a", &number.to_string(), number.to_string()).await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
            for client in &mut clients {
                client.expect(&[&number.to_string()]).await?;
            }
        }
        servers[killed].restart().await?;
        wait_for_replicas(&servers[(killed + 1) % SERVERS]).await?;
    }
    assert_eq!(nodes.iter().map(|node| node.stats().lost).sum::<u64>(), 0);
    Ok(())
}

/// Waits until the servers have found each other: a stream can have three replicas.
pub(crate) async fn wait_for_servers(server: &Server) -> TestResult {
    let config = "{\"name\":\"probe\",\"subjects\":[\"probe\"],\"num_replicas\":3}";
    let found = async {
        loop {
            let created = timeout(Duration::from_secs(1), server.api("STREAM.CREATE.probe", config)).await;
            if matches!(created, Ok(Ok(answer)) if answer.contains("\"config\"")) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    Ok(timeout(PATIENCE, found).await.map_err(|_| "the servers do not find each other")?)
}

/// Waits until all replicas of the stream have everything.
pub(crate) async fn wait_for_replicas(server: &Server) -> TestResult {
    let current = async {
        loop {
            // A server that has just started does not answer.
            let info = timeout(Duration::from_secs(1), server.api("STREAM.INFO.bowline", "")).await;
            let info = info.ok().and_then(Result::ok).unwrap_or_default();
            if info.matches("\"current\":true").count() == SERVERS - 1 && info.contains("\"leader\"") {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    Ok(timeout(PATIENCE, current).await.map_err(|_| "a replica does not catch up")?)
}

#[tokio::test]
async fn one_address_is_enough_to_find_the_other_servers() -> TestResult {
    let Some(mut servers) = start().await? else { return Ok(()) };
    let node = hub(&servers[0].url()).await?;
    publish(&node, "chat/a", "0").await?;
    let mut client = Client::live(&node, "chat/a").await?;
    servers[0].kill()?;
    publish(&node, "chat/a", "1").await?;
    client.expect(&["1"]).await?;
    Ok(())
}

/// The leaf node does not pass on the requests to JetStream.
#[tokio::test]
async fn a_leaf_node_without_jetstream_carries_topics_without_history_only() -> TestResult {
    let port = free_port();
    let Some(server) = Server::start(&format!("leafnodes {{ listen: \"127.0.0.1:{port}\" }}")).await? else {
        return Ok(());
    };
    let remote = format!("remotes: [{{ url: \"nats://127.0.0.1:{port}\" }}]");
    let settings = format!("jetstream: false\nleafnodes {{ {remote} }}");
    let Some(leaf) = Server::start(&settings).await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&leaf.url()).await?);
    let mut client = Client::live(&here, "news").await?;
    let carried = async {
        // The leaf node may not be connected yet.
        while here.stats().delivered == 0 {
            publish(&there, "news", "1").await?;
            sleep(Duration::from_millis(20)).await;
        }
        TestResult::Ok(())
    };
    timeout(PATIENCE, carried).await??;
    client.expect(&["1"]).await?;
    let error = there.publish("chat/a", "1").await.unwrap_err();
    let cause = std::error::Error::source(&error).ok_or("no cause")?.to_string();
    assert!(cause.contains("JetStream is disabled"), "{cause}");
    here.publish("chat/a", "1").await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_with_one_replica_in_a_cluster_is_an_error() -> TestResult {
    let Some(servers) = start().await? else { return Ok(()) };
    let node = builder(&servers[0].url()).await?.build()?;
    publish(&node, "chat/a", "0").await?;
    let config = servers[0].api("STREAM.INFO.bowline", "").await?;
    let config = config.split_once("\"config\":").ok_or("no configuration")?.1;
    let config = config.split_once(",\"created\"").ok_or("no configuration")?.0;
    servers[0]
        .api("STREAM.UPDATE.bowline", &config.replace("\"num_replicas\":3", "\"num_replicas\":1"))
        .await?;
    let other = hub(&servers[1].url()).await?;
    let error = other.publish("chat/a", "1").await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("one replica"), "{error:?}");
    let client = Client::join(&other)?;
    assert!(!matches!(client.member.subscribe("chat/a", None).await, Ok(Start::Live(_))));
    Ok(())
}

/// A stream has forgotten a message that it had acknowledged. Nobody can tell from the messages around it.
#[tokio::test]
async fn an_acknowledged_message_that_vanishes_is_a_loss_that_is_told() -> TestResult {
    let Some(servers) = start().await? else { return Ok(()) };
    let (here, there) = (hub(&servers[0].url()).await?, hub(&servers[1].url()).await?);
    publish(&here, "chat/a", "0").await?;
    let since = here.publish("chat/a", "1").await?;
    let vanishing = here.publish("chat/a", "2").await?;
    here.publish("chat/a", "3").await?;
    here.publish("chat/b", "of another topic").await?;
    let mut other = Client::live(&there, "chat/b").await?;
    let deletion = format!("{{\"seq\":{}}}", vanishing.offset());
    let deleted = servers[0].api("STREAM.MSG.DELETE.bowline", &deletion).await?;
    assert!(deleted.contains("\"success\":true"), "{deleted}");
    let mut client = Client::live(&there, "chat/a").await?;
    client.expect(&["lost"]).await?;
    let late = Client::join(&there)?;
    assert!(matches!(late.member.subscribe("chat/a", Some(since)).await?, Start::Lost(_)));
    here.publish("chat/a", "4").await?;
    client.expect(&["4"]).await?;
    // Other topics are not concerned.
    here.publish("chat/b", "5").await?;
    other.expect(&["5"]).await?;
    Ok(())
}
