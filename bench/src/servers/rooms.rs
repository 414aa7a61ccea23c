//! Servers that send messages to all connections.

mod bowline;
mod bowline_hub;
mod floor;

use anyhow::{Result, bail};
use tokio::net::TcpListener;

use super::library::{Behavior, Library};
use crate::frames::payload;

/// Serves fan-out, bursts or chat. Only bowline-hub uses a Redis.
pub async fn serve(
    library: Library,
    behavior: Behavior,
    listener: TcpListener,
    redis: Option<&str>,
) -> Result<()> {
    match library {
        Library::Floor => floor::serve(behavior, listener).await,
        Library::Bowline => bowline::serve(behavior, bowline::Sending::Prepared, listener).await,
        Library::BowlineUnprepared => bowline::serve(behavior, bowline::Sending::Each, listener).await,
        Library::BowlineHub => bowline_hub::serve(behavior, listener, redis).await,
        #[allow(unreachable_patterns, reason = "there may be no other libraries")]
        other => bail!("{other:?} has no rooms"),
    }
}

/// A message of the load.
enum Request {
    /// "join NUMBER": the connection enters a room. Connections of [`Behavior::Rooms`] are in no room before.
    Join(usize),
    /// "go SIZE": the server sends messages of `SIZE` bytes to all members of the room. This is their
    /// payload.
    Send(Vec<u8>),
}

impl Request {
    fn parse(behavior: Behavior, request: &[u8]) -> Option<Self> {
        let (verb, number) = std::str::from_utf8(request).ok()?.split_once(' ')?;
        let number = number.parse().ok()?;
        match verb {
            "join" => Some(Self::Join(number)),
            "go" => Some(Self::Send(payload(behavior.kind(), number, 0))),
            _ => None,
        }
    }
}
