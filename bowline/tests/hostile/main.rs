//! Peers and streams that mean no good.

mod floods;
mod frames;
mod handshake;
#[path = "../support/mod.rs"]
mod support;
mod transport;

use support::allocations::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
