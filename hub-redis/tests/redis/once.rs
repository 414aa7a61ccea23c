//! Messages that are published once over a real Redis.

use std::time::Duration;

use bowline_hub::{ErrorKind, Hub, HubLimits};
use bowline_hub_testing::TestResult;
use bowline_hub_testing::client::{Client, publish};

use crate::support::server::{Server, VOLATILE};
use crate::topics::{builder, hub, patient};

#[tokio::test]
async fn a_message_with_a_known_key_is_stored_and_delivered_once() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server).await?, hub(&server).await?);
    let mut client = Client::live(&here, "chat/a").await?;
    let first = here.publish_once("chat/a", "key", "1").await?;
    assert_eq!(there.publish_once("chat/a", "key", "1").await?, first);
    let second = there.publish_once("chat/a", "other key", "2").await?;
    assert_eq!(here.publish_once("chat/a", "other key", "2").await?, second);
    assert_eq!(here.publish_once("chat/a", "key", "1").await?, first);
    publish(&here, "chat/a", "3").await?;
    assert_eq!(client.expect(&["1", "2", "3"]).await?.offset(), 3);

    // A lost history takes its keys along.
    server.command(&["DEL", "bowline:chat/a:head"]).await?;
    assert_eq!(here.publish_once("chat/a", "key", "1").await?.offset(), 1);
    client.expect(&["lost"]).await?;
    Ok(())
}

#[tokio::test]
async fn redis_keeps_a_bounded_number_of_keys_for_a_bounded_time() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let hub = hub(&server).await?;
    for number in 0..=1000 {
        hub.publish_once("chat/a", &number.to_string(), "text").await?;
    }
    for (size, key) in [("HLEN", "bowline:chat/a:keys"), ("LLEN", "bowline:chat/a:order")] {
        assert_eq!(server.number(&[size, key]).await?, 1000);
        assert!((1..=120_000).contains(&server.number(&["PTTL", key]).await?));
    }
    assert_eq!(hub.publish_once("chat/a", "1", "text").await?.offset(), 2);
    assert_eq!(hub.publish_once("chat/a", "0", "text").await?.offset(), 1002);
    Ok(())
}

/// A server that evicts keys may remove the list of the keys of messages, by which the oldest is found.
#[tokio::test]
async fn keys_stay_bounded_without_their_order() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let hub = patient(&server).await?;
    for number in 0..10 {
        hub.publish_once("chat/a", &number.to_string(), "text").await?;
    }
    server.command(&["DEL", "bowline:chat/a:order"]).await?;
    for number in 10..1020 {
        hub.publish_once("chat/a", &number.to_string(), "text").await?;
    }
    assert_eq!(server.number(&["HLEN", "bowline:chat/a:keys"]).await?, 1000);
    assert_eq!(hub.publish_once("chat/a", "1019", "text").await?.offset(), 1020);
    Ok(())
}

/// The server reads the command after the publisher has given up.
#[cfg(unix)]
#[tokio::test]
async fn a_publish_that_timed_out_can_be_repeated() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let limits = HubLimits::default().engine_timeout(Duration::from_millis(200));
    let impatient: Hub = builder(&server).await?.limits(limits).build()?;
    let other = hub(&server).await?;
    let mut client = Client::live(&other, "chat/a").await?;
    // The scripts are known to the server from now on.
    publish(&impatient, "chat/a", "0").await?;
    server.signal("-STOP")?;
    let error = impatient.publish_once("chat/a", "key", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    server.signal("-CONT")?;
    let mut position = impatient.publish_once("chat/a", "key", "1").await;
    while position.is_err() {
        position = impatient.publish_once("chat/a", "key", "1").await;
    }
    publish(&other, "chat/a", "2").await?;
    assert_eq!(client.expect(&["0", "1", "2"]).await?.offset(), position?.offset() + 1);
    Ok(())
}
