//! Presence over NATS, also of nodes that are gone.

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use bowline::{WebSocket, pair};
use bowline_hub::{Hub, HubLimits, Member, PresenceNews, Present, Rule};
use tokio::time::{sleep, timeout};

use crate::cluster;
use crate::proxy::{Line, Proxy};
use crate::server::{PATIENCE, Server, TestResult};

const ROOM: &str = "room/1.2";
const LEASE: Duration = Duration::from_millis(1500);
const LINGER: Duration = Duration::from_millis(300);

/// A hub whose members are told who is in a room: `here` with all keys, `+` and `-` for changes, and `=` for
/// other information.
async fn hub(url: &str) -> Result<Hub, Box<dyn Error>> {
    Ok(Hub::builder(bowline_hub_nats::connect(url).await?)
        .workers(2)
        .rule("room/", Rule::new().presence())
        .limits(HubLimits::default().presence_lease(LEASE).presence_linger(LINGER))
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
        .build()?)
}

struct Client {
    socket: WebSocket,
    member: Member,
    _server: WebSocket,
}

impl Client {
    async fn subscribe(hub: &Hub) -> Result<Self, Box<dyn Error>> {
        let (socket, server) = pair();
        let member = hub.join(server.sender())?;
        let _start = member.subscribe(ROOM, None).await?;
        Ok(Self { socket, member, _server: server })
    }

    /// Subscribes, learns who is there, and appears.
    async fn appear(hub: &Hub, here: &str, key: &str) -> Result<Self, Box<dyn Error>> {
        let mut client = Self::subscribe(hub).await?;
        client.expect(&[here]).await?;
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
    let mut alice = Client::appear(&here, "here ", "alice").await?;
    alice.expect(&["+ alice"]).await?;
    let mut bob = Client::appear(&there, "here alice", "bob.* >").await?;
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
    let mut watcher = Client::subscribe(&here).await?;
    watcher.expect(&["here "]).await?;
    let first = Client::appear(&here, "here ", "alice").await?;
    watcher.expect(&["+ alice"]).await?;
    let second = Client::appear(&there, "here alice", "alice").await?;
    first.member.disappear(ROOM);
    let marker = Client::appear(&there, "here alice", "marker").await?;
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
    let proxy = Proxy::start(server.port).await?;
    let (first, second) = (hub(&server.url()).await?, hub(&server.url()).await?);
    let mut watchers = [Client::subscribe(&first).await?, Client::subscribe(&second).await?];
    for watcher in &mut watchers {
        watcher.expect(&["here "]).await?;
    }
    // Survivors wait for the time of a lease before they trust their own clocks.
    sleep(LEASE).await;
    let ghost = hub(&format!("nats://127.0.0.1:{}", proxy.port)).await?;
    let _alice = Client::appear(&ghost, "here ", "alice").await?;
    let _bob = Client::appear(&ghost, "here alice", "bob").await?;
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
    let _alice = Client::appear(&here, "here ", "alice").await?;
    let bob = Client::appear(&there, "here alice", "bob").await?;
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

#[tokio::test]
async fn a_stream_of_presence_that_is_deleted_is_filled_again() -> TestResult {
    let Some(server) = Server::start("").await? else { return Ok(()) };
    let here = hub(&server.url()).await?;
    let _alice = Client::appear(&here, "here ", "alice").await?;
    server.api("STREAM.DELETE.bowline-presence", "").await?;
    until_present(&[&here], &["alice"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_cluster_keeps_who_is_there_when_a_server_is_killed() -> TestResult {
    let Some(mut servers) = cluster::start().await? else { return Ok(()) };
    let (here, there) = (hub(&cluster::url(&servers, 0)).await?, hub(&cluster::url(&servers, 1)).await?);
    // The cluster may not have a leader yet.
    let alice = Client::subscribe(&here).await?;
    let bob = Client::subscribe(&there).await?;
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
