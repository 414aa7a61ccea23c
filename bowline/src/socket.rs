//! The handles that users hold.

mod io;
#[cfg(feature = "json")]
mod json;
mod pair;
mod poll_sender;
#[cfg(feature = "protobuf")]
mod protobuf;
mod reader;
mod sender;
#[cfg(feature = "futures")]
mod stream_sink;
mod websocket;
mod writer;

pub use io::WebSocketIo;
pub use pair::pair;
pub use reader::MessageReader;
pub use sender::Sender;
#[cfg(feature = "futures")]
pub use stream_sink::{SenderSink, WebSocketStreamSink};
pub use websocket::WebSocket;
pub use writer::MessageWriter;
