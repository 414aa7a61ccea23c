//! The loads: no WebSocket library, no runtime, and frames made in advance.

pub mod broadcast;
pub mod echo;
pub mod handshakes;
pub mod idle;
mod runs;
mod wire;
