//! One request stream, which carries a message and then a WebSocket (RFC 9114 4.1, 4.4; RFC 9220 3).
//!
//! ```text
//! Receive:  HEADERS, then DATA* --FIN--> end
//!             \ unknown frames anywhere are skipped; all others end the connection
//!
//! Send:     Open --poll_shutdown--> Finished     FIN: the orderly end of TCP
//!             \------drop--------> reset with H3_REQUEST_CANCELLED
//! ```
//!
//! A DATA frame announces its length before flow control has said how much fits. So a frame is announced for
//! the bytes that are queued, at most [`MAX_FRAME`], and the rest is owed: it is written as the windows open,
//! and no other frame begins before. A stream that owes bytes can't be finished, only reset.
//!
//! Each poll does a bounded amount of work, whatever the peer sends: after [`MAX_STEPS`] frames without a
//! byte for the application, the task runs again later.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::mem;
use std::pin::{Pin, pin};
use std::slice;
use std::task::{Context, Poll, ready};

use bowline::{Error, ErrorKind};
use bytes::{Buf, Bytes};
use quinn::{ReadError, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::head::HeadError;
use crate::qpack::SectionError;
use crate::session::{SessionUse, var_int};
use crate::wire::{EncodedHeader, ErrorCode, FramePart, FrameReader, FrameType, Violation};

/// The largest DATA frame that is announced, in bytes.
const MAX_FRAME: usize = 64 * 1024;

/// The most bytes that are copied beside the header of their frame, so that both leave with one write.
const MAX_COPIED: usize = 16 * 1024;

/// The largest part of a frame that is looked at at once, in bytes.
const MAX_PART: usize = 64 * 1024;

/// The most pieces that are taken out of QUIC with one call.
const MAX_PIECES: usize = 8;

/// The size of a piece, most of the time: that of the payload of a packet, in bytes.
const PIECE_SIZE: usize = 1500;

/// The number of frames without data, or of pieces of skipped frames, that one poll reads.
const MAX_STEPS: usize = 32;

/// The side that this is, which decides on the frames that the peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// The receiving half of a request stream.
pub(crate) struct ReceiveHalf {
    pub(crate) stream: RecvStream,
    session: SessionUse,
    side: Side,
    content: Content,
    frames: FrameReader,
    /// Bytes that were taken out of QUIC and not read yet.
    chunk: Bytes,
    /// The error code with which the peer is told to send no more, if this half is dropped before its end.
    pub(crate) abort_code: ErrorCode,
}

/// The content of the DATA frames.
///
/// ```text
/// Body --trailers--> Ended
///   |
///   +--open_tunnel--> Tunnel
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// The body of a response that opens no WebSocket, after which trailers may follow (RFC 9114 4.1).
    Body,
    Ended,
    /// A WebSocket. No other known frame is allowed (RFC 9114 4.4).
    Tunnel,
}

/// The reason why the head of a message was not received.
pub(crate) enum Unreceived {
    /// The encoded head is larger than the limit.
    TooLarge,
    /// The stream has failed, or ended before its head.
    Failed(Error),
}

impl ReceiveHalf {
    pub(crate) fn new(stream: RecvStream, session: SessionUse, side: Side) -> Self {
        let content = if side == Side::Client { Content::Body } else { Content::Tunnel };
        let (frames, chunk, abort_code) = (FrameReader::new(), Bytes::new(), ErrorCode::REQUEST_CANCELLED);
        Self { stream, session, side, content, frames, chunk, abort_code }
    }

    /// Notes that the stream carries a WebSocket from here on.
    pub(crate) fn open_tunnel(&mut self) {
        self.content = Content::Tunnel;
    }

    /// Receives the field section of a HEADERS frame of at most `max_size` bytes.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses the part of the section that has arrived, so the stream is of no use then.
    pub(crate) async fn receive_section(&mut self, max_size: usize) -> Result<Vec<u8>, Unreceived> {
        let mut section = Vec::new();
        poll_fn(|cx| self.poll_section(cx, max_size, &mut section)).await?;
        Ok(section)
    }

