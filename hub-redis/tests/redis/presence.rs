//! Presence over Redis: nodes that are killed and stopped, and servers that lose their data.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bowline::{WebSocket, pair};
use bowline_hub::{ErrorKind, Hub, HubEvent, HubLimits, Member, PresenceNews, Present, Rule};
use bowline_hub_redis::{connect, connect_sharded};
use tokio::time::{sleep, timeout};

use crate::support::proxy::{Proxy, Weather};
use crate::support::server::{DURABLE, PATIENCE, SNAPSHOTS, Server, TestResult, VOLATILE};
use crate::topics;

const ROOM: &str = "room/1";

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

/// Members are told who is in a room: `here` with all keys, `+` and `-` for changes, and `=` for other
/// information.
fn build(engine: bowline_hub_redis::Redis, limits: HubLimits) -> Result<Hub, Box<dyn Error>> {
    let hub = Hub::builder(engine)
        .rule("room/", Rule::new().presence())
        .limits(limits)
        .presence(|_, news| {
            let text = match news {
                PresenceNews::Here(all) => {
                    let mut keys: Vec<_> = all.iter().map(|present| present.key.as_str()).collect();
                    keys.sort_unstable();
                    format!("here {}", keys.join(" "))
                }
                PresenceNews::Joined(who) => format!("+ {}", who.key),
                PresenceNews::Left(who) => format!("- {}", who.key),
                PresenceNews::Updated(who) => format!("= {} {}", who.key, who.info),
                _ => return None,
            };
            Some(text.into())
        })
        .build()?;
    Ok(hub)
}

/// A client with its connection in a hub.
struct Client {
    socket: WebSocket,
    member: Member,
    _server: WebSocket,
}

impl Client {
    async fn subscribe(hub: &Hub, topic: &str) -> Result<Self, Box<dyn Error>> {
        let (socket, server) = pair();
        let member = hub.join(server.sender())?;
        let _start = member.subscribe(topic, None).await?;
        Ok(Self { socket, member, _server: server })
    }

    async fn appear(hub: &Hub, key: &str) -> Result<Self, Box<dyn Error>> {
        let client = Self::subscribe(hub, ROOM).await?;
        client.member.appear(ROOM, key).await?;
        Ok(client)
    }

    async fn expect(&mut self, frames: &[&str]) -> TestResult {
        for expected in frames {
            let frame = timeout(PATIENCE, self.socket.recv()).await;
            let frame = frame.map_err(|_| format!("{expected:?} does not arrive"))??.ok_or("the end")?;
            assert_eq!(frame.as_text(), Some(*expected));
        }
        Ok(())
    }

    /// Receives frames until the client knows of these people, and of nobody else.
    async fn know(&mut self, expected: &str) -> TestResult {
        let mut known = BTreeSet::new();
        loop {
            let frame = timeout(PATIENCE, self.socket.recv()).await;
            let frame = frame.map_err(|_| format!("only {known:?} are known"))??.ok_or("the end")?;
            let (kind, rest) = frame.as_text().and_then(|text| text.split_once(' ')).ok_or("no frame")?;
            match kind {
                "here" => known = rest.split_whitespace().map(str::to_owned).collect(),
                "+" => assert!(known.insert(rest.to_owned()), "{rest} joins twice"),
                _ => assert!(known.remove(rest), "{rest} leaves twice"),
            }
            if known.iter().map(String::as_str).eq(expected.split_whitespace()) {
                return Ok(());
            }
        }
    }

    /// Checks that nothing has arrived: a change now is the next frame.
    async fn expect_nothing(&mut self, hub: &Hub) -> TestResult {
        let marker = Self::appear(hub, "marker").await?;
        self.expect(&["+ marker"]).await?;
        marker.member.disappear(ROOM);
        self.expect(&["- marker"]).await
    }
}

async fn keys(hub: &Hub) -> Result<Vec<String>, Box<dyn Error>> {
    let mut keys: Vec<_> = hub.present(ROOM).await?.into_iter().map(|who| who.key).collect();
    keys.sort_unstable();
    Ok(keys)
}

/// The number of renewals that take longer than a lease.
const LONG: u64 = 4;

/// Waits until a hub has renewed its lease so many times.
async fn renewals(hub: &Hub, count: u64) -> TestResult {
    let start = hub.stats().renewals;
    until(hub, async || hub.stats().renewals >= start + count).await
}

async fn until(hub: &Hub, condition: impl AsyncFn() -> bool) -> TestResult {
    let met = async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, met).await.map_err(|_| format!("{:?}", hub.stats()))?;
    Ok(())
}

