//! Topics divided among several servers.

use std::error::Error;

use bowline_hub::{ErrorKind, Hub, HubEvent, Start};
use bowline_hub_redis::connect_sharded;
use bowline_hub_testing::TestResult;
use bowline_hub_testing::client::{Client, builder_with_loss, publish, until};
use bowline_hub_testing::process::free_port;

use crate::support::server::{DURABLE, Server, VOLATILE};

async fn servers(count: usize) -> Result<Option<Vec<Server>>, Box<dyn Error>> {
    let mut servers = Vec::new();
    for _ in 0..count {
        let Some(server) = Server::start(DURABLE).await? else { return Ok(None) };
        servers.push(server);
    }
    Ok(Some(servers))
}

async fn hub(servers: &[Server]) -> Result<Hub, Box<dyn Error>> {
    Ok(builder_with_loss(connect_sharded(servers.iter().map(Server::url)).await?).build()?)
}

#[tokio::test]
async fn each_topic_is_on_one_server_and_all_nodes_agree_on_which() -> TestResult {
    let Some(servers) = servers(3).await? else { return Ok(()) };
    let (here, there) = (hub(&servers).await?, hub(&servers).await?);
    let mut keys = 0;
    for number in 0..30 {
        let topic = format!("chat/{number}");
        let mut client = Client::live(&here, &topic).await?;
        there.publish(&topic, "1").await?;
        client.expect(&["1"]).await?;
    }
    for server in &servers {
        // Besides heads and messages, there is the place of the server.
        let size = server.number(&["DBSIZE"]).await?;
        assert!((9..40).contains(&size), "{size} keys");
        keys += size - 1;
    }
    assert_eq!(keys, 2 * 30);
    Ok(())
}

#[tokio::test]
async fn the_failure_of_a_server_concerns_its_topics_only() -> TestResult {
    let Some(mut servers) = servers(2).await? else { return Ok(()) };
    let hub = hub(&servers).await?;
    let mut events = hub.events();
    let mut clients = Vec::new();
    for number in 0..8 {
        let topic = format!("chat/{number}");
        let mut client = Client::live(&hub, &topic).await?;
        hub.publish(&topic, "1").await?;
        client.expect(&["1"]).await?;
        clients.push((topic, client));
    }
    assert!(hub.is_healthy());
    servers[1].kill()?;
    let address = servers[1].address();
    let is_loss =
        |event: &HubEvent| matches!(event, HubEvent::PartDisconnected { part, .. } if *part == address);
    until(&mut events, is_loss).await?;
    assert!(!hub.is_healthy());

    let mut away = Vec::new();
    for (topic, client) in &mut clients {
        match hub.publish(topic, "2").await {
            Ok(_) => drop(client.expect(&["2"]).await?),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert!(error.to_string().contains(&address), "{error}");
                away.push(topic.clone());
            }
        }
    }
    assert!((1..8).contains(&away.len()), "{} topics are away", away.len());

    let gaps = hub.stats().gaps;
    servers[1].restart().await?;
    until(&mut events, |event| *event == HubEvent::PartReconnected { part: address.clone() }).await?;
    assert!(hub.is_healthy());
    for (topic, client) in &mut clients {
        publish(&hub, topic, "3").await?;
        client.expect(&["3"]).await?;
    }
    // Only the histories of this server were read again.
    assert_eq!(hub.stats().gaps - gaps, away.len() as u64);
    assert_eq!(hub.stats().lost, 0);
    Ok(())
}

/// Messages between nodes with different servers would go astray, without an error.
#[tokio::test]
async fn nodes_with_other_servers_are_refused() -> TestResult {
    let Some(servers) = servers(2).await? else { return Ok(()) };
    let _hub = hub(&servers).await?;
    let (one, two) = (servers[0].url(), servers[1].url());
    for urls in [vec![&two, &one], vec![&one], vec![&two]] {
        let error = connect_sharded(&urls).await.unwrap_err().to_string();
        assert!(error.contains("same order"), "{error}");
    }
    let error = connect_sharded([&one, &one]).await.unwrap_err().to_string();
    assert!(error.contains("named twice"), "{error}");
    let error = connect_sharded(<[&str; 0]>::default()).await.unwrap_err().to_string();
    assert!(error.contains("needs the URL"), "{error}");
    Ok(())
}

/// A server that comes back empty learns its place from the first node.
#[tokio::test]
async fn a_server_without_data_keeps_its_place() -> TestResult {
    let Some(mut server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let hub = builder_with_loss(connect_sharded([server.url()]).await?).build()?;
    let mut events = hub.events();
    server.kill()?;
    server.restart().await?;
    until(&mut events, |event| *event == HubEvent::Reconnected).await?;
    assert!(connect_sharded([server.url(), "redis://127.0.0.1:1".to_owned()]).await.is_err());
    let client = Client::join(&hub)?;
    assert!(matches!(client.member.subscribe("chat/a", None).await?, Start::Live(_)));
    Ok(())
}

#[tokio::test]
async fn a_cluster_is_refused() -> TestResult {
    let port = free_port().to_string();
    let arguments = ["--cluster-enabled", "yes", "--cluster-port", &port];
    let Some(server) = Server::start(&arguments).await? else { return Ok(()) };
    for prepare in [&["PING"][..], &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]] {
        server.command(prepare).await?;
        let error = connect_sharded([server.url()]).await.unwrap_err().to_string();
        assert!(error.contains("Redis Cluster is not supported"), "{error}");
    }
    Ok(())
}
