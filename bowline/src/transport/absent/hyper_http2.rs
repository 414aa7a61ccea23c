//! Takes the place of HTTP/2 in hyper without the feature `http2`: no request is an extended CONNECT.

use http::Extensions;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;

use crate::transport::Transport;

pub(crate) fn protocol_of(_extensions: &Extensions) -> Option<&str> {
    None
}

/// Never called, as every request of HTTP/2 is rejected.
pub(crate) fn tunnel(upgraded: Upgraded) -> Transport {
    Transport::new(TokioIo::new(upgraded))
}
