//! Members that start with the last messages of a history.

use std::error::Error;
use std::time::Duration;

use bowline::pair;
use bowline_hub::{ErrorKind, Hub, HubLimits, Memory, Position, Rule, Since, Start};
use bowline_hub_testing::TestResult;
use bowline_hub_testing::client::{builder, receive, receive_until};
use tokio::time::{advance, sleep};

use crate::support::broker::{Broker, Faults};

/// Subscribes a new connection, publishes an end, and returns the texts before the end.
async fn texts_since(hub: &Hub, topic: &str, since: Since) -> Result<Vec<String>, Box<dyn Error>> {
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let Start::Live(_) = member.subscribe(topic, since).await? else { return Err("lost".into()) };
    hub.publish(topic, "end").await?;
    receive_until(&mut client, "end").await
}

#[tokio::test]
async fn a_new_member_receives_the_last_messages_and_then_the_next_ones() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    for text in ["1", "2", "3", "4", "5"] {
        hub.publish("chat/a", text).await?;
    }
    assert_eq!(texts_since(&hub, "chat/a", Since::Last(3)).await?, ["3", "4", "5"]);
    // The ends are messages, too.
    assert_eq!(texts_since(&hub, "chat/a", Since::Last(0)).await?, [""; 0]);
    assert_eq!(texts_since(&hub, "chat/b", Since::Last(3)).await?, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn a_history_with_fewer_messages_is_sent_whole() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    for number in 0..150 {
        hub.publish("chat/a", number.to_string()).await?;
    }
    // The history has 100 messages.
    let expected: Vec<_> = (50..150).map(|number| number.to_string()).collect();
    assert_eq!(texts_since(&hub, "chat/a", Since::Last(1000)).await?, expected);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_too_old_are_not_sent() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    for text in ["1", "2", "3"] {
        hub.publish("chat/a", text).await?;
    }
    advance(Duration::from_secs(200)).await;
    for text in ["4", "5"] {
        hub.publish("chat/a", text).await?;
    }
    advance(Duration::from_secs(200)).await;
    assert_eq!(texts_since(&hub, "chat/a", Since::Last(5)).await?, ["4", "5"]);
    Ok(())
}

#[tokio::test]
async fn a_topic_without_history_starts_with_the_next_message() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    hub.publish("news", "1").await?;
    assert_eq!(texts_since(&hub, "news", Since::Last(3)).await?, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn more_messages_than_the_limit_allows_are_an_error() -> TestResult {
    let hub = builder(Memory::new()).limits(HubLimits::default().replay(10)).build()?;
    let (_client, server) = pair();
    let member = hub.join(server.sender())?;
    let error = member.subscribe("chat/a", Since::Last(11)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(
        error.to_string().contains("11 messages, more than 10 (raise it with HubLimits::replay)"),
        "{error}"
    );
    let Start::Live(_) = member.subscribe("chat/a", Since::Last(10)).await? else {
        return Err("lost".into());
    };
    Ok(())
}

/// The first of the last messages leaves the history while the member reads it.
#[tokio::test(start_paused = true)]
async fn a_history_that_moves_on_is_no_loss_for_a_new_member() -> TestResult {
    let broker = Broker::new(7, Faults { delayed: 1000, ..Faults::default() });
    let hub = Hub::builder(broker)
        .rule("price/", Rule::new().history(2, Duration::from_secs(60)))
        .frame(|message| format!("{} {}", message.position(), message.text().unwrap_or("?")).into())
        .build()?;
    hub.publish("price/a", "0").await?;
    let publisher = hub.clone();
    let publishing = tokio::spawn(async move {
        for number in 1.. {
            sleep(Duration::from_millis(70)).await;
            if publisher.publish("price/a", number.to_string()).await.is_err() {
                return;
            }
        }
    });
    for _ in 0..50 {
        let (mut client, server) = pair();
        let member = hub.join(server.sender())?;
        let start = member.subscribe("price/a", Since::Last(2)).await?;
        assert!(matches!(start, Start::Live(_)), "{start:?}");
        let (mut last, _) = receive(&mut client).await?;
        for _ in 0..5 {
            let (position, _) = receive(&mut client).await?;
            assert_eq!((position.epoch(), position.offset()), (last.epoch(), last.offset() + 1));
            last = position;
        }
    }
    publishing.abort();
    Ok(())
}

#[test]
fn positions_convert() {
    let position = Position::new(1, 2, 3);
    assert_eq!(Since::from(position), Since::Position(position));
    assert_eq!(Since::from(Some(position)), Since::Position(position));
    assert_eq!((Since::from(None), Since::default()), (Since::Now, Since::Now));
}
