//! WebSockets over HTTP/3, through the public API.

mod echo;
mod endings;
mod handshake;
mod hostile_clients;
mod hostile_servers;
mod raw;
mod support;

#[global_allocator]
static ALLOCATOR: support::allocations::Counting = support::allocations::Counting;
