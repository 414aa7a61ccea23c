//! Topics for WebSockets.
//!
//! - [`Hub`] is the set of topics. [`Hub::publish`] sends a message to everybody in a topic.
//! - [`Member`] is a connection in the hub. [`Member::subscribe`] makes it receive the messages of a topic.
//! - [`Rule`] decides, by the name of a topic, whether there is a history, and what becomes of slow members.
//! - [`Memory`] is the [`Engine`] for one process.

mod engine;
mod error;
mod events;
mod hub;
mod node;
mod panics;
mod position;
mod settings;
mod stats;
mod topic;

#[doc(no_inline)]
pub use bowline;

pub use engine::inbox::{Inbox, Wakeup};
pub use engine::memory::Memory;
pub use engine::{Delivery, Engine, EngineError, HistoryEntry, HistoryPage};
pub use error::{Error, ErrorKind};
pub use events::{HubEvent, HubEvents};
pub use hub::Hub;
pub use hub::builder::HubBuilder;
pub use hub::member::{Member, Start};
pub use position::{ParsePositionError, Position};
pub use settings::hooks::TopicMessage;
pub use settings::limits::HubLimits;
pub use settings::rule::{Retention, Rule, Slow};
pub use stats::HubStats;
pub use topic::Topic;
