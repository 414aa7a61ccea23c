//! WebSockets over HTTP/3, through the public API.

#[path = "../../../bowline/tests/connection/cancellation_carriers.rs"]
mod cancellation_carriers;
#[path = "../../../bowline/tests/connection/closing_carriers.rs"]
mod closing_carriers;
mod echo;
mod endings;
mod handshake;
mod hostile_clients;
mod hostile_servers;
#[path = "../../../bowline/tests/connection/keepalive_carriers.rs"]
mod keepalive_carriers;
mod links;
mod memory;
mod pairs;
mod raw;
mod requirements;
mod support;
mod transport;
mod tunnel;

#[global_allocator]
static ALLOCATOR: support::allocations::Counting = support::allocations::Counting;
