//! The bytes of a case: opening handshakes, frames, and the events that the server's bytes are.
//!
//! ```text
//! opening      performs an opening handshake; head is its request and response, http2 the way of RFC 8441,
//!              and http3 that of RFC 9220
//! session      an open WebSocket, on a carrier; inbox turns the server's bytes into events
//! frame        frames of a client, valid and invalid
//! transcript   the bytes, for a report
//! ```

pub(crate) mod carrier;
pub(crate) mod frame;
pub(crate) mod head;
mod http2;
mod http3;
pub(crate) mod inbox;
pub(crate) mod opening;
pub(crate) mod session;
pub(crate) mod transcript;
