//! Members that begin again in a topic to which they are subscribed.

use std::time::Duration;

use bowline::pair;
use bowline_hub::{Engine, ErrorKind, Hub, Member, Memory, Position, PresenceNews, Rule, Since, Start};
use bowline_hub_testing::TestResult;
use bowline_hub_testing::client::{Client, builder, receive};
use tokio::time::sleep;

use crate::support::broker::{Broker, Faults};

const TOPIC: &str = "chat/a";

/// A hub whose topics have a history and presence.
fn hub(engine: impl Engine) -> Result<Hub, bowline_hub::Error> {
    let rule = Rule::new().history(10, Duration::from_secs(300)).presence();
    builder(engine)
        .rule("room/", rule)
        .lost(|_, now| format!("{now} lost").into())
        .presence(|_, news| match news {
            PresenceNews::Joined(who) => Some(format!("{} {} joins", Position::UNTRACKED, who.key).into()),
            PresenceNews::Left(who) => Some(format!("{} {} leaves", Position::UNTRACKED, who.key).into()),
            _ => None,
        })
        .build()
}

/// Publishes numbers, and returns the position of the last one.
async fn publish(
    hub: &Hub,
    topic: &str,
    numbers: std::ops::Range<u32>,
) -> Result<Position, bowline_hub::Error> {
    let mut last = Position::UNTRACKED;
    for number in numbers {
        last = hub.publish(topic, number.to_string()).await?;
    }
    Ok(last)
}

async fn expect(client: &mut Client, numbers: std::ops::Range<u32>) -> TestResult {
    for number in numbers {
        assert_eq!(receive(&mut client.socket).await?.1, number.to_string());
    }
    Ok(())
}

