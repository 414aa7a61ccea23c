//! The stream that keeps all histories.
//!
//! The engine creates the stream with the first message of a topic with history. An existing stream is used
//! as it is, apart from two settings that the engine raises as the rules require: `max_msgs_per_subject`, and
//! `max_age`. An operator may create the stream with other settings for storage and size, for example.
//!
//! | setting | value |
//! |---|---|
//! | `subjects` | `bowline.store.>` |
//! | `republish` | to `bowline.live.>`: nodes subscribe to their topics there |
//! | `max_msgs_per_subject` | the largest count of all rules, and one: the message before the history |
//! | `max_age` | the largest age of all rules, and a week: so long a topic may be silent |
//! | `num_replicas` | 3 in a cluster, else 1 |
//! | `storage` | `file` |
//!
//! Rules may differ, also between nodes while a new version of the application is rolled out. So a history is
//! bounded by those who read it: see [`history`](crate::history).
//!
//! ```text
//! receipts  whether acknowledged messages have stayed
//! index     the newest messages of all topics
//! clock     the time of the server
//! ```

mod clock;
pub(crate) mod index;
mod receipts;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bowline_hub::bowline::Message;
use bowline_hub::{EngineError, Position, Retention, Topic};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::jetstream::{self, Refusal, call, nanoseconds};
use crate::link::Link;
use crate::message::nth;
use crate::stream::clock::Clock;
use crate::stream::index::Index;
use crate::stream::receipts::Receipts;
use crate::wire;

/// The time for which the stream keeps a message longer than the rules say. Live members of a topic that is
/// silent for longer are told of a loss with the next message, as nothing shows that there was none.
const TAIL: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The time for which the stream remembers the keys of messages that are published once.
const KEYS: Duration = Duration::from_secs(120);

/// The time within which the server must tell its time.
const CLOCK: Duration = Duration::from_millis(500);

/// The number of attempts of a request that finds no stream.
const ATTEMPTS: usize = 3;

/// The stream, as far as the engine knows it.
#[derive(Default)]
pub(crate) struct Stream {
    known: Mutex<Known>,
    /// Held by the one who creates or changes the stream.
    changing: tokio::sync::Mutex<()>,
    receipts: Arc<Receipts>,
    pub(crate) index: Index,
    /// The clock of the server, with the number from [`Link::changes`] at that time.
    clock: tokio::sync::Mutex<Option<(u64, Option<Clock>)>>,
}

/// The retention that the stream is known to have.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The number from [`Link::changes`] at that time. Without a stream, `count` is 0.
    changes: u64,
    count: u64,
    age: Duration,
}

impl Stream {
    /// Starts the index, and the task that looks up what the stream has acknowledged.
    pub(crate) fn start(&self, link: &Arc<Link>) {
        self.index.start(link);
        tokio::spawn(receipts::run(Arc::downgrade(link), Arc::clone(&self.receipts)));
    }

    /// Appends a message to the history of a topic. A key is remembered, and the first message with the key
    /// counts.
    pub(crate) async fn append(
        &self,
        link: &Link,
        topic: &Topic,
        content: &Message,
        tag: u64,
        key: Option<&str>,
    ) -> Result<Position, EngineError> {
        let retention = topic.retention().ok_or_else(|| EngineError::new("the topic has no history"))?;
        let (subject, header) = (wire::subject(wire::STORE, topic.name()), wire::header(content, tag));
        let mut headers = vec![(wire::HEADER, header.as_str())];
        // Keys are those of a topic, and a header is one line. In a cluster, a server that was stopped may
        // take itself for the leader for a while, and store what the real leader stores, too.
        let id = match key {
            Some(key) => Some(wire::subject(&format!("{}.", &subject[wire::STORE.len()..]), key)),
            None => link.is_clustered().then(|| header.clone()),
        };
        headers.extend(id.as_deref().map(|id| ("Nats-Msg-Id", id)));
        let append = || jetstream::publish(link, &subject, &headers, content.as_bytes());
        let stored = self.with_stream(link, retention, append).await?;
        let tag = if stored.is_known {
            // Without the first message, no client can continue from there.
            let first = nth(link, wire::STREAM, stored.sequence).await?;
            first.and_then(|first| wire::tag(&first.header?)).unwrap_or(0)
        } else {
            tag
        };
        if link.is_clustered() {
            self.receipts.note(topic, stored.sequence, tag);
        }
        Ok(Position::new(wire::EPOCH, stored.sequence, tag))
    }

