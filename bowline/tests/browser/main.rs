//! The library in a page, in a worker and in Node, against `bowline serve`, and for
//! what an echo doesn't do, against `conformance/src/bin/browser_server.rs`.
//!
//! `.ci/browser` runs these tests.
#![cfg(all(target_family = "wasm", target_os = "unknown"))]

#[cfg(bowline_absent)]
mod absent;
mod back_pressure;
mod closing;
mod connecting;
mod formats;
mod handles;
mod hostile;
mod messages;
mod speed;
mod support;
