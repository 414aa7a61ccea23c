//! Clients that come back.

use std::time::Duration;

use bowline::pair;
use bowline_hub::{Hub, Memory, Position, Rule, Start};
use bowline_hub_testing::TestResult;
use bowline_hub_testing::client::{builder, receive};

/// Subscribes a new connection from a position, and returns the start and the texts that were sent.
async fn come_back(hub: &Hub, since: Position) -> Result<(Start, Vec<String>), Box<dyn std::error::Error>> {
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let start = member.subscribe("chat/a", Some(since)).await?;
    drop(member);
    server.send(format!("{} end", Position::UNTRACKED)).await?;
    let mut texts = Vec::new();
    loop {
        match receive(&mut client).await?.1 {
            text if text == "end" => return Ok((start, texts)),
            text => texts.push(text),
        }
    }
}

#[tokio::test]
async fn a_client_that_comes_back_receives_what_it_missed_once() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let mut positions = Vec::new();
    for number in 0..5 {
        positions.push(hub.publish("chat/a", number.to_string()).await?);
    }
    let top = positions[4];
    for (missed, since) in [(3, positions[1]), (1, positions[3]), (0, top)] {
        let expected: Vec<_> = (5 - missed..5).map(|number| number.to_string()).collect();
        assert_eq!(come_back(&hub, since).await?, (Start::Live(top), expected));
    }
    Ok(())
}

#[tokio::test]
async fn the_position_of_a_start_is_one_to_come_back_with() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (_client, server) = pair();
    let member = hub.join(server.sender())?;
    let Start::Live(start) = member.subscribe("chat/a", None).await? else { return Err("lost".into()) };
    let top = hub.publish("chat/a", "first").await?;
    assert_eq!(come_back(&hub, start).await?, (Start::Live(top), vec!["first".to_owned()]));
    Ok(())
}

#[tokio::test]
async fn each_message_names_the_position_before() -> TestResult {
    let hub = Hub::builder(Memory::new())
        .rule("chat/", Rule::new().history(2, Duration::from_secs(300)))
        .frame(|message| format!("{} {}", message.position(), message.before()).into())
        .build()?;
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let Start::Live(start) = member.subscribe("chat/a", None).await? else { return Err("lost".into()) };
    let one = hub.publish("chat/a", "1").await?;
    let two = hub.publish("chat/a", "2").await?;
    let three = hub.publish("chat/a", "3").await?;
    for (position, before) in [(one, start), (two, one), (three, two)] {
        assert_eq!(receive(&mut client).await?, (position, before.to_string()));
    }
    // From the history, the chain is the same.
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    assert_eq!(member.subscribe("chat/a", one).await?, Start::Live(three));
    for (position, before) in [(two, one), (three, two)] {
        assert_eq!(receive(&mut client).await?, (position, before.to_string()));
    }
    Ok(())
}

#[tokio::test]
async fn a_position_that_the_history_has_left_behind_is_lost() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let old = hub.publish("chat/a", "old").await?;
    let mut top = old;
    for number in 1..=100 {
        top = hub.publish("chat/a", number.to_string()).await?;
    }
    // The history contains 100 messages, and knows the position before them.
    let (start, texts) = come_back(&hub, old).await?;
    assert_eq!((start, texts.len()), (Start::Live(top), 100));
    top = hub.publish("chat/a", "101").await?;
    assert_eq!(come_back(&hub, old).await?, (Start::Lost(top), Vec::new()));
    // From the position of the loss, the member goes on.
    assert_eq!(come_back(&hub, top).await?, (Start::Live(top), Vec::new()));
    Ok(())
}

#[tokio::test]
async fn a_forged_position_is_lost() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let mut tops = Vec::new();
    for number in 0..5 {
        tops.push(hub.publish("chat/a", number.to_string()).await?);
    }
    let (real, top) = (tops[2], tops[4]);
    for forged in [
        Position::new(real.epoch() ^ 1, real.offset(), real.tag()),
        Position::new(real.epoch(), real.offset() + 1, real.tag()),
        Position::new(real.epoch(), real.offset(), real.tag() ^ 1),
        Position::new(top.epoch(), top.offset() + 1, top.tag()),
        Position::new(top.epoch(), u64::MAX, top.tag()),
        Position::UNTRACKED,
    ] {
        assert_eq!(come_back(&hub, forged).await?, (Start::Lost(top), Vec::new()), "{forged:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_topic_without_history_continues_with_the_next_message_only() -> TestResult {
    let hub = Hub::builder(Memory::new()).build()?;
    let (_client, server) = pair();
    let member = hub.join(server.sender())?;
    let forged = Position::new(1, 2, 3);
    assert_eq!(member.subscribe("news", Some(forged)).await?, Start::Lost(Position::UNTRACKED));
    assert_eq!(member.subscribe("news", Some(Position::UNTRACKED)).await?, Start::Live(Position::UNTRACKED));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn messages_are_forgotten_by_age_and_a_topic_in_use_keeps_its_position() -> TestResult {
    let age = Duration::from_secs(10);
    let hub = builder(Memory::new()).rule("chat/a", Rule::new().history(100, age)).build()?;
    let first = hub.publish("chat/a", "first").await?;
    tokio::time::sleep(age / 2).await;
    let second = hub.publish("chat/a", "second").await?;
    tokio::time::sleep(age / 2 + Duration::from_secs(1)).await;
    // The first message is gone, but its position is known as the predecessor of the second.
    assert_eq!(come_back(&hub, first).await?, (Start::Live(second), vec!["second".to_owned()]));
    let (_client, server) = pair();
    let member = hub.join(server.sender())?;
    let _start = member.subscribe("chat/a", None).await?;
    tokio::time::sleep(age * 100).await;
    assert_eq!(come_back(&hub, second).await?, (Start::Live(second), Vec::new()));
    assert_eq!(come_back(&hub, first).await?, (Start::Lost(second), Vec::new()));

    // Without members and messages, the history is forgotten, and begins anew.
    drop(member);
    tokio::time::sleep(age * 2).await;
    hub.publish("chat/b", "").await?;
    let (start, _) = come_back(&hub, second).await?;
    let Start::Lost(now) = start else { return Err("the history was kept".into()) };
    assert_ne!(now.epoch(), second.epoch());
    Ok(())
}
