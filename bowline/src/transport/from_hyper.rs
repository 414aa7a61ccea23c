//! The way back from what hyper hands out after an upgrade to the stream inside.

use std::any::Any;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
#[cfg(feature = "server")]
use hyper_util::server::conn::auto::upgrade::downcast as downcast_auto;
use tokio::net::TcpStream;

use crate::transport::{IoStream, Transport};

/// Takes any stream, and what came behind the handshake. One of hyper's is unwrapped if possible.
pub(crate) fn transport_of<S: IoStream>(stream: S) -> (Transport, Bytes) {
    let mut stream = Some(stream);
    let any: &mut dyn Any = &mut stream;
    match any.downcast_mut::<Option<TokioIo<Upgraded>>>().and_then(Option::take) {
        Some(upgraded) => unwrap(upgraded.into_inner()),
        None => (Transport::new(stream.expect("it was not taken")), Bytes::new()),
    }
}

/// Finds the TCP stream, so that nothing is left of hyper; a stream that we do not know stays as it is.
pub(crate) fn unwrap(upgraded: Upgraded) -> (Transport, Bytes) {
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => return (Transport::new(parts.io.into_inner()), parts.read_buf),
        Err(upgraded) => upgraded,
    };
    // What hyper-util's servers for both versions of HTTP wrap the stream in, axum's among them.
    let upgraded = match downcast_auto::<TokioIo<TcpStream>>(upgraded) {
        Ok(parts) => return (Transport::new(parts.io.into_inner()), parts.read_buf),
        Err(upgraded) => upgraded,
    };
    (Transport::new(TokioIo::new(upgraded)), Bytes::new())
}

/// Without the feature `server`, a stream of hyper-util's servers is unknown.
#[cfg(not(feature = "server"))]
fn downcast_auto<T>(upgraded: Upgraded) -> Result<hyper::upgrade::Parts<T>, Upgraded> {
    Err(upgraded)
}
