//! bowline

mod attendant;
mod connection;
mod error;
mod limits;
mod message;
mod pair;
mod random;
mod read_buffer;
mod reader;
mod receive;
mod sender;
mod signals;
mod transmit;
mod transport;
mod utf8_bytes;
mod wait;
mod websocket;
mod write_queue;
mod writer;

pub use bowline_proto::{CloseCode, CloseFrame, MessageKind, Role};
pub use error::{Error, ErrorKind, TrySendError};
pub use limits::Limits;
pub use message::{Message, Payload, Prepared};
pub use pair::pair;
pub use reader::MessageReader;
pub use sender::Sender;
pub use utf8_bytes::Utf8Bytes;
pub use websocket::WebSocket;
pub use writer::MessageWriter;
