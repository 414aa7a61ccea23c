//! A client that is told who is in a room.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use bowline::{WebSocket, pair};
use bowline_hub::{Engine, Hub, HubBuilder, Member, PresenceNews, Rule};
use tokio::time::timeout;

use crate::{PATIENCE, TestResult};

/// The room of most tests. Its name contains what a broker takes for a sign of its own.
pub const ROOM: &str = "room/1.2";

/// Creates a builder whose topics with the prefix `room/` have presence. Members are told who is there, by
/// `here` with all keys in order, `+` and `-` for changes, and `=` for other information.
pub fn builder<E: Engine>(engine: E) -> HubBuilder<E> {
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

/// A client with its connection in a hub of [`builder`].
pub struct Visitor {
    /// The side of the client.
    pub socket: WebSocket,
    /// The connection in the hub.
    pub member: Member,
    _server: WebSocket,
}

impl Visitor {
    /// Connects a client to a hub, and subscribes to a room.
    pub async fn subscribe(hub: &Hub, room: &str) -> Result<Self, Box<dyn Error>> {
        let (socket, server) = pair();
        let member = hub.join(server.sender())?;
        let _start = member.subscribe(room, None).await?;
        Ok(Self { socket, member, _server: server })
    }

    /// Connects a client to a hub, subscribes to a room, and appears there.
    pub async fn appear(hub: &Hub, room: &str, key: &str) -> Result<Self, Box<dyn Error>> {
        let client = Self::subscribe(hub, room).await?;
        client.member.appear(room, key).await?;
        Ok(client)
    }

    /// Receives exactly these frames.
    pub async fn expect(&mut self, frames: &[&str]) -> TestResult {
        for expected in frames {
            let frame = timeout(PATIENCE, self.socket.recv()).await;
            let frame = frame.map_err(|_| format!("{expected:?} does not arrive"))??.ok_or("the end")?;
            assert_eq!(frame.as_text(), Some(*expected));
        }
        Ok(())
    }

    /// Receives frames until the client knows of these people, and of nobody else.
    pub async fn know(&mut self, expected: &str) -> TestResult {
        let mut seen = Seen::default();
        loop {
            let frame = timeout(PATIENCE, self.socket.recv()).await;
            let frame = frame.map_err(|_| format!("only {:?} are known", seen.keys))??.ok_or("the end")?;
            seen.note(frame.as_text().ok_or("not a text")?)?;
            if seen.keys.iter().map(String::as_str).eq(expected.split_whitespace()) {
                return Ok(());
            }
        }
    }

    /// Checks that nothing arrives for a time.
    pub async fn expect_nothing_for(&mut self, time: Duration) -> TestResult {
        match timeout(time, self.socket.recv()).await {
            Ok(frame) => Err(format!("{frame:?} arrives").into()),
            Err(_) => Ok(()),
        }
    }
}

/// The people that a client knows of, by the frames of [`builder`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Their keys.
    pub keys: BTreeSet<String>,
}

impl Seen {
    /// Notes a frame. Frames of messages, without a space, are left out.
    ///
    /// # Errors
    ///
    /// Returns an error if somebody joins twice, or leaves without being there.
    pub fn note(&mut self, frame: &str) -> Result<(), String> {
        let Some((kind, rest)) = frame.split_once(' ') else { return Ok(()) };
        let fits = match kind {
            "here" => {
                self.keys = rest.split_whitespace().map(str::to_owned).collect();
                true
            }
            "+" => self.keys.insert(rest.to_owned()),
            "-" => self.keys.remove(rest),
            _ => rest.split_once(' ').is_some_and(|(key, _)| self.keys.contains(key)),
        };
        if fits { Ok(()) } else { Err(format!("{frame:?} came while {:?} were there", self.keys)) }
    }
}

/// Reads the keys that are present in a room, in order.
pub async fn keys(hub: &Hub, room: &str) -> Result<Vec<String>, bowline_hub::Error> {
    let mut keys: Vec<_> = hub.present(room).await?.into_iter().map(|who| who.key).collect();
    keys.sort_unstable();
    Ok(keys)
}
