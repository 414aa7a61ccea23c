//! Presence over NATS, also of nodes that are gone.

use std::error::Error;
use std::fs;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline_hub::{Engine, EngineError, Hub, HubLimits, Lease, Present};
use bowline_hub_testing::presence::{ROOM, Visitor, builder};
use bowline_hub_testing::proxy::{Line, Proxy};
use bowline_hub_testing::{Outcome, PATIENCE, TestResult};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{interval, sleep, timeout};

use crate::cluster;
use crate::engine::Bare;
use crate::history::copy;
use crate::server::Server;

const LEASE: Duration = Duration::from_millis(1500);
const LINGER: Duration = Duration::from_millis(300);

async fn hub(url: &str) -> Result<Hub, Box<dyn Error>> {
    let limits = HubLimits::default().presence_lease(LEASE).presence_linger(LINGER);
    Ok(builder(bowline_hub_nats::connect(url).await?).limits(limits).build()?)
}

/// Subscribes, learns who is there, and appears.
async fn appear(hub: &Hub, here: &str, key: &str) -> Result<Visitor, Box<dyn Error>> {
    let mut client = Visitor::subscribe(hub, ROOM).await?;
    client.expect(&[here]).await?;
    client.member.appear(ROOM, key).await?;
    Ok(client)
}

