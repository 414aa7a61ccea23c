//! Reading a history from the stream.
//!
//! A history is the messages of one subject. The stream removes the oldest ones only, by their number and
//! their age. So if a message still is there after later ones were read, then nothing is missing in between.
//! That is how a page is checked: the message at its start is read last.
//!
//! A history without a message begins with a mark, which takes the place of a first message. The mark is
//! published on the condition that the subject is empty, so that all nodes find one mark.
//!
//! The place before the first message of a topic without a mark is that of the number before, with the
//! complement of the tag of this message. A client can't invent it, as tags are random. Nothing is missing
//! after this place as long as the stream still begins there or before, and the subject has room for more
//! messages.
//!
//! The first messages of a page are read one by one from the leader of the stream, by their numbers if the
//! [`index`](crate::stream::index) knows these. A consumer reads the
//! others together: it costs more, and may be a bit late, but the next page takes care of that.

use std::time::{Duration, SystemTime};

use bowline_hub::{EngineError, HistoryEntry, HistoryPage, Position, Retention, Topic};
use serde_json::json;
use tokio::time::sleep;

use crate::jetstream::{self, Refusal};
use crate::link::Link;
use crate::message::{Batch, Part, RawMessage, consume, last, next, nth};
use crate::stream::Stream;
use crate::stream::index::Place;
use crate::wire::{self, Content};

/// The pauses before a history that seems to lack a position is read again.
const STALE: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_millis(400), Duration::from_millis(600)];

/// The factor by which a search for the last messages reaches further back.
const STRIDE: usize = 4;

/// The number of messages that are read one by one.
const SINGLE: usize = 16;

/// A message of a history.
#[derive(Clone, Debug)]
struct StoredMessage {
    sequence: u64,
    tag: u64,
    content: Content,
    time: SystemTime,
}

impl StoredMessage {
    /// Decodes a message of the stream.
    fn decode(raw: &RawMessage) -> Result<Self, EngineError> {
        let decoded = raw.header.as_deref().and_then(|header| wire::decode(header, &raw.payload));
        let foreign =
            || EngineError::new("the stream named bowline contains messages that no hub has published");
        let (content, tag) = decoded.ok_or_else(foreign)?;
        Ok(Self { sequence: raw.sequence, tag, content, time: raw.time })
    }

    fn position(&self) -> Position {
        Position::new(wire::EPOCH, self.sequence, self.tag)
    }

    /// Returns the place before a message that is the first of its topic.
    fn before(&self) -> Position {
        Position::new(wire::EPOCH, self.sequence - 1, !self.tag)
    }
}

/// Reads at most `limit` messages of a history after an offset.
pub(crate) async fn page(
    stream: &Stream,
    link: &Link,
    topic: &Topic,
    after: u64,
    limit: usize,
) -> Result<HistoryPage, EngineError> {
    let subject = wire::subject(wire::STORE, topic.name());
    let retention = topic.retention().ok_or_else(|| EngineError::new("the topic has no history"))?;
    let reader = Reader { stream, link, subject: &subject, retention };
    let read = || reader.page_of_all(after, limit);
    Ok(stream.with_stream(link, retention, read).await?)
}

/// Returns the position before the last `count` messages of a history, or before all of them if there are
/// fewer.
pub(crate) async fn before_last(
    stream: &Stream,
    link: &Link,
    topic: &Topic,
    count: u64,
) -> Result<Position, EngineError> {
    let subject = wire::subject(wire::STORE, topic.name());
    let retention = topic.retention().ok_or_else(|| EngineError::new("the topic has no history"))?;
    let reader = Reader { stream, link, subject: &subject, retention };
    Ok(stream.with_stream(link, retention, || reader.before_last(count)).await?)
}

/// A reader of the history with a subject.
struct Reader<'a> {
    stream: &'a Stream,
    link: &'a Link,
    subject: &'a str,
    retention: Retention,
}

