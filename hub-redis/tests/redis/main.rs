//! Hubs over a real Redis, which the tests start, kill and start again.
//!
//! Without `redis-server` on the machine, the tests do nothing and say so.

#[cfg(unix)]
mod chaos;
mod failures;
mod once;
mod positions;
mod presence;
#[cfg(unix)]
mod presence_chaos;
mod replica;
mod sharding;
mod support;
mod tls;
mod topics;
