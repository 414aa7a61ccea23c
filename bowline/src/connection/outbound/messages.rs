//! Messages on their way into the queue: compressed, encoded and masked, or queued by reference.

use std::mem;

use bowline_proto::{MessageKind, Role};

use crate::connection::outbound::compressor::Compressor;
#[cfg(any(feature = "json", feature = "protobuf"))]
use crate::connection::outbound::encoded::Encoded;
use crate::connection::outbound::fragment::FragmentEnd;
use crate::connection::outbound::{Outbound, Outgoing, misuse};
use crate::error::Error;
use crate::message::compression::CompressorSettings;
use crate::message::{Payload, Prepared, PreparedFrame, Source};

/// Owned payloads of at least this size are queued by reference, without a copy.
const SHARED_SIZE: usize = 16 * 1024;

/// Owned payloads of at least this size are queued by reference while replies gather. Measured: one write of
/// all replies from one place is faster than a vectored one, by more than the copies take.
const GATHERED_SHARED_SIZE: usize = 64 * 1024;

/// Prepared payloads of at least this size are queued by reference. Many connections share such a payload, so
/// that connections that don't keep up should not hold a copy each.
const PREPARED_SHARED_SIZE: usize = 1024;

impl Outgoing for Payload<'_> {
    type Accepted = ();

    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    fn accept(&mut self, outbound: &mut Outbound) -> Result<(), Error> {
        outbound.accept(self)
    }
}

#[cfg(any(feature = "json", feature = "protobuf"))]
impl Outgoing for Encoded {
    type Accepted = ();

    fn accept(&mut self, outbound: &mut Outbound) -> Result<(), Error> {
        outbound.accept_encoded(self)
    }
}

impl Outbound {
    /// Accepts a message whole. An owned payload may be taken out of `payload`.
    #[expect(clippy::inline_always, reason = "measured: 20 instructions less of a small message")]
    #[inline(always)]
    pub(crate) fn accept(&mut self, payload: &mut Payload<'_>) -> Result<(), Error> {
        let (kind, bytes) = payload.parts();
        self.tally.add_message(bytes.len());
        let may_be_shared = bytes.len() >= PREPARED_SHARED_SIZE
            && (bytes.len() >= SHARED_SIZE || payload.prepared().is_some());
        if self.compressor.is_some() || may_be_shared {
            return self.accept_large_or_compressed(payload);
        }
        self.half.message(kind, bytes, self.masking_key(), self.queue.out()).map_err(misuse)
    }

    /// Accepts a message that may be compressed, or that need not be copied since it is prepared, or owned
    /// and large enough. A payload that a client owns alone is masked in place.
    #[inline(never)]
    fn accept_large_or_compressed(&mut self, payload: &mut Payload<'_>) -> Result<(), Error> {
        let (kind, bytes) = payload.parts();
        if self.compressor.as_ref().is_some_and(|compressor| compressor.wants(payload.compress, bytes.len()))
        {
            return self.accept_compressed(kind, bytes, payload.prepared());
        }
        let may_share = bytes.len() >= PREPARED_SHARED_SIZE && self.half.role() == Role::Server;
        let alone = self.blocked || self.queue.is_empty();
        let shared_size = if alone { SHARED_SIZE } else { GATHERED_SHARED_SIZE };
        match &mut payload.source {
            Source::Prepared(prepared) if may_share => return self.accept_frame(&prepared.frame),
            Source::Owned(bytes) if may_share && bytes.len() >= shared_size => {
                let accepted = self.half.message_header(kind, bytes.len(), self.queue.out());
                return accepted.map(|()| self.queue.push(mem::take(bytes))).map_err(misuse);
            }
            Source::Owned(bytes) if bytes.len() >= shared_size => match mem::take(bytes).try_into_mut() {
                Ok(mut bytes) => {
                    let key = self.masking_key();
                    let accepted = self.half.message_apart(kind, &mut bytes, key, self.queue.out());
                    return accepted.map(|()| self.queue.push(bytes.freeze())).map_err(misuse);
                }
                Err(shared) => *bytes = shared,
            },
            _ => {}
        }
        let (kind, bytes) = payload.parts();
        self.half.message(kind, bytes, self.masking_key(), self.queue.out()).map_err(misuse)
    }