impl Reader<'_> {
    /// Reads a page, with patience while the servers of a cluster may disagree: a server that was stopped may
    /// answer from what it knew before.
    async fn page_of_all(&self, after: u64, limit: usize) -> Result<HistoryPage, Refusal> {
        for pause in STALE {
            let page = self.page(after, limit).await?;
            if limit == 0 || page.anchor.is_some() || !self.link.is_restless() {
                return Ok(page);
            }
            sleep(pause).await;
        }
        self.page(after, limit).await
    }

    async fn page(&self, after: u64, limit: usize) -> Result<HistoryPage, Refusal> {
        let top = self.top().await?;
        let mut page = HistoryPage { top: top.position(), anchor: None, newer: 0, entries: Vec::new() };
        if after >= top.sequence {
            page.anchor = (after == top.sequence).then_some(top.tag);
            return Ok(page);
        }
        if limit == 0 {
            return Ok(page);
        }
        let (messages, newer) = self.messages(after, &top, limit).await?;
        let Some(first) = messages.first() else { return Ok(page) };
        let now = self.stream.now(self.link).await;
        if newer > self.retention.count || !self.is_young(first, now) {
            return Ok(page);
        }
        let numbers = messages.iter().map(|found| found.sequence);
        let anchor = match self.stream.index.tag_before(self.link, self.subject, after, numbers) {
            Some(tag) => Some(tag),
            // Last, as it shows that all the others were there.
            None => self.anchor(after, first).await?,
        };
        let Some(anchor) = anchor else { return Ok(page) };
        page.anchor = Some(anchor);
        page.newer = u64::try_from(newer).unwrap_or(u64::MAX);
        let mut previous = anchor;
        for found in messages {
            let position = found.position();
            // A mark begins another history.
            let Content::Message(message) = found.content else { break };
            page.entries.push(HistoryEntry { position, previous, message });
            previous = position.tag();
        }
        Ok(page)
    }

    /// Returns the tag at an offset before a message, or `None` if messages in between may be gone.
    async fn anchor(&self, offset: u64, first: &StoredMessage) -> Result<Option<u64>, Refusal> {
        if offset > 0 {
            let found = nth(self.link, wire::STREAM, offset).await?;
            if let Some(found) = found.filter(|found| found.subject == self.subject) {
                return Ok(Some(StoredMessage::decode(&found)?.tag));
            }
        }
        let before = first.before();
        if before.offset() != offset {
            return Ok(None);
        }
        let request = json!({ "subjects_filter": self.subject });
        let info = jetstream::call(self.link, "STREAM.INFO.bowline", &request).await?;
        let begins = info["state"]["first_seq"].as_u64().is_some_and(|first| first <= offset + 1);
        let count = info["state"]["subjects"][self.subject].as_i64().unwrap_or_default();
        let most =
            info["config"]["max_msgs_per_subject"].as_i64().filter(|most| *most > 0).unwrap_or(i64::MAX);
        Ok((begins && count < most).then_some(before.tag()))
    }

    /// Returns the position before the last `count` messages.
    async fn before_last(&self, count: u64) -> Result<Position, Refusal> {
        let top = self.top().await?;
        let most = usize::try_from(count).unwrap_or(usize::MAX).min(self.retention.count);
        let found = self.last(&top, most).await?;
        let now = self.stream.now(self.link).await;
        let is_kept = |found: &&StoredMessage| found.content != Content::Mark && self.is_young(found, now);
        let first = found.iter().rev().take(most).take_while(is_kept).last();
        let Some(first) = first else { return Ok(top.position()) };
        let before = found.iter().rev().find(|found| found.sequence < first.sequence);
        Ok(before.map_or(first.before(), StoredMessage::position))
    }

    /// Reads the headers of the last messages: of more than `count`, if there are so many.
    async fn last(&self, top: &StoredMessage, count: usize) -> Result<Vec<StoredMessage>, Refusal> {
        let (_, all) = self.consume(0, 0, Part::Headers).await?;
        let enough = count.saturating_add(1);
        let mut after = 0;
        if all > enough.saturating_mul(STRIDE) {
            // Messages of other topics are in between, nobody knows how many.
            let mut reach = enough;
            loop {
                after = top.sequence.saturating_sub(u64::try_from(reach).unwrap_or(u64::MAX));
                let (_, newer) = self.consume(after, 0, Part::Headers).await?;
                if newer >= enough || after == 0 {
                    break;
                }
                reach = reach.saturating_mul(STRIDE);
            }
        }
        Ok(self.consume(after, usize::MAX, Part::Headers).await?.0)
    }

    /// Compares a message with the clock of the server, which has stamped the message.
    fn is_young(&self, message: &StoredMessage, now: SystemTime) -> bool {
        now.duration_since(message.time).unwrap_or_default() <= self.retention.age
    }

    /// Returns the newest message, or the mark of a history that begins now.
    async fn top(&self) -> Result<StoredMessage, Refusal> {
        if let Some(top) = last(self.link, wire::STREAM, self.subject).await? {
            return Ok(StoredMessage::decode(&top)?);
        }
        let header = wire::mark(Position::begin().epoch());
        match jetstream::replace(self.link, self.subject, 0, &[(wire::HEADER, &header)], b"").await {
            // Another node may be faster.
            Ok(_) | Err(Refusal::Overtaken) => {}
            Err(refusal) => return Err(refusal),
        }
        let top = last(self.link, wire::STREAM, self.subject).await?;
        let top = top.ok_or_else(|| EngineError::new("the stream named bowline does not keep a message"))?;
        Ok(StoredMessage::decode(&top)?)
    }

    /// Reads messages after an offset, up to the top. Returns the number of all of them, too.
    async fn messages(
        &self,
        after: u64,
        top: &StoredMessage,
        limit: usize,
    ) -> Result<(Vec<StoredMessage>, usize), Refusal> {
        let mut messages = Vec::new();
        let mut reached = after;
        self.stream.index.note(self.link, after);
        while messages.len() < limit.min(SINGLE) && reached < top.sequence {
            let Some(found) = self.next(reached, top).await? else { break };
            reached = found.sequence;
            messages.push(found);
        }
        if messages.is_empty() || reached >= top.sequence {
            let count = messages.len();
            return Ok((messages, count));
        }
        let rest = self.consume(reached, limit - messages.len(), Part::Everything).await?;
        let newer = messages.len() + rest.1;
        messages.extend(rest.0.into_iter().take_while(|found| found.sequence <= top.sequence));
        Ok((messages, newer))
    }

    /// Reads the next message after a number.
    async fn next(&self, after: u64, top: &StoredMessage) -> Result<Option<StoredMessage>, Refusal> {
        let from = match self.stream.index.place(self.link, self.subject, after) {
            Place::At(sequence) if sequence == top.sequence => return Ok(Some(top.clone())),
            Place::At(sequence) => {
                let found = nth(self.link, wire::STREAM, sequence).await?;
                if let Some(found) = found.filter(|found| found.subject == self.subject) {
                    return Ok(Some(StoredMessage::decode(&found)?));
                }
                after + 1
            }
            Place::From(sequence) => sequence,
        };
        let found = next(self.link, wire::STREAM, self.subject, from).await?;
        Ok(found.as_ref().map(StoredMessage::decode).transpose()?)
    }

    async fn consume(
        &self,
        after: u64,
        limit: usize,
        part: Part,
    ) -> Result<(Vec<StoredMessage>, usize), Refusal> {
        let batch = Batch { stream: wire::STREAM, subject: self.subject, after, limit, part };
        let (messages, newer) = consume(self.link, &batch).await?;
        let messages = messages.iter().map(StoredMessage::decode).collect::<Result<_, _>>()?;
        Ok((messages, newer))
    }
}
