//! The way back from what hyper hands out after an upgrade to the stream inside.

use std::any::Any;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
#[cfg(feature = "server")]
use hyper_util::server::conn::auto::upgrade::downcast as downcast_auto;
use tokio::net::TcpStream;

use crate::transport::{IoStream, Transport};

/// Takes any stream, and unwraps one of hyper's if possible. Returns the transport and the bytes that are still unread:
/// `leftover`, followed by those that hyper has read ahead.
pub(crate) fn from_stream<S: IoStream>(stream: S, leftover: Bytes) -> (Transport, Bytes) {
    let mut stream = Some(stream);
    let any: &mut dyn Any = &mut stream;
    let Some(upgraded) = any.downcast_mut::<Option<TokioIo<Upgraded>>>().and_then(Option::take) else {
        return (Transport::new(stream.expect("it was not taken")), leftover);
    };
    let (transport, unread) = from_upgraded(upgraded.into_inner());
    (transport, [leftover, unread].concat().into())
}

/// Finds the TCP stream, so that nothing is left of hyper; a stream that we do not know stays as it is.
pub(crate) fn from_upgraded(upgraded: Upgraded) -> (Transport, Bytes) {
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
