//! The costs of connections: memory, copies and system calls.

mod broadcast;
mod memory;
mod served;
#[path = "../support/mod.rs"]
mod support;
mod system_calls;
mod unsent;

use support::allocations::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
