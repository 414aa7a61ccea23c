//! The client: from a URL to a WebSocket.
//!
//! ```text
//! reconnecting  one connection after the other, with pauses between them
//! connect_over  the handshake over a stream of the application's, without dialling
//! url           the URL, checked
//! connector     the options, and the way through all of the following
//! request       the request of the opening handshake, prepared
//! proxy         the choice of a proxy
//! dial          TCP, directly or through the proxy; then TLS, if the URL says so
//! http1         one request and its response, then the stream is the WebSocket's
//! http2         many requests, each of which becomes a stream of one connection
//! handshake     the checks of the response, for both
//! times         the times of the steps, for the application
//! pair          the handshake with an acceptor in memory
//! ```
//!
//! Without the feature `http2`, `absent/http2.rs` takes the place of `http2.rs`.

mod connect_over;
mod connector;
mod dial;
mod handshake;
mod http1;
#[cfg_attr(not(feature = "http2"), path = "client/absent/http2.rs")]
mod http2;
#[cfg(feature = "server")]
mod pair;
mod proxy;
mod reconnecting;
mod request;
mod times;
mod url;

pub use connect_over::ConnectOver;
pub use connector::{Connector, connect};
pub use handshake::{ClientHandshake, VerifiedHandshake};
#[cfg(feature = "http2")]
pub use http2::{Http2Connection, HttpVersion};
pub use proxy::Proxy;
pub use reconnecting::{Reconnecting, Retry};
pub use times::HandshakeTimes;
