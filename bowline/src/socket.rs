//! The handles that users hold.

// The first one, and `sender` the second, because rustdoc lists methods in the order of modules: the pages of `WebSocket`
// and `Sender` begin with `recv` and `send`.
mod websocket;

mod sender;

mod io;
#[cfg(feature = "json")]
mod json;
mod pair;
mod poll_sender;
#[cfg(feature = "protobuf")]
mod protobuf;
mod reader;
#[cfg(feature = "futures")]
mod stream_sink;
mod writer;

pub use io::WebSocketIo;
pub use pair::pair;
pub use reader::MessageReader;
pub use sender::Sender;
#[cfg(feature = "futures")]
pub use stream_sink::{SenderSink, WebSocketStreamSink};
pub use websocket::WebSocket;
pub use writer::MessageWriter;
