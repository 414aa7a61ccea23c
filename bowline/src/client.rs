//! From a URL to a WebSocket.

mod connector;
mod dial;
mod handshake;
mod http1;
#[cfg_attr(not(feature = "http2"), path = "client/absent/http2.rs")]
mod http2;
mod proxy;
mod request;
mod url;

pub use connector::{Connector, connect};
pub use handshake::ClientHandshake;
#[cfg(feature = "http2")]
pub use http2::{Http2Connection, HttpVersion};
pub use proxy::Proxy;
