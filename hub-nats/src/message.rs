//! Reading the messages of a stream.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bowline_hub::EngineError;
use serde_json::{Value, json};

use crate::jetstream::{NO_MESSAGE, Refusal, call, nanoseconds};
use crate::link::{Answer, Link};
use crate::protocol::Headers;
use crate::wire;

/// The time after which the server removes a consumer that nobody uses.
const CONSUMER_AGE: Duration = Duration::from_secs(5);

/// The number of consumers that are created until one of them is on the leader of a stream.
const CONSUMERS: usize = 32;

/// The number of messages that are on their way from a consumer.
const PULL: usize = 5000;

/// The statuses with which a consumer says that there are no more messages.
const END: [u16; 2] = [404, 408];

/// A message in a stream.
#[derive(Clone, Debug)]
pub(crate) struct RawMessage {
    pub(crate) sequence: u64,
    /// The header of a message of a hub.
    pub(crate) header: Option<String>,
    pub(crate) payload: Vec<u8>,
    /// The time at which the server stored the message, by the clock of the server.
    pub(crate) time: SystemTime,
    pub(crate) subject: String,
}

/// Reads the message with a number from the leader of a stream. Returns `None` if there is none.
pub(crate) async fn nth(link: &Link, stream: &str, sequence: u64) -> Result<Option<RawMessage>, Refusal> {
    read(link, stream, &json!({ "seq": sequence })).await
}

/// Reads the last message with a subject, which may contain wildcards.
pub(crate) async fn last(link: &Link, stream: &str, subject: &str) -> Result<Option<RawMessage>, Refusal> {
    read(link, stream, &json!({ "last_by_subj": subject })).await
}

/// Reads the first message with a subject, which may contain wildcards, from a number on.
pub(crate) async fn next(
    link: &Link,
    stream: &str,
    subject: &str,
    from: u64,
) -> Result<Option<RawMessage>, Refusal> {
    read(link, stream, &json!({ "next_by_subj": subject, "seq": from })).await
}

async fn read(link: &Link, stream: &str, request: &Value) -> Result<Option<RawMessage>, Refusal> {
    match call(link, &format!("STREAM.MSG.GET.{stream}"), request).await {
        Ok(answer) => Ok(Some(decode(&answer["message"]).ok_or_else(undecodable)?)),
        Err(Refusal::Code(NO_MESSAGE, _)) => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// Decodes the JSON of a message.
fn decode(message: &Value) -> Option<RawMessage> {
    let bytes = |name: &str| STANDARD.decode(message[name].as_str().unwrap_or_default()).ok();
    Some(RawMessage {
        sequence: message["seq"].as_u64()?,
        header: Headers(&bytes("hdrs")?).value(wire::HEADER).map(str::to_owned),
        payload: bytes("data")?,
        time: parse_time(message["time"].as_str()?)?,
        subject: message["subject"].as_str()?.to_owned(),
    })
}

fn undecodable() -> EngineError {
    EngineError::new("NATS returns a message in a form that is unknown")
}

/// The messages that a consumer reads at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) stream: &'a str,
    /// May contain wildcards. Empty for all subjects.
    pub(crate) subject: &'a str,
    /// The number after which to read.
    pub(crate) after: u64,
    /// The largest number of messages.
    pub(crate) limit: usize,
    pub(crate) part: Part,
}

/// The parts of the messages that a consumer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Everything,
    Headers,
}

/// Reads messages by a consumer, which may be on a replica that is late. Also returns the number of messages
/// that there are, beyond the limit, too.
pub(crate) async fn consume(link: &Link, batch: &Batch<'_>) -> Result<(Vec<RawMessage>, usize), Refusal> {
    let mut messages = Vec::new();
    let newer = scan(link, batch, |message| messages.push(message)).await?;
    Ok((messages, newer))
}

/// Reads messages like [`consume`], one after the other.
pub(crate) async fn scan(
    link: &Link,
    batch: &Batch<'_>,
    each: impl FnMut(RawMessage),
) -> Result<usize, Refusal> {
    let consumer = create(link, batch).await?;
    let newer = pull(link, batch, &consumer, each).await?;
    delete(link, batch, &consumer).await?;
    Ok(newer)
}

/// Reads messages like [`scan`], on the leader of the stream, which has all of them. Returns `None` if there
/// was another leader in between.
pub(crate) async fn scan_leader(
    link: &Link,
    batch: &Batch<'_>,
    each: impl FnMut(RawMessage),
) -> Result<Option<usize>, Refusal> {
    let leader = async || {
        let mut info = call(link, &format!("STREAM.INFO.{}", batch.stream), &json!({})).await?;
        // Without a cluster, there is none, here and below.
        Ok::<_, Refusal>(info["cluster"]["leader"].take())
    };
    let first = leader().await?;
    for _ in 0..CONSUMERS {
        // A cluster chooses the server at random.
        let consumer = create(link, batch).await?;
        if consumer["cluster"]["leader"] == first {
            let newer = pull(link, batch, &consumer, each).await?;
            delete(link, batch, &consumer).await?;
            return Ok((leader().await? == first).then_some(newer));
        }
        delete(link, batch, &consumer).await?;
    }
    Ok(None)
}

