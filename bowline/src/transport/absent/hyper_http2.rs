//! The stand-in for hyper's streams of HTTP/2 without the feature `http2`: no request is an extended CONNECT.

use http::Extensions;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use crate::transport::Transport;

pub(crate) fn protocol_of(_extensions: &Extensions) -> Option<&str> {
    None
}

/// Boxes the stream. This is never called, because every request over HTTP/2 is rejected without the feature.
pub(crate) fn tunnel(upgraded: Upgraded) -> Transport {
    Transport::new(TokioIo::new(upgraded))
}
