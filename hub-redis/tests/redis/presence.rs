//! Presence over Redis: nodes that are killed and stopped, and servers that lose their data.

use std::error::Error;
use std::time::{Duration, Instant};

use bowline_hub::{ErrorKind, Hub, HubEvent, HubLimits, Present};
use bowline_hub_redis::{Redis, connect, connect_sharded};
use bowline_hub_testing::presence::{ROOM, Visitor, builder, keys};
use bowline_hub_testing::process::{NodeProcess, announce, orphaned};
use bowline_hub_testing::proxy::{Line, Proxy};
use bowline_hub_testing::{PATIENCE, TestResult, client, eventually};
use tokio::time::{sleep, timeout};

use crate::support::server::{DURABLE, SNAPSHOTS, Server, VOLATILE};

/// The URL of Redis, for the process of a node.
const NODE_URL: &str = "BOWLINE_NODE_URL";

/// The lease of the node, in milliseconds.
const NODE_LEASE: &str = "BOWLINE_NODE_LEASE";

/// The lease of a node, for tests that wait for its end.
const LEASE: Duration = Duration::from_secs(3);

fn limits(lease: Duration) -> HubLimits {
    HubLimits::default().presence_lease(lease).presence_linger(lease / 2)
}

async fn hub(url: &str) -> Result<Hub, Box<dyn Error>> {
    build(connect(url).await?, limits(LEASE))
}

fn build(engine: Redis, limits: HubLimits) -> Result<Hub, Box<dyn Error>> {
    Ok(builder(engine).limits(limits).build()?)
}

/// Checks that nothing has arrived: a change now is the next frame.
async fn expect_nothing(client: &mut Visitor, hub: &Hub) -> TestResult {
    let marker = Visitor::appear(hub, ROOM, "marker").await?;
    client.expect(&["+ marker"]).await?;
    marker.member.disappear(ROOM);
    client.expect(&["- marker"]).await
}

/// The number of renewals that take longer than a lease.
const LONG: u64 = 4;

/// Waits until a hub has renewed its lease so many times.
async fn renewals(hub: &Hub, count: u64) -> TestResult {
    let start = hub.stats().renewals;
    until(hub, async || hub.stats().renewals >= start + count).await
}

async fn until(hub: &Hub, condition: impl AsyncFn() -> bool) -> TestResult {
    Ok(eventually("", condition).await.map_err(|error| format!("{error}{:?}", hub.stats()))?)
}

#[tokio::test]
async fn two_nodes_tell_who_is_there_and_who_comes_and_goes() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut alice = Visitor::subscribe(&here, ROOM).await?;
    alice.expect(&["here "]).await?;
    alice.member.appear(ROOM, "alice").await?;
    alice.expect(&["+ alice"]).await?;
    let mut bob = Visitor::subscribe(&there, ROOM).await?;
    bob.expect(&["here alice"]).await?;
    bob.member.appear(ROOM, "bob").await?;
    bob.expect(&["+ bob"]).await?;
    let tab = Visitor::appear(&here, ROOM, "bob").await?;
    there.publish(ROOM, "hello").await?;
    bob.member.appear(ROOM, Present::new("bob").info("away")).await?;
    alice.expect(&["+ bob", "hello", "= bob away"]).await?;
    assert_eq!(keys(&there, ROOM).await?, ["alice", "bob"]);
    assert_eq!(there.count(ROOM).await?, 2);
    bob.member.disappear(ROOM);
    expect_nothing(&mut alice, &there).await?;
    tab.member.disappear(ROOM);
    alice.expect(&["- bob"]).await?;
    drop(there);
    alice.member.disappear(ROOM);
    alice.expect(&["- alice"]).await?;
    until(&here, async || here.count(ROOM).await.is_ok_and(|count| count == 0)).await
}

