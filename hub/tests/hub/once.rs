//! Messages that are published once, however often the publisher tries.

use std::time::Duration;

use bowline::pair;
use bowline_hub::{ErrorKind, HubLimits, Memory, Rule};
use bowline_hub_testing::TestResult;
use bowline_hub_testing::client::{builder, receive};
use tokio::time::sleep;

use crate::support::broker::{Broker, Faults};

/// The number of keys that a topic remembers at least.
const KEYS: usize = 1000;
/// The time for which a topic remembers a key at least.
const WINDOW: Duration = Duration::from_secs(120);

#[tokio::test(start_paused = true)]
async fn a_message_with_a_known_key_has_the_first_position_and_is_not_delivered_again() -> TestResult {
    let memory = Memory::new();
    let (here, there) = (builder(memory.clone()).build()?, builder(memory).build()?);
    let (mut client, server) = pair();
    let member = here.join(server.sender())?;
    let _start = member.subscribe("chat/a", None).await?;
    let first = here.publish_once("chat/a", "key", "1").await?;
    assert_eq!(here.publish_once("chat/a", "key", "1").await?, first);
    assert_eq!(there.publish_once("chat/a", "key", "1").await?, first);
    // Keys belong to a topic, and other messages are not touched.
    assert_ne!(there.publish_once("chat/b", "key", "1").await?.epoch(), first.epoch());
    let second = there.publish_once("chat/a", "other key", "2").await?;
    assert_eq!((second.epoch(), second.offset()), (first.epoch(), 2));
    assert_eq!(here.publish("chat/a", "3").await?.offset(), 3);
    for (offset, text) in ["1", "2", "3"].iter().enumerate() {
        let (position, received) = receive(&mut client).await?;
        assert_eq!((position.offset(), received.as_str()), (offset as u64 + 1, *text));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_message_that_was_stored_before_an_error_is_not_stored_again() -> TestResult {
    let broker = Broker::new(0, Faults { refused: 1000, ..Faults::default() });
    let hub = builder(broker.clone()).build()?;
    let error = hub.publish_once("chat/a", "key", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    broker.set_faults(Faults::default());
    assert_eq!(hub.publish_once("chat/a", "key", "1").await?.offset(), 1);
    assert_eq!(broker.stored().len(), 1);
    Ok(())
}

/// Two minutes, or the age of the history if that is less.
#[tokio::test(start_paused = true)]
async fn a_key_is_remembered_for_a_while() -> TestResult {
    let hub = builder(Memory::new())
        .rule("chat/short/", Rule::new().history(100, Duration::from_secs(10)))
        .build()?;
    for (topic, window) in [("chat/a", WINDOW), ("chat/short/a", Duration::from_secs(10))] {
        let first = hub.publish_once(topic, "key", "1").await?;
        sleep(window.saturating_sub(Duration::from_millis(1))).await;
        assert_eq!(hub.publish_once(topic, "key", "1").await?, first);
        hub.publish(topic, "2").await?;
        sleep(Duration::from_millis(2)).await;
        assert_eq!(hub.publish_once(topic, "key", "1").await?.offset(), 3);
    }
    Ok(())
}

/// A history of 100 messages remembers 1,000 keys, and then forgets the oldest.
#[tokio::test(start_paused = true)]
async fn a_topic_remembers_a_bounded_number_of_keys() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    for number in 0..=KEYS {
        hub.publish_once("chat/a", &number.to_string(), "text").await?;
    }
    let top = KEYS as u64 + 1;
    assert_eq!(hub.publish_once("chat/a", "1", "text").await?.offset(), 2);
    assert_eq!(hub.publish_once("chat/a", "0", "text").await?.offset(), top + 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_is_an_error_that_says_why() -> TestResult {
    let hub = builder(Memory::new()).limits(HubLimits::default().key_size(3)).build()?;
    let error = hub.publish_once("chat/a", "", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = hub.publish_once("chat/a", "long", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("HubLimits::key_size"), "{error}");
    let error = hub.publish_once("news", "key", "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("Rule::history"), "{error}");
    let error = builder(Memory::new()).limits(HubLimits::default().key_size(0)).build().unwrap_err();
    assert!(error.to_string().contains("HubLimits::key_size"), "{error}");
    Ok(())
}