/// The loop of the documentation, on the connection that was told of the loss.
#[tokio::test(start_paused = true)]
async fn a_member_that_was_told_of_a_loss_begins_again_on_its_connection() -> TestResult {
    let broker = Broker::new(0, Faults::default());
    let hub = hub(broker.clone())?;
    let mut client = Client::live(&hub, TOPIC).await?;
    let known = publish(&hub, TOPIC, 0..3).await?;
    expect(&mut client, 0..3).await?;
    broker.lose_history(TOPIC);
    publish(&hub, TOPIC, 3..4).await?;
    assert_eq!(receive(&mut client.socket).await?.1, "lost");

    let (mut since, mut losses) = (Some(known), 0);
    while let Start::Lost(now) = client.member.subscribe(TOPIC, since).await? {
        losses += 1;
        since = Some(now);
    }
    assert_eq!(losses, 1);
    publish(&hub, TOPIC, 4..6).await?;
    expect(&mut client, 4..6).await?;
    // The last messages, too, and nothing is live twice.
    assert!(matches!(client.member.subscribe(TOPIC, Since::Last(2)).await?, Start::Live(_)));
    publish(&hub, TOPIC, 6..8).await?;
    expect(&mut client, 4..8).await?;
    assert_eq!((client.member.topic_count(), hub.stats().subscriptions), (1, 1));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_member_that_begins_again_stays_present() -> TestResult {
    let hub = hub(Memory::new())?;
    let (mut alice, mut bob) = (Client::live(&hub, "room/1").await?, Client::live(&hub, "room/1").await?);
    alice.member.appear("room/1", "alice").await?;
    let first = hub.publish("room/1", "0").await?;
    let forged = Position::new(first.epoch(), first.offset(), first.tag() ^ 1);
    assert!(matches!(alice.member.subscribe("room/1", forged).await?, Start::Lost(_)));
    assert_eq!(hub.count("room/1").await?, 1);
    assert_eq!(alice.member.subscribe("room/1", first).await?, Start::Live(first));
    hub.publish("room/1", "1").await?;
    for expected in ["alice joins", "0", "1"] {
        assert_eq!(receive(&mut bob.socket).await?.1, expected);
        assert_eq!(receive(&mut alice.socket).await?.1, expected);
    }
    // Whether or not the member is subscribed at the moment, leaving makes it absent.
    assert!(matches!(alice.member.subscribe("room/1", forged).await?, Start::Lost(_)));
    alice.member.unsubscribe("room/1").await;
    assert_eq!(receive(&mut bob.socket).await?.1, "alice leaves");
    Ok(())
}

/// Larger than everything that a pair holds.
const BIG: usize = 200 * 1024;

/// A member whose connection is full, and that has missed 100 messages but for those in its buffers.
async fn slow(hub: &Hub) -> Result<(Client, Position), Box<dyn std::error::Error>> {
    let (socket, server) = pair();
    let member = hub.join(server.sender())?;
    let start = hub.publish(TOPIC, "start").await?;
    assert_eq!(member.subscribe(TOPIC, start).await?, Start::Live(start));
    server.send(vec![0; BIG]).await?;
    publish(hub, TOPIC, 0..50).await?;
    while hub.stats().catching_up == 0 {
        sleep(Duration::from_millis(1)).await;
    }
    Ok((Client::new(socket, member, server), start))
}

#[tokio::test(start_paused = true)]
async fn a_slow_member_that_begins_again_receives_nothing_twice() -> TestResult {
    let hub = hub(Memory::new())?;
    let (mut client, start) = slow(&hub).await?;
    let subscribing = client.member.subscribe(TOPIC, start);
    let reading = async { client.socket.recv().await };
    let (start, big) = tokio::join!(subscribing, reading);
    assert!(matches!(start?, Start::Live(_)));
    assert_eq!(big?.map(|big| big.len()), Some(BIG));
    publish(&hub, TOPIC, 50..52).await?;
    expect(&mut client, 0..52).await?;
    assert_eq!((hub.stats().catching_up, hub.stats().subscriptions), (0, 1));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_subscription_from_now_on_goes_on() -> TestResult {
    let hub = hub(Memory::new())?;
    let (mut client, _) = slow(&hub).await?;
    // A slow member is not robbed of what it has missed.
    assert!(matches!(client.member.subscribe(TOPIC, None).await?, Start::Live(_)));
    assert_eq!(client.socket.recv().await?.map(|big| big.len()), Some(BIG));
    expect(&mut client, 0..50).await?;
    for number in 50..60 {
        // Neither is one that is level, between two messages.
        let (start, published) =
            tokio::join!(client.member.subscribe(TOPIC, None), hub.publish(TOPIC, number.to_string()));
        assert!(matches!((start?, published?), (Start::Live(_), _)));
    }
    expect(&mut client, 50..60).await?;
    Ok(())
}

/// The position of a member that is slow is not that of the topic: a client that was told the position of the
/// topic would come back from there, without the messages that it still was to receive.
#[tokio::test(start_paused = true)]
async fn a_slow_member_that_goes_on_is_told_a_position_that_it_has_reached() -> TestResult {
    let hub = hub(Memory::new())?;
    let (client, _) = slow(&hub).await?;
    let Start::Live(position) = client.member.subscribe(TOPIC, None).await? else {
        return Err("lost".into());
    };
    // The client has received nothing but the large message, and the position.
    drop(client);
    let (socket, server) = pair();
    let member = hub.join(server.sender())?;
    assert!(matches!(member.subscribe(TOPIC, position).await?, Start::Live(_)));
    expect(&mut Client::new(socket, member, server), 0..50).await?;
    Ok(())
}

/// Polls a call once, and drops it.
async fn give_up(member: &Member, since: Option<Position>) {
    tokio::select! {
        biased;
        _ = member.subscribe(TOPIC, since) => panic!("the worker has not run yet"),
        () = std::future::ready(()) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_or_overtaken_leaves_no_subscription() -> TestResult {
    let hub = hub(Memory::new())?;
    let mut client = Client::live(&hub, TOPIC).await?;
    let start = publish(&hub, TOPIC, 0..1).await?;
    expect(&mut client, 0..1).await?;
    for since in [Some(start), None] {
        give_up(&client.member, since).await;
        assert_eq!(client.member.topic_count(), 0);
        hub.publish(TOPIC, "not for us").await?;
        // The worker runs.
        sleep(Duration::from_millis(1)).await;
        assert_eq!(hub.stats().subscriptions, 0);
        assert!(matches!(client.member.subscribe(TOPIC, None).await?, Start::Live(_)));
    }
    let (replaced, ()) =
        tokio::join!(client.member.subscribe(TOPIC, start), client.member.unsubscribe(TOPIC));
    assert_eq!(replaced.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!((client.member.topic_count(), hub.stats().subscriptions), (0, 0));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn of_two_calls_at_the_same_time_the_second_is_an_error() -> TestResult {
    let hub = hub(Memory::new())?;
    let client = Client::live(&hub, TOPIC).await?;
    let start = hub.publish(TOPIC, "0").await?;
    let (first, second) =
        tokio::join!(client.member.subscribe(TOPIC, start), client.member.subscribe(TOPIC, start));
    assert_eq!(first?, Start::Live(start));
    let error = second.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("under way"), "{error}");
    assert_eq!(client.member.topic_count(), 1);
    Ok(())
}