    /// Accepts an encoded message without a copy, unless bytes wait already or the message is compressed.
    #[cfg(any(feature = "json", feature = "protobuf"))]
    pub(crate) fn accept_encoded(&mut self, encoded: &mut Encoded) -> Result<(), Error> {
        let key = self.masking_key();
        let (kind, len) = (encoded.kind, encoded.payload().len());
        self.tally.add_message(len);
        if self.compressor.as_ref().is_some_and(|compressor| compressor.wants(None, len)) {
            return self.accept_compressed(kind, encoded.payload(), None);
        }
        if !self.queue.is_empty() {
            return self.half.message(kind, encoded.payload(), key, self.queue.out()).map_err(misuse);
        }
        let start = self.half.message_in_place(kind, key, &mut encoded.buffer).map_err(misuse)?;
        self.queue.replace(mem::take(&mut encoded.buffer), start);
        Ok(())
    }

    /// Accepts a message of a server that is encoded already.
    fn accept_frame(&mut self, frame: &PreparedFrame) -> Result<(), Error> {
        self.half.encoded_message().map_err(misuse)?;
        self.queue.push(frame.bytes.clone());
        Ok(())
    }

    /// Accepts a message that is to be compressed.
    fn accept_compressed(
        &mut self,
        kind: MessageKind,
        bytes: &[u8],
        prepared: Option<&Prepared>,
    ) -> Result<(), Error> {
        let key = self.masking_key();
        let Self { compressor: Some(compressor), half, queue, .. } = self else { return Ok(()) };
        let accepted = match prepared {
            Some(prepared) => match prepared.compressed(compressor.compressing) {
                Some(frame) => {
                    // The peer's window will contain this frame, but ours does not.
                    compressor.forget();
                    if frame.payload().len() >= PREPARED_SHARED_SIZE && half.role() == Role::Server {
                        return self.accept_frame(&frame);
                    }
                    half.compressed_message(kind, frame.payload(), key, queue.out())
                }
                None if bytes.len() >= PREPARED_SHARED_SIZE && half.role() == Role::Server => {
                    return self.accept_frame(&prepared.frame);
                }
                None => half.message(kind, bytes, key, queue.out()),
            },
            None => compressor.message(bytes, |compressed| match compressed {
                Some(compressed) => half.compressed_message(kind, compressed, key, queue.out()),
                None => half.message(kind, bytes, key, queue.out()),
            }),
        };
        accepted.map_err(misuse)
    }

    /// Enables compression, unless `compressing` is `None`.
    pub(crate) fn enable_compression(&mut self, compressing: Option<CompressorSettings>) {
        self.compressor = compressing.map(|compressing| Box::new(Compressor::new(compressing)));
    }

    /// Returns whether messages are compressed.
    pub(crate) fn compresses(&self) -> bool {
        self.compressor.is_some()
    }

    /// Grants a `MessageWriter` the exclusive right to send data. Other senders wait until
    /// [`end_writing`](Self::end_writing).
    pub(crate) fn begin_writing(&mut self) {
        self.writer_open = true;
    }

    /// Ends the right of a `MessageWriter`, whose message is complete.
    pub(crate) fn end_writing(&mut self) {
        self.writer_open = false;
        self.wake_senders();
        self.wake_watchers();
    }

    /// Ends the right of a `MessageWriter`, whose message is not complete.
    pub(crate) fn abandon_writing(&mut self) {
        if let Some(compressor) = &mut self.compressor {
            compressor.forget();
        }
        self.end_writing();
    }

    /// Accepts a fragment of the open message. Returns `false` if there is nothing to be sent yet.
    pub(crate) fn accept_fragment(
        &mut self,
        kind: MessageKind,
        bytes: &[u8],
        end: FragmentEnd,
        compress: bool,
    ) -> Result<bool, Error> {
        self.tally.add_part(bytes.len(), end == FragmentEnd::Last);
        let key = self.masking_key();
        let Self { half, queue, .. } = self;
        if let Some(compressor) = self.compressor.as_mut().filter(|_| compress) {
            let last = end == FragmentEnd::Last;
            let sent = compressor.fragment(bytes, end, |compressed| {
                half.compressed_fragment(kind, compressed, last, key, queue.out())
            });
            return sent.transpose().map(|sent| sent.is_some()).map_err(misuse);
        }
        let accepted = match end {
            FragmentEnd::More | FragmentEnd::Flush => half.fragment(kind, bytes, key, queue.out()),
            FragmentEnd::Last => half.last_fragment(kind, bytes, key, queue.out()),
        };
        accepted.map(|()| true).map_err(misuse)
    }
}
