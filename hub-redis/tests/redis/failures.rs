//! Failures of a real Redis and real nodes, one by one: see `hub/docs/failures.md`.

use std::error::Error;
use std::time::{Duration, Instant};

use bowline::WebSocket;
use bowline_hub::{ErrorKind, Hub, HubEvent, HubLimits, Position, Start};
use bowline_hub_redis::connect;
use bowline_hub_testing::client::{Client, builder_with_loss, publish, until};
use bowline_hub_testing::proxy::{Line, Proxy};
use bowline_hub_testing::{PATIENCE, TestResult, eventually};
use tokio::time::timeout;

use crate::support::node::{LocalNode, start_process};
use crate::support::server::{Server, VOLATILE};
use crate::topics::{hub, patient};

/// A Redis, a node beside it, and one that reaches it through a proxy.
struct Scene {
    server: Server,
    proxy: Proxy,
    there: Hub,
    here: Hub,
}

async fn scene() -> Result<Option<Scene>, Box<dyn Error>> {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(None) };
    let proxy = Proxy::start(server.address()).await?;
    let there = hub(&server).await?;
    let here = builder_with_loss(connect(&proxy.url("redis")).await?).build()?;
    Ok(Some(Scene { server, proxy, there, here }))
}

/// The node misses messages, and its members receive them in order as soon as it is back.
#[tokio::test]
async fn a_node_that_is_cut_off_says_so_and_fills_the_gap() -> TestResult {
    let Some(scene) = scene().await? else { return Ok(()) };
    let mut events = scene.here.events();
    let mut client = Client::live(&scene.here, "chat/a").await?;
    publish(&scene.there, "chat/a", "1").await?;
    client.expect(&["1"]).await?;
    scene.proxy.set(Line::Cut);
    until(&mut events, |event| matches!(event, HubEvent::Disconnected(_))).await?;
    assert!(!scene.here.is_healthy());
    assert!(scene.there.is_healthy());
    for text in ["2", "3", "4"] {
        publish(&scene.there, "chat/a", text).await?;
    }
    // Nothing is queued: "unsent" never arrives.
    let error = scene.here.publish("chat/a", "unsent").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = client.member.subscribe("chat/b", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    scene.proxy.set(Line::Open);
    client.expect(&["2", "3", "4"]).await?;
    until(&mut events, |event| *event == HubEvent::Reconnected).await?;
    assert!(scene.here.is_healthy());
    publish(&scene.here, "chat/a", "5").await?;
    client.expect(&["5"]).await?;
    assert_eq!(scene.here.stats().lost, 0);
    Ok(())
}

/// Both requests wait for the connection, and are answered together.
#[tokio::test]
async fn a_topic_that_was_given_up_during_a_loss_is_not_received() -> TestResult {
    const BOUND: Duration = Duration::from_millis(300);
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let proxy = Proxy::start(server.address()).await?;
    let limits = HubLimits::default().engine_timeout(BOUND);
    let hub = builder_with_loss(connect(&proxy.url("redis")).await?).limits(limits).build()?;
    let mut events = hub.events();
    let client = Client::join(&hub)?;
    proxy.set(Line::Cut);
    until(&mut events, |event| matches!(event, HubEvent::Disconnected(_))).await?;
    // The next attempt to connect takes long.
    proxy.set(Line::Stalled);
    let mut given_up = 0;
    while given_up < 2 {
        let start = Instant::now();
        assert!(client.member.subscribe(&format!("news/{given_up}"), None).await.is_err());
        given_up += usize::from(start.elapsed() >= BOUND);
    }
    proxy.set(Line::Open);
    until(&mut events, |event| *event == HubEvent::Reconnected).await?;
    let subscribed = async { while client.member.subscribe("news/more", None).await.is_err() {} };
    timeout(PATIENCE, subscribed).await?;
    let script = "return redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2]";
    assert_eq!(server.number(&["EVAL", script, "0", "bowline:news/0"]).await?, 0);
    assert_eq!(server.number(&["EVAL", script, "0", "bowline:news/more"]).await?, 1);
    Ok(())
}

/// Nothing tells the node that its packets vanish. In either direction, it finds out, and both of its
/// connections are new afterwards.
#[tokio::test]
async fn a_line_on_which_packets_vanish_is_noticed() -> TestResult {
    for line in [Line::StalledToServer, Line::StalledToClient] {
        let Some(scene) = scene().await? else { return Ok(()) };
        let mut events = scene.here.events();
        let mut client = Client::live(&scene.here, "chat/a").await?;
        scene.proxy.set(line);
        publish(&scene.there, "chat/a", "1").await?;
        until(&mut events, |event| matches!(event, HubEvent::Disconnected(_))).await?;
        let error = scene.here.publish("chat/a", "unsent").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        scene.proxy.set(Line::Cut);
        scene.proxy.set(Line::Open);
        client.expect(&["1"]).await?;
        publish(&scene.here, "chat/a", "2").await?;
        client.expect(&["2"]).await?;
        assert_eq!(scene.here.stats().lost, 0);
    }
    Ok(())
}

/// However often Redis vanishes, members are told once, as there is nothing more to lose.
#[tokio::test]
async fn a_lost_history_is_told_once() -> TestResult {
    let Some(mut scene) = scene().await? else { return Ok(()) };
    let mut events = scene.here.events();
    let mut client = Client::live(&scene.here, "chat/a").await?;
    publish(&scene.there, "chat/a", "1").await?;
    client.expect(&["1"]).await?;
    scene.server.kill()?;
    scene.server.restart().await?;
    client.expect(&["lost"]).await?;
    for _ in 0..3 {
        scene.proxy.set(Line::Cut);
        until(&mut events, |event| matches!(event, HubEvent::Disconnected(_))).await?;
        scene.proxy.set(Line::Open);
        until(&mut events, |event| *event == HubEvent::Reconnected).await?;
    }
    publish(&scene.there, "chat/a", "2").await?;
    client.expect(&["2"]).await?;
    assert_eq!(scene.here.stats().lost, 1);
    Ok(())
}

/// Messages with a history are refused, and all others are not. Nodes can come and go.
#[tokio::test]
async fn a_server_that_is_full_refuses_only_what_needs_memory() -> TestResult {
    let Some(scene) = scene().await? else { return Ok(()) };
    let mut client = Client::live(&scene.here, "chat/a").await?;
    let mut news = Client::live(&scene.here, "news").await?;
    publish(&scene.there, "chat/a", "1").await?;
    scene.server.command(&["CONFIG", "SET", "maxmemory", "1"]).await?;
    let error = scene.there.publish("chat/a", "unsent").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("maxmemory"), "{error}");
    scene.there.publish("news", "2").await?;
    news.expect(&["2"]).await?;
    drop(hub(&scene.server).await?);
    scene.server.command(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    publish(&scene.there, "chat/a", "3").await?;
    client.expect(&["1", "3"]).await?;
    Ok(())
}

/// A server that refuses to write, because its replicas are away or its disk is full, is no server that is
/// lost. Topics without history go on.
#[tokio::test]
async fn a_server_that_refuses_to_write_still_carries_messages() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (patient(&server).await?, patient(&server).await?);
    let mut client = Client::live(&here, "chat/a").await?;
    let mut news = Client::live(&here, "news").await?;
    server.command(&["DEL", "bowline:place"]).await?;
    server.command(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await?;
    let error = there.publish("chat/a", "unsent").await.unwrap_err();
    assert!(error.to_string().contains("NOREPLICAS"), "{error}");
    // Each node looks a few times whether the server still writes.
    let script = "return tonumber(string.match(redis.call('INFO', 'commandstats'), \
                  'cmdstat_persist:.-rejected_calls=(%d+)') or 0)";
    eventually("both nodes have looked", async || {
        server.number(&["EVAL", script, "0"]).await.is_ok_and(|refused| refused >= 4)
    })
    .await?;
    assert!(here.is_healthy() && there.is_healthy());
    there.publish("news", "1").await?;
    news.expect(&["1"]).await?;
    // Nodes can come.
    drop(hub(&server).await?);
    server.command(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await?;
    publish(&there, "chat/a", "2").await?;
    client.expect(&["2"]).await?;
    assert_eq!((here.stats().lost, here.stats().gaps), (0, 0));
    Ok(())
}

/// The scripts are sent again, and nothing fails.
#[tokio::test]
async fn a_server_that_forgets_its_scripts_is_told_them_again() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (patient(&server).await?, patient(&server).await?);
    let mut client = Client::live(&here, "chat/a").await?;
    let mut since = Position::UNTRACKED;
    for text in ["1", "2", "3"] {
        server.command(&["SCRIPT", "FLUSH"]).await?;
        there.publish("chat/a", text).await?;
        since = client.expect(&[text]).await?;
    }
    server.command(&["SCRIPT", "FLUSH"]).await?;
    there.publish_once("chat/a", "key", "4").await?;
    server.command(&["SCRIPT", "FLUSH"]).await?;
    let mut again = Client::join(&there)?;
    assert!(matches!(again.member.subscribe("chat/a", since).await?, Start::Live(_)));
    client.expect(&["4"]).await?;
    again.expect(&["4"]).await?;
    Ok(())
}

/// A server that is full, with a policy that evicts, removes any one of the keys. Whatever is missing,
/// members receive everything, or are told, and so are clients that come back.
#[tokio::test]
async fn a_key_that_is_evicted_is_a_loss_that_is_told() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (patient(&server).await?, patient(&server).await?);
    for (part, live, back) in [
        ("head", &["lost", "6"][..], None),
        ("messages", &["5", "6"][..], None),
        ("keys", &["5", "6"][..], Some(["3", "4", "5", "6"])),
        ("order", &["5", "6"][..], Some(["3", "4", "5", "6"])),
    ] {
        let topic = format!("chat/{part}");
        let mut client = Client::live(&here, &topic).await?;
        for text in ["1", "2", "3", "4"] {
            there.publish_once(&topic, text, text).await?;
        }
        let since = client.expect(&["1", "2"]).await?;
        client.expect(&["3", "4"]).await?;
        server.command(&["DEL", &format!("bowline:{topic}:{part}")]).await?;
        there.publish_once(&topic, "5", "5").await?;
        client.expect(&live[..1]).await?;
        there.publish_once(&topic, "6", "6").await?;
        client.expect(&live[1..]).await?;
        let mut again = Client::join(&there)?;
        match (again.member.subscribe(&topic, since).await?, back) {
            (Start::Lost(_), None) => {}
            (Start::Live(_), Some(texts)) => drop(again.expect(&texts).await?),
            (start, _) => return Err(format!("without its {part}, the history is {start:?}").into()),
        }
    }
    Ok(())
}

