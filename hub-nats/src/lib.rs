//! NATS as the broker of [`bowline_hub`]: the same topics on any number of machines.
//!
//! [`connect`] returns the engine for a [`Hub`](bowline_hub::Hub). Everything else is as with one machine:
//!
//! ```no_run
//! use bowline_hub::Hub;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::builder(bowline_hub_nats::connect("nats://127.0.0.1").await?).build()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Failures
//!
//! - **NATS is away.** Members stay, and `publish` and `subscribe` fail. The engine connects to the next
//!   server of the cluster. A server that falls silent is noticed after at most five seconds.

mod address;
mod connection;
mod link;
mod protocol;
mod wire;

use std::fmt;

use bowline_hub::bowline::Message;
use bowline_hub::{Engine, EngineError, HistoryPage, Inbox, Position, Topic};

use crate::address::Addresses;
use crate::connection::Connection;
use crate::link::Link;

/// Connects to NATS, and returns the engine of a hub. Several servers of a cluster are separated by commas,
/// such as `nats://a,b,c:4223`. The user is part of the URL, such as `nats://user:password@host`, or
/// `nats://token@host`.
///
/// # Errors
///
/// Returns an error if the URL is invalid, or no server is in reach.
///
/// # Cancel safety
///
/// This function is cancel safe. A dropped future closes its connection.
pub async fn connect(url: &str) -> Result<Nats, EngineError> {
    let mut addresses = Addresses::parse(url)?;
    let connection = connection::connect(&addresses, 0).await?;
    connection.server.add_to(&mut addresses.servers);
    Ok(Nats { link: LinkState::Unstarted(Box::new((connection, addresses))) })
}

/// An engine on NATS. [`connect`] returns one.
pub struct Nats {
    link: LinkState,
}

/// The connection.
///
/// ```text
///   Unstarted --start--> Running
///       |
///       v  a failed start
///     Ended
/// ```
enum LinkState {
    Unstarted(Box<(Connection, Addresses)>),
    Running(Link),
    Ended,
}

impl Nats {
    fn link(&self) -> Result<&Link, EngineError> {
        match &self.link {
            LinkState::Running(link) => Ok(link),
            LinkState::Unstarted(_) | LinkState::Ended => {
                Err(EngineError::new("the engine was not started by a hub"))
            }
        }
    }
}

impl Engine for Nats {
    fn start(&mut self, inbox: Inbox) -> Result<(), EngineError> {
        match std::mem::replace(&mut self.link, LinkState::Ended) {
            LinkState::Unstarted(first) => {
                self.link = LinkState::Running(Link::start(first.0, first.1, inbox));
                Ok(())
            }
            running => {
                self.link = running;
                Err(EngineError::new("the engine was started before"))
            }
        }
    }

    async fn publish(&self, topic: &Topic, message: Message, tag: u64) -> Result<Position, EngineError> {
        let link = self.link()?;
        if topic.retention().is_some() {
            return Err(EngineError::new("the engine for NATS keeps no histories yet"));
        }
        let subject = wire::subject(wire::LIVE, topic.name());
        let header = wire::header(&message, tag);
        link.publish(&subject, &[(wire::HEADER, &header)], message.as_bytes()).await?;
        Ok(Position::UNTRACKED)
    }

    async fn want(&self, topic: &Topic) -> Result<(), EngineError> {
        self.link()?.want(topic).await
    }

    async fn unwant(&self, topic: &Topic) -> Result<(), EngineError> {
        self.link()?.unwant(topic).await
    }

    async fn history(&self, topic: &Topic, after: u64, limit: usize) -> Result<HistoryPage, EngineError> {
        let _ = (topic, after, limit);
        Err(EngineError::new("the engine for NATS keeps no histories yet"))
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").finish_non_exhaustive()
    }
}

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
