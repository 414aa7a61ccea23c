//! The connection in a browser: its WebSocket, behind the names and signatures of the native library.
//!
//! ```text
//! connector                               a URL becomes a connection
//! websocket  sender  json  protobuf       the handles of the application
//! stream_sink                             the same for the traits of the `futures` crates
//! operations                              sending, flushing, closing: the futures of the callers
//! socket                                  the object of JavaScript, what it reports, its timers
//! transport                               that object: a `WebSocket`, or a `WebSocketStream`
//! connection  inbox  turns  timer         the shared state, and its parts
//! limits                                  takes the place of `limits.rs`
//! ```
//!
//! A message that arrives is reported to `socket`, which puts it into the `inbox`, whose reader it wakes. A
//! message that is sent goes to the browser at once, unless its buffer has reached `Limits::write_buffer`.
//! Then the senders wait in order of arrival (`turns`). A `WebSocketStream` tells when its buffer empties.
//! The buffer of a `WebSocket` is looked at after 1, 2, 4 ... 32 ms, since no event tells.
//!
//! Items that a browser has no means for don't exist here, so that their use does not compile.

// These two come first, as in `socket.rs`.
mod websocket;

mod sender;

mod connection;
#[cfg(feature = "client")]
mod connector;
#[cfg(any(feature = "json", feature = "protobuf"))]
mod encoded;
mod inbox;
#[cfg(feature = "json")]
#[path = "socket/json.rs"]
mod json;
mod operations;
#[cfg(feature = "protobuf")]
#[path = "socket/protobuf.rs"]
mod protobuf;
mod socket;
#[cfg(feature = "futures")]
mod stream_sink;
mod timer;
mod transport;
mod turns;

#[cfg(any(feature = "json", feature = "protobuf"))]
use encoded::Encoded;

#[cfg(feature = "client")]
pub use connector::{Connector, connect};
pub use sender::Sender;
#[cfg(feature = "futures")]
pub use stream_sink::{SenderSink, WebSocketStreamSink};
pub use websocket::WebSocket;
