//! The handles that the application holds on a connection.
//!
//! - [`WebSocket`] is the handle of the owner: it receives and sends, and its drop ends the connection.
//! - [`Sender`] is a cheap handle for other tasks: it only sends.
//! - [`ConnectionStats`] are the numbers of a connection.
//! - [`SendBatch`] is a guard of either, which gathers messages for one write.
//! - [`MessageReader`] and [`MessageWriter`] are one message as a stream of bytes.
//! - [`WebSocketIo`] is the whole connection as a stream of bytes; `WebSocketStreamSink` and `SenderSink` are
//!   for the traits of the `futures` crates. All three wait through `poll_sender`.
//! - `json` and `protobuf` add methods for values that are encoded in messages.
//! - [`Adoption`] describes a stream that was upgraded elsewhere.
//! - [`pair`] connects two `WebSocket`s in memory.
//!
//! No state of the connection is here: the handles call `connection`, which lies below.

// These two come first, because rustdoc lists methods in the order of the modules: the pages of `WebSocket`
// and `Sender` begin with `recv` and `send`.
mod websocket;

mod sender;

#[cfg(any(feature = "client", feature = "server"))]
mod adoption;

mod batch;
mod io;
#[cfg(feature = "json")]
mod json;
mod pair;
mod ping;
mod poll_sender;
#[cfg(feature = "protobuf")]
mod protobuf;
mod reader;
mod stats;
#[cfg(feature = "futures")]
mod stream_sink;
mod writer;

#[cfg(any(feature = "json", feature = "protobuf"))]
use crate::connection::outbound::encoded::Encoded;

#[cfg(any(feature = "client", feature = "server"))]
pub use adoption::Adoption;
pub use batch::SendBatch;
pub use io::WebSocketIo;
pub use pair::pair;
#[cfg(all(feature = "client", feature = "server"))]
pub(crate) use pair::streams;
pub use ping::Ping;
pub use reader::MessageReader;
pub use sender::Sender;
pub use stats::ConnectionStats;
#[cfg(feature = "futures")]
pub use stream_sink::{SenderSink, WebSocketStreamSink};
pub use websocket::WebSocket;
pub use writer::MessageWriter;
