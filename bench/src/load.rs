//! The loads: one thread, no WebSocket library, frames made beforehand.

pub mod broadcast;
pub mod echo;
pub mod handshakes;
pub mod idle;
mod runs;
mod wire;
