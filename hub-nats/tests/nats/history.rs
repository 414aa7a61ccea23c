//! Topics with history over NATS: what works, and what becomes of each failure.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bowline_hub::{Hub, HubEvent, HubLimits, Position, Rule, Since, Start};
use bowline_hub_testing::client::{Client, publish, until};
use bowline_hub_testing::proxy::{Line, Proxy};
use bowline_hub_testing::{PATIENCE, TestResult};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{builder, hub};
use crate::cluster;
use crate::server::Server;

/// The stream as an operator creates it who wants no files.
const IN_MEMORY: &str = r#"{ "name": "bowline", "subjects": ["bowline.store.>"], "retention": "limits",
    "discard": "old", "storage": "memory", "num_replicas": 1, "max_consumers": -1, "max_msgs": -1,
    "max_bytes": -1, "max_age": 0, "max_msgs_per_subject": 50,
    "republish": { "src": "bowline.store.>", "dest": "bowline.live.>" } }"#;

#[tokio::test]
async fn two_nodes_exchange_messages_with_history() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut client = Client::live(&here, "chat/a").await?;
    let position = there.publish("chat/a", "1").await?;
    assert_eq!(client.expect(&["1"]).await?, position);
    there.publish("chat/another", "of another topic").await?;
    here.publish("chat/a", "2").await?;
    client.expect(&["2"]).await?;
    // Each message names the one before, though their numbers are not consecutive.
    assert_eq!((here.stats().lost, here.stats().gaps), (0, 0));

    // After it has left, and the node does not want the topic any more.
    client.member.unsubscribe("chat/a").await;
    there.publish("chat/a", "3").await?;
    assert!(matches!(client.member.subscribe("chat/a", Some(position)).await?, Start::Live(_)));
    client.expect(&["2", "3"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_comes_back_on_another_node_receives_what_it_missed() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let since = here.publish("chat/a", "0").await?;
    for number in 1..=100 {
        here.publish("chat/a", number.to_string()).await?;
        here.publish("chat/b", "of another topic").await?;
    }
    let mut client = Client::join(&there)?;
    assert!(matches!(client.member.subscribe("chat/a", Some(since)).await?, Start::Live(_)));
    for number in 1..=100 {
        client.expect(&[&number.to_string()]).await?;
    }
    // One message later, the history does not reach back.
    let top = here.publish("chat/a", "101").await?;
    let client = Client::join(&there)?;
    assert_eq!(client.member.subscribe("chat/a", Some(since)).await?, Start::Lost(top));
    let other_topic = here.publish("chat/b", "1").await?;
    for forged in [
        Position::new(top.epoch(), top.offset(), top.tag() ^ 1),
        Position::new(top.epoch(), top.offset() - 1, top.tag()),
        Position::new(top.epoch(), u64::MAX, top.tag()),
        Position::new(top.epoch(), 0, 0),
        other_topic,
        // Before messages that are there.
        Position::new(top.epoch(), since.offset() + 2, 0),
    ] {
        assert_eq!(client.member.subscribe("chat/a", Some(forged)).await?, Start::Lost(top), "{forged:?}");
    }
    Ok(())
}

/// The history of the topic reaches back to its first message, and nothing precedes that.
#[tokio::test]
async fn a_place_before_the_first_message_can_not_be_invented() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let hub = hub(&server.url()).await?;
    hub.publish("chat/b", "of another topic").await?;
    let first = hub.publish("chat/a", "1").await?;
    let top = hub.publish("chat/a", "2").await?;
    let client = Client::join(&hub)?;
    for offset in 0..first.offset() {
        for tag in [0, first.tag()] {
            let forged = Position::new(first.epoch(), offset, tag);
            assert_eq!(client.member.subscribe("chat/a", Some(forged)).await?, Start::Lost(top));
        }
    }
    Ok(())
}

/// The first message of a topic that nobody had opened before has none before it.
#[tokio::test]
async fn a_client_may_start_with_the_last_messages() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    for number in 0..150 {
        here.publish("chat/b", "of another topic").await?;
        here.publish("chat/a", number.to_string()).await?;
        for (count, first) in [(1, number), (30, (number - 29).max(0)), (1000, (number - 99).max(0))] {
            if number % 25 != 0 && number < 97 {
                continue;
            }
            let mut client = Client::join(&there)?;
            let start = client.member.subscribe("chat/a", Since::Last(count)).await?;
            assert!(matches!(start, Start::Live(_)), "{count} of {number}: {start:?}");
            for expected in first..=number {
                client.expect(&[&expected.to_string()]).await?;
            }
        }
    }
    // A topic that was opened before its first message begins with a mark, which nobody receives.
    let mut client = Client::live(&here, "chat/c").await?;
    here.publish("chat/c", "1").await?;
    client.expect(&["1"]).await?;
    let mut other = Client::join(&there)?;
    assert!(matches!(other.member.subscribe("chat/c", Since::Last(10)).await?, Start::Live(_)));
    other.expect(&["1"]).await?;
    Ok(())
}