/// Receives the text of the next message of a node's client.
async fn receive(socket: &mut WebSocket) -> Result<(Position, String), Box<dyn Error>> {
    loop {
        let frame = timeout(PATIENCE, socket.recv()).await??.ok_or("the node has ended")?.into_text()?;
        let mut parts = frame.splitn(3, ' ');
        let kind = parts.next().ok_or("no kind")?;
        let position = parts.next().ok_or("no position")?.parse()?;
        match kind {
            "start" => {}
            "message" => return Ok((position, parts.next().ok_or("no text")?.to_owned())),
            _ => return Err(format!("a frame of the kind {kind}").into()),
        }
    }
}

/// A client of a process that is killed comes back elsewhere, and misses nothing.
#[tokio::test]
async fn a_client_of_a_node_that_is_killed_goes_on_elsewhere() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let node = start_process(&server.url()).await?;
    let there = hub(&server).await?;
    let mut socket = bowline::connect(format!("ws://{}", node.announced)).await?;
    socket.send("subscribe now").await?;
    assert_eq!(receive_start(&mut socket).await?.offset(), 0);
    publish(&there, "chat/a", "1").await?;
    let (since, text) = receive(&mut socket).await?;
    assert_eq!(text, "1");
    // Dropping the handle is kill -9.
    drop(node);
    assert!(!matches!(timeout(PATIENCE, socket.recv()).await?, Ok(Some(_))));
    publish(&there, "chat/a", "2").await?;
    let mut client = Client::join(&there)?;
    assert!(matches!(client.member.subscribe("chat/a", Some(since)).await?, Start::Live(_)));
    publish(&there, "chat/a", "3").await?;
    client.expect(&["2", "3"]).await?;
    Ok(())
}