    /// Makes a request, after the stream was created if there was none.
    pub(crate) async fn with_stream<T, F: Future<Output = Result<T, Refusal>>>(
        &self,
        link: &Link,
        retention: Retention,
        request: impl Fn() -> F,
    ) -> Result<T, Refusal> {
        for _ in 1..ATTEMPTS {
            self.ensure(link, retention).await?;
            match request().await {
                Err(Refusal::NoStream) => self.known().count = 0,
                outcome => return outcome,
            }
        }
        Err(Refusal::NoStream)
    }

    /// Makes sure that the stream exists and keeps enough.
    async fn ensure(&self, link: &Link, retention: Retention) -> Result<(), Refusal> {
        // The message before the history shows that nothing is missing in between.
        let wanted = Known {
            changes: link.changes(),
            count: u64::try_from(retention.count).unwrap_or(u64::MAX).saturating_add(1),
            age: retention.age + TAIL,
        };
        let is_enough = |known: &Known| {
            known.changes == wanted.changes && known.count >= wanted.count && known.age >= wanted.age
        };
        if is_enough(&self.known()) {
            return Ok(());
        }
        let _changing = self.changing.lock().await;
        if is_enough(&self.known()) {
            return Ok(());
        }
        let config = match call(link, "STREAM.INFO.bowline", &json!({})).await {
            Ok(info) => {
                check(&info)?;
                jetstream::wait_for_stream(link, &wire::subject(wire::STORE, "-")).await?;
                raise(link, &info["config"], wanted).await?
            }
            Err(Refusal::NoStream) => create(link, wanted).await?,
            Err(refusal) => return Err(refusal),
        };
        *self.known() = Known { changes: wanted.changes, ..Known::of(&config) };
        Ok(())
    }

    /// Returns the time of the server, or that of the node while the server does not tell.
    pub(crate) async fn now(&self, link: &Link) -> SystemTime {
        let changes = link.changes();
        let mut clock = self.clock.lock().await;
        if clock.as_ref().is_none_or(|(known, _)| *known != changes) {
            // Without a leader of all streams, a cluster does not tell, and its histories are there.
            let read = timeout(CLOCK, Clock::read(link)).await;
            *clock = Some((changes, read.ok().and_then(Result::ok)));
        }
        clock.and_then(|(_, clock)| clock).map_or_else(SystemTime::now, Clock::now)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Reads the retention of a configuration, in which no limit is -1 or 0.
    fn of(config: &Value) -> Self {
        let limit = |value: &Value| value.as_i64().filter(|limit| *limit > 0).map(i64::unsigned_abs);
        Self {
            changes: 0,
            count: limit(&config["max_msgs_per_subject"]).unwrap_or(u64::MAX),
            age: limit(&config["max_age"]).map_or(Duration::MAX, Duration::from_nanos),
        }
    }
}

/// Creates the stream.
async fn create(link: &Link, wanted: Known) -> Result<Value, Refusal> {
    let config = json!({
        "name": wire::STREAM,
        "description": "The histories of bowline-hub",
        "subjects": [format!("{}>", wire::STORE)],
        "republish": { "src": format!("{}>", wire::STORE), "dest": format!("{}>", wire::LIVE) },
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": jetstream::replicas(link),
        "max_msgs_per_subject": wanted.count,
        "max_age": nanoseconds(wanted.age),
        "max_consumers": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "duplicate_window": nanoseconds(KEYS),
    });
    let config = jetstream::create(link, &config).await?;
    // Another node may have created the stream, with other rules.
    raise(link, &config, wanted).await
}

/// Raises the retention of the stream, if it is less than wanted.
async fn raise(link: &Link, config: &Value, wanted: Known) -> Result<Value, Refusal> {
    let known = Known::of(config);
    if known.count >= wanted.count && known.age >= wanted.age {
        return Ok(config.clone());
    }
    let mut config = config.clone();
    if known.count < wanted.count {
        config["max_msgs_per_subject"] = wanted.count.into();
    }
    if known.age < wanted.age {
        config["max_age"] = nanoseconds(wanted.age).into();
    }
    Ok(call(link, "STREAM.UPDATE.bowline", &config).await?["config"].clone())
}

/// Checks that a stream, which somebody else may have created, is one for histories.
fn check(info: &Value) -> Result<(), EngineError> {
    let config = &info["config"];
    let wrong = |what: &str| Err(EngineError::new(format!("the stream named bowline {what}")));
    if config["republish"]["dest"].as_str() != Some("bowline.live.>") {
        return wrong("does not republish bowline.store.> to bowline.live.>");
    }
    if config["republish"]["headers_only"].as_bool() == Some(true) {
        return wrong("republishes headers only");
    }
    jetstream::check_replicas(info)
}
