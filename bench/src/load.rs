//! The loads: no WebSocket library, no runtime, and frames made in advance.

pub mod broadcast;
pub mod echo;
pub mod handshakes;
mod http2;
#[cfg(feature = "http3")]
mod http3;
pub mod idle;
mod runs;
mod streams;
mod wire;
