//! The parts of the opening handshake that clients and servers share.
//!
//! - `authority` parses a host and a port.
//! - `headers` finds headers and their tokens.
//! - `deadline` bounds the time of a handshake.
//! - `protocol` is the `:protocol` of an extended CONNECT.
//! - `negotiated` is the result: the subprotocol and the parameters of compression.
//!
//! The two sides themselves are in `client` and `server`, over HTTP/1.1 and HTTP/2 in files of the same
//! names.

#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod authority;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod deadline;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod headers;
pub(crate) mod negotiated;
#[cfg(feature = "server")]
pub(crate) mod protocol;