/// The line holds the request to enter, and lets it go after the member has left by another line.
#[tokio::test]
async fn a_request_that_was_given_up_does_nothing_when_it_arrives() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let proxy = Proxy::start(server.address()).await?;
    let hub = hub(&proxy.url("redis")).await?;
    let mut events = hub.events();
    let _other = Visitor::appear(&hub, ROOM, "other").await?;
    let client = Visitor::subscribe(&hub, ROOM).await?;
    proxy.set(Line::StalledToServer);
    let line = proxy.part();
    assert!(client.member.appear(ROOM, "late").await.is_err());
    client.member.disappear(ROOM);
    client::until(&mut events, |event| *event == HubEvent::Reconnected).await?;
    // After each, the hub removes entries for which it could not do that before.
    renewals(&hub, 2).await?;
    line.send_replace(Line::Open);
    timeout(PATIENCE, line.closed()).await?;
    for _ in 0..10 {
        assert_eq!(server.number(&["HLEN", "bowline:room/1.2:present"]).await?, 1);
    }
    Ok(())
}

/// Names and information are bytes, of any kind.
#[tokio::test]
async fn keys_and_topics_may_contain_anything() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let hub = hub(&server.url()).await?;
    let odd = ["a\0b", ":present", "%s\r\n", "\u{1F980}", "0123456789abcdef0123456789abcdef"];
    for topic in odd {
        let topic = format!("room/{topic}");
        let mut watcher = Visitor::subscribe(&hub, &topic).await?;
        watcher.expect(&["here "]).await?;
        let mut clients = Vec::new();
        for key in odd {
            let client = Visitor::subscribe(&hub, &topic).await?;
            client.member.appear(&topic, Present::new(key).info(format!("{key}+{key}"))).await?;
            watcher.expect(&[&format!("+ {key}")]).await?;
            clients.push(client);
        }
        let mut present = hub.present(&topic).await?;
        present.sort();
        let mut expected = odd.map(|key| Present::new(key).info(format!("{key}+{key}")));
        expected.sort();
        assert_eq!(present, expected);
        for (client, key) in clients.into_iter().zip(odd) {
            client.member.unsubscribe(&topic).await;
            watcher.expect(&[&format!("- {key}")]).await?;
        }
    }
    // Nothing is left but the lease of the hub, the run of the server, and its place.
    assert_eq!(server.number(&["DBSIZE"]).await?, 3);
    Ok(())
}

/// Not a test, but the process of a node with one member, `ghost`.
#[tokio::test]
#[ignore = "runs as a process of its own"]
async fn node() -> TestResult {
    let Ok(url) = std::env::var(NODE_URL) else { return Ok(()) };
    let lease = Duration::from_millis(std::env::var(NODE_LEASE)?.parse()?);
    let hub = build(connect(&url).await?, limits(lease))?;
    let _ghost = Visitor::appear(&hub, ROOM, "ghost").await?;
    announce("ghost");
    orphaned().await;
    Ok(())
}

/// Starts the process of a node, and waits until its member is present.
async fn start_node(server: &Server, lease: Duration) -> Result<NodeProcess, Box<dyn Error>> {
    let lease = lease.as_millis().to_string();
    NodeProcess::start("presence::node", &[(NODE_URL, &server.url()), (NODE_LEASE, &lease)]).await
}

/// Two survivors, one of which tells the leave, once.
#[tokio::test]
async fn a_node_that_is_killed_has_left_after_its_lease() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut node = start_node(&server, LEASE).await?;
    let mut watcher = Visitor::subscribe(&here, ROOM).await?;
    watcher.expect(&["here ghost"]).await?;
    renewals(&here, LONG).await?;
    node.kill()?;
    let killed = Instant::now();
    watcher.expect(&["- ghost"]).await?;
    let lasted = killed.elapsed();
    assert!(lasted < LEASE + LEASE / 2, "{lasted:?}");
    expect_nothing(&mut watcher, &there).await?;
    assert_eq!(here.stats().reaped + there.stats().reaped, 1);
    Ok(())
}

