//! Hostile peers and broken streams.

mod floods;
mod frames;
mod handshake;
mod server;
#[path = "../support/mod.rs"]
mod support;
mod transport;

use support::allocations::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
