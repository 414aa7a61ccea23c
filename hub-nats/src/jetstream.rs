//! Requests to JetStream: publishing, reading a message, and its API of JSON.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bowline_hub::{EngineError, Position};
use serde_json::Value;

use crate::link::{Answer, Link};
use crate::protocol::Headers;
use crate::wire::{self, Content};

/// The error codes of the server.
pub(crate) const STREAM_NOT_FOUND: u64 = 10059;
pub(crate) const NAME_IN_USE: u64 = 10058;
pub(crate) const NO_MESSAGE: u64 = 10037;
pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10071;

/// The refusal of a request by the server.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// There is no stream.
    NoStream,
    /// The server names a code and a reason.
    Code(u64, String),
    /// The server could not be asked.
    Failed(EngineError),
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

impl From<Refusal> for EngineError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoStream => {
                EngineError::new("NATS has no stream named bowline, or JetStream is disabled")
            }
            Refusal::Code(code, reason) => EngineError::new(format!("NATS refuses: {reason} ({code})")),
            Refusal::Failed(error) => error,
        }
    }
}

/// An acknowledgement of a message.
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    /// `true` if a message with the same key was there.
    pub(crate) is_known: bool,
}

/// Publishes a message to the stream.
pub(crate) async fn publish(
    link: &Link,
    subject: &str,
    headers: &[(&str, &str)],
    payload: &[u8],
) -> Result<Stored, Refusal> {
    let answer = parse(&link.ask(subject, headers, payload).await?)?;
    let sequence = answer["seq"].as_u64();
    let sequence =
        sequence.ok_or_else(|| EngineError::new("NATS acknowledges a message without its number"))?;
    Ok(Stored { sequence, is_known: answer["duplicate"].as_bool() == Some(true) })
}

/// Calls the API of JetStream.
pub(crate) async fn call(link: &Link, name: &str, request: &Value) -> Result<Value, Refusal> {
    parse(&link.ask(&format!("$JS.API.{name}"), &[], request.to_string().as_bytes()).await?)
}

/// Parses an answer of JetStream.
fn parse(answer: &Answer) -> Result<Value, Refusal> {
    if answer.status == Some(503) {
        return Err(Refusal::NoStream);
    }
    let mut value: Value = serde_json::from_slice(&answer.payload).map_err(EngineError::new)?;
    let error = &value["error"];
    if error.is_null() {
        return Ok(value.take());
    }
    let code = error["err_code"].as_u64().unwrap_or_default();
    if code == STREAM_NOT_FOUND {
        return Err(Refusal::NoStream);
    }
    let reason = error["description"].as_str().unwrap_or("no reason").to_owned();
    Err(Refusal::Code(code, reason))
}

/// A message in the stream.
#[derive(Clone, Debug)]
pub(crate) struct StoredMessage {
    pub(crate) sequence: u64,
    pub(crate) tag: u64,
    pub(crate) content: Content,
    pub(crate) time: SystemTime,
    pub(crate) subject: String,
}

impl StoredMessage {
    pub(crate) fn position(&self) -> Position {
        Position::new(wire::EPOCH, self.sequence, self.tag)
    }
}

/// Reads a message of the stream from its leader. Returns `None` if there is none.
pub(crate) async fn message(link: &Link, request: &Value) -> Result<Option<StoredMessage>, Refusal> {
    match call(link, "STREAM.MSG.GET.bowline", request).await {
        Ok(answer) => Ok(Some(decode(&answer["message"]).ok_or_else(foreign)?)),
        Err(Refusal::Code(NO_MESSAGE, _)) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

pub(crate) fn foreign() -> EngineError {
    EngineError::new("the stream named bowline contains messages that no hub has published")
}

/// Decodes the JSON of a message.
fn decode(message: &Value) -> Option<StoredMessage> {
    let bytes = |name: &str| STANDARD.decode(message[name].as_str().unwrap_or_default()).ok();
    let headers = bytes("hdrs")?;
    let header = Headers(&headers).value(wire::HEADER)?;
    let (content, tag) = wire::decode(header, &bytes("data")?)?;
    Some(StoredMessage {
        sequence: message["seq"].as_u64()?,
        tag,
        content,
        time: parse_time(message["time"].as_str()?)?,
        subject: message["subject"].as_str()?.to_owned(),
    })
}

/// Parses a time in UTC, such as `2026-11-30T01:17:28.6Z` (RFC 3339). The fraction of the second is dropped.
fn parse_time(text: &str) -> Option<SystemTime> {
    let part = |range: Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
    let (hour, minute, second) = (part(11..13)?, part(14..16)?, part(17..19)?);
    if !text.ends_with('Z') || year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    // Years begin with March, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719,468 days are before 1970.
    let days = (year * 365 + leap_days + (month * 153 + 2) / 5 + day).checked_sub(1 + 719_468)?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400 + hour * 3_600 + minute * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let seconds = |text| {
            parse_time(text).map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
        };
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T23:59:59.5Z"), Some(951_868_799));
        assert_eq!(seconds("2026-11-30T01:17:28.606315343Z"), Some(1_796_001_448));
        for wrong in ["", "2026", "2026-13-01T00:00:00Z", "2026-11-30T01:17:28+01:00", "1969-12-31T00:00:00Z"]
        {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