/// Creates a consumer, and returns its information.
async fn create(link: &Link, batch: &Batch<'_>) -> Result<Value, Refusal> {
    let mut config = json!({
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": batch.after + 1,
        "ack_policy": "none",
        "headers_only": batch.part == Part::Headers,
        "mem_storage": true,
        "num_replicas": 1,
        "inactive_threshold": nanoseconds(CONSUMER_AGE),
    });
    if !batch.subject.is_empty() {
        config["filter_subject"] = batch.subject.into();
    }
    let request = json!({ "stream_name": batch.stream, "config": config });
    call(link, &format!("CONSUMER.CREATE.{}", batch.stream), &request).await
}

/// Returns the name of a consumer, after that of its stream.
fn name(batch: &Batch<'_>, consumer: &Value) -> String {
    format!("{}.{}", batch.stream, consumer["name"].as_str().unwrap_or_default())
}

async fn delete(link: &Link, batch: &Batch<'_>, consumer: &Value) -> Result<(), Refusal> {
    call(link, &format!("CONSUMER.DELETE.{}", name(batch, consumer)), &json!({})).await?;
    Ok(())
}

/// Reads the messages of a new consumer, and returns their number beyond the limit, too.
async fn pull(
    link: &Link,
    batch: &Batch<'_>,
    consumer: &Value,
    mut each: impl FnMut(RawMessage),
) -> Result<usize, Refusal> {
    let newer = usize::try_from(consumer["num_pending"].as_u64().unwrap_or_default()).unwrap_or(usize::MAX);
    let name = name(batch, consumer);
    let (mut rest, mut pending) = (batch.limit, newer);
    // While messages are read, others may replace those that are not read yet, and come after all of them.
    while pending > 0 && rest > 0 {
        let count = pending.min(rest).min(PULL);
        let request = json!({ "batch": count, "no_wait": true }).to_string();
        let mut answers = link.consume(&format!("$JS.API.CONSUMER.MSG.NEXT.{name}"), request.as_bytes())?;
        for _ in 0..count {
            let answer = answers.recv().await;
            let answer = answer.ok_or_else(|| EngineError::new("the connection to NATS was lost"))?;
            match answer.status {
                None => {}
                Some(status) if END.contains(&status) => {
                    pending = 0;
                    break;
                }
                Some(status) => {
                    let text = format!("NATS does not read all messages of a stream: status {status}");
                    return Err(EngineError::new(text).into());
                }
            }
            let message;
            (message, pending) = consumed(answer).ok_or_else(undecodable)?;
            each(message);
            rest -= 1;
        }
    }
    Ok(newer)
}

/// Decodes a message from a consumer, and the number of messages after it.
///
/// The subject for an acknowledgement tells where a message is:
/// `$JS.ACK.<stream>.<consumer>.<attempts>.<sequence>.<number>.<time>.<rest>`.
fn consumed(answer: Answer) -> Option<(RawMessage, usize)> {
    let mut numbers = answer.reply.split('.').skip(5).map(|part| part.parse().ok());
    let (sequence, _, time) = (numbers.next()??, numbers.next()?, numbers.next()??);
    let rest = usize::try_from(numbers.next()??).unwrap_or(usize::MAX);
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(time);
    let Answer { header, payload, subject, .. } = answer;
    Some((RawMessage { sequence, header, payload, time, subject }, rest))
}

/// Parses a time in UTC, such as `2026-11-30T01:17:28.6Z` (RFC 3339).
pub(crate) fn parse_time(text: &str) -> Option<SystemTime> {
    let part = |range: Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
    let (hour, minute, second) = (part(11..13)?, part(14..16)?, part(17..19)?);
    let fraction = text.get(19..)?.strip_suffix('Z')?;
    let digits = fraction.strip_prefix('.').unwrap_or_default();
    let nanoseconds = format!("{digits:0<9}").get(..9)?.parse().ok()?;
    if year < 1970 || !(1..=12).contains(&month) {
        return None;
    }
    // Years begin with March, so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    // 719,468 days are before 1970.
    let days = (year * 365 + leap_days + (month * 153 + 2) / 5 + day).checked_sub(1 + 719_468)?;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let since = |text| parse_time(text).map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        assert_eq!(since("1970-01-01T00:00:00Z"), Some(Duration::ZERO));
        assert_eq!(since("2000-02-29T23:59:59.5Z"), Some(Duration::new(951_868_799, 500_000_000)));
        assert_eq!(since("2026-11-30T01:17:28.606315343Z"), Some(Duration::new(1_796_001_448, 606_315_343)));
        for wrong in ["", "2026", "2026-13-01T00:00:00Z", "2026-11-30T01:17:28+01:00", "1969-12-31T00:00:00Z"]
        {
            assert_eq!(since(wrong), None, "{wrong}");
        }
    }
}
