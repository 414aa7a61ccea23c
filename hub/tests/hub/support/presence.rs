//! Hubs whose members are told who is present.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use bowline::{WebSocket, pair};
use bowline_hub::{Engine, Hub, HubBuilder, Member, PresenceNews, Rule};
use tokio::time::timeout;

pub(crate) const ROOM: &str = "room/1";

/// A builder of hubs whose members are told who is in a room: `here` with all keys, `+` and `-` for changes,
/// and `=` for other information.
pub(crate) fn builder<E: Engine>(engine: E) -> HubBuilder<E> {
    Hub::builder(engine).workers(2).rule("room/", Rule::new().presence()).presence(|_, news| {
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
}

pub(crate) fn hub(engine: impl Engine) -> Result<Hub, bowline_hub::Error> {
    builder(engine).build()
}

/// A client with its connection in a hub.
pub(crate) struct Client {
    pub(crate) socket: WebSocket,
    pub(crate) member: Member,
    _server: WebSocket,
}

impl Client {
    pub(crate) async fn subscribe(hub: &Hub) -> Result<Self, Box<dyn Error>> {
        let (socket, server) = pair();
        let member = hub.join(server.sender())?;
        let _start = member.subscribe(ROOM, None).await?;
        Ok(Self { socket, member, _server: server })
    }

    pub(crate) async fn appear(hub: &Hub, key: &str) -> Result<Self, Box<dyn Error>> {
        let client = Self::subscribe(hub).await?;
        client.member.appear(ROOM, key).await?;
        Ok(client)
    }

    pub(crate) async fn expect(&mut self, frames: &[&str]) {
        for expected in frames {
            let frame = timeout(Duration::from_secs(120), self.socket.recv()).await;
            let frame = frame.unwrap_or_else(|_| panic!("{expected:?} does not arrive")).unwrap().unwrap();
            assert_eq!(frame.as_text(), Some(*expected));
        }
    }

    /// Receives frames until the client knows of these people, and of nobody else.
    pub(crate) async fn know(&mut self, expected: &str) -> Result<(), Box<dyn Error>> {
        let mut known = BTreeSet::new();
        loop {
            let frame = timeout(Duration::from_secs(120), self.socket.recv()).await;
            let frame = frame.map_err(|_| format!("only {known:?} are known"))??.ok_or("the end")?;
            let (kind, rest) = frame.as_text().and_then(|text| text.split_once(' ')).ok_or("no frame")?;
            match kind {
                "here" => known = rest.split_whitespace().map(str::to_owned).collect(),
                "+" => assert!(known.insert(rest.to_owned()), "{rest} joins twice"),
                "-" => assert!(known.remove(rest), "{rest} leaves twice"),
                _ => {}
            }
            if known.iter().map(String::as_str).eq(expected.split_whitespace()) {
                return Ok(());
            }
        }
    }

    /// Checks that nothing arrives for a time.
    pub(crate) async fn expect_nothing_for(&mut self, time: Duration) {
        if let Ok(frame) = timeout(time, self.socket.recv()).await {
            panic!("{frame:?} arrives");
        }
    }
}

/// Returns the keys that are present, in order.
pub(crate) async fn keys(hub: &Hub) -> Vec<String> {
    let mut keys: Vec<_> = hub.present(ROOM).await.unwrap().into_iter().map(|who| who.key).collect();
    keys.sort_unstable();
    assert_eq!(keys.len(), hub.count(ROOM).await.unwrap());
    keys
}
