//! Topics for WebSockets: messages to many connections, a history for clients that come back, and no gap
//! that nobody is told of.
//!
//! - [`Hub`] is the set of topics. [`Hub::publish`] sends a message to everybody in a topic.
//! - [`Member`] is a connection in the hub. [`Member::subscribe`] makes the connection receive a topic.
//! - [`Rule`] decides, by the name of a topic, whether there is a history, and what becomes of slow members.
//! - [`Memory`] is the [`Engine`] for one process.
//!
//! ```
//! use std::time::Duration;
//!
//! use bowline_hub::{Hub, Memory, Rule};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let hub = Hub::builder(Memory::new())
//!     .rule("chat/", Rule::new().history(100, Duration::from_secs(300)))
//!     .build()?;
//! let (mut client, server) = bowline::pair();
//!
//! let member = hub.join(server.sender())?;
//! let _ = member.subscribe("chat/lobby", None).await?;
//! hub.publish("chat/lobby", "hello").await?;
//! assert_eq!(client.recv().await?, Some("hello".into()));
//! # Ok(())
//! # }
//! ```
//!
//! # Clients that come back
//!
//! Each message of a topic with history has a [`Position`]. The application puts the position into the
//! frame that members receive ([`HubBuilder::frame`]), and a client that connects again names the position of
//! its last message. [`Member::subscribe`] then sends what the client has missed, and continues live, without
//! a gap in between. [`Hub`] has an example.
//!
//! A client that is new has no position: [`Since::Last`] sends the last messages of the history.
//!
//! If the history no longer reaches back to the position, [`Start::Lost`] says so. The application sends the
//! state of the topic from elsewhere, and subscribes from the new position.
//!
//! # Losses while a member is live
//!
//! A broker can lose messages, and a slow member can fall behind the history. Such members are never left in
//! the dark: they receive the frame of [`HubBuilder::lost`], or else their connection is closed with 1013.
//!
//! # Topics without history
//!
//! Members receive the messages that are published while they are subscribed, each at most once. All messages
//! have the same position, [`Position::UNTRACKED`].
//!
//! # Presence
//!
//! [`Rule::presence`] keeps account of who is in a topic, on all nodes. [`Member::appear`] makes a connection
//! that of somebody, [`Hub::present`] and [`Hub::count`] read, and [`HubBuilder::presence`] tells members who
//! comes and goes. Connections that are lost, and nodes that are gone, leave after a while.
//!
//! # Operation
//!
//! [`Hub::stats`] returns the numbers of a hub, and [`Hub::events`] its news. [`HubLimits`] lists the
//! limits. The runtime of [`HubBuilder::build`] runs a few tasks, the workers, among which topics are divided
//! by their names. A member that doesn't take a message at once is treated as its rule says, and holds up
//! nobody.
//!
//! # Shutting down
//!
//! A hub needs no shutdown of its own: its members are connections of a `bowline::Server` or of
//! `bowline::Connections`. [`ShutdownOptions::spread`] closes the connections evenly over a time, with 1012
//! for example, and each member leaves when its handler ends. Meanwhile, the application's health check
//! reports that the node is not ready. Clients connect to other nodes, where they continue after the
//! positions of their last messages.
//!
//! [`ShutdownOptions::spread`]: https://docs.rs/bowline/latest/bowline/struct.ShutdownOptions.html

mod engine;
mod error;
mod events;
mod hub;
mod node;
mod panics;
mod position;
mod presence;
mod settings;
mod stats;
mod topic;

#[doc(no_inline)]
pub use bowline;

pub use engine::inbox::{Inbox, Wakeup};
pub use engine::memory::Memory;
pub use engine::{Delivery, Engine, EngineError, HistoryEntry, HistoryPage, Predecessor};
pub use error::{Error, ErrorKind};
pub use events::{HubEvent, HubEvents};
pub use hub::Hub;
pub use hub::builder::HubBuilder;
pub use hub::member::{Member, Start};
pub use hub::since::Since;
pub use position::{ParsePositionError, Position};
pub use presence::{Lease, NodeId, PresenceChange, Present};
pub use settings::hooks::{PresenceNews, TopicMessage};
pub use settings::limits::HubLimits;
pub use settings::rule::{Retention, Rule, Slow};
pub use stats::HubStats;
pub use topic::Topic;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
