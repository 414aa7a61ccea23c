//! The way back from hyper's `Upgraded` to the stream inside.

use std::any::Any;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
#[cfg(feature = "server")]
use hyper_util::server::conn::auto::upgrade::downcast as downcast_auto;
use tokio::net::TcpStream;

use crate::transport::{IoStream, Transport};

/// Makes a transport of any stream; a stream of hyper's is unwrapped if possible. Also returns the unread
/// bytes: `leftover`, followed by the bytes that hyper has read ahead.
pub(crate) fn from_stream<S: IoStream>(stream: S, leftover: Bytes) -> (Transport, Bytes) {
    let mut stream = Some(stream);
    let any: &mut dyn Any = &mut stream;
    let Some(upgraded) = any.downcast_mut::<Option<TokioIo<Upgraded>>>().and_then(Option::take) else {
        return (Transport::new(stream.expect("the stream was not taken out")), leftover);
    };
    let (transport, unread) = from_upgraded(upgraded.into_inner());
    (transport, [leftover, unread].concat().into())
}

/// Makes a transport of the TCP stream in `upgraded`, and returns the bytes that hyper has read ahead.
/// If another stream is inside, `upgraded` itself becomes the transport.
pub(crate) fn from_upgraded(upgraded: Upgraded) -> (Transport, Bytes) {
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => return (Transport::new(parts.io.into_inner()), parts.read_buf),
        Err(upgraded) => upgraded,
    };
    // hyper-util's servers for both versions of HTTP, such as axum's, wrap the stream once more.
    let upgraded = match downcast_auto::<TokioIo<TcpStream>>(upgraded) {
        Ok(parts) => return (Transport::new(parts.io.into_inner()), parts.read_buf),
        Err(upgraded) => upgraded,
    };
    (Transport::new(TokioIo::new(upgraded)), Bytes::new())
}

/// Without the feature `server`, the streams of hyper-util's servers are not recognised.
#[cfg(not(feature = "server"))]
fn downcast_auto<T>(upgraded: Upgraded) -> Result<hyper::upgrade::Parts<T>, Upgraded> {
    Err(upgraded)
}
