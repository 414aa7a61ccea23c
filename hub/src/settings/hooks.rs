//! The application's functions that make the frames which members receive.

use bowline::{Message, Payload, Prepared};

use crate::panics::{Panicked, catch};
use crate::position::Position;
use crate::presence::Present;

/// A published message, as [`HubBuilder::frame`](crate::HubBuilder::frame) receives it.
#[derive(Clone, Copy, Debug)]
pub struct TopicMessage<'a> {
    topic: &'a str,
    before: Position,
    position: Position,
    message: &'a Message,
}

impl<'a> TopicMessage<'a> {
    pub(crate) fn new(topic: &'a str, before: Position, position: Position, message: &'a Message) -> Self {
        Self { topic, before, position, message }
    }

    /// Returns the name of the topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// Returns the position of the message, which is [`Position::UNTRACKED`] in a topic without history.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the position of the message before this one, or the position before the first message.
    ///
    /// A client that is told both positions can check by itself that it misses nothing: `before` is the
    /// position of the message that it received last, or else the position with which it started, by
    /// [`Start::Live`](crate::Start::Live), or continued after a loss.
    pub fn before(&self) -> Position {
        self.before
    }

    /// Returns the message as it was published.
    pub fn message(&self) -> &'a Message {
        self.message
    }

    /// Returns the text of the message, or `None` if the message is binary.
    pub fn text(&self) -> Option<&'a str> {
        self.message.as_text()
    }
}

/// The news about who is in a topic, as [`HubBuilder::presence`](crate::HubBuilder::presence) receives it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum PresenceNews<'a> {
    /// Everybody who is present, in no particular order. A member receives this list when it becomes live in
    /// the topic, before any other news, and again after it has missed news. The list replaces the earlier
    /// one.
    Here(&'a [&'a Present]),
    /// Somebody has joined.
    Joined(&'a Present),
    /// Somebody has other information.
    Updated(&'a Present),
    /// Somebody has left, with the last information.
    Left(&'a Present),
}

type FrameHook = dyn Fn(TopicMessage<'_>) -> Payload<'static> + Send + Sync;
type LostHook = dyn Fn(&str, Position) -> Payload<'static> + Send + Sync;
type PresenceHook = dyn Fn(&str, PresenceNews<'_>) -> Option<Payload<'static>> + Send + Sync;

/// The hooks of a hub. No hook is called under a lock, and panics are caught.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) frame: Option<Box<FrameHook>>,
    pub(crate) lost: Option<Box<LostHook>>,
    pub(crate) presence: Option<Box<PresenceHook>>,
}

impl Hooks {
    /// Makes the frame of a message.
    pub(crate) fn frame(&self, message: TopicMessage<'_>) -> Result<Prepared, Panicked> {
        match &self.frame {
            Some(hook) => catch(|| Prepared::new(hook(message))),
            None => Ok(Prepared::new(message.message.clone())),
        }
    }

    /// Makes the frame that tells of lost messages. Returns `None` if the connection must be closed instead.
    pub(crate) fn lost(&self, topic: &str, now: Position) -> Option<Prepared> {
        let hook = self.lost.as_ref()?;
        catch(|| Prepared::new(hook(topic, now))).ok()
    }

    /// Makes the frame of news about who is in a topic. Returns `None` if members are not told.
    pub(crate) fn presence(&self, topic: &str, news: PresenceNews<'_>) -> Result<Option<Prepared>, Panicked> {
        let Some(hook) = &self.presence else { return Ok(None) };
        catch(|| hook(topic, news).map(Prepared::new))
    }
}
