//! Presence: joins, leaves, and what becomes of lost connections and lost nodes.

use std::time::Duration;

use bowline::{WebSocket, pair};
use bowline_hub::{Engine, Hub, Member, Memory, PresenceNews, Present, Rule};
use tokio::time::{Instant, timeout};

use crate::support::TestResult;

const ROOM: &str = "room/1";

/// A hub whose members are told who is in a room: `here` with all keys, `+` and `-` for changes, and `=` for
/// other information.
fn hub(engine: impl Engine) -> Result<Hub, bowline_hub::Error> {
    Hub::builder(engine)
        .workers(2)
        .rule("room/", Rule::new().presence())
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
        .build()
}

/// A client with its connection in a hub.
struct Client {
    socket: WebSocket,
    member: Member,
    _server: WebSocket,
}

impl Client {
    async fn subscribe(hub: &Hub) -> Result<Self, Box<dyn std::error::Error>> {
        let (socket, server) = pair();
        let member = hub.join(server.sender())?;
        let _start = member.subscribe(ROOM, None).await?;
        Ok(Self { socket, member, _server: server })
    }

    async fn appear(hub: &Hub, key: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let client = Self::subscribe(hub).await?;
        client.member.appear(ROOM, key).await?;
        Ok(client)
    }

    async fn expect(&mut self, frames: &[&str]) {
        for expected in frames {
            let frame = timeout(Duration::from_secs(120), self.socket.recv()).await;
            let frame = frame.unwrap_or_else(|_| panic!("{expected:?} does not arrive")).unwrap().unwrap();
            assert_eq!(frame.as_text(), Some(*expected));
        }
    }

    /// Checks that nothing arrives for a time.
    async fn expect_nothing_for(&mut self, time: Duration) {
        if let Ok(frame) = timeout(time, self.socket.recv()).await {
            panic!("{frame:?} arrives");
        }
    }
}

async fn keys(hub: &Hub) -> Vec<String> {
    let mut keys: Vec<_> = hub.present(ROOM).await.unwrap().into_iter().map(|who| who.key).collect();
    keys.sort_unstable();
    assert_eq!(keys.len(), hub.count(ROOM).await.unwrap());
    keys
}

#[tokio::test(start_paused = true)]
async fn members_are_told_who_is_there_and_who_comes_and_goes() -> TestResult {
    let memory = Memory::new();
    let (here, there) = (hub(memory.clone())?, hub(memory)?);
    let mut alice = Client::appear(&here, "alice").await?;
    alice.expect(&["here ", "+ alice"]).await;
    let mut bob = Client::appear(&there, "bob").await?;
    bob.expect(&["here alice", "+ bob"]).await;
    alice.expect(&["+ bob"]).await;
    assert_eq!(keys(&here).await, ["alice", "bob"]);
    assert_eq!(keys(&there).await, ["alice", "bob"]);

    bob.member.appear(ROOM, Present::new("bob").info("away")).await?;
    alice.expect(&["= bob away"]).await;
    bob.member.disappear(ROOM);
    alice.expect(&["- bob"]).await;
    bob.expect(&["= bob away", "- bob"]).await;
    assert_eq!(keys(&there).await, ["alice"]);
    alice.member.unsubscribe(ROOM).await;
    bob.expect(&["- alice"]).await;
    assert_eq!(keys(&there).await, [""; 0]);
    assert_eq!(here.stats().entries, 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn two_tabs_join_once_and_leave_after_the_last() -> TestResult {
    let memory = Memory::new();
    let (here, there) = (hub(memory.clone())?, hub(memory)?);
    let mut watcher = Client::subscribe(&here).await?;
    let first = Client::appear(&here, "alice").await?;
    let second = Client::appear(&here, "alice").await?;
    let third = Client::appear(&there, "alice").await?;
    watcher.expect(&["here ", "+ alice"]).await;
    assert_eq!(keys(&here).await, ["alice"]);
    first.member.disappear(ROOM);
    third.member.disappear(ROOM);
    watcher.expect_nothing_for(Duration::from_secs(60)).await;
    second.member.disappear(ROOM);
    watcher.expect(&["- alice"]).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_connects_again_within_15_s_neither_leaves_nor_joins() -> TestResult {
    let memory = Memory::new();
    let (here, there) = (hub(memory.clone())?, hub(memory)?);
    let mut watcher = Client::subscribe(&here).await?;
    let mut alice = Client::appear(&here, "alice").await?;
    watcher.expect(&["here ", "+ alice"]).await;
    for hub in [&here, &there, &here, &there, &there] {
        drop(alice);
        watcher.expect_nothing_for(Duration::from_secs(14)).await;
        alice = Client::appear(hub, "alice").await?;
    }
    watcher.expect_nothing_for(Duration::from_secs(60)).await;
    drop(alice);
    let lost = Instant::now();
    watcher.expect(&["- alice"]).await;
    assert_eq!(lost.elapsed().as_secs(), 15);
    Ok(())
}