/// Not all of a history is read for its last messages, between which are those of other topics.
#[tokio::test]
async fn the_last_messages_of_a_long_history_are_found() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let rule = Rule::new().history(2000, Duration::from_secs(300));
    let hub = builder(&server.url()).await?.rule("long", rule).build()?;
    for number in 0..600 {
        hub.publish("long", number.to_string()).await?;
        for _ in 0..number % 7 {
            hub.publish("chat/b", "of another topic").await?;
        }
    }
    for _ in 0..200 {
        hub.publish("chat/b", "of another topic").await?;
    }
    for count in [0, 1, 5, 100, 149, 150, 599, 600, 1000] {
        let mut client = Client::join(&hub)?;
        assert!(matches!(client.member.subscribe("long", Since::Last(count)).await?, Start::Live(_)));
        for expected in 600 - count.min(600)..600 {
            client.expect(&[&expected.to_string()]).await?;
        }
        client.member.unsubscribe("long").await;
    }
    Ok(())
}

/// The rules of two nodes differ, as they do while a new version is rolled out. The stream keeps enough for
/// both, and each node applies its own rule.
#[tokio::test]
async fn the_rules_of_nodes_may_differ() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let small = hub(&server.url()).await?;
    let since = small.publish("chat/a", "0").await?;
    let rule = Rule::new().history(1200, Duration::from_secs(3600));
    let large = builder(&server.url()).await?.rule("chat/a", rule).build()?;
    let first = large.publish("chat/a", "1").await?;
    for number in 2..=1000 {
        let hub = if number % 2 == 0 { &small } else { &large };
        hub.publish("chat/a", number.to_string()).await?;
    }
    let mut client = Client::join(&large)?;
    assert!(matches!(client.member.subscribe("chat/a", Some(first)).await?, Start::Live(_)));
    for number in 2..=1000 {
        client.expect(&[&number.to_string()]).await?;
    }
    let client = Client::join(&small)?;
    assert!(matches!(client.member.subscribe("chat/a", Some(since)).await?, Start::Lost(_)));
    Ok(())
}

/// Of two nodes that raise limits at the same time, one has read them before the other's change.
#[tokio::test]
async fn limits_that_another_node_undoes_are_raised_again() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let hub = hub(&server.url()).await?;
    hub.publish("chat/a", "1").await?;
    let mut info = server.api("STREAM.INFO.bowline", "").await?;
    let raised = "\"max_msgs_per_subject\":101";
    let config = info.split_once("\"config\":").and_then(|(_, rest)| rest.split_once(",\"created\""));
    let config = config.ok_or("no configuration")?.0.replace(raised, "\"max_msgs_per_subject\":50");
    info = server.api("STREAM.UPDATE.bowline", &config).await?;
    assert!(!info.contains(raised), "{info}");
    let until_raised = async {
        while !info.contains(raised) {
            hub.publish("chat/a", "2").await?;
            info = server.api("STREAM.INFO.bowline", "").await?;
        }
        Ok(())
    };
    timeout(PATIENCE, until_raised).await?
}

#[tokio::test]
async fn a_message_that_is_too_old_is_lost() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let rule = Rule::new().history(100, Duration::from_nanos(1));
    let hub = builder(&server.url()).await?.rule("chat/short", rule).build()?;
    let since = hub.publish("chat/short", "1").await?;
    hub.publish("chat/short", "2").await?;
    let client = Client::join(&hub)?;
    assert!(matches!(client.member.subscribe("chat/short", Some(since)).await?, Start::Lost(_)));
    // From the newest message, nothing is missing, however old it is.
    let newest = hub.publish("chat/short", "3").await?;
    assert_eq!(client.member.subscribe("chat/short", Some(newest)).await?, Start::Live(newest));
    Ok(())
}

