//! Positions of topics that nobody uses, and databases.

use std::time::Duration;

use bowline_hub::{Hub, Start};
use bowline_hub_redis::connect;
use bowline_hub_testing::TestResult;
use bowline_hub_testing::client::{Client, builder_with_loss, publish};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::server::{Server, VOLATILE};

const HEAD: &str = "bowline:chat/a:head";
const MESSAGES: &str = "bowline:chat/a:messages";

/// After the messages have expired, the position of the last one is still the top.
#[tokio::test]
async fn the_newest_position_outlives_the_messages() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let hub = builder_with_loss(connect(&server.url()).await?).build()?;
    let last = hub.publish("chat/a", "1").await?;
    let (age, week) = (300_000, 7 * 24 * 3600 * 1000);
    let left = server.number(&["PTTL", HEAD]).await?;
    assert!((week + age - 60_000..=week + age).contains(&left), "{left} ms");
    server.command(&["DEL", MESSAGES]).await?;
    // Not by the memory of a node.
    let other = builder_with_loss(connect(&server.url()).await?).build()?;
    let client = Client::join(&other)?;
    assert_eq!(client.member.subscribe("chat/a", Some(last)).await?, Start::Live(last));
    Ok(())
}

/// Without renewals, the members would be told of a loss by the next message.
#[tokio::test]
async fn a_topic_with_members_keeps_its_position() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let hub = builder_with_loss(connect(&server.url()).await?.keep_positions(Duration::from_millis(400)))
        .build()?;
    let mut client = Client::live(&hub, "chat/a").await?;
    publish(&hub, "chat/a", "1").await?;
    client.expect(&["1"]).await?;
    // As if the topic had been idle for long.
    server.command(&["PEXPIRE", HEAD, "300"]).await?;
    while server.number(&["PTTL", HEAD]).await? <= 300 {
        assert_eq!(server.number(&["EXISTS", HEAD]).await?, 1, "the head was not renewed");
        sleep(Duration::from_millis(10)).await;
    }
    publish(&hub, "chat/a", "2").await?;
    client.expect(&["2"]).await?;
    assert_eq!(hub.stats().lost, 0);
    Ok(())
}

/// The bound: afterwards, Redis knows nothing of the topic.
#[tokio::test]
async fn a_topic_that_is_idle_for_longer_is_forgotten() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let hub = builder_with_loss(connect(&server.url()).await?).build()?;
    let last = hub.publish("chat/a", "1").await?;
    server.command(&["PEXPIRE", HEAD, "1"]).await?;
    sleep(Duration::from_millis(20)).await;
    let client = Client::join(&hub)?;
    assert!(matches!(client.member.subscribe("chat/a", Some(last)).await?, Start::Lost(_)));
    Ok(())
}

#[tokio::test]
async fn an_invalid_time_is_an_error_that_names_the_setting() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    for time in [Duration::ZERO, Duration::from_secs(367 * 24 * 3600)] {
        let error = Hub::builder(connect(&server.url()).await?.keep_positions(time)).build().unwrap_err();
        assert!(error.to_string().contains("Redis::keep_positions"), "{error}");
    }
    Ok(())
}

/// In Redis, all databases have the same channels.
#[tokio::test]
async fn the_hubs_of_two_databases_are_strangers() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (one, two) = (
        builder_with_loss(connect(&server.url()).await?),
        builder_with_loss(connect(&server.database(3)).await?),
    );
    let (one, two) = (one.build()?, two.build()?);
    let (mut here, mut there) = (Client::live(&one, "chat/a").await?, Client::live(&two, "chat/a").await?);
    let (mut news, mut other_news) = (Client::live(&one, "news").await?, Client::live(&two, "news").await?);
    for (hub, text) in [(&one, "one"), (&two, "two")] {
        publish(hub, "chat/a", text).await?;
        hub.publish("news", text).await?;
    }
    here.expect(&["one"]).await?;
    there.expect(&["two"]).await?;
    news.expect(&["one"]).await?;
    other_news.expect(&["two"]).await?;
    assert_eq!((one.stats().gaps, two.stats().gaps), (0, 0));
    Ok(())
}

/// The permissions that the documentation of the crate names are enough.
#[tokio::test]
async fn a_user_with_the_documented_permissions_is_enough() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let docs = include_str!("../../src/lib.rs");
    let start = docs.find("ACL SETUSER").ok_or("the documentation names no permissions")?;
    let end = start + docs[start..].find("```").ok_or("the example doesn't end")?;
    let words: Vec<_> = docs[start..end].split_whitespace().filter(|word| *word != "//!").collect();
    server.command(&words).await?;
    let url = format!("redis://hub:password@{}", server.address());
    let hub = builder_with_loss(connect(&url).await?.keep_positions(Duration::from_millis(100))).build()?;
    let mut client = Client::live(&hub, "chat/a").await?;
    publish(&hub, "chat/a", "1").await?;
    hub.publish_once("chat/a", "key", "2").await?;
    let since = client.expect(&["1", "2"]).await?;
    let other = Client::join(&hub)?;
    assert!(matches!(other.member.subscribe("chat/a", Some(since)).await?, Start::Live(_)));
    other.member.unsubscribe("chat/a").await;
    let mut news = Client::live(&hub, "news").await?;
    hub.publish("news", "3").await?;
    news.expect(&["3"]).await?;
    // The head is renewed, too.
    server.command(&["PEXPIRE", HEAD, "300"]).await?;
    while server.number(&["PTTL", HEAD]).await? <= 300 {
        assert_eq!(server.number(&["EXISTS", HEAD]).await?, 1, "the head was not renewed");
        sleep(Duration::from_millis(10)).await;
    }

    let wrong = format!("redis://hub:wrong@{}", server.address());
    assert!(connect(&wrong).await.is_err());
    Ok(())
}

/// Redis refuses a whole command because of one channel. The other topics in it are not concerned.
#[tokio::test]
async fn a_channel_that_is_forbidden_concerns_no_other_topic() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let rules = ["ACL", "SETUSER", "hub", "on", ">password", "~*", "+@all", "&bowline:chat/*"];
    server.command(&rules).await?;
    let url = format!("redis://hub:password@{}", server.address());
    let hub = builder_with_loss(connect(&url).await?).build()?;
    let mut joining = JoinSet::new();
    for number in 0..20 {
        let (hub, topic) = (hub.clone(), format!("{}/{number}", ["chat", "secret"][number % 2]));
        joining.spawn(async move {
            let live = Client::live(&hub, &topic).await;
            (topic, live.map_err(|error| error.to_string()))
        });
    }
    while let Some(joined) = joining.join_next().await {
        let (topic, live) = joined?;
        match live {
            Ok(_) => assert!(topic.starts_with("chat/"), "{topic} is allowed"),
            Err(error) => assert!(topic.starts_with("secret/"), "{topic}: {error}"),
        }
    }
    Ok(())
}

#[cfg(unix)]
#[tokio::test]
async fn a_server_on_the_same_machine_is_reached_by_its_socket() -> TestResult {
    let folder = TempDir::new()?;
    let socket = folder.path().join("redis.sock").to_str().ok_or("the path is no text")?.to_owned();
    let Some(_server) = Server::start(&["--unixsocket", &socket]).await? else { return Ok(()) };
    let hub = builder_with_loss(connect(&format!("redis+unix://{socket}?db=3")).await?).build()?;
    let mut client = Client::live(&hub, "chat/a").await?;
    publish(&hub, "chat/a", "1").await?;
    client.expect(&["1"]).await?;
    Ok(())
}
