//! Connections: sending, receiving, closing, and the freedom of their users.

mod api;
mod byte_stream;
mod cancellation;
mod cancellation_carriers;
mod closing;
mod closing_carriers;
#[cfg(feature = "deflate")]
mod compression;
mod control_frames;
mod fairness;
mod keepalive;
mod keepalive_carriers;
mod liveness;
mod receiving;
mod reentrancy;
mod send_batch;
mod sending;
mod simulation;
mod states;
mod stats;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod text;
mod wakers;
