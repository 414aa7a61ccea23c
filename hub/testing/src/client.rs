//! A client with its connection in a hub, and what tests wait for.

use std::error::Error;
use std::time::Duration;

use bowline::{WebSocket, pair};
use bowline_hub::{Engine, Hub, HubBuilder, HubEvent, HubEvents, Member, Position, Rule, Start};
use tokio::time::{sleep, timeout};

use crate::{PATIENCE, TestResult};

/// Creates a builder whose topics with the prefix `chat/` have a history of 100 messages. Frames are position
/// and text, with a space in between.
pub fn builder<E: Engine>(engine: E) -> HubBuilder<E> {
    Hub::builder(engine)
        .workers(2)
        .rule("chat/", Rule::new().history(100, Duration::from_secs(300)))
        .frame(|message| format!("{} {}", message.position(), message.text().unwrap_or("?")).into())
}

/// Creates a builder as [`builder`] does, with a frame for losses: a position, and `lost`.
pub fn builder_with_loss<E: Engine>(engine: E) -> HubBuilder<E> {
    builder(engine).lost(|_, now| format!("{now} lost").into())
}

/// A client with its connection in a hub.
pub struct Client {
    /// The side of the client.
    pub socket: WebSocket,
    /// The connection in the hub.
    pub member: Member,
    _server: WebSocket,
}

impl Client {
    /// Creates a client from the two ends of its connection.
    pub fn new(socket: WebSocket, member: Member, server: WebSocket) -> Self {
        Self { socket, member, _server: server }
    }

    /// Connects a client to a hub, without any topic.
    pub fn join(hub: &Hub) -> Result<Self, Box<dyn Error>> {
        let (client, server) = pair();
        let member = hub.join(server.sender())?;
        Ok(Self::new(client, member, server))
    }

    /// Connects a client to a hub, and subscribes to a topic.
    pub async fn live(hub: &Hub, topic: &str) -> Result<Self, Box<dyn Error>> {
        let client = Self::join(hub)?;
        let Start::Live(_) = client.member.subscribe(topic, None).await? else { return Err("lost".into()) };
        Ok(client)
    }

    /// Receives messages in frames of [`builder`], and returns the position of the last one.
    pub async fn expect(&mut self, texts: &[&str]) -> Result<Position, Box<dyn Error>> {
        let mut last = Position::UNTRACKED;
        for expected in texts {
            let (position, text) =
                receive(&mut self.socket).await.map_err(|error| format!("{expected:?}: {error}"))?;
            assert_eq!(text, *expected);
            last = position;
        }
        Ok(last)
    }
}

/// Receives a frame of [`builder`].
pub async fn receive(client: &mut WebSocket) -> Result<(Position, String), Box<dyn Error>> {
    let frame = timeout(PATIENCE, client.recv()).await.map_err(|_| "no frame arrives")??;
    let frame = frame.ok_or("the connection has ended")?.into_text()?;
    let (position, text) = frame.split_once(' ').ok_or("the frame has no space")?;
    Ok((position.parse()?, text.to_owned()))
}

/// Receives frames up to one with the given text, and returns the texts before.
pub async fn receive_until(client: &mut WebSocket, end: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let mut texts = Vec::new();
    loop {
        match receive(client).await?.1 {
            text if text == end => return Ok(texts),
            text => texts.push(text),
        }
    }
}

/// Publishes as soon as the broker is there.
pub async fn publish(hub: &Hub, topic: &str, text: &str) -> TestResult {
    let mut refusal = None;
    let published = async {
        while let Err(error) = hub.publish(topic, text).await {
            refusal = Some(error);
            sleep(Duration::from_millis(20)).await;
        }
    };
    Ok(timeout(PATIENCE, published).await.map_err(|_| format!("nothing is published: {refusal:?}"))?)
}

/// Waits for an event.
pub async fn until(events: &mut HubEvents, wanted: impl Fn(&HubEvent) -> bool) -> TestResult {
    let event = async {
        loop {
            match events.recv().await {
                Some(event) if wanted(&event) => return Ok(()),
                Some(_) => {}
                None => return Err("the hub has ended"),
            }
        }
    };
    Ok(timeout(PATIENCE, event).await??)
}
