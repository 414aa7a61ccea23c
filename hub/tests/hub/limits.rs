//! Wrong input, limits, and foreign code that fails.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bowline::{Message, pair};
use bowline_hub::{
    Delivery, Engine, EngineError, ErrorKind, HistoryPage, Hub, HubEvent, HubLimits, Inbox, Memory,
    ParsePositionError, Position, Predecessor, Rule, Slow, Start, Topic,
};
use bowline_hub_testing::TestResult;
use bowline_hub_testing::client::{builder, receive};

#[tokio::test]
async fn an_invalid_setting_is_an_error_that_names_the_setting() {
    let limits = HubLimits::default;
    let history = |count, seconds| Rule::new().history(count, Duration::from_secs(seconds));
    let hub = || Hub::builder(Memory::new());
    for (builder, named) in [
        (hub().workers(0), "HubBuilder::workers"),
        (hub().workers(5000), "HubBuilder::workers"),
        (hub().limits(limits().topics_per_member(0)), "HubLimits::topics_per_member"),
        (hub().limits(limits().topic_size(0)), "HubLimits::topic_size"),
        (hub().limits(limits().message_size(0)), "HubLimits::message_size"),
        (hub().limits(limits().inbox(0)), "HubLimits::inbox"),
        (hub().limits(limits().engine_timeout(Duration::ZERO)), "HubLimits::engine_timeout"),
        (hub().limits(limits().catch_up_tasks(usize::MAX)), "HubLimits::catch_up_tasks"),
        (hub().rule("a", history(0, 1)), "Rule::history"),
        (hub().rule("a", history(2_000_000, 1)), "Rule::history"),
        (hub().rule("a", history(1, 0)), "Rule::history"),
        (hub().rule("a", history(1, u64::MAX)), "Rule::history"),
        (hub().rule("a", Rule::new().slow(Slow::CatchUp)), "Slow::CatchUp"),
        (hub().rule("a", Rule::new()).rule("a", Rule::new()), "HubBuilder::rule"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[tokio::test]
async fn an_exceeded_limit_is_an_error_that_names_the_limit() -> TestResult {
    let limits = HubLimits::default().topics_per_member(2).topic_size(10).message_size(5);
    let hub = builder(Memory::new()).limits(limits).build()?;
    let (_client, server) = pair();
    let member = hub.join(server.sender())?;
    let _start = member.subscribe("1", None).await?;
    let _start = member.subscribe("2", None).await?;
    for (error, named) in [
        (member.subscribe("3", None).await.unwrap_err(), "HubLimits::topics_per_member"),
        (member.subscribe("a longer name", None).await.unwrap_err(), "HubLimits::topic_size"),
        (hub.publish("a longer name", "").await.unwrap_err(), "HubLimits::topic_size"),
        (hub.publish("1", "123456").await.unwrap_err(), "HubLimits::message_size"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(error.to_string().contains(named), "{error}");
    }
    for error in [member.subscribe("", None).await.unwrap_err(), hub.publish("", "").await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    member.unsubscribe("1").await;
    let _start = member.subscribe("3", None).await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_missed_more_than_the_limit_is_lost() -> TestResult {
    let hub = builder(Memory::new()).limits(HubLimits::default().replay(3)).build()?;
    let mut positions = Vec::new();
    for number in 0..5 {
        positions.push(hub.publish("chat/a", number.to_string()).await?);
    }
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    assert_eq!(member.subscribe("chat/a", Some(positions[0])).await?, Start::Lost(positions[4]));
    assert_eq!(member.subscribe("chat/a", Some(positions[1])).await?, Start::Live(positions[4]));
    assert_eq!(receive(&mut client).await?.1, "2");
    Ok(())
}

#[tokio::test]
async fn the_longest_prefix_decides_on_the_rule() -> TestResult {
    let hub = builder(Memory::new()).rule("chat/plain/", Rule::new()).rule("", Rule::new()).build()?;
    assert_ne!(hub.publish("chat/a", "").await?, Position::UNTRACKED);
    assert_eq!(hub.publish("chat/plain/a", "").await?, Position::UNTRACKED);
    Ok(())
}

#[test]
fn text_that_is_no_position_is_an_error() {
    let text = Position::new(u64::MAX, 1, 2).to_string();
    assert_eq!(text.parse(), Ok(Position::new(u64::MAX, 1, 2)));
    for wrong in
        ["", &text[1..], &format!("{text}A"), &text.replace('_', "+"), "é2345678901234567890123456789012"]
    {
        let outcome: Result<Position, ParsePositionError> = wrong.parse();
        assert!(outcome.is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn messages_without_room_are_read_from_the_history() -> TestResult {
    let memory = Memory::new();
    let hub = builder(memory.clone()).limits(HubLimits::default().inbox(1)).build()?;
    let other = builder(memory).build()?;
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let _start = member.subscribe("chat/a", None).await?;
    // The workers don't run in between.
    for number in 0..20 {
        other.publish("chat/a", number.to_string()).await?;
    }
    for number in 0..20 {
        assert_eq!(receive(&mut client).await?.1, number.to_string());
    }
    assert!(hub.stats().gaps > 0);
    Ok(())
}

#[tokio::test]
async fn messages_without_room_and_without_history_are_counted() -> TestResult {
    let memory = Memory::new();
    let hub = builder(memory.clone()).limits(HubLimits::default().inbox(1)).build()?;
    let other = builder(memory).build()?;
    let mut events = hub.events();
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let _start = member.subscribe("news", None).await?;
    for number in 0..20 {
        other.publish("news", number.to_string()).await?;
    }
    assert_eq!(receive(&mut client).await?.1, "0");
    let overflow = HubEvent::InboxOverflow { topic: "news".to_owned(), messages: 19 };
    assert_eq!(events.recv().await, Some(overflow));
    assert_eq!(hub.stats().overflowed, 19);
    Ok(())
}

/// All of it arrives, although nothing is kept and only two messages have room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_outruns_its_hub_waits() -> TestResult {
    let hub = builder(Memory::new()).limits(HubLimits::default().inbox(2)).build()?;
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let _start = member.subscribe("news", None).await?;
    let publisher = hub.clone();
    tokio::spawn(async move {
        for number in 0..200 {
            publisher.publish("news", number.to_string()).await.unwrap();
        }
    });
    for number in 0..200 {
        assert_eq!(receive(&mut client).await?.1, number.to_string());
    }
    assert_eq!(hub.stats().overflowed, 0);
    Ok(())
}

#[tokio::test]
async fn a_frame_that_panics_is_a_loss_that_is_told() -> TestResult {
    let hub = builder(Memory::new())
        .frame(|message| {
            assert_ne!(message.text(), Some("bad"), "a bad message");
            format!("{} {}", message.position(), message.text().unwrap()).into()
        })
        .lost(|_, now| format!("{now} lost").into())
        .build()?;
    let mut events = hub.events();
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let Start::Live(start) = member.subscribe("chat/a", None).await? else { return Err("lost".into()) };
    for text in ["1", "bad", "2"] {
        hub.publish("chat/a", text).await?;
    }
    for text in ["1", "lost", "2"] {
        assert_eq!(receive(&mut client).await?.1, text);
    }
    let Some(HubEvent::FramePanicked { topic, panic }) = events.recv().await else {
        return Err("no event".into());
    };
    assert!(topic == "chat/a" && panic.contains("a bad message"), "{panic}");

    // A client that comes back is told of the same loss, and continues after it.
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let Start::Lost(now) = member.subscribe("chat/a", Some(start)).await? else { return Err("live".into()) };
    assert!(matches!(member.subscribe("chat/a", Some(now)).await?, Start::Live(_)));
    for text in ["1", "2"] {
        assert_eq!(receive(&mut client).await?.1, text);
    }
    Ok(())
}

#[tokio::test]
async fn the_frame_of_a_message_is_made_once_for_all_members() -> TestResult {
    let count = Arc::new(AtomicUsize::new(0));
    let calls = Arc::clone(&count);
    let hub = Hub::builder(Memory::new())
        .frame(move |message| {
            calls.fetch_add(1, Ordering::Relaxed);
            message.message().clone().into()
        })
        .build()?;
    let mut members = Vec::new();
    for _ in 0..10 {
        let (client, server) = pair();
        let member = hub.join(server.sender())?;
        let _start = member.subscribe("news", None).await?;
        members.push((client, server, member));
    }
    hub.publish("news", vec![1, 2, 3]).await?;
    for (client, ..) in &mut members {
        assert_eq!(client.recv().await?, Some(Message::from(vec![1, 2, 3])));
    }
    assert_eq!(count.load(Ordering::Relaxed), 1);
    Ok(())
}

/// An engine that fails in one way in all methods.
enum Broken {
    Hangs,
    Panics,
    Fails,
}

impl Broken {
    async fn fail<T>(&self) -> Result<T, EngineError> {
        match self {
            Self::Hangs => std::future::pending().await,
            Self::Panics => panic!("the engine is broken"),
            Self::Fails => Err(EngineError::new("the engine is broken")),
        }
    }
}

impl Engine for Broken {
    fn start(&mut self, _inbox: Inbox) -> Result<(), EngineError> {
        Ok(())
    }

    async fn publish(&self, _: &Topic, _: Message, _: u64) -> Result<Position, EngineError> {
        self.fail().await
    }

    async fn want(&self, _: &Topic) -> Result<(), EngineError> {
        self.fail().await
    }

    async fn unwant(&self, _: &Topic) -> Result<(), EngineError> {
        self.fail().await
    }

    async fn history(&self, _: &Topic, _: u64, _: usize) -> Result<HistoryPage, EngineError> {
        self.fail().await
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_fails_hangs_or_panics_is_unavailable() -> TestResult {
    for (engine, named) in [
        (Broken::Hangs, "HubLimits::engine_timeout"),
        (Broken::Panics, "the engine is broken"),
        (Broken::Fails, "the engine is broken"),
    ] {
        let hub = builder(engine).build()?;
        let (_client, server) = pair();
        let member = hub.join(server.sender())?;
        for _ in 0..2 {
            let published = hub.publish("chat/a", "").await.unwrap_err();
            let subscribed = member.subscribe("chat/a", None).await.unwrap_err();
            for error in [published, subscribed] {
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert!(error.to_string().contains(named), "{error}");
            }
        }
        assert_eq!(member.topic_count(), 0);
    }
    Ok(())
}

/// An engine that hands out its inbox.
struct Handed(Arc<OnceLock<Inbox>>);

impl Engine for Handed {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        self.0.set(inbox).map_err(|_| EngineError::new("started before"))
    }

    async fn publish(&self, _: &Topic, _: Message, _: u64) -> Result<Position, EngineError> {
        Err(EngineError::new("nobody publishes"))
    }

    async fn want(&self, _: &Topic) -> Result<(), EngineError> {
        Ok(())
    }

    async fn unwant(&self, _: &Topic) -> Result<(), EngineError> {
        Ok(())
    }

    async fn history(&self, _: &Topic, _: u64, _: usize) -> Result<HistoryPage, EngineError> {
        Err(EngineError::new("nothing is stored"))
    }
}

/// A worker with much to do for many topics lets other tasks run in between.
#[tokio::test]
async fn a_worker_with_many_topics_lets_others_run() -> TestResult {
    const TOPICS: usize = 4000;
    let (inbox, turns) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let (counted, noted) = (Arc::clone(&turns), Arc::clone(&seen));
    let hub = Hub::builder(Handed(Arc::clone(&inbox)))
        .workers(1)
        .limits(HubLimits::default().topics_per_member(TOPICS))
        .frame(move |_| {
            noted.lock().unwrap().insert(counted.load(Ordering::Relaxed));
            "frame".into()
        })
        .build()?;
    let (_client, server) = pair();
    let member = hub.join(server.sender())?;
    for number in 0..TOPICS {
        let _start = member.subscribe(&number.to_string(), None).await?;
    }
    let other = tokio::spawn(async move {
        loop {
            turns.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let inbox = inbox.get().ok_or("the engine was not started")?;
    for number in 0..TOPICS {
        let (topic, message) = (inbox.topic(&number.to_string()), Message::from("message"));
        let (position, previous) = (Position::UNTRACKED, Predecessor::Tag(0));
        drop(inbox.deliver(Delivery { topic, position, previous, message }));
    }
    while hub.stats().delivered < TOPICS as u64 {
        tokio::task::yield_now().await;
    }
    other.abort();
    let seen = seen.lock().unwrap().len();
    assert!(seen >= TOPICS / 256, "other tasks had {seen} turns while {TOPICS} frames were made");
    Ok(())
}
