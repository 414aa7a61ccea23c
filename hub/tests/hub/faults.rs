//! Faults of a broker, one at a time, and the hub's reaction.

use std::error::Error;
use std::time::Duration;

use bowline::{WebSocket, pair};
use bowline_hub::{ErrorKind, Hub, HubEvent, Member, Start};
use bowline_hub_testing::TestResult;
use bowline_hub_testing::client::{builder, receive};

use crate::support::broker::{Broker, Faults};

const ALWAYS: u64 = 1000;

/// A hub with one live member, and its client.
struct Scene {
    broker: Broker,
    hub: Hub,
    client: WebSocket,
    member: Member,
    _server: WebSocket,
}

/// Members that lose messages receive a frame with the text `lost`.
async fn scene() -> Result<Scene, Box<dyn Error>> {
    let broker = Broker::new(0, Faults::default());
    let hub = builder(broker.clone()).lost(|_, now| format!("{now} lost").into()).build()?;
    let (client, server) = pair();
    let member = hub.join(server.sender())?;
    let Start::Live(_) = member.subscribe("chat/a", None).await? else { return Err("lost".into()) };
    Ok(Scene { broker, hub, client, member, _server: server })
}

impl Scene {
    async fn publish(&self, texts: &[&str]) -> TestResult {
        for text in texts {
            self.hub.publish("chat/a", *text).await?;
        }
        Ok(())
    }

