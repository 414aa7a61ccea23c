//! The stand-in for the server of HTTP/2 without the feature `http2`. Its types are uninhabited, so
//! matches on them take no code.

use std::future::Future;

use http::request::Parts;

use crate::error::Error;
use crate::handshake::deadline::Deadline;
use crate::limits::Limits;
use crate::server::check::RequestHooks;
use crate::server::handshake::Terms;
use crate::server::registry::Slot;
use crate::server::server_error::HeadCopy;
use crate::socket::WebSocket;
use crate::transport::peer::Peer;
use crate::transport::{Addresses, IoStream};

#[derive(Clone, Copy)]
pub(crate) enum Http2Server {}

pub(crate) enum Http2Request {}

pub(crate) struct Accepted {
    pub(crate) socket: WebSocket,
    pub(crate) head: Parts,
    pub(crate) slot: Slot,
}

impl Http2Server {
    pub(crate) fn may_begin_with(self, _bytes: &[u8]) -> bool {
        match self {}
    }

    pub(crate) fn begins_with(self, _bytes: &[u8]) -> bool {
        match self {}
    }

    #[expect(clippy::unused_async, reason = "the signature is that of the real one")]
    pub(crate) async fn serve<S: IoStream>(
        self,
        _stream: S,
        _limits: &Limits,
        _deadline: Deadline,
        _stop: impl Future<Output = ()>,
        _begin: impl FnMut(Http2Request),
    ) -> Result<(), Error> {
        match self {}
    }
}

impl Http2Request {
    pub(crate) fn describe(&mut self, _peer: &Peer, _copy: &HeadCopy) {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "the signature is that of the real one")]
    pub(crate) async fn reserve(&mut self) -> Result<Slot, Error> {
        match *self {}
    }

    pub(crate) fn refuse(self) {
        match self {}
    }

    #[expect(clippy::unused_async, reason = "the signature is that of the real one")]
    pub(crate) async fn exchange(
        self,
        _slot: Slot,
        _addresses: Addresses,
        _terms: &Terms,
        _hooks: &RequestHooks,
    ) -> Result<Option<Accepted>, Error> {
        match self {}
    }
}
