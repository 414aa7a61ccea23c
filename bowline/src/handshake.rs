//! What the opening handshakes of clients and servers have in common.

#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod authority;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod deadline;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod headers;
pub(crate) mod negotiated;
