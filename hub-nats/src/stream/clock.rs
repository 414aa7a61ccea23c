//! The clock of the server.
//!
//! The server stamps each message with its time, so ages are measured by the clock of the server: that of the
//! node may differ.

use std::time::SystemTime;

use bowline_hub::EngineError;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::jetstream::{Refusal, call};
use crate::link::Link;
use crate::message::parse_time;
use crate::wire;

/// A time of the server, and the moment at which the node has learnt it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    time: SystemTime,
    learnt: Instant,
}

impl Clock {
    /// Reads the clock of the server that keeps the histories.
    pub(crate) async fn read(link: &Link) -> Result<Self, Refusal> {
        let info = call(link, &format!("STREAM.INFO.{}", wire::STREAM), &json!({})).await?;
        // Since NATS 2.10.
        if let Some(clock) = Self::parse(&info["ts"]) {
            return Ok(clock);
        }
        // Something that is created now.
        let config = json!({ "ack_policy": "none", "mem_storage": true, "num_replicas": 1 });
        let request = json!({ "stream_name": wire::STREAM, "config": config });
        let consumer = call(link, &format!("CONSUMER.CREATE.{}", wire::STREAM), &request).await?;
        let clock = Self::parse(&consumer["created"]);
        let name = consumer["name"].as_str().unwrap_or_default();
        call(link, &format!("CONSUMER.DELETE.{}.{name}", wire::STREAM), &json!({})).await?;
        Ok(clock.ok_or_else(|| EngineError::new("NATS returns a time in a form that is unknown"))?)
    }

    fn parse(text: &Value) -> Option<Self> {
        Some(Self { time: parse_time(text.as_str()?)?, learnt: Instant::now() })
    }

    /// Returns the time of the server.
    pub(crate) fn now(self) -> SystemTime {
        self.time + self.learnt.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_is_that_of_the_server_and_passes() {
        let clock = Clock::parse(&json!("1970-01-01T01:00:00.5Z")).unwrap();
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_millis(3_607_500));
    }
}