#[tokio::test]
async fn a_message_with_a_key_is_stored_once() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut client = Client::live(&here, "chat/a").await?;
    let first = here.publish_once("chat/a", "key\r\n", "1").await?;
    assert_eq!(there.publish_once("chat/a", "key\r\n", "1").await?, first);
    assert_ne!(there.publish_once("chat/b", "key\r\n", "1").await?, first);
    there.publish_once("chat/a", "other key", "2").await?;
    client.expect(&["1", "2"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_comes_back_with_its_data_loses_nothing() -> TestResult {
    let Some(mut server) = Server::start("").await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut client = Client::live(&here, "chat/a").await?;
    publish(&there, "chat/a", "1").await?;
    let since = client.expect(&["1"]).await?;
    server.kill()?;
    server.restart().await?;
    publish(&there, "chat/a", "2").await?;
    client.expect(&["2"]).await?;
    let mut other = Client::join(&there)?;
    assert!(matches!(other.member.subscribe("chat/a", Some(since)).await?, Start::Live(_)));
    other.expect(&["2"]).await?;
    assert_eq!((here.stats().lost, there.stats().lost), (0, 0));
    Ok(())
}

#[tokio::test]
async fn a_server_that_comes_back_without_its_data_is_a_loss_that_is_told_once() -> TestResult {
    let Some(mut server) = Server::start("").await? else { return Ok(()) };
    let hub = hub(&server.url()).await?;
    let mut client = Client::live(&hub, "chat/a").await?;
    publish(&hub, "chat/a", "1").await?;
    let since = client.expect(&["1"]).await?;
    server.kill()?;
    fs::remove_dir_all(server.store())?;
    server.restart().await?;
    client.expect(&["lost"]).await?;
    publish(&hub, "chat/a", "2").await?;
    client.expect(&["2"]).await?;
    let other = Client::join(&hub)?;
    assert!(matches!(other.member.subscribe("chat/a", Some(since)).await?, Start::Lost(_)));
    assert_eq!(hub.stats().lost, 1);
    Ok(())
}

/// The stream is the same one afterwards, and its numbers begin again.
#[tokio::test]
async fn a_stream_in_memory_that_a_restart_empties_is_a_loss_that_is_told() -> TestResult {
    let Some(mut server) = Server::start("").await? else { return Ok(()) };
    server.api("STREAM.CREATE.bowline", IN_MEMORY).await?;
    let hub = hub(&server.url()).await?;
    let mut client = Client::live(&hub, "chat/a").await?;
    let first = hub.publish("chat/a", "1").await?;
    hub.publish("chat/a", "2").await?;
    client.expect(&["1", "2"]).await?;
    assert!(server.api("STREAM.INFO.bowline", "").await?.contains("\"max_msgs_per_subject\":101"));
    server.kill()?;
    server.restart().await?;
    client.expect(&["lost"]).await?;
    publish(&hub, "chat/a", "3").await?;
    publish(&hub, "chat/a", "4").await?;
    client.expect(&["3", "4"]).await?;
    let other = Client::join(&hub)?;
    assert!(matches!(other.member.subscribe("chat/a", Some(first)).await?, Start::Lost(_)));
    Ok(())
}

pub(crate) fn copy(from: &Path, to: &Path) -> TestResult {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (source, target) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// The numbers are those of the backup, and go on from there. Only the tags differ.
#[tokio::test]
async fn a_server_that_comes_back_from_a_backup_is_a_loss_that_is_told() -> TestResult {
    let Some(mut server) = Server::start("").await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut client = Client::live(&here, "chat/a").await?;
    for text in ["1", "2"] {
        publish(&there, "chat/a", text).await?;
    }
    let backup = server.store().with_extension("backup");
    server.kill()?;
    copy(&server.store(), &backup)?;
    server.restart().await?;
    for text in ["3", "4"] {
        publish(&there, "chat/a", text).await?;
    }
    let since = client.expect(&["1", "2", "3", "4"]).await?;
    server.kill()?;
    fs::remove_dir_all(server.store())?;
    copy(&backup, &server.store())?;
    server.restart().await?;
    for text in ["3 again", "4 again", "5"] {
        publish(&there, "chat/a", text).await?;
    }
    // As the node reads the history before or after these messages, or in between.
    client.expect(&["lost"]).await?;
    let other = Client::join(&here)?;
    let Start::Lost(top) = other.member.subscribe("chat/a", Some(since)).await? else {
        return Err("recovered from a message that does not exist".into());
    };
    assert!(top.offset() >= since.offset());
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_deleted_is_a_loss_that_is_told_at_once() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut events = here.events();
    let mut client = Client::live(&here, "chat/a").await?;
    let since = there.publish("chat/a", "1").await?;
    client.expect(&["1"]).await?;
    server.api("STREAM.DELETE.bowline", "").await?;
    client.expect(&["lost"]).await?;
    until(&mut events, |event| matches!(event, bowline_hub::HubEvent::Lost { .. })).await?;
    there.publish("chat/a", "2").await?;
    client.expect(&["2"]).await?;
    let other = Client::join(&there)?;
    assert!(matches!(other.member.subscribe("chat/a", Some(since)).await?, Start::Lost(_)));
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_purged_is_a_loss_that_is_told_with_the_next_message() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let hub = hub(&server.url()).await?;
    let mut client = Client::live(&hub, "chat/a").await?;
    hub.publish("chat/a", "1").await?;
    client.expect(&["1"]).await?;
    server.api("STREAM.PURGE.bowline", "").await?;
    hub.publish("chat/a", "2").await?;
    client.expect(&["lost"]).await?;
    hub.publish("chat/a", "3").await?;
    client.expect(&["3"]).await?;
    Ok(())
}

#[tokio::test]
async fn without_a_fitting_stream_the_error_says_why() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let foreign = IN_MEMORY.replace("bowline.live.>", "elsewhere.>");
    server.api("STREAM.CREATE.bowline", &foreign).await?;
    let hub = hub(&server.url()).await?;
    let error = hub.publish("chat/a", "1").await.unwrap_err();
    assert!(
        std::error::Error::source(&error).unwrap().to_string().contains("does not republish"),
        "{error:?}"
    );
    // Topics without history need no stream.
    hub.publish("news", "1").await?;
    Ok(())
}

/// The time of the node is advanced by hand, as it is real time for NATS.
#[tokio::test]
async fn a_last_message_that_is_lost_is_told_within_ten_minutes() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let hub = hub(&server.url()).await?;
    let mut client = Client::live(&hub, "chat/a").await?;
    hub.publish("chat/a", "1").await?;
    let last = hub.publish("chat/a", "2").await?;
    client.expect(&["1", "2"]).await?;
    let deletion = format!("{{\"seq\":{}}}", last.offset());
    server.api("STREAM.MSG.DELETE.bowline", &deletion).await?;
    // A runtime with a blocking task does not advance its time by itself.
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let blocking = tokio::task::spawn_blocking(move || ended.recv().is_err());
    tokio::time::pause();
    let mut seconds = 0;
    while hub.stats().lost == 0 {
        assert!(seconds <= 600, "nobody is told");
        tokio::time::advance(Duration::from_secs(1)).await;
        seconds += 1;
        // A round trip, in which the node hears of its server.
        hub.publish("news", "1").await?;
        hub.publish("chat/b", "1").await?;
    }
    assert!(seconds >= 300, "told after {seconds} s");
    client.expect(&["lost"]).await?;
    drop(end);
    assert!(blocking.await?);
    Ok(())
}

/// More topics than the engine reads one by one.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_many_topics_that_missed_messages_receives_all_in_order() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    miss_messages(&server, &server, 1500).await
}