/// Waits until everybody sees the same keys.
async fn until_present(hubs: &[&Hub], keys: &[&str]) -> TestResult {
    let seen = async {
        for hub in hubs {
            loop {
                let mut present: Vec<_> =
                    hub.present(ROOM).await.unwrap_or_default().into_iter().map(|who| who.key).collect();
                present.sort_unstable();
                if present == keys {
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
    };
    Ok(timeout(PATIENCE, seen).await.map_err(|_| format!("{keys:?} are not present"))?)
}

#[tokio::test]
async fn members_are_told_who_is_there_and_who_comes_and_goes() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut alice = appear(&here, "here ", "alice").await?;
    alice.expect(&["+ alice"]).await?;
    let mut bob = appear(&there, "here alice", "bob.* >").await?;
    bob.expect(&["+ bob.* >"]).await?;
    alice.expect(&["+ bob.* >"]).await?;
    until_present(&[&here, &there], &["alice", "bob.* >"]).await?;
    assert_eq!(here.count(ROOM).await?, 2);

    bob.member.appear(ROOM, Present::new("bob.* >").info("away")).await?;
    alice.expect(&["= bob.* > away"]).await?;
    bob.member.disappear(ROOM);
    alice.expect(&["- bob.* >"]).await?;
    bob.expect(&["= bob.* > away", "- bob.* >"]).await?;
    alice.member.unsubscribe(ROOM).await;
    bob.expect(&["- alice"]).await?;
    until_present(&[&here, &there], &[]).await?;
    Ok(())
}

#[tokio::test]
async fn two_tabs_on_two_nodes_join_once_and_leave_once() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut watcher = Visitor::subscribe(&here, ROOM).await?;
    watcher.expect(&["here "]).await?;
    let first = appear(&here, "here ", "alice").await?;
    watcher.expect(&["+ alice"]).await?;
    let second = appear(&there, "here alice", "alice").await?;
    first.member.disappear(ROOM);
    let marker = appear(&there, "here alice", "marker").await?;
    watcher.expect(&["+ marker"]).await?;
    second.member.disappear(ROOM);
    watcher.expect(&["- alice"]).await?;
    drop(marker);
    watcher.expect(&["- marker"]).await?;
    Ok(())
}

/// The node can't tell that it is going. The others tell its leaves, each once.
#[tokio::test]
async fn the_members_of_a_node_that_vanishes_leave_after_its_lease() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let proxy = Proxy::start(server.address()).await?;
    let (first, second) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut watchers = [Visitor::subscribe(&first, ROOM).await?, Visitor::subscribe(&second, ROOM).await?];
    for watcher in &mut watchers {
        watcher.expect(&["here "]).await?;
    }
    // Survivors wait for the time of a lease before they trust their own clocks.
    sleep(LEASE).await;
    let ghost = hub(&proxy.url("nats")).await?;
    let _alice = appear(&ghost, "here ", "alice").await?;
    let _bob = appear(&ghost, "here alice", "bob").await?;
    for watcher in &mut watchers {
        watcher.expect(&["+ alice", "+ bob"]).await?;
    }
    let gone = Instant::now();
    proxy.set(Line::Stalled);
    for watcher in &mut watchers {
        let mut left = Vec::new();
        for _ in 0..2 {
            let frame = timeout(PATIENCE, watcher.socket.recv()).await??.ok_or("the end")?.into_text()?;
            left.push(frame.as_str().to_owned());
        }
        left.sort_unstable();
        assert_eq!(left, ["- alice", "- bob"]);
    }
    assert!(gone.elapsed() >= LEASE / 2, "the lease ended after {:?}", gone.elapsed());
    // The node comes back, learns that its lease has lapsed, and enters its members again.
    proxy.set(Line::Open);
    until_present(&[&first, &second], &["alice", "bob"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_comes_back_without_its_data_learns_who_is_there() -> TestResult {
    let Some(mut server) = Server::start("").await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let _alice = appear(&here, "here ", "alice").await?;
    let bob = appear(&there, "here alice", "bob").await?;
    server.kill()?;
    server.restart().await?;
    until_present(&[&here, &there], &["alice", "bob"]).await?;
    server.kill()?;
    fs::remove_dir_all(server.store())?;
    server.restart().await?;
    until_present(&[&here, &there], &["alice", "bob"]).await?;
    bob.member.disappear(ROOM);
    until_present(&[&here, &there], &["alice"]).await?;
    Ok(())
}

/// A request that was given up reaches the stream at last. It names the number that it has seen.
#[tokio::test]
async fn a_late_request_does_not_undo_a_later_call() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let (here, there) = (Bare::start(&server.url(), ROOM).await?, Bare::start(&server.url(), ROOM).await?);
    let subject = |key: &str| format!("bowline.present.room/1%2e2.{key}");
    let late = |key: &str, nodes: &str| {
        format!("{{\"key\":\"{key}\",\"info\":\"\",\"nodes\":[{nodes}],\"change\":true}}")
    };
    let [ours, theirs] = [&here, &there].map(|bare| format!("\"{}\"", bare.node));

    // A node enters a key that nobody has, or somebody else, and exits before its request arrives.
    here.engine.exit(&here.topic, here.node, "alice").await?;
    let answer = server.publish_after(&subject("alice"), 0, &late("alice", &ours)).await?;
    assert!(answer.contains("10071"), "{answer}");
    there.engine.enter(&there.topic, there.node, &Present::new("bob")).await?;
    let seen = server.last_of(&subject("bob")).await?;
    here.engine.exit(&here.topic, here.node, "bob").await?;
    let answer =
        server.publish_after(&subject("bob"), seen, &late("bob", &format!("{theirs},{ours}"))).await?;
    assert!(answer.contains("10071"), "{answer}");
    // A node exits, and enters again before its request arrives.
    let seen = server.last_of(&subject("bob")).await?;
    there.engine.enter(&there.topic, there.node, &Present::new("bob")).await?;
    let answer = server.publish_after(&subject("bob"), seen, &late("bob", "")).await?;
    assert!(answer.contains("10071"), "{answer}");
    assert_eq!(here.engine.present(&here.topic).await?, [Present::new("bob")]);
    there.engine.exit(&there.topic, there.node, "bob").await?;
    assert_eq!(here.engine.count(&here.topic).await?, 0);
    Ok(())
}

/// The changes never pause for as long as it takes to read the room.
#[tokio::test]
async fn a_busy_room_can_be_read() -> TestResult {
    const PEOPLE: usize = 3000;
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let bare = Bare::start(&server.url(), ROOM).await?;
    let mut line = TcpStream::connect(("127.0.0.1", server.port)).await?;
    line.write_all(b"CONNECT {\"verbose\":false}\r\n").await?;
    let publication = |key: usize| {
        let person = format!("{{\"key\":\"{key}\",\"info\":\"\",\"nodes\":[\"0\"],\"change\":true}}");
        format!("PUB bowline.present.room/1%2e2.{key} {}\r\n{person}\r\n", person.len())
    };
    line.write_all((0..PEOPLE).map(publication).collect::<String>().as_bytes()).await?;
    let all = async {
        while bare.engine.count(&bare.topic).await? < PEOPLE {}
        Ok::<_, EngineError>(())
    };
    timeout(PATIENCE, all).await??;
    let changes = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(2));
        for key in (0..PEOPLE).cycle() {
            ticks.tick().await;
            if line.write_all(publication(key).as_bytes()).await.is_err() {
                break;
            }
        }
    });
    for _ in 0..5 {
        let mut present = timeout(PATIENCE, bare.engine.present(&bare.topic)).await??;
        present.sort_unstable();
        present.dedup();
        assert_eq!(present.len(), PEOPLE);
    }
    changes.abort();
    Ok(())
}

