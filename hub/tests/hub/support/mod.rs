//! Support shared by the tests.

pub(crate) mod broker;
pub(crate) mod presence;
pub(crate) mod presence_broker;
pub(crate) mod random;

use std::error::Error;
use std::time::Duration;

use bowline::WebSocket;
use bowline_hub::{Engine, Hub, HubBuilder, Position, Rule};
use tokio::time::timeout;

/// The time within which a frame must arrive.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) type TestResult = Result<(), Box<dyn Error>>;

/// A builder whose topics with the prefix `chat/` have a history of 100 messages. Frames are position and
/// text, with a space in between.
pub(crate) fn builder<E: Engine>(engine: E) -> HubBuilder<E> {
    Hub::builder(engine)
        .workers(2)
        .rule("chat/", Rule::new().history(100, Duration::from_secs(300)))
        .frame(|message| format!("{} {}", message.position(), message.text().unwrap_or("?")).into())
}

/// Receives a frame of [`builder`].
pub(crate) async fn receive(client: &mut WebSocket) -> Result<(Position, String), Box<dyn Error>> {
    let frame = timeout(PATIENCE, client.recv()).await.map_err(|_| "no frame arrives")??;
    let frame = frame.ok_or("the connection has ended")?.into_text()?;
    let (position, text) = frame.split_once(' ').ok_or("the frame has no space")?;
    Ok((position.parse()?, text.to_owned()))
}

/// Receives frames up to one with the given text, and returns the texts before.
pub(crate) async fn receive_until(client: &mut WebSocket, end: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let mut texts = Vec::new();
    loop {
        match receive(client).await?.1 {
            text if text == end => return Ok(texts),
            text => texts.push(text),
        }
    }
}
