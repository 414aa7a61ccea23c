//! Presence: joins, leaves, connections that are lost, and wrong input.

use std::time::Duration;

use bowline::pair;
use bowline_hub::{
    ErrorKind, Hub, HubEvent, HubLimits, Memory, Position, PresenceNews, Present, Rule, Slow, Start,
};
use bowline_hub_testing::TestResult;
use bowline_hub_testing::presence::{ROOM, Visitor, builder, keys};
use tokio::time::{Instant, timeout};

use crate::support::presence_broker::{CallFaults, PresenceBroker};

#[tokio::test(start_paused = true)]
async fn members_are_told_who_is_there_and_who_comes_and_goes() -> TestResult {
    let memory = Memory::new();
    let (here, there) = (builder(memory.clone()).build()?, builder(memory).build()?);
    let mut alice = Visitor::appear(&here, ROOM, "alice").await?;
    alice.expect(&["here ", "+ alice"]).await?;
    let mut bob = Visitor::appear(&there, ROOM, "bob").await?;
    bob.expect(&["here alice", "+ bob"]).await?;
    alice.expect(&["+ bob"]).await?;
    assert_eq!(keys(&here, ROOM).await?, ["alice", "bob"]);
    assert_eq!(keys(&there, ROOM).await?, ["alice", "bob"]);

    bob.member.appear(ROOM, Present::new("bob").info("away")).await?;
    alice.expect(&["= bob away"]).await?;
    bob.member.disappear(ROOM);
    alice.expect(&["- bob"]).await?;
    bob.expect(&["= bob away", "- bob"]).await?;
    assert_eq!(keys(&there, ROOM).await?, ["alice"]);
    alice.member.unsubscribe(ROOM).await;
    bob.expect(&["- alice"]).await?;
    assert_eq!(keys(&there, ROOM).await?, [""; 0]);
    assert_eq!(here.stats().entries, 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn two_tabs_join_once_and_leave_after_the_last() -> TestResult {
    let memory = Memory::new();
    let (here, there) = (builder(memory.clone()).build()?, builder(memory).build()?);
    let mut watcher = Visitor::subscribe(&here, ROOM).await?;
    let first = Visitor::appear(&here, ROOM, "alice").await?;
    let second = Visitor::appear(&here, ROOM, "alice").await?;
    let third = Visitor::appear(&there, ROOM, "alice").await?;
    watcher.expect(&["here ", "+ alice"]).await?;
    assert_eq!(keys(&here, ROOM).await?, ["alice"]);
    first.member.disappear(ROOM);
    third.member.disappear(ROOM);
    watcher.expect_nothing_for(Duration::from_secs(60)).await?;
    second.member.disappear(ROOM);
    watcher.expect(&["- alice"]).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_connects_again_within_15_s_neither_leaves_nor_joins() -> TestResult {
    let memory = Memory::new();
    let (here, there) = (builder(memory.clone()).build()?, builder(memory).build()?);
    let mut watcher = Visitor::subscribe(&here, ROOM).await?;
    let mut alice = Visitor::appear(&here, ROOM, "alice").await?;
    watcher.expect(&["here ", "+ alice"]).await?;
    for hub in [&here, &there, &here, &there, &there] {
        drop(alice);
        watcher.expect_nothing_for(Duration::from_secs(14)).await?;
        alice = Visitor::appear(hub, ROOM, "alice").await?;
    }
    watcher.expect_nothing_for(Duration::from_secs(60)).await?;
    drop(alice);
    let lost = Instant::now();
    watcher.expect(&["- alice"]).await?;
    assert_eq!(lost.elapsed().as_secs(), 15);
    Ok(())
}

/// Each connection has a linger time of its own.
#[tokio::test(start_paused = true)]
async fn of_two_lost_connections_the_later_one_counts() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let mut watcher = Visitor::subscribe(&hub, ROOM).await?;
    let (first, second) =
        (Visitor::appear(&hub, ROOM, "alice").await?, Visitor::appear(&hub, ROOM, "alice").await?);
    watcher.expect(&["here ", "+ alice"]).await?;
    drop(first);
    watcher.expect_nothing_for(Duration::from_secs(10)).await?;
    drop(second);
    let lost = Instant::now();
    watcher.expect(&["- alice"]).await?;
    assert_eq!(lost.elapsed().as_secs(), 15);
    assert_eq!(hub.stats().entries, 0);
    Ok(())
}

/// Members that are dropped outside of a runtime are lost like all others.
#[tokio::test(start_paused = true)]
async fn an_orderly_end_counts_no_longer_than_a_lost_connection() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let mut watcher = Visitor::subscribe(&hub, ROOM).await?;
    let (lost, staying) =
        (Visitor::appear(&hub, ROOM, "alice").await?, Visitor::appear(&hub, ROOM, "alice").await?);
    watcher.expect(&["here ", "+ alice"]).await?;
    std::thread::spawn(move || drop(lost)).join().map_err(|_| "the drop panicked")?;
    // The lost connection may come back.
    staying.member.disappear(ROOM);
    watcher.expect_nothing_for(Duration::from_secs(14)).await?;
    watcher.expect(&["- alice"]).await?;

    let again = Visitor::appear(&hub, ROOM, "alice").await?;
    again.member.disappear(ROOM);
    let left = Instant::now();
    watcher.expect(&["+ alice", "- alice"]).await?;
    assert!(left.elapsed() < Duration::from_secs(1));
    assert_eq!(hub.stats().entries, 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn without_a_linger_time_a_lost_connection_leaves_at_once() -> TestResult {
    let limits = HubLimits::default().presence_linger(Duration::ZERO);
    let hub = builder(Memory::new()).limits(limits).build()?;
    let mut watcher = Visitor::subscribe(&hub, ROOM).await?;
    drop(Visitor::appear(&hub, ROOM, "alice").await?);
    let lost = Instant::now();
    watcher.expect(&["here ", "+ alice", "- alice"]).await?;
    assert!(lost.elapsed() < Duration::from_secs(1));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn wrong_input_is_an_error_that_names_the_setting() -> TestResult {
    let limits = HubLimits::default().presence_key(8).presence_info(4);
    let hub = builder(Memory::new()).limits(limits).rule("plain/", Rule::new()).build()?;
    let client = Visitor::subscribe(&hub, ROOM).await?;
    let _start = client.member.subscribe("plain/1", None).await?;
    let cases = [
        ("room/2", Present::new("alice"), ErrorKind::InvalidInput, "not subscribed"),
        ("plain/1", Present::new("alice"), ErrorKind::InvalidInput, "Rule::presence"),
        (ROOM, Present::new(""), ErrorKind::InvalidInput, "empty"),
        (ROOM, Present::new("123456789"), ErrorKind::Limit, "HubLimits::presence_key"),
        (ROOM, Present::new("alice").info("12345"), ErrorKind::Limit, "HubLimits::presence_info"),
    ];
    for (topic, present, kind, text) in cases {
        let error = client.member.appear(topic, present).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    client.member.appear(ROOM, Present::new("12345678").info("1234")).await?;
    let error = client.member.appear(ROOM, "bob").await.unwrap_err();
    assert!(error.to_string().contains("Member::disappear"), "{error}");
    client.member.disappear("room/2");
    assert_eq!(keys(&hub, ROOM).await?, ["12345678"]);

    for topic in ["plain/1", "other", ""] {
        assert_eq!(hub.present(topic).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(hub.count(topic).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    Ok(())
}

#[tokio::test]
async fn settings_out_of_their_range_are_reported() {
    let cases = [
        (HubLimits::default().presence_key(0), "HubLimits::presence_key"),
        (HubLimits::default().presence_lease(Duration::from_millis(99)), "HubLimits::presence_lease"),
        (HubLimits::default().presence_lease(Duration::from_secs(3601)), "HubLimits::presence_lease"),
        (HubLimits::default().presence_linger(Duration::from_secs(31)), "HubLimits::presence_linger"),
    ];
    for (limits, text) in cases {
        let error = builder(Memory::new()).limits(limits).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_without_presence_is_an_error_of_the_call() -> TestResult {
    let broker = crate::support::broker::Broker::new(0, crate::support::broker::Faults::default());
    let hub = Hub::builder(broker).rule("room/", Rule::new().presence()).build()?;
    let (_client, server) = pair();
    let member = hub.join(server.sender())?;
    let _start = member.subscribe(ROOM, None).await?;
    assert_eq!(member.appear(ROOM, "alice").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let error = hub.present(ROOM).await.unwrap_err();
    assert!(error.to_string().contains("no presence"), "{error}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_dropped_has_not_appeared() -> TestResult {
    let broker = PresenceBroker::new(0, CallFaults { delayed: 1000, delay: 300, ..CallFaults::default() });
    let hub = builder(broker).build()?;
    let client = Visitor::subscribe(&hub, ROOM).await?;
    for _ in 0..20 {
        let appearing = client.member.appear(ROOM, "alice");
        assert!(timeout(Duration::from_millis(1), appearing).await.is_err());
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(keys(&hub, ROOM).await?, [""; 0]);
    client.member.appear(ROOM, "alice").await?;
    assert_eq!(keys(&hub, ROOM).await?, ["alice"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_function_that_panics_is_reported_and_harms_nobody() -> TestResult {
    let hub = Hub::builder(Memory::new())
        .rule("room/", Rule::new().presence())
        .presence(|_, news| match news {
            PresenceNews::Joined(who) if who.key == "evil" => panic!("no evil"),
            PresenceNews::Joined(who) => Some(who.key.clone().into()),
            _ => None,
        })
        .build()?;
    let mut events = hub.events();
    let mut watcher = Visitor::subscribe(&hub, ROOM).await?;
    let _evil = Visitor::appear(&hub, ROOM, "evil").await?;
    let _good = Visitor::appear(&hub, ROOM, "good").await?;
    watcher.expect(&["good"]).await?;
    let panicked =
        HubEvent::PresencePanicked { topic: ROOM.to_owned(), panic: "panicked: no evil".to_owned() };
    assert_eq!(events.recv().await, Some(panicked));
    assert_eq!(keys(&hub, ROOM).await?, ["evil", "good"]);
    Ok(())
}

/// Messages between the changes are in their place.
#[tokio::test(start_paused = true)]
async fn changes_and_messages_have_one_order() -> TestResult {
    let memory = Memory::new();
    let (here, there) = (builder(memory.clone()).build()?, builder(memory).build()?);
    let mut watcher = Visitor::subscribe(&here, ROOM).await?;
    let alice = Visitor::subscribe(&there, ROOM).await?;
    watcher.expect(&["here "]).await?;
    for number in 0..50 {
        there.publish(ROOM, format!("before {number}")).await?;
        alice.member.appear(ROOM, "alice").await?;
        there.publish(ROOM, format!("between {number}")).await?;
        alice.member.disappear(ROOM);
        while there.count(ROOM).await? > 0 {
            tokio::task::yield_now().await;
        }
        there.publish(ROOM, format!("after {number}")).await?;
    }
    for number in 0..50 {
        let [before, between, after] = ["before", "between", "after"].map(|text| format!("{text} {number}"));
        watcher.expect(&[&before, "+ alice", &between, "- alice", &after]).await?;
    }
    Ok(())
}

/// A client that does not read misses news, and receives the list once it reads again.
#[tokio::test(start_paused = true)]
async fn a_member_that_missed_news_receives_the_list_again() -> TestResult {
    for slow in [Slow::Skip, Slow::CatchUp] {
        let rule = match slow {
            Slow::CatchUp => Rule::new().history(1000, Duration::from_secs(60)).presence(),
            _ => Rule::new().presence().slow(slow),
        };
        let hub = builder(Memory::new()).rule("room/1", rule).build()?;
        let mut watcher = Visitor::subscribe(&hub, ROOM).await?;
        watcher.expect(&["here "]).await?;
        let _alice = Visitor::appear(&hub, ROOM, "alice").await?;
        // The connection fills up.
        let full = "x".repeat(60_000);
        for _ in 0..40 {
            hub.publish(ROOM, full.as_str()).await?;
        }
        let _bob = Visitor::appear(&hub, ROOM, "bob").await?;
        let carol = Visitor::appear(&hub, ROOM, "carol").await?;
        carol.member.disappear(ROOM);
        let mut lists = Vec::new();
        while let Ok(frame) = timeout(Duration::from_secs(10), watcher.socket.recv()).await {
            let frame = frame?.ok_or("the end")?.into_text()?;
            if frame.len() < 1000 {
                lists.push(frame.to_string());
            }
        }
        assert_eq!(lists.first().map(String::as_str), Some("+ alice"), "{slow:?}");
        assert!(lists.contains(&"here alice bob".to_owned()), "{slow:?}: {lists:?}");
        carol.member.appear(ROOM, "carol").await?;
        watcher.expect(&["+ carol"]).await?;
    }
    Ok(())
}

/// Changes that find no room in the inbox are read afterwards.
#[tokio::test(start_paused = true)]
async fn changes_that_overflow_the_inbox_are_found() -> TestResult {
    let memory = Memory::new();
    let here = builder(memory.clone()).limits(HubLimits::default().inbox(1)).build()?;
    let there = builder(memory).build()?;
    let mut watcher = Visitor::subscribe(&here, ROOM).await?;
    watcher.expect(&["here "]).await?;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(Visitor::subscribe(&there, ROOM).await?);
    }
    let keys = ["a", "b", "c", "d", "e"];
    let (mut appearing, mut joined) = (Vec::new(), Vec::new());
    for (client, key) in clients.iter().zip(keys) {
        appearing.push(client.member.appear(ROOM, key));
    }
    for appearing in appearing {
        appearing.await?;
    }
    while joined.len() < keys.len() {
        let frame = timeout(Duration::from_secs(60), watcher.socket.recv()).await??.ok_or("the end")?;
        joined.push(frame.into_text()?.to_string());
    }
    joined.sort();
    assert_eq!(joined, keys.map(|key| format!("+ {key}")));
    Ok(())
}

/// A member that stays present in topics to which it is no longer subscribed.
#[tokio::test(start_paused = true)]
async fn a_member_is_present_in_no_more_topics_than_it_may_have() -> TestResult {
    let hub = builder(Memory::new()).limits(HubLimits::default().topics_per_member(1)).build()?;
    let client = Visitor::subscribe(&hub, "room/1").await?;
    client.member.appear("room/1", "alice").await?;
    let forged = Position::new(1, 2, 3);
    assert!(matches!(client.member.subscribe("room/1", forged).await?, Start::Lost(_)));
    let Start::Live(_) = client.member.subscribe("room/2", None).await? else { return Err("lost".into()) };
    let error = client.member.appear("room/2", "alice").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("HubLimits::topics_per_member"), "{error}");
    assert_eq!((hub.count("room/1").await?, hub.count("room/2").await?), (1, 0));
    client.member.disappear("room/1");
    client.member.appear("room/2", "alice").await?;
    Ok(())
}