#[tokio::test]
async fn two_nodes_tell_who_is_there_and_who_comes_and_goes() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut alice = Client::subscribe(&here, ROOM).await?;
    alice.expect(&["here "]).await?;
    alice.member.appear(ROOM, "alice").await?;
    alice.expect(&["+ alice"]).await?;
    let mut bob = Client::subscribe(&there, ROOM).await?;
    bob.expect(&["here alice"]).await?;
    bob.member.appear(ROOM, "bob").await?;
    bob.expect(&["+ bob"]).await?;
    let tab = Client::appear(&here, "bob").await?;
    there.publish(ROOM, "hello").await?;
    bob.member.appear(ROOM, Present::new("bob").info("away")).await?;
    alice.expect(&["+ bob", "hello", "= bob away"]).await?;
    assert_eq!(keys(&there).await?, ["alice", "bob"]);
    assert_eq!(there.count(ROOM).await?, 2);
    bob.member.disappear(ROOM);
    alice.expect_nothing(&there).await?;
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
    let hub = hub(&proxy.url()).await?;
    let mut events = hub.events();
    let _other = Client::appear(&hub, "other").await?;
    let client = Client::subscribe(&hub, ROOM).await?;
    proxy.set(Weather::StalledToServer);
    let line = proxy.part();
    assert!(client.member.appear(ROOM, "late").await.is_err());
    client.member.disappear(ROOM);
    topics::until(&mut events, |event| *event == HubEvent::Reconnected).await?;
    // After each, the hub removes entries for which it could not do that before.
    renewals(&hub, 2).await?;
    line.send_replace(Weather::Fair);
    timeout(PATIENCE, line.closed()).await?;
    for _ in 0..10 {
        assert_eq!(server.number(&["HLEN", "bowline:room/1:present"]).await?, 1);
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
        let mut watcher = Client::subscribe(&hub, &topic).await?;
        watcher.expect(&["here "]).await?;
        let mut clients = Vec::new();
        for key in odd {
            let client = Client::subscribe(&hub, &topic).await?;
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
    let _ghost = Client::appear(&hub, "ghost").await?;
    println!("present");
    std::future::pending().await
}

/// Starts the process of a node, and waits until its member is present.
fn spawn_node(server: &Server, lease: Duration) -> Result<Node, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "presence::node", "--ignored", "--nocapture"]).env(NODE_URL, server.url());
    command.env(NODE_LEASE, lease.as_millis().to_string());
    let mut process = Node(command.stdout(Stdio::piped()).spawn()?);
    let output = process.0.stdout.take().ok_or("no output")?;
    for line in BufReader::new(output).lines() {
        if line?.ends_with("present") {
            return Ok(process);
        }
    }
    Err("the node has ended".into())
}

struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        // A process that has ended is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two survivors, one of which tells the leave, once.
#[tokio::test]
async fn a_node_that_is_killed_has_left_after_its_lease() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut node = spawn_node(&server, LEASE)?;
    let mut watcher = Client::subscribe(&here, ROOM).await?;
    watcher.expect(&["here ghost"]).await?;
    renewals(&here, LONG).await?;
    node.0.kill()?;
    let killed = Instant::now();
    watcher.expect(&["- ghost"]).await?;
    let lasted = killed.elapsed();
    assert!(lasted < LEASE + LEASE / 2, "{lasted:?}");
    watcher.expect_nothing(&there).await?;
    assert_eq!(here.stats().reaped + there.stats().reaped, 1);
    Ok(())
}

/// The default times: nobody stays for longer than 30 s.
#[tokio::test]
#[ignore = "takes a minute"]
async fn ghosts_are_gone_30_s_after_kill_9() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let here = build(connect(&server.url()).await?, HubLimits::default())?;
    let mut node = spawn_node(&server, HubLimits::default().presence_lease)?;
    // From now on, this node takes the end of a lease for that of a node.
    sleep(HubLimits::default().presence_lease).await;
    assert_eq!(keys(&here).await?, ["ghost"]);
    node.0.kill()?;
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
    let node = spawn_node(&server, LEASE)?;
    let mut watcher = Client::subscribe(&here, ROOM).await?;
    watcher.expect(&["here ghost"]).await?;
    renewals(&here, LONG).await?;
    let signal = |signal: &str| Command::new("kill").args([signal, &node.0.id().to_string()]).status();
    signal("-STOP")?;
    watcher.expect(&["- ghost"]).await?;
    signal("-CONT")?;
    watcher.expect(&["+ ghost"]).await?;
    assert_eq!(keys(&here).await?, ["ghost"]);
    Ok(())
}