    fn poll_section(
        &mut self,
        cx: &mut Context<'_>,
        max_size: usize,
        section: &mut Vec<u8>,
    ) -> Poll<Result<(), Unreceived>> {
        for _ in 0..MAX_STEPS {
            if !ready!(self.poll_fill(cx)).map_err(Unreceived::Failed)? {
                // RFC 9114 4.1: the stream ended before its message.
                let text = "the HTTP/3 stream ended before the head of its message";
                return Poll::Ready(Err(Unreceived::Failed(Error::new(ErrorKind::Disconnected, text))));
            }
            let mut input = &self.chunk[..];
            let part = self.frames.read(&mut input, MAX_PART);
            let mut result = None;
            match part {
                Some(FramePart::Begin(header)) => match header.kind {
                    FrameType::Headers if header.len > max_size as u64 => {
                        result = Some(Err(Unreceived::TooLarge));
                    }
                    FrameType::Headers if header.len == 0 => result = Some(Ok(())),
                    FrameType::Headers | FrameType::Unknown => {}
                    // RFC 9114 4.1: DATA before HEADERS is out of order.
                    kind => {
                        result =
                            Some(Err(Unreceived::Failed(self.session.session.fail(self.unexpected(kind)))));
                    }
                },
                Some(FramePart::Payload { kind: FrameType::Headers, bytes, is_last }) => {
                    section.extend_from_slice(bytes);
                    result = is_last.then_some(Ok(()));
                }
                Some(FramePart::Payload { .. }) | None => {}
            }
            let left = input.len();
            self.consume_to(left);
            if let Some(result) = result {
                return Poll::Ready(result);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes bytes out of QUIC if there are none here. Returns `false` at the end of the stream.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        let mut piece = [Bytes::new()];
        let count = ready!(self.poll_pieces(cx, &mut piece))?;
        [self.chunk] = piece;
        Poll::Ready(Ok(count > 0))
    }

    /// Takes several pieces out of QUIC. Returns their number, which is 0 at the end of the stream.
    ///
    /// Pieces are packets. Taken one by one, each would lock the connection, and pass the layers above alone.
    fn poll_pieces(&mut self, cx: &mut Context<'_>, pieces: &mut [Bytes]) -> Poll<Result<usize, Error>> {
        if !self.chunk.is_empty() {
            pieces[0] = mem::take(&mut self.chunk);
            return Poll::Ready(Ok(1));
        }
        // The future has no state of its own.
        let count = ready!(pin!(self.stream.read_chunks(pieces)).poll(cx));
        Poll::Ready(self.received(count).map(Option::unwrap_or_default))
    }

    /// Describes the error of a read, if there is one.
    fn received(&self, read: Result<Option<usize>, ReadError>) -> Result<Option<usize>, Error> {
        match read {
            // RFC 9114 7.1: a frame that the end of the stream cuts off is an error of the connection.
            Ok(None) if !self.frames.is_between_frames() => {
                let violation = Violation::new(ErrorCode::FRAME_ERROR, "a stream ended within a frame");
                Err(self.session.session.fail(violation))
            }
            read => read.map_err(|error| self.session.session.unreadable(error)),
        }
    }

    /// Consumes the bytes that are here, but for the last `left`. An empty `Bytes` would still hold its
    /// packet.
    fn consume_to(&mut self, left: usize) {
        if left == 0 {
            self.chunk = Bytes::new();
        } else {
            self.chunk.advance(self.chunk.len() - left);
        }
    }

    /// Returns the violation of a frame of the wrong type.
    fn unexpected(&self, kind: FrameType) -> Violation {
        match (kind, self.side) {
            // RFC 9114 7.2.5: this client allows no push, so each push ID is too large.
            (FrameType::PushPromise, Side::Client) => {
                Violation::new(ErrorCode::ID_ERROR, "a PUSH_PROMISE was received, but no push was allowed")
            }
            // RFC 9114 4.4, 7.2: the stream of a CONNECT carries nothing but DATA after its head.
            _ => Violation::new(ErrorCode::FRAME_UNEXPECTED, "a frame was received where it is not allowed"),
        }
    }

    /// Ends the connection because of the peer, and returns the error for the application.
    pub(crate) fn fail(&self, violation: Violation) -> Error {
        self.session.session.fail(violation)
    }

    /// Ends this direction: the peer need not send any more.
    pub(crate) fn stop(&mut self, code: ErrorCode) {
        // This fails only if the direction has ended.
        let _ = self.stream.stop(var_int(code));
    }
}

impl Drop for ReceiveHalf {
    fn drop(&mut self) {
        // RFC 9114 4.1.1: a stream that was not received to its end is stopped.
        self.stop(self.abort_code);
    }
}

impl AsyncRead for ReceiveHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.remaining();
        if before == 0 || this.content == Content::Ended {
            return Poll::Ready(Ok(()));
        }
        // A small buffer is filled from one piece, so that few bytes wait here.
        let most = (before / PIECE_SIZE).clamp(1, MAX_PIECES);
        let mut steps = MAX_STEPS;
        while steps > 0 {
            let mut pieces = [const { Bytes::new() }; MAX_PIECES];
            let count = ready!(this.poll_pieces(cx, &mut pieces[..most]))?;
            let read = this.read_frames(&mut pieces[..count], buf, &mut steps);
            this.keep(&mut pieces[..count]);
            read.map_err(|violation| this.session.session.fail(violation))?;
            if count == 0 || buf.remaining() < before || this.content == Content::Ended {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl ReceiveHalf {
    /// Reads the frames in `pieces`, and moves their data into `buf`. Consumes what was read: until `buf` is
    /// full, the body has ended, or `steps` is used up by frames and parts of frames.
    fn read_frames(
        &mut self,
        pieces: &mut [Bytes],
        buf: &mut ReadBuf<'_>,
        steps: &mut usize,
    ) -> Result<(), Violation> {
        for piece in pieces {
            while !piece.is_empty() {
                if *steps == 0 || buf.remaining() == 0 || self.content == Content::Ended {
                    return Ok(());
                }
                *steps -= 1;
                let (mut input, mut violation) = (&piece[..], None);
                match self.frames.read(&mut input, buf.remaining()) {
                    Some(FramePart::Payload { kind: FrameType::Data, bytes, .. }) => buf.put_slice(bytes),
                    Some(FramePart::Payload { .. }) | None => {}
                    Some(FramePart::Begin(header)) => match header.kind {
                        FrameType::Data | FrameType::Unknown => {}
                        FrameType::Headers if self.content == Content::Body => self.content = Content::Ended,
                        kind => violation = Some(self.unexpected(kind)),
                    },
                }
                let left = input.len();
                piece.advance(piece.len() - left);
                violation.map_or(Ok(()), Err)?;
            }
        }
        Ok(())
    }

    /// Keeps the bytes that were not read. A `Bytes` without bytes would still hold its packet.
    fn keep(&mut self, pieces: &mut [Bytes]) {
        let Some(first) = pieces.iter().position(|piece| !piece.is_empty()) else { return };
        self.chunk = match &mut pieces[first..] {
            [only] => mem::take(only),
            several => several.concat().into(),
        };
    }
}

/// The progress of the sending half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendStage {
    Open,
    Finished,
}

/// The sending half of a request stream. Dropping it before its end resets the stream.
pub(crate) struct SendHalf {
    stream: SendStream,
    session: SessionUse,
    /// The rest of the header of a frame that was announced in part.
    header: Bytes,
    /// The number of bytes that the last DATA frame has announced and not received yet.
    owed: usize,
    stage: SendStage,
    /// The error code of a reset by dropping.
    pub(crate) abort_code: ErrorCode,
}

impl SendHalf {
    pub(crate) fn new(stream: SendStream, session: SessionUse) -> Self {
        Self {
            stream,
            session,
            header: Bytes::new(),
            owed: 0,
            stage: SendStage::Open,
            abort_code: ErrorCode::REQUEST_CANCELLED,
        }
    }

    /// Sends the head of a message.
    pub(crate) async fn send_head(&mut self, section: &[u8]) -> Result<(), Error> {
        let mut frame = EncodedHeader::new(FrameType::Headers, section.len()).to_vec();
        frame.extend_from_slice(section);
        self.send_raw(&frame).await
    }

    /// Sends a whole body, and ends the direction.
    pub(crate) async fn send_body(&mut self, body: &[u8]) -> Result<(), Error> {
        if !body.is_empty() {
            self.send_raw(&EncodedHeader::new(FrameType::Data, body.len())).await?;
            self.send_raw(body).await?;
        }
        self.finish();
        Ok(())
    }

    async fn send_raw(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let count = poll_fn(|cx| self.poll_slice(cx, bytes)).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Returns an error if the peer has stopped reading, or the connection has ended.
    pub(crate) fn look(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        // An empty write tells, and sends an empty STREAM frame at most (RFC 9000 19.8).
        match pin!(self.stream.write(&[])).poll(cx) {
            Poll::Ready(Err(error)) => Err(self.session.session.unwritable(error)),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    /// Ends the direction in order.
    pub(crate) fn finish(&mut self) {
        // This fails only if the direction has ended.
        let _ = self.stream.finish();
        self.stage = SendStage::Finished;
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        while !self.header.is_empty() {
            let mut rest = self.header.clone();
            ready!(self.poll_bytes(cx, &mut rest))?;
            self.header = rest;
        }
        if self.owed == 0 {
            let count = ready!(self.poll_begin(cx, slices, wanted))?;
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            // The header has left in part, or alone.
            return self.poll_write(cx, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty()).expect("there are bytes to write");
        let count = ready!(self.poll_slice(cx, &first[..first.len().min(self.owed)]))?;
        self.owed -= count;
        Poll::Ready(Ok(count))
    }

    /// Announces a frame, and writes its first bytes with the header. Returns the number of bytes of the
    /// payload that were written.
    fn poll_begin(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        wanted: usize,
    ) -> Poll<io::Result<usize>> {
        let announced = wanted.min(MAX_FRAME);
        let header = EncodedHeader::new(FrameType::Data, announced);
        let end = header.len() + announced.min(MAX_COPIED);
        // The capacity is exact, as `Bytes` would allocate once more to remember another one.
        let mut bytes = Vec::with_capacity(end);
        bytes.extend_from_slice(&header);
        for slice in slices {
            bytes.extend_from_slice(&slice[..slice.len().min(end - bytes.len())]);
        }
        let mut bytes = Bytes::from(bytes);
        let count = ready!(self.poll_bytes(cx, &mut bytes))?;
        self.header = bytes.split_to(header.len().saturating_sub(count));
        let written = count.saturating_sub(header.len());
        self.owed = announced - written;
        Poll::Ready(Ok(written))
    }

    /// Writes the first of `bytes`, and removes them. Returns their number.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<usize, Error>> {
        let wanted = bytes.len();
        // The future has no state of its own.
        let written = ready!(pin!(self.stream.write_chunks(slice::from_mut(bytes))).poll(cx));
        Poll::Ready(self.session.session.note_write(written.map(|written| written.bytes), wanted))
    }

    fn poll_slice(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        let written = ready!(pin!(self.stream.write(bytes)).poll(cx));
        Poll::Ready(self.session.session.note_write(written, bytes.len()))
    }

    fn end(&mut self) -> io::Result<()> {
        match self.stage {
            SendStage::Finished => Ok(()),
            SendStage::Open if self.owed == 0 && self.header.is_empty() => {
                self.finish();
                Ok(())
            }
            // The drop of the stream resets it.
            SendStage::Open => {
                let text = "the HTTP/3 stream can't end within a DATA frame";
                Err(Error::new(ErrorKind::Io, text).into())
            }
        }
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        match self.stage {
            SendStage::Finished => self.session.clone().linger(&self.stream),
            SendStage::Open => {
                // Otherwise, quinn would finish the stream. This fails only if the peer has stopped it.
                let _ = self.stream.reset(var_int(self.abort_code));
            }
        }
    }
}

/// The stream of a request on an HTTP/3 connection, as bytes in both directions.
///
/// [`Http3Connection::tunnel`](crate::Http3Connection::tunnel) returns it. The bytes are the content of DATA
/// frames (RFC 9114 7.2.1), whose borders mean nothing.
///
/// - The end of the server's direction is the end of the bytes. A reset is an error.
/// - `shutdown` ends our direction in order, by FIN.
/// - Dropping the stream before that resets the stream with `H3_REQUEST_CANCELLED` (RFC 9114 4.1.1). Bytes
///   that were written before a shutdown still arrive.
/// - Written bytes leave by themselves, so `flush` does nothing.
pub struct Http3Stream {
    send: SendHalf,
    receive: ReceiveHalf,
}

impl Http3Stream {
    /// Creates the stream of a request that has opened a tunnel.
    pub(crate) fn new(send: SendHalf, mut receive: ReceiveHalf) -> Self {
        receive.open_tunnel();
        Self { send, receive }
    }

    /// Creates the stream of a request whose response has a body.
    pub(crate) fn of_body(send: SendHalf, receive: ReceiveHalf) -> Self {
        Self { send, receive }
    }
}

impl fmt::Debug for Http3Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http3Stream").field("id", &self.send.stream.id()).finish_non_exhaustive()
    }
}

impl Drop for Http3Stream {
    fn drop(&mut self) {
        if self.send.stage == SendStage::Finished {
            self.receive.abort_code = ErrorCode::NO_ERROR;
        }
    }
}

impl AsyncRead for Http3Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().receive).poll_read(cx, buf)
    }
}

impl AsyncWrite for Http3Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().send.poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().send.poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // QUIC sends by itself what was written.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().send.end())
    }
}

/// Returns the violation of a head that ends the connection, or `None` if it concerns its stream alone.
pub(crate) fn violation_of(error: &HeadError) -> Option<Violation> {
    match error {
        // RFC 9204 2.2: a section that can't be decoded ends the connection.
        HeadError::Section(SectionError::Malformed(why)) => {
            Some(Violation::new(ErrorCode::DECOMPRESSION_FAILED, why))
        }
        HeadError::Section(SectionError::TooLarge) | HeadError::Malformed(_) | HeadError::TooMany => None,
    }
}