/// The node finds no other server while it is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_many_topics_of_a_cluster_receives_all_that_it_missed() -> TestResult {
    let Some(servers) = cluster::start_with("no_advertise: true").await? else { return Ok(()) };
    cluster::wait_for_servers(&servers[0]).await?;
    miss_messages(&servers[0], &servers[1], 2000).await
}

/// A node with many topics is cut off, while another one publishes up to three messages to each.
async fn miss_messages(server: &Server, other: &Server, topics: usize) -> TestResult {
    const MOST: usize = 3;
    let proxy = Proxy::start(server.address()).await?;
    let here = Hub::builder(bowline_hub_nats::connect(&proxy.url("nats")).await?)
        .rule("chat/", Rule::new().history(100, Duration::from_secs(300)))
        .limits(HubLimits::default().topics_per_member(topics))
        .frame(|message| format!("{} {}", message.topic(), message.text().unwrap_or("?")).into())
        .build()?;
    let there = hub(&other.url()).await?;
    publish(&there, "chat/begin", "begin").await?;
    let mut client = Client::join(&here)?;
    for topic in 0..topics {
        let start = client.member.subscribe(&format!("chat/{topic}"), None).await?;
        assert!(matches!(start, Start::Live(_)), "{start:?}");
    }
    let mut events = here.events();
    proxy.set(Line::Cut);
    until(&mut events, |event| matches!(event, HubEvent::Disconnected(_))).await?;
    let mut missed = 0;
    for number in 0..MOST {
        // One, two or three messages.
        let mut published = JoinSet::new();
        for topic in (0..topics).filter(|topic| topic % MOST >= number) {
            let there = there.clone();
            published.spawn(async move { there.publish(&format!("chat/{topic}"), number.to_string()).await });
            missed += 1;
        }
        while let Some(published) = published.join_next().await {
            published??;
        }
    }
    let searches = other.count_searches().await?;
    proxy.set(Line::Open);
    let mut received = vec![0; topics];
    for _ in 0..missed {
        let frame = timeout(PATIENCE, client.socket.recv()).await??.ok_or("the end")?.into_text()?;
        let (topic, number) = frame.split_once(' ').ok_or("no space")?;
        let topic: usize = topic.trim_start_matches("chat/").parse()?;
        assert_eq!(number, received[topic].to_string(), "in topic {topic}");
        received[topic] += 1;
    }
    let expected: Vec<_> = (0..topics).map(|topic| topic % MOST + 1).collect();
    assert_eq!((received, here.stats().lost), (expected, 0));
    // Without the index, each message is searched for.
    let searches = searches.load(Ordering::Relaxed);
    assert!(searches < missed, "{searches} searches for {missed} messages");
    Ok(())
}