/// The default times: nobody stays for longer than 30 s.
#[tokio::test]
#[ignore = "takes a minute"]
async fn ghosts_are_gone_30_s_after_kill_9() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let here = build(connect(&server.url()).await?, HubLimits::default())?;
    let mut node = start_node(&server, HubLimits::default().presence_lease).await?;
    // From now on, this node takes the end of a lease for that of a node.
    sleep(HubLimits::default().presence_lease).await;
    assert_eq!(keys(&here, ROOM).await?, ["ghost"]);
    node.kill()?;
    let killed = Instant::now();
    while here.count(ROOM).await? == 1 {
        sleep(Duration::from_millis(20)).await;
    }
    println!("the ghost was gone after {:?}", killed.elapsed());
    assert!(killed.elapsed() <= HubLimits::default().presence_lease);
    Ok(())
}

#[cfg(unix)]
#[tokio::test]
async fn a_node_that_is_stopped_for_long_leaves_and_joins_again() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let here = hub(&server.url()).await?;
    let node = start_node(&server, LEASE).await?;
    let mut watcher = Visitor::subscribe(&here, ROOM).await?;
    watcher.expect(&["here ghost"]).await?;
    renewals(&here, LONG).await?;
    node.signal("-STOP")?;
    watcher.expect(&["- ghost"]).await?;
    node.signal("-CONT")?;
    watcher.expect(&["+ ghost"]).await?;
    assert_eq!(keys(&here, ROOM).await?, ["ghost"]);
    Ok(())
}

