//! Topics over Redis: what works, and what becomes of each failure.

use std::error::Error;
use std::net::TcpListener;

use bowline_hub::{ErrorKind, Hub, HubBuilder, HubEvent, HubLimits, Position, Since, Start};
use bowline_hub_redis::Redis;
use bowline_hub_testing::client::{Client, builder_with_loss, publish, until};
use bowline_hub_testing::{PATIENCE, TestResult};
use tokio::task::JoinSet;

use crate::support::server::{DURABLE, SNAPSHOTS, Server, VOLATILE};

pub(crate) async fn builder(server: &Server) -> Result<HubBuilder<Redis>, Box<dyn Error>> {
    Ok(builder_with_loss(bowline_hub_redis::connect(&server.url()).await?))
}

/// Creates a hub that waits for as long as a test does, for a machine with much other work.
pub(crate) async fn patient(server: &Server) -> Result<Hub, Box<dyn Error>> {
    let limits = HubLimits::default().engine_timeout(PATIENCE);
    Ok(builder(server).await?.limits(limits).build()?)
}

pub(crate) async fn hub(server: &Server) -> Result<Hub, Box<dyn Error>> {
    Ok(builder(server).await?.build()?)
}

#[tokio::test]
async fn two_nodes_exchange_messages_with_and_without_history() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server).await?, hub(&server).await?);
    let mut client = Client::live(&here, "chat/a").await?;
    let mut other = Client::live(&there, "news").await?;
    let position = there.publish("chat/a", "1").await?;
    assert_eq!(client.expect(&["1"]).await?, position);
    here.publish("chat/a", "2").await?;
    client.expect(&["2"]).await?;
    assert_eq!(here.publish("news", "3").await?, Position::UNTRACKED);
    other.expect(&["3"]).await?;
    assert_eq!(here.stats().lost, 0);

    // After it has left, and the node does not want the topic any more.
    client.member.unsubscribe("chat/a").await;
    there.publish("chat/a", "4").await?;
    assert!(matches!(client.member.subscribe("chat/a", Some(position)).await?, Start::Live(_)));
    client.expect(&["2", "4"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_comes_back_on_another_node_receives_what_it_missed() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server).await?, hub(&server).await?);
    let since = here.publish("chat/a", "0").await?;
    for number in 1..=100 {
        here.publish("chat/a", number.to_string()).await?;
    }
    let mut client = Client::join(&there)?;
    assert!(matches!(client.member.subscribe("chat/a", Some(since)).await?, Start::Live(_)));
    for number in 1..=100 {
        client.expect(&[&number.to_string()]).await?;
    }
    // One message later, the history does not reach back.
    let top = here.publish("chat/a", "101").await?;
    let client = Client::join(&there)?;
    assert_eq!(client.member.subscribe("chat/a", Some(since)).await?, Start::Lost(top));
    let forged = Position::new(top.epoch(), top.offset(), top.tag() ^ 1);
    assert_eq!(client.member.subscribe("chat/a", Some(forged)).await?, Start::Lost(top));
    let forged = Position::new(top.epoch(), u64::MAX, top.tag());
    assert_eq!(client.member.subscribe("chat/a", Some(forged)).await?, Start::Lost(top));
    Ok(())
}

