//! A client with its connection in a hub, and what the tests wait for.

use std::error::Error;
use std::time::Duration;

use bowline::{WebSocket, pair};
use bowline_hub::{Hub, HubBuilder, HubEvent, HubEvents, Member, Position, Rule, Start};
use bowline_hub_nats::Nats;
use tokio::time::{sleep, timeout};

use crate::server::{PATIENCE, TestResult};

/// A builder whose topics with the prefix `chat/` have a history of 100 messages. Frames are position and
/// text, with a space in between.
pub(crate) async fn builder(url: &str) -> Result<HubBuilder<Nats>, Box<dyn Error>> {
    Ok(Hub::builder(bowline_hub_nats::connect(url).await?)
        .rule("chat/", Rule::new().history(100, Duration::from_secs(300)))
        .frame(|message| format!("{} {}", message.position(), message.text().unwrap_or("?")).into())
        .lost(|_, now| format!("{now} lost").into()))
}

pub(crate) async fn hub(url: &str) -> Result<Hub, Box<dyn Error>> {
    Ok(builder(url).await?.build()?)
}

pub(crate) struct Client {
    pub(crate) socket: WebSocket,
    pub(crate) member: Member,
    _server: WebSocket,
}

impl Client {
    pub(crate) fn join(hub: &Hub) -> Result<Self, Box<dyn Error>> {
        let (client, server) = pair();
        let member = hub.join(server.sender())?;
        Ok(Self { socket: client, member, _server: server })
    }

    pub(crate) async fn live(hub: &Hub, topic: &str) -> Result<Self, Box<dyn Error>> {
        let client = Self::join(hub)?;
        let Start::Live(_) = client.member.subscribe(topic, None).await? else { return Err("lost".into()) };
        Ok(client)
    }

    /// Receives frames, and returns the position of the last one.
    pub(crate) async fn expect(&mut self, texts: &[&str]) -> Result<Position, Box<dyn Error>> {
        let mut last = Position::UNTRACKED;
        for expected in texts {
            let frame = timeout(PATIENCE, self.socket.recv()).await??.ok_or("the end")?.into_text()?;
            let (position, text) = frame.split_once(' ').ok_or("no position")?;
            assert_eq!(text, *expected);
            last = position.parse()?;
        }
        Ok(last)
    }
}

/// Publishes as soon as NATS is there.
pub(crate) async fn publish(hub: &Hub, topic: &str, text: &str) -> TestResult {
    let mut refusal = None;
    let published = async {
        while let Err(error) = hub.publish(topic, text).await {
            refusal = Some(error);
            sleep(Duration::from_millis(20)).await;
        }
    };
    Ok(timeout(PATIENCE, published).await.map_err(|_| format!("nothing is published: {refusal:?}"))?)
}

pub(crate) async fn until(events: &mut HubEvents, wanted: impl Fn(&HubEvent) -> bool) -> TestResult {
    let event = async { while !wanted(&events.recv().await.expect("the hub exists")) {} };
    Ok(timeout(PATIENCE, event).await?)
}
