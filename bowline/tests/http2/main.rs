//! WebSockets over HTTP/2 (RFC 8441).

mod by_hand;
mod fallback;
mod hostile;
mod streams;
#[path = "../support/mod.rs"]
mod support;

use support::allocations::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