async fn receive_start(socket: &mut WebSocket) -> Result<Position, Box<dyn Error>> {
    let frame = timeout(PATIENCE, socket.recv()).await??.ok_or("the node has ended")?.into_text()?;
    Ok(frame.strip_prefix("start ").ok_or("no start")?.trim().parse()?)
}

/// Redis has given up the node when it continues. Its members receive what they missed.
#[cfg(unix)]
#[tokio::test]
async fn a_node_that_was_stopped_goes_on_where_it_was() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let node = start_process(&server.url()).await?;
    let there = LocalNode::start(&server.url()).await?;
    let mut socket = bowline::connect(format!("ws://{}", node.announced)).await?;
    socket.send("subscribe now").await?;
    receive_start(&mut socket).await?;
    node.signal("-STOP")?;
    let mut publisher = there.connect();
    publisher.send("publish").await?;
    for number in 0..50 {
        publisher.send(format!("{number} ")).await?;
        assert_ne!(publisher.recv().await?.ok_or("the end")?.as_text(), Some("failed"));
    }
    // As after a minute, in which Redis found no room for all that the node did not read.
    server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await?;
    node.signal("-CONT")?;
    for number in 0..50 {
        assert_eq!(receive(&mut socket).await?.1, format!("{number} "));
    }
    Ok(())
}