/// Nobody renews a lease, and nobody reads the room.
#[tokio::test]
async fn keys_that_are_gone_leave_the_stream() -> TestResult {
    const PEOPLE: usize = 300;
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let bare = Bare::start(&server.url(), ROOM).await?;
    let calls = (0..PEOPLE).map(|key| {
        let (engine, topic, node) = (Arc::clone(&bare.engine), bare.topic.clone(), bare.node);
        async move {
            engine.enter(&topic, node, &Present::new(key.to_string())).await?;
            engine.exit(&topic, node, &key.to_string()).await
        }
    });
    let mut calls: JoinSet<_> = calls.collect();
    while let Some(call) = calls.join_next().await {
        call??;
    }
    let filter = "{\"subjects_filter\":\"bowline.present.>\"}";
    let gone = async {
        while server.api("STREAM.INFO.bowline-presence", filter).await?.contains("bowline.present.room") {
            sleep(Duration::from_millis(200)).await;
        }
        Ok::<_, Box<dyn Error>>(())
    };
    timeout(PATIENCE, gone).await?
}

#[tokio::test]
async fn a_stream_of_presence_that_is_deleted_is_filled_again() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let here = hub(&server.url()).await?;
    let _alice = appear(&here, "here ", "alice").await?;
    server.api("STREAM.DELETE.bowline-presence", "").await?;
    until_present(&[&here], &["alice"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_cluster_keeps_who_is_there_when_a_server_is_killed() -> TestResult {
    let Some(mut servers) = cluster::start().await? else { return Ok(()) };
    let (here, there) = (hub(&servers[0].url()).await?, hub(&servers[1].url()).await?);
    // The cluster may not have a leader yet.
    let alice = Visitor::subscribe(&here, ROOM).await?;
    let bob = Visitor::subscribe(&there, ROOM).await?;
    let appeared = async {
        while alice.member.appear(ROOM, "alice").await.is_err()
            || bob.member.appear(ROOM, "bob").await.is_err()
        {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, appeared).await?;
    servers[0].kill()?;
    until_present(&[&here, &there], &["alice", "bob"]).await?;
    bob.member.disappear(ROOM);
    until_present(&[&here, &there], &["alice"]).await?;
    Ok(())
}

/// Calls an engine again and again, while a cluster has no leader and loses requests.
async fn again<T>(call: impl AsyncFn() -> Result<T, EngineError>) -> Outcome<T> {
    let called = async {
        loop {
            if let Ok(Ok(outcome)) = timeout(Duration::from_secs(5), call()).await {
                return outcome;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    Ok(timeout(PATIENCE, called).await.map_err(|_| "the cluster does not answer")?)
}

/// Two nodes enter a key at once. One exits, so that the other one is left.
async fn enter_at_once(here: &Bare, there: &Bare, key: &str) -> Outcome<()> {
    let who = Present::new(key);
    let enter = async |bare: &Bare| again(|| bare.engine.enter(&bare.topic, bare.node, &who)).await;
    let exit = async |bare: &Bare| again(|| bare.engine.exit(&bare.topic, bare.node, key)).await;
    // A leader that was just elected may be late.
    let until = async |bare: &Bare, is_present: bool| {
        let mut last = Vec::new();
        let seen = async {
            loop {
                last = again(|| bare.engine.present(&bare.topic)).await?;
                if last.contains(&who) == is_present {
                    return Outcome::Ok(());
                }
            }
        };
        let seen = timeout(PATIENCE, seen).await;
        seen.map_err(|_| format!("{key} should be present: {is_present}; these are: {last:?}"))?
    };
    let (ours, theirs) = tokio::join!(enter(here), enter(there));
    assert_eq!((ours?, theirs?), (Lease::Held, Lease::Held), "{key}");
    exit(here).await?;
    until(there, true).await?;
    exit(there).await?;
    until(here, false).await
}

/// NATS 2.9 checks the number of a message before its servers agree, so that it would accept both changes.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_of_a_key_at_once_a_cluster_forgets_none() -> TestResult {
    const KEYS: usize = 8;
    const ROUNDS: usize = 12;
    let Some(servers) = cluster::start().await? else { return Ok(()) };
    cluster::wait_for_servers(&servers[0]).await?;
    let bare = async |server: &Server| timeout(PATIENCE, Bare::start(&server.url(), ROOM)).await?;
    let bares = Rc::new((bare(&servers[0]).await?, bare(&servers[1]).await?));
    let rounds = async {
        for round in 0..ROUNDS {
            if round % 4 == 1 {
                for bare in [&bares.0, &bares.1] {
                    let renewed = again(|| bare.engine.renew(bare.node, Duration::from_secs(300))).await;
                    assert_eq!(renewed.map_err(|error| error.to_string())?, Lease::Held);
                }
                servers[2].api("STREAM.LEADER.STEPDOWN.bowline-presence", "").await?;
            }
            let mut keys = JoinSet::new();
            for key in 0..KEYS {
                let bares = Rc::clone(&bares);
                keys.spawn_local(async move {
                    enter_at_once(&bares.0, &bares.1, &format!("{round} {key}")).await
                });
            }
            for entered in keys.join_all().await {
                entered.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    };
    LocalSet::new().run_until(rounds).await
}

/// The stream has lost the lease of a node, and an index, too.
#[tokio::test]
async fn the_entries_of_a_node_without_a_lease_are_removed() -> TestResult {
    let Some(mut server) = Server::start("").await? else { return Ok(()) };
    let bare = Bare::start(&server.url(), ROOM).await?;
    let (node, topic, time) = (bare.node, &bare.topic, Duration::from_secs(2));
    let bob = Present::new("bob");
    assert_eq!(bare.engine.enter(topic, node, &bob).await?, Lease::Held);
    for key in ["alice", "carol"] {
        let person = format!("{{\"key\":\"{key}\",\"info\":\"\",\"nodes\":[\"77\"],\"change\":true}}");
        server.publish_after(&format!("bowline.present.room/1%2e2.{key}"), 0, &person).await?;
    }
    server.publish_after("bowline.node.77.room/1%2e2.carol", 0, "").await?;
    assert_eq!(bare.engine.renew(node, time).await?, Lease::Held);
    assert_eq!(bare.engine.count(topic).await?, 3);
    server.kill()?;
    server.restart().await?;
    let removed = async {
        loop {
            assert_eq!(again(|| bare.engine.renew(node, time)).await?, Lease::Held);
            again(|| bare.engine.reap(node)).await?;
            if again(|| bare.engine.present(topic)).await? == [bob.clone()] {
                return Outcome::Ok(());
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    timeout(PATIENCE, removed).await?.map_err(|error| error.to_string())?;
    Ok(())
}

/// A backup lacks the entry, but has the lease. Others publish before the node does, so that numbers grow.
#[tokio::test]
async fn a_node_whose_entries_were_rolled_back_enters_them_again() -> TestResult {
    roll_back(&[]).await
}

/// Another node has already entered the key, in the place of the message that was lost.
#[tokio::test]
async fn a_node_whose_last_entry_was_rolled_back_and_replaced_enters_again() -> TestResult {
    roll_back(&["77"]).await
}

/// Rolls back an entry of a node. Other nodes have entered the same key since.
async fn roll_back(others: &[&str]) -> TestResult {
    const OTHERS: usize = 50;
    let Some(mut server) = Server::start("").await? else { return Ok(()) };
    let bare = Bare::start(&server.url(), ROOM).await?;
    let alice = Present::new("alice");
    let backup = TempDir::new()?;
    server.kill()?;
    copy(&server.store(), backup.path())?;
    server.restart().await?;
    // The lease is that of the backup.
    let entered = again(|| bare.engine.enter(&bare.topic, bare.node, &alice)).await;
    assert_eq!(entered.map_err(|error| error.to_string())?, Lease::Held);
    server.kill()?;
    fs::remove_dir_all(server.store())?;
    copy(backup.path(), &server.store())?;
    server.restart().await?;
    for number in 0..OTHERS {
        let answer = server.publish_after(&format!("bowline.present.other.{number}"), 0, "").await?;
        assert!(answer.contains("\"seq\""), "{answer}");
    }
    for other in others {
        let person = format!("{{\"key\":\"alice\",\"info\":\"\",\"nodes\":[\"{other}\"],\"change\":true}}");
        server.publish_after("bowline.present.room/1%2e2.alice", 0, &person).await?;
    }
    let renewed = again(|| bare.engine.renew(bare.node, Duration::from_secs(30))).await;
    assert_eq!(renewed.map_err(|error| error.to_string())?, Lease::Lapsed);
    let count = again(|| bare.engine.count(&bare.topic)).await;
    assert_eq!(count.map_err(|error| error.to_string())?, others.len());
    Ok(())
}
