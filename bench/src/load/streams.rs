//! The load on WebSockets that share connections, whatever the version of HTTP.

use anyhow::Result;
use hdrhistogram::Histogram;

/// WebSockets that share connections.
pub trait Streams {
    /// Returns what each WebSocket has received so far, and counts without keeping from now on.
    fn take_replies(&mut self) -> Vec<Vec<u8>>;

    /// Runs rounds on all streams while `goes_on` returns true. `goes_on` is called once per round of a
    /// stream.
    fn run(&mut self, latencies: &mut Histogram<u64>, goes_on: &mut dyn FnMut() -> bool) -> Result<usize>;
}
