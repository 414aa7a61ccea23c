//! Hubs over a real NATS, which the tests start, kill and start again.
//!
//! Without `nats-server` on the machine, the tests do nothing and say so.

mod chaos;
mod client;
mod cluster;
mod engine;
mod history;
mod presence;
mod presence_chaos;
mod server;
mod tls;
mod topics;
