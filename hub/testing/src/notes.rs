//! The notes that the clients of random schedules take: every message, and every loss that they are told of.

use bowline::Sender;
use bowline_hub::{Engine, HubBuilder, Member, Position, Start};

use crate::Outcome;

/// The text of the last message of a topic.
pub const END: &str = "end";

/// A note of a client.
#[derive(Clone, Debug)]
pub enum Note {
    /// A subscription without a position began here.
    Start(Position),
    /// A message arrived.
    Message(Position, String),
    /// Messages before the position are lost.
    Lost(Position),
}

/// The notes of a client.
#[derive(Debug, Default)]
pub struct Notes {
    /// All notes so far.
    pub all: Vec<Note>,
    /// The position from which the client subscribes when it comes back.
    pub since: Option<Position>,
}

/// The progress of a client after a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More messages follow.
    Underway,
    /// The message was the last one.
    Ended,
}

/// Adds the frames that [`Notes::add`] reads to a builder.
pub fn tell<E: Engine>(builder: HubBuilder<E>) -> HubBuilder<E> {
    builder
        .frame(|message| format!("message {} {}", message.position(), message.text().unwrap_or("?")).into())
        .lost(|_, now| format!("lost {now} ").into())
}

/// Subscribes a client from its position. Start and losses are told in frames, too.
pub async fn subscribe(
    member: &Member,
    sender: &Sender,
    topic: &str,
    since: Option<Position>,
) -> Outcome<()> {
    let mut from = since;
    loop {
        match member.subscribe(topic, from).await? {
            // Messages may overtake this frame: the client ignores a late one.
            Start::Live(position) if from.is_none() => {
                sender.send(format!("start {position} ")).await?;
                return Ok(());
            }
            Start::Live(_) => return Ok(()),
            Start::Lost(now) => {
                sender.send(format!("lost {now} ")).await?;
                from = Some(now);
            }
        }
    }
}

impl Note {
    /// Reads a frame.
    pub fn parse(frame: &str) -> Outcome<Self> {
        let mut parts = frame.splitn(3, ' ');
        let (kind, position) = (parts.next().ok_or("no kind")?, parts.next().ok_or("no position")?.parse()?);
        match kind {
            "start" => Ok(Self::Start(position)),
            "lost" => Ok(Self::Lost(position)),
            "message" => Ok(Self::Message(position, parts.next().ok_or("no text")?.to_owned())),
            _ => Err(format!("an unknown frame: {frame}").into()),
        }
    }
}

impl Notes {
    /// Reads a frame, and notes it.
    pub fn add(&mut self, frame: &str) -> Outcome<Progress> {
        let note = Note::parse(frame)?;
        match &note {
            Note::Start(_) if self.since.is_some() => return Ok(Progress::Underway),
            Note::Start(position) | Note::Message(position, _) | Note::Lost(position) => {
                self.since = Some(*position);
            }
        }
        let is_end = matches!(&note, Note::Message(_, text) if text == END);
        self.all.push(note);
        Ok(if is_end { Progress::Ended } else { Progress::Underway })
    }
}
