//! Messages to members that are live.

use std::error::Error;
use std::time::Duration;

use bowline::{Message, pair};
use bowline_hub::{
    Engine, EngineError, ErrorKind, HistoryPage, Hub, HubLimits, Inbox, Memory, Position, Start, Topic,
};
use bowline_hub_testing::TestResult;
use bowline_hub_testing::client::{builder, receive, receive_until};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn a_message_reaches_all_members_of_its_topic_and_nobody_else() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (mut clients, mut members) = (Vec::new(), Vec::new());
    for topic in ["news", "news", "sport"] {
        let (client, server) = pair();
        let member = hub.join(server.sender())?;
        assert_eq!(member.subscribe(topic, None).await?, Start::Live(Position::UNTRACKED));
        clients.push(client);
        members.push((member, server));
    }
    assert_eq!(hub.publish("news", "first").await?, Position::UNTRACKED);
    hub.publish("sport", "second").await?;
    for (client, expected) in clients.iter_mut().zip(["first", "first", "second"]) {
        assert_eq!(receive(client).await?, (Position::UNTRACKED, expected.to_owned()));
    }
    let stats = hub.stats();
    assert_eq!((stats.members, stats.subscriptions, stats.topics), (3, 3, 2));
    assert_eq!((stats.published, stats.delivered), (2, 3));
    Ok(())
}

#[tokio::test]
async fn hubs_on_clones_of_an_engine_exchange_messages() -> TestResult {
    let memory = Memory::new();
    let (here, there) = (builder(memory.clone()).build()?, builder(memory).build()?);
    let (mut client, server) = pair();
    let member = here.join(server.sender())?;
    let _start = member.subscribe("chat/a", None).await?;
    let position = there.publish("chat/a", "hello").await?;
    assert_eq!(receive(&mut client).await?, (position, "hello".to_owned()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_see_one_order_in_which_each_publisher_keeps_its_own() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (mut readers, mut members) = (JoinSet::new(), Vec::new());
    for _ in 0..5 {
        let (mut client, server) = pair();
        let member = hub.join(server.sender())?;
        let _start = member.subscribe("chat/a", None).await?;
        members.push((member, server));
        readers
            .spawn(async move { receive_until(&mut client, "end").await.map_err(|error| error.to_string()) });
    }
    let mut publishers = JoinSet::new();
    for publisher in 0..4 {
        let hub = hub.clone();
        publishers.spawn(async move {
            for number in 0..20 {
                hub.publish("chat/a", format!("{publisher} {number}")).await?;
            }
            Ok::<_, bowline_hub::Error>(())
        });
    }
    while let Some(outcome) = publishers.join_next().await {
        outcome??;
    }
    hub.publish("chat/a", "end").await?;
    let mut orders = Vec::new();
    while let Some(order) = readers.join_next().await {
        orders.push(order??);
    }
    assert!(orders.iter().all(|order| order == &orders[0]), "the orders differ");
    assert_eq!(orders[0].len(), 80);
    for publisher in ["0 ", "1 ", "2 ", "3 "] {
        let own: Vec<_> = orders[0].iter().filter_map(|text| text.strip_prefix(publisher)).collect();
        assert_eq!(own, (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    }
    Ok(())
}

#[tokio::test]
async fn a_member_receives_nothing_after_it_has_left() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    let _start = member.subscribe("chat/a", None).await?;
    let _start = member.subscribe("chat/b", None).await?;
    member.unsubscribe("chat/a").await;
    hub.publish("chat/a", "left").await?;
    hub.publish("chat/b", "stayed").await?;
    assert_eq!(receive(&mut client).await?.1, "stayed");
    drop(member);
    hub.publish("chat/b", "gone").await?;
    server.send(format!("{} last", Position::UNTRACKED)).await?;
    assert_eq!(receive(&mut client).await?.1, "last");
    Ok(())
}

#[tokio::test]
async fn a_dropped_subscribe_has_not_subscribed() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (mut client, server) = pair();
    let member = hub.join(server.sender())?;
    {
        let mut subscribing = Box::pin(member.subscribe("chat/a", None));
        tokio::select! {
            biased;
            _ = &mut subscribing => return Err("the worker has not run yet".into()),
            () = std::future::ready(()) => {}
        }
    }
    assert_eq!(member.topic_count(), 0);
    hub.publish("chat/a", "not for us").await?;
    let Start::Live(_) = member.subscribe("chat/a", None).await? else { return Err("lost".into()) };
    hub.publish("chat/a", "for us").await?;
    assert_eq!(receive(&mut client).await?.1, "for us");
    assert_eq!(hub.stats().subscriptions, 1);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_topic_without_members_is_forgotten_after_five_seconds() -> TestResult {
    let hub = builder(Memory::new()).build()?;
    let (_client, server) = pair();
    let member = hub.join(server.sender())?;
    let _start = member.subscribe("news", None).await?;
    member.unsubscribe("news").await;
    assert_eq!(hub.stats().topics, 1);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(hub.stats().topics, 0);
    let _start = member.subscribe("news", None).await?;
    assert_eq!(hub.stats().topics, 1);
    Ok(())
}

/// An engine that takes a while to want a topic.
struct Leisurely(Memory, Duration);

impl Engine for Leisurely {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        self.0.start(inbox)
    }

    async fn publish(&self, topic: &Topic, message: Message, tag: u64) -> Result<Position, EngineError> {
        self.0.publish(topic, message, tag).await
    }

    async fn want(&self, topic: &Topic) -> Result<(), EngineError> {
        sleep(self.1).await;
        self.0.want(topic).await
    }

    async fn unwant(&self, topic: &Topic) -> Result<(), EngineError> {
        self.0.unwant(topic).await
    }

    async fn history(&self, topic: &Topic, after: u64, limit: usize) -> Result<HistoryPage, EngineError> {
        self.0.history(topic, after, limit).await
    }
}

/// The topic is opened for longer than it may be without members.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_given_up_while_it_opens_is_forgotten() -> TestResult {
    let limits = HubLimits::default().engine_timeout(Duration::from_secs(20));
    let engine = Leisurely(Memory::new(), Duration::from_secs(8));
    let hub = builder(engine).limits(limits).build()?;
    let (_client, server) = pair();
    let member = hub.join(server.sender())?;
    let subscribing = timeout(Duration::from_secs(1), member.subscribe("news", None));
    assert!(subscribing.await.is_err());
    assert_eq!(hub.stats().topics, 1);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(hub.stats().topics, 0);
    Ok(())
}

#[test]
fn a_hub_whose_runtime_has_ended_says_so() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let hub: Hub = runtime.block_on(async { builder(Memory::new()).build() })?;
    drop(runtime);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let error = runtime.block_on(hub.publish("news", "hello")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    runtime.block_on(async {
        let (_client, server) = pair();
        assert_eq!(hub.join(server.sender()).unwrap_err().kind(), ErrorKind::Closed);
    });
    assert!(!hub.is_healthy());
    Ok(())
}

#[test]
fn a_hub_needs_a_runtime() {
    let error = builder(Memory::new()).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