#[tokio::test]
async fn a_server_that_restarts_is_filled_again_without_news() -> TestResult {
    for persistence in [VOLATILE, DURABLE] {
        let Some(mut server) = Server::start(persistence).await? else { return Ok(()) };
        let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
        let mut events = there.events();
        let _alice = Visitor::appear(&here, ROOM, "alice").await?;
        let _bob = Visitor::appear(&there, ROOM, "bob").await?;
        let mut watcher = Visitor::subscribe(&here, ROOM).await?;
        watcher.know("alice bob").await?;
        server.kill()?;
        server.restart().await?;
        while !matches!(events.recv().await, None | Some(HubEvent::LeaseLapsed { .. })) {}
        let all = async || keys(&there, ROOM).await.is_ok_and(|keys| keys == ["alice", "bob"]);
        until(&there, all).await?;
        // After the views were compared, and old leases are over.
        renewals(&there, 2 * LONG).await?;
        expect_nothing(&mut watcher, &there).await?;
        assert_eq!(keys(&here, ROOM).await?, ["alice", "bob"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_loses_its_data_without_a_restart_is_filled_again() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let (_alice, _bob) =
        (Visitor::appear(&here, ROOM, "alice").await?, Visitor::appear(&there, ROOM, "bob").await?);
    server.command(&["FLUSHALL"]).await?;
    until(&here, async || keys(&here, ROOM).await.is_ok_and(|keys| keys == ["alice", "bob"])).await
}

#[tokio::test]
async fn a_server_that_rolls_back_leaves_no_ghosts() -> TestResult {
    let Some(mut server) = Server::start(SNAPSHOTS).await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let ghost = Visitor::appear(&here, ROOM, "ghost").await?;
    server.command(&["SAVE"]).await?;
    ghost.member.disappear(ROOM);
    let _alice = Visitor::appear(&here, ROOM, "alice").await?;
    let _bob = Visitor::appear(&there, ROOM, "bob").await?;
    until(&here, async || keys(&here, ROOM).await.is_ok_and(|keys| keys == ["alice", "bob"])).await?;
    server.kill()?;
    server.restart().await?;
    until(&there, async || there.stats().lapses == 1 && here.stats().lapses == 1).await?;
    until(&there, async || keys(&there, ROOM).await.is_ok_and(|keys| keys == ["alice", "bob"])).await
}

/// All leases have ended when the server goes on, and nobody is dead.
#[cfg(unix)]
#[tokio::test]
async fn a_server_that_was_stopped_for_longer_than_a_lease_buries_nobody() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let (_alice, _bob) =
        (Visitor::appear(&here, ROOM, "alice").await?, Visitor::appear(&there, ROOM, "bob").await?);
    let mut watcher = Visitor::subscribe(&here, ROOM).await?;
    watcher.know("alice bob").await?;
    renewals(&here, LONG).await?;
    server.signal("-STOP")?;
    let stopped = Instant::now();
    until(&here, async || !here.is_healthy() && !there.is_healthy() && stopped.elapsed() > LEASE).await?;
    server.signal("-CONT")?;
    until(&here, async || here.is_healthy() && there.is_healthy()).await?;
    renewals(&there, 2 * LONG).await?;
    expect_nothing(&mut watcher, &there).await?;
    assert_eq!(here.stats().reaped + there.stats().reaped, 0);
    Ok(())
}

/// A server without memory refuses newcomers, and keeps everybody else.
#[tokio::test]
async fn a_server_that_is_full_lets_nobody_leave_by_itself() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let (_alice, tab) =
        (Visitor::appear(&here, ROOM, "alice").await?, Visitor::appear(&there, ROOM, "alice").await?);
    let bob = Visitor::appear(&there, ROOM, "bob").await?;
    let carol = Visitor::subscribe(&there, ROOM).await?;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await?;
    renewals(&here, 2 * LONG).await?;
    assert_eq!(carol.member.appear(ROOM, "carol").await.unwrap_err().kind(), ErrorKind::Unavailable);
    tab.member.disappear(ROOM);
    bob.member.disappear(ROOM);
    until(&here, async || keys(&here, ROOM).await.is_ok_and(|keys| keys == ["alice"])).await?;
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    carol.member.appear(ROOM, "carol").await?;
    assert_eq!(keys(&here, ROOM).await?, ["alice", "carol"]);
    assert_eq!(here.stats().lapses + there.stats().lapses, 0);
    Ok(())
}

/// The topics of the other server go on, and those of the lost one are filled again.
#[tokio::test]
async fn of_several_servers_one_may_lose_its_data() -> TestResult {
    let Some(mut one) = Server::start(VOLATILE).await? else { return Ok(()) };
    let Some(other) = Server::start(VOLATILE).await? else { return Ok(()) };
    let hub = build(connect_sharded([one.url(), other.url()]).await?, limits(LEASE))?;
    let topics: Vec<_> = (0..10).map(|number| format!("room/{number}")).collect();
    let mut clients = Vec::new();
    for topic in &topics {
        let client = Visitor::subscribe(&hub, topic).await?;
        client.member.appear(topic, "alice").await?;
        clients.push(client);
    }
    assert!(one.number(&["EXISTS", "bowline:leases"]).await? == 1);
    let mut events = hub.events();
    one.kill()?;
    while !matches!(events.recv().await, None | Some(HubEvent::PartDisconnected { .. })) {}
    let mut reached = 0;
    for topic in &topics {
        reached += hub.count(topic).await.unwrap_or(0);
    }
    assert!((1..10).contains(&reached), "{reached} topics are within reach");
    one.restart().await?;
    for topic in &topics {
        until(&hub, async || hub.count(topic).await.is_ok_and(|count| count == 1)).await?;
    }
    Ok(())
}

/// The permissions that the documentation of the crate names are enough, also for those who reap.
#[tokio::test]
async fn a_user_with_the_documented_permissions_can_do_everything() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let docs = include_str!("../../src/lib.rs");
    let start = docs.find("ACL SETUSER").ok_or("the documentation names no permissions")?;
    let end = start + docs[start..].find("```").ok_or("the example doesn't end")?;
    let words: Vec<_> = docs[start..end].split_whitespace().filter(|word| *word != "//!").collect();
    server.command(&words).await?;
    let url = format!("redis://hub:password@{}", server.address());
    let (here, ending) = (hub(&url).await?, hub(&url).await?);
    let _alice = Visitor::appear(&here, ROOM, "alice").await?;
    let gone = [Visitor::appear(&ending, ROOM, "alice").await?, Visitor::appear(&ending, ROOM, "bob").await?];
    assert_eq!(keys(&here, ROOM).await?, ["alice", "bob"]);
    drop((gone, ending));
    until(&here, async || keys(&here, ROOM).await.is_ok_and(|keys| keys == ["alice"])).await?;
    assert_eq!(here.stats().reaped, 2);
    Ok(())
}
