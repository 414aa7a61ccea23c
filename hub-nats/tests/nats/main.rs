//! Hubs over a real NATS, which the tests start, kill and start again.
//!
//! Without `nats-server` on the machine, the tests do nothing and say so.

mod client;
mod history;
mod server;
mod topics;
