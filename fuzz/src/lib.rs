//! Code that the fuzz targets share.

mod frames;
mod wire;

pub use frames::{
    Frame, Messages, NO_LIMITS, Outgoing, Receiver, Seen, assert_same, encode_frame, joined, messages_in,
    pieces,
};
pub use wire::{Wire, wire};

use std::future::Future;

/// Runs `work` in a runtime of its own, whose clock advances only when all tasks wait.
pub fn block_on_paused<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O takes no resource that could be short").block_on(work)
}

/// Removes and returns the first byte, or returns 0 if there is none.
pub fn take_byte(data: &mut &[u8]) -> u8 {
    let Some((&byte, rest)) = data.split_first() else { return 0 };
    *data = rest;
    byte
}