#[tokio::test]
async fn a_server_that_restarts_is_filled_again_without_news() -> TestResult {
    for persistence in [VOLATILE, DURABLE] {
        let Some(mut server) = Server::start(persistence).await? else { return Ok(()) };
        let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
        let mut events = there.events();
        let _alice = Client::appear(&here, "alice").await?;
        let _bob = Client::appear(&there, "bob").await?;
        let mut watcher = Client::subscribe(&here, ROOM).await?;
        watcher.know("alice bob").await?;
        server.kill()?;
        server.restart().await?;
        while !matches!(events.recv().await, None | Some(HubEvent::LeaseLapsed { .. })) {}
        let all = async || keys(&there).await.is_ok_and(|keys| keys == ["alice", "bob"]);
        until(&there, all).await?;
        // After the views were compared, and old leases are over.
        renewals(&there, 2 * LONG).await?;
        watcher.expect_nothing(&there).await?;
        assert_eq!(keys(&here).await?, ["alice", "bob"]);
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_loses_its_data_without_a_restart_is_filled_again() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let (_alice, _bob) = (Client::appear(&here, "alice").await?, Client::appear(&there, "bob").await?);
    server.command(&["FLUSHALL"]).await?;
    until(&here, async || keys(&here).await.is_ok_and(|keys| keys == ["alice", "bob"])).await
}

#[tokio::test]
async fn a_server_that_rolls_back_leaves_no_ghosts() -> TestResult {
    let Some(mut server) = Server::start(SNAPSHOTS).await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let ghost = Client::appear(&here, "ghost").await?;
    server.command(&["SAVE"]).await?;
    ghost.member.disappear(ROOM);
    let _alice = Client::appear(&here, "alice").await?;
    let _bob = Client::appear(&there, "bob").await?;
    until(&here, async || keys(&here).await.is_ok_and(|keys| keys == ["alice", "bob"])).await?;
    server.kill()?;
    server.restart().await?;
    until(&there, async || there.stats().lapses == 1 && here.stats().lapses == 1).await?;
    until(&there, async || keys(&there).await.is_ok_and(|keys| keys == ["alice", "bob"])).await
}

/// All leases have ended when the server goes on, and nobody is dead.
#[cfg(unix)]
#[tokio::test]
async fn a_server_that_was_stopped_for_longer_than_a_lease_buries_nobody() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let (_alice, _bob) = (Client::appear(&here, "alice").await?, Client::appear(&there, "bob").await?);
    let mut watcher = Client::subscribe(&here, ROOM).await?;
    watcher.know("alice bob").await?;
    renewals(&here, LONG).await?;
    server.signal("-STOP")?;
    let stopped = Instant::now();
    until(&here, async || !here.is_healthy() && !there.is_healthy() && stopped.elapsed() > LEASE).await?;
    server.signal("-CONT")?;
    until(&here, async || here.is_healthy() && there.is_healthy()).await?;
    renewals(&there, 2 * LONG).await?;
    watcher.expect_nothing(&there).await?;
    assert_eq!(here.stats().reaped + there.stats().reaped, 0);
    Ok(())
}

/// A server without memory refuses newcomers, and keeps everybody else.
#[tokio::test]
async fn a_server_that_is_full_lets_nobody_leave_by_itself() -> TestResult {
    let Some(server) = Server::start(VOLATILE).await? else { return Ok(()) };
    let (here, there) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let (_alice, tab) = (Client::appear(&here, "alice").await?, Client::appear(&there, "alice").await?);
    let bob = Client::appear(&there, "bob").await?;
    let carol = Client::subscribe(&there, ROOM).await?;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await?;
    renewals(&here, 2 * LONG).await?;
    assert_eq!(carol.member.appear(ROOM, "carol").await.unwrap_err().kind(), ErrorKind::Unavailable);
    tab.member.disappear(ROOM);
    bob.member.disappear(ROOM);
    until(&here, async || keys(&here).await.is_ok_and(|keys| keys == ["alice"])).await?;
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    carol.member.appear(ROOM, "carol").await?;
    assert_eq!(keys(&here).await?, ["alice", "carol"]);
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
        let client = Client::subscribe(&hub, topic).await?;
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
    let _alice = Client::appear(&here, "alice").await?;
    let gone = [Client::appear(&ending, "alice").await?, Client::appear(&ending, "bob").await?];
    assert_eq!(keys(&here).await?, ["alice", "bob"]);
    drop((gone, ending));
    until(&here, async || keys(&here).await.is_ok_and(|keys| keys == ["alice"])).await?;
    assert_eq!(here.stats().reaped, 2);
    Ok(())
}
