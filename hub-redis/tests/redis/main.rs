//! Hubs over a real Redis, which the tests start, kill and start again.
//!
//! Without `redis-server` on the machine, the tests do nothing and say so.

mod chaos;
mod failures;
mod node;
mod once;
mod positions;
mod presence;
mod proxy;
mod random;
mod replica;
mod server;
mod sharding;
mod tls;
mod topics;
