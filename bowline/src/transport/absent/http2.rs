//! The stand-in for streams of HTTP/2 without the feature `http2`.
//!
//! The types are uninhabited, so enum variants of them take no space, and match arms on them no code.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

pub(crate) enum Multiplexed {}

pub(crate) enum Http2Receive {}

pub(crate) enum Http2Send {}

impl Http2Receive {
    pub(crate) fn gather(&mut self, _cx: &mut Context<'_>) {
        match *self {}
    }
}

impl AsyncRead for Http2Receive {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }
}

impl Http2Send {
    pub(crate) fn multiplexed(&self) -> Option<Multiplexed> {
        match *self {}
    }

    pub(crate) fn poll_write(
        &mut self,
        _cx: &mut Context<'_>,
        _wanted: usize,
        _take: impl FnOnce(usize) -> Bytes,
    ) -> Poll<io::Result<usize>> {
        match *self {}
    }

    pub(crate) fn end(&mut self) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn reset(self) {
        match self {}
    }
}
