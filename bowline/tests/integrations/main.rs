//! Integrations on top of connections and around them: servers, HTTP libraries, streams and sinks, formats of
//! values.

#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "blocking")]
mod blocking;
mod diagnostics;
mod fallback;
mod fast_path;
#[cfg(feature = "futures")]
mod futures;
#[cfg(feature = "tls")]
mod http_clients;
#[cfg(feature = "json")]
mod json;
mod listener;
mod load;
#[cfg(feature = "protobuf")]
mod protobuf;
mod server;
mod server_errors;
mod shutdown;
#[path = "../support/mod.rs"]
mod support;

use support::allocations::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
