//! Servers that send messages to all connections.

mod bowline;
mod bowline_hub;
mod floor;

use anyhow::{Result, bail};
use tokio::net::TcpListener;

use super::library::{Behavior, Library};
use crate::frames::{Kind, payload};

/// Serves fan-out, bursts or chat. Only bowline-hub uses a Redis.
pub async fn serve(
    library: Library,
    behavior: Behavior,
    listener: TcpListener,
    redis: Option<&str>,
) -> Result<()> {
    match library {
        Library::Floor => floor::serve(behavior, listener).await,
        Library::Bowline => bowline::serve(behavior, listener).await,
        Library::BowlineHub => bowline_hub::serve(behavior, listener, redis).await,
        #[allow(unreachable_patterns, reason = "there may be no other libraries")]
        other => bail!("{other:?} has no rooms"),
    }
}

/// Parses a request: "go SIZE" asks for messages of `SIZE` bytes to all.
fn requested(request: &[u8]) -> Option<Vec<u8>> {
    let size = std::str::from_utf8(request).ok()?.strip_prefix("go ")?.parse().ok()?;
    Some(payload(Kind::Binary, size, 0))
}