#[tokio::test]
async fn a_new_client_receives_the_last_messages() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server).await?, hub(&server).await?);
    for number in 1..=105 {
        here.publish("chat/a", number.to_string()).await?;
    }
    // The history begins with message 6.
    for (count, first) in [(2, 104), (0, 106), (1000, 6)] {
        let mut client = Client::join(&there)?;
        assert!(matches!(client.member.subscribe("chat/a", Since::Last(count)).await?, Start::Live(_)));
        for number in first..=105 {
            client.expect(&[&number.to_string()]).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_comes_back_with_its_data_loses_nothing() -> TestResult {
    let Some(mut server) = Server::start(DURABLE).await? else { return Ok(()) };
    let hub = hub(&server).await?;
    let mut events = hub.events();
    let mut client = Client::live(&hub, "chat/a").await?;
    publish(&hub, "chat/a", "1").await?;
    client.expect(&["1"]).await?;
    server.kill()?;
    until(&mut events, |event| matches!(event, HubEvent::Disconnected(_))).await?;
    assert!(!hub.is_healthy());
    let error = hub.publish("chat/a", "unsent").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = client.member.subscribe("chat/b", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    server.restart().await?;
    until(&mut events, |event| *event == HubEvent::Reconnected).await?;
    publish(&hub, "chat/a", "2").await?;
    client.expect(&["2"]).await?;
    assert_eq!(hub.stats().lost, 0);
    Ok(())
}

#[tokio::test]
async fn a_server_that_comes_back_without_its_data_is_a_loss_that_is_told_once() -> TestResult {
    let Some(mut server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let hub = hub(&server).await?;
    let mut client = Client::live(&hub, "chat/a").await?;
    publish(&hub, "chat/a", "1").await?;
    let since = client.expect(&["1"]).await?;
    server.kill()?;
    server.restart().await?;
    client.expect(&["lost"]).await?;
    publish(&hub, "chat/a", "2").await?;
    client.expect(&["2"]).await?;
    let other = Client::join(&hub)?;
    assert!(matches!(other.member.subscribe("chat/a", Some(since)).await?, Start::Lost(_)));
    Ok(())
}

/// Epoch and offsets are those of the snapshot, and go on from there. Only the tags differ.
#[tokio::test]
async fn a_server_that_comes_back_with_an_older_snapshot_is_a_loss_that_is_told() -> TestResult {
    let Some(mut server) = Server::start(SNAPSHOTS).await? else { return Ok(()) };
    let hub = hub(&server).await?;
    let mut client = Client::live(&hub, "chat/a").await?;
    for text in ["1", "2"] {
        publish(&hub, "chat/a", text).await?;
    }
    server.command(&["SAVE"]).await?;
    for text in ["3", "4"] {
        publish(&hub, "chat/a", text).await?;
    }
    let since = client.expect(&["1", "2", "3", "4"]).await?;
    server.kill()?;
    server.restart().await?;
    client.expect(&["lost"]).await?;
    for text in ["3 again", "4 again", "5"] {
        publish(&hub, "chat/a", text).await?;
    }
    let last = client.expect(&["3 again", "4 again", "5"]).await?;
    assert_eq!((last.epoch(), last.offset()), (since.epoch(), 5));
    let other = Client::join(&hub)?;
    assert!(matches!(other.member.subscribe("chat/a", Some(since)).await?, Start::Lost(_)));
    Ok(())
}

/// Many topics at once take few commands, and each of them works.
#[tokio::test]
async fn many_topics_are_wanted_at_once() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server).await?, hub(&server).await?);
    let mut clients = Vec::new();
    let mut joining = JoinSet::new();
    for number in 0..300 {
        let hub = here.clone();
        joining.spawn(async move {
            let topic = format!("chat/{number}");
            Client::live(&hub, &topic).await.map(|client| (client, topic)).map_err(|error| error.to_string())
        });
    }
    while let Some(joined) = joining.join_next().await {
        clients.push(joined??);
    }
    for (_, topic) in &clients {
        there.publish(topic, topic.as_str()).await?;
    }
    for (client, topic) in &mut clients {
        client.expect(&[topic]).await?;
    }
    Ok(())
}

/// Nothing tells the node that its server has stopped, apart from pings without an answer.
#[cfg(unix)]
#[tokio::test]
async fn a_server_that_falls_silent_is_noticed() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let hub = hub(&server).await?;
    let mut events = hub.events();
    let mut client = Client::live(&hub, "chat/a").await?;
    server.signal("-STOP")?;
    until(&mut events, |event| matches!(event, HubEvent::Disconnected(_))).await?;
    server.signal("-CONT")?;
    until(&mut events, |event| *event == HubEvent::Reconnected).await?;
    publish(&hub, "chat/a", "1").await?;
    client.expect(&["1"]).await?;
    assert_eq!(hub.stats().lost, 0);
    Ok(())
}

#[tokio::test]
async fn an_address_without_a_server_is_an_error() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(bowline_hub_redis::connect(&format!("redis://127.0.0.1:{port}")).await.is_err());
    assert!(bowline_hub_redis::connect("no URL").await.is_err());
}

/// Names of topics are text of any kind, and no two of them share a key or a channel.
#[tokio::test]
async fn topics_may_have_any_name() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (patient(&server).await?, patient(&server).await?);
    let long = "\u{1F980}".repeat(60);
    let names =
        ["a", "a:head", "a:messages", "a:messages:head", "{a}", "a\0", "a\r\n", " ", "*", "%s", &long];
    let mut clients = Vec::new();
    for name in names {
        clients.push(Client::live(&here, &format!("chat/{name}")).await?);
    }
    for (name, client) in names.iter().zip(&mut clients) {
        let topic = format!("chat/{name}");
        there.publish(&topic, "first").await?;
        there.publish_once(&topic, name, *name).await?;
        let first = client.expect(&["first"]).await?;
        assert_eq!((first.offset(), client.expect(&[name]).await?.offset()), (1, 2));
        let mut again = Client::join(&there)?;
        assert!(matches!(again.member.subscribe(&topic, first).await?, Start::Live(_)));
        again.expect(&[name]).await?;
    }
    assert_eq!(here.stats().lost + here.stats().gaps, 0);
    Ok(())
}