    async fn expect(&mut self, texts: &[&str]) -> TestResult {
        for text in texts {
            assert_eq!(receive(&mut self.client).await?.1, *text);
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_filled_from_the_history_in_order() -> TestResult {
    let mut scene = scene().await?;
    scene.publish(&["1"]).await?;
    scene.broker.set_faults(Faults { dropped: ALWAYS, ..Faults::default() });
    scene.publish(&["2", "3"]).await?;
    scene.broker.set_faults(Faults::default());
    scene.publish(&["4", "5"]).await?;
    scene.expect(&["1", "2", "3", "4", "5"]).await?;
    assert_eq!((scene.hub.stats().gaps, scene.hub.stats().lost), (1, 0));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_gap_longer_than_a_page_is_filled() -> TestResult {
    let mut scene = scene().await?;
    let broker = scene.broker.clone();
    broker.set_faults(Faults { dropped: ALWAYS, ..Faults::default() });
    let hub = builder(broker.clone())
        .rule("chat/long/", bowline_hub::Rule::new().history(2000, Duration::from_secs(300)))
        .build()?;
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let _start = member.subscribe("chat/long/a", None).await?;
    for number in 0..1200 {
        hub.publish("chat/long/a", number.to_string()).await?;
    }
    broker.set_faults(Faults::default());
    hub.publish("chat/long/a", "1200").await?;
    for number in 0..=1200 {
        assert_eq!(receive(&mut client).await?.1, number.to_string());
    }
    scene.publish(&["1"]).await?;
    scene.expect(&["1"]).await
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_the_history_has_left_behind_is_told() -> TestResult {
    let mut scene = scene().await?;
    let mut events = scene.hub.events();
    scene.publish(&["1"]).await?;
    scene.broker.set_faults(Faults { dropped: ALWAYS, ..Faults::default() });
    for _ in 0..101 {
        scene.publish(&["missed"]).await?;
    }
    scene.broker.set_faults(Faults::default());
    scene.publish(&["2"]).await?;
    scene.expect(&["1", "lost"]).await?;
    scene.publish(&["3"]).await?;
    scene.expect(&["3"]).await?;
    let lost = HubEvent::Lost { topic: "chat/a".to_owned(), members: 1 };
    assert_eq!(events.recv().await, Some(lost));
    assert_eq!(scene.hub.stats().lost, 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn repeated_and_late_deliveries_are_neither_sent_twice_nor_a_loss() -> TestResult {
    let mut scene = scene().await?;
    for fault in [
        Faults { repeated: ALWAYS, ..Faults::default() },
        Faults { stale: ALWAYS, ..Faults::default() },
        Faults { late: 500, ..Faults::default() },
    ] {
        scene.broker.set_faults(fault);
        for number in 0..20 {
            scene.publish(&[&number.to_string()]).await?;
        }
        scene.broker.set_faults(Faults::default());
        scene.publish(&["end"]).await?;
        for number in 0..20 {
            scene.expect(&[&number.to_string()]).await?;
        }
        scene.expect(&["end"]).await?;
    }
    assert_eq!(scene.hub.stats().lost, 0);
    Ok(())
}

/// The offsets of the two lines of messages are the same; only the tags tell them apart.
#[tokio::test(start_paused = true)]
async fn a_history_that_rolled_back_is_told_even_if_its_offsets_go_on() -> TestResult {
    let mut scene = scene().await?;
    scene.publish(&["1", "2"]).await?;
    scene.broker.save("chat/a");
    scene.publish(&["3", "4"]).await?;
    scene.expect(&["1", "2", "3"]).await?;
    let (position, _) = receive(&mut scene.client).await?;
    scene.broker.roll_back("chat/a");
    scene.publish(&["3 again", "4 again"]).await?;
    scene.expect(&["lost"]).await?;
    scene.publish(&["5"]).await?;
    scene.expect(&["5"]).await?;

    // A client that was away is told, too.
    let (_client, server) = pair();
    let member = scene.hub.join(server.sender())?;
    assert!(matches!(member.subscribe("chat/a", Some(position)).await?, Start::Lost(_)));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_history_that_is_gone_is_told() -> TestResult {
    let mut scene = scene().await?;
    scene.publish(&["1"]).await?;
    scene.expect(&["1"]).await?;
    scene.broker.lose_history("chat/a");
    scene.publish(&["2"]).await?;
    scene.expect(&["lost"]).await?;
    scene.publish(&["3"]).await?;
    scene.expect(&["3"]).await
}

#[tokio::test(start_paused = true)]
async fn without_a_frame_that_tells_of_a_loss_the_connection_is_closed() -> TestResult {
    let broker = Broker::new(0, Faults::default());
    let hub = builder(broker.clone()).build()?;
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let _start = member.subscribe("chat/a", None).await?;
    broker.lose_history("chat/a");
    hub.publish("chat/a", "1").await?;
    let error = client.recv().await.unwrap_err();
    assert_eq!(error.close_frame().unwrap().code(), bowline::CloseCode::TRY_AGAIN_LATER);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn while_the_broker_is_away_calls_fail_and_members_stay() -> TestResult {
    let mut scene = scene().await?;
    let mut events = scene.hub.events();
    scene.broker.disconnect(0);
    assert!(!scene.hub.is_healthy());
    assert!(matches!(events.recv().await, Some(HubEvent::Disconnected(_))));
    let error = scene.hub.publish("chat/a", "unsent").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = scene.member.subscribe("chat/b", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(scene.member.topic_count(), 1);

    // Messages of other nodes are missed, and found without another message.
    let other = builder(scene.broker.clone()).build()?;
    other.publish("chat/a", "missed").await?;
    scene.broker.reconnect(0);
    scene.expect(&["missed"]).await?;
    assert_eq!(events.recv().await, Some(HubEvent::Reconnected));
    assert!(scene.hub.is_healthy());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_member_that_knows_more_than_its_node_makes_the_node_look() -> TestResult {
    let mut scene = scene().await?;
    scene.publish(&["1"]).await?;
    scene.expect(&["1"]).await?;
    // The node misses the last message, and no other one follows.
    scene.broker.set_faults(Faults { dropped: ALWAYS, ..Faults::default() });
    let top = scene.hub.publish("chat/a", "2").await?;
    let (_client, server) = pair();
    let member = scene.hub.join(server.sender())?;
    assert_eq!(member.subscribe("chat/a", Some(top)).await?, Start::Live(top));
    scene.expect(&["2"]).await
}

/// A broker may deliver a message after a node has read it from the history. That is no reason to read again.
#[tokio::test(start_paused = true)]
async fn a_delivery_after_the_history_was_read_is_known() -> TestResult {
    let mut scene = scene().await?;
    scene.publish(&["1"]).await?;
    scene.broker.set_faults(Faults { late: ALWAYS, ..Faults::default() });
    scene.publish(&["2"]).await?;
    let top = scene.hub.publish("chat/a", "3").await?;
    let (_client, server) = pair();
    let member = scene.hub.join(server.sender())?;
    assert_eq!(member.subscribe("chat/a", Some(top)).await?, Start::Live(top));
    scene.broker.deliver_late();
    scene.broker.set_faults(Faults::default());
    scene.publish(&["4"]).await?;
    scene.expect(&["1", "2", "3", "4"]).await?;
    assert_eq!(scene.hub.stats().gaps, 1);
    Ok(())
}

/// Offsets alone would not tell: the next message on the new line has the next offset of the old line.
#[tokio::test(start_paused = true)]
async fn a_live_member_is_told_of_a_history_that_rolled_back_unseen() -> TestResult {
    let mut scene = scene().await?;
    scene.publish(&["1", "2"]).await?;
    scene.broker.save("chat/a");
    scene.publish(&["3", "4"]).await?;
    scene.expect(&["1", "2", "3", "4"]).await?;
    scene.broker.roll_back("chat/a");
    scene.broker.set_faults(Faults { dropped: ALWAYS, ..Faults::default() });
    scene.publish(&["3 again", "4 again"]).await?;
    scene.broker.set_faults(Faults::default());
    scene.publish(&["5"]).await?;
    scene.expect(&["lost"]).await?;
    scene.publish(&["6"]).await?;
    scene.expect(&["6"]).await
}

#[tokio::test(start_paused = true)]
async fn a_message_that_arrives_while_the_history_is_read_is_sent_even_if_none_follows() -> TestResult {
    let mut scene = scene().await?;
    scene.broker.set_faults(Faults { dropped: ALWAYS, ..Faults::default() });
    scene.publish(&["1"]).await?;
    scene.broker.set_faults(Faults { slow_answers: ALWAYS, ..Faults::default() });
    scene.publish(&["2"]).await?;
    // The page is made at once, and arrives a second later.
    tokio::time::sleep(Duration::from_millis(500)).await;
    scene.publish(&["3"]).await?;
    scene.expect(&["1", "2", "3"]).await
}

#[tokio::test(start_paused = true)]
async fn a_message_that_arrives_while_a_topic_opens_is_not_missed() -> TestResult {
    let broker = Broker::new(0, Faults { slow_answers: ALWAYS, ..Faults::default() });
    let hub = builder(broker).build()?;
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let late = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        hub.publish("chat/a", "1").await
    };
    let (start, position) = tokio::join!(member.subscribe("chat/a", None), late);
    // The subscription began when it returned, or before.
    let (start, position) = (start?, position?);
    if start != Start::Live(position) {
        assert_eq!(receive(&mut client).await?, (position, "1".to_owned()));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_message_that_the_history_has_lost_before_it_could_be_read_is_told() -> TestResult {
    let mut scene = scene().await?;
    scene.publish(&["1"]).await?;
    scene.expect(&["1"]).await?;
    scene.broker.save("chat/a");
    scene.broker.set_faults(Faults { dropped: ALWAYS, ..Faults::default() });
    scene.publish(&["2"]).await?;
    scene.broker.set_faults(Faults::default());
    scene.publish(&["3"]).await?;
    // The node has not yet looked at the third message, which shows that the second is missing.
    scene.broker.roll_back("chat/a");
    scene.expect(&["lost"]).await?;
    scene.publish(&["4"]).await?;
    scene.expect(&["4"]).await
}
