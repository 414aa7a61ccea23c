//! The stand-in for the client of HTTP/2 without the feature `http2`: HTTP/1.1 is the only version.

use http::Response;

use crate::client::request::{Attempt, Offer};
use crate::client::url::Url;
use crate::error::Error;
use crate::handshake::deadline::Deadline;
use crate::socket::WebSocket;
use crate::transport::Addresses;
use crate::transport::alpn::Alpn;
use crate::transport::byte_stream::ByteStream;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum HttpVersion {
    #[default]
    Http1,
}

impl HttpVersion {
    #[expect(clippy::unused_self, reason = "the signature is that of the real one")]
    pub(crate) fn offered(self) -> &'static [Alpn] {
        &[Alpn::Http1]
    }

    #[expect(clippy::unused_self, reason = "the signature is that of the real one")]
    pub(crate) fn is_only_http2(self) -> bool {
        false
    }

    #[expect(clippy::unused_self, reason = "the signature is that of the real one")]
    pub(crate) fn falls_back(self) -> bool {
        false
    }
}

pub(crate) enum Http2Connection {}

impl Http2Connection {
    #[expect(clippy::unused_async, reason = "the signature is that of the real one")]
    pub(crate) async fn handshake(
        _offer: Offer,
        _url: Url,
        _stream: ByteStream,
        _addresses: Addresses,
        _deadline: Deadline,
    ) -> Result<Self, Error> {
        unreachable!("without the feature `http2`, HTTP/2 is never offered")
    }

    pub(crate) fn accepts_websockets(&self) -> bool {
        match *self {}
    }

    pub(crate) fn check_settings(&self) -> Result<(), Error> {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "the signature is that of the real one")]
    pub(crate) async fn exchange(&self, _attempt: Attempt) -> Result<(WebSocket, Response<()>), Error> {
        match *self {}
    }
}
