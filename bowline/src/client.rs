//! From a URL to a WebSocket.

mod connector;
mod dial;
mod handshake;
mod http1;
#[cfg(feature = "http2")]
mod http2;
mod proxy;
mod request;
mod url;

#[cfg(feature = "http2")]
pub use connector::HttpVersion;
pub use connector::{Connector, connect};
pub use handshake::ClientHandshake;
#[cfg(feature = "http2")]
pub use http2::Http2Connection;
pub use proxy::Proxy;
