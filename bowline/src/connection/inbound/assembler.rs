//! The assembly of the message that is being received.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bowline_proto::{Data, Event, Failure, MessageKind, ReceiveHalf};
use bytes::{BufMut, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::connection::inbound::read_buffer::READ_SIZE;
use crate::message::Message;
use crate::message::compression::codec::{Inflated, Inflater};
use crate::message::tally::Tally;

/// A message of which at least this many bytes are missing is read straight into its own memory.
const DIRECT_SIZE: usize = 16 * 1024;

/// Extra bytes requested per read: a short read then shows that the socket is empty, without another call.
const DIRECT_SLACK: usize = 64;

/// The open message: the part that has arrived of a message that is not complete, or not taken yet.
#[derive(Default)]
pub(crate) struct Assembler {
    open: Option<OpenMessage>,
    /// The payload, as far as it has arrived.
    payload: Vec<u8>,
    /// The number of bytes of `payload` that a reader has taken.
    taken: usize,
}

struct OpenMessage {
    kind: MessageKind,
    compressed: bool,
    whole: bool,
    consumer: Consumer,
}

/// The recipient of the message.
///
/// ```text
/// Recv --begin_reading--> Reader --its MessageReader is dropped--> Nobody
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
enum Consumer {
    /// `recv` once the message is whole, or a reader if one comes first.
    Recv,
    /// A `MessageReader`.
    Reader,
    /// Nobody, since the reader was dropped: the rest is skipped.
    Nobody,
}

/// The result of a read straight into a message.
pub(crate) struct Filled {
    /// The number of bytes that were read.
    pub(crate) count: usize,
    /// The bytes that follow the current frame.
    pub(crate) following: Vec<u8>,
    /// The violation or limit at which parsing has failed.
    pub(crate) failure: Option<Failure>,
}

impl Assembler {
    /// Returns an assembler with a whole message, to be read piece by piece.
    pub(crate) fn of(message: Message) -> Self {
        let kind = message.kind();
        let open = OpenMessage { kind, compressed: false, whole: true, consumer: Consumer::Reader };
        Self { open: Some(open), payload: message.into_bytes().into(), taken: 0 }
    }

    // ---- assembling

    /// Notes a part of a message. Returns whether anyone wants its payload.
    pub(crate) fn track(&mut self, data: &Data) -> bool {
        let Data { kind, compressed, .. } = *data;
        let begin = || OpenMessage { kind, compressed, whole: false, consumer: Consumer::Recv };
        let open = self.open.get_or_insert_with(begin);
        let wanted = open.consumer != Consumer::Nobody;
        // A compressed message is whole once all of it was decompressed.
        if data.last && !compressed {
            self.end();
        }
        wanted
    }

    /// Opens a compressed message.
    pub(crate) fn begin_compressed(&mut self, kind: MessageKind) {
        self.open = Some(OpenMessage { kind, compressed: true, whole: false, consumer: Consumer::Recv });
    }

    /// Notes that all of the message has arrived.
    fn end(&mut self) {
        self.open = self.open.take().filter(|open| open.consumer != Consumer::Nobody);
        if let Some(open) = &mut self.open {
            open.whole = true;
        }
    }

    /// Decompresses a part of the payload that has arrived.
    pub(crate) fn inflate(
        &mut self,
        inflater: &mut Inflater,
        input: &[u8],
        last: bool,
        tally: &mut Tally,
    ) -> Result<Inflated, Failure> {
        let before = self.payload.len();
        let progress = inflater.inflate(input, last, &mut self.payload)?;
        tally.add_part(self.payload.len() - before, progress.done);
        if !self.open.as_ref().is_some_and(|open| open.consumer != Consumer::Nobody) {
            self.payload.clear();
        }
        if progress.done {
            // The size was not known in advance.
            self.payload.shrink_to_fit();
            self.end();
        }
        Ok(progress)
    }

    /// Appends the part that has arrived of a frame, of which `remaining` bytes are missing.
    ///
    /// Announced bytes take no memory before they arrive: the capacity grows to at most about twice the bytes
    /// received.
    pub(crate) fn append(&mut self, arrived: &[u8], remaining: u64, last: bool) {
        if last && self.payload.capacity() == 0 {
            self.payload = arrived.to_vec();
            return;
        }
        let total = self.payload.len() + arrived.len();
        let remaining = usize::try_from(remaining).unwrap_or(usize::MAX);
        if remaining > 0 {
            self.payload.reserve_exact(arrived.len() + remaining.min(total));
        } else if last {
            self.payload.reserve_exact(arrived.len());
        }
        self.payload.extend_from_slice(arrived);
    }

    /// Returns whether so much of the current frame is missing that it should be read straight into the
    /// message.
    pub(crate) fn is_direct(&self, remaining: u64) -> bool {
        remaining >= DIRECT_SIZE as u64
            && self.payload.len() >= DIRECT_SIZE
            && self.open.as_ref().is_some_and(|open| open.consumer == Consumer::Recv && !open.compressed)
    }

    /// Reads once, straight into the message. Ready with `None` at the end of the stream.
    pub(crate) fn poll_fill(
        &mut self,
        transport: &mut (impl AsyncRead + Unpin),
        half: &mut ReceiveHalf,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Filled>>> {
        let payload = &mut self.payload;
        let arrived = payload.len();
        let missing = usize::try_from(half.remaining()).unwrap_or(usize::MAX).saturating_add(DIRECT_SLACK);
        if payload.capacity() - arrived < missing.min(READ_SIZE / 2) {
            payload.reserve_exact(missing.min(arrived.max(READ_SIZE)));
        }
        let limit = missing.min(payload.capacity() - arrived);
        let mut room = (&mut *payload).limit(limit);
        // This future keeps nothing from one poll to the next.
        let count = ready!(pin!(transport.read_buf(&mut room)).poll(cx))?;
        if count == 0 {
            return Poll::Ready(Ok(None));
        }
        let (consumed, event) = match half.handle_bytes(&mut payload[arrived..]) {
            Ok(progress) => progress,
            Err(failure) => {
                let filled = Filled { count, following: Vec::new(), failure: Some(failure) };
                return Poll::Ready(Ok(Some(filled)));
            }
        };
        let following = payload[arrived + consumed..].to_vec();
        payload.truncate(arrived + consumed);
        if let Some(Event::Data(data)) = event {
            self.track(&data);
        }
        Poll::Ready(Ok(Some(Filled { count, following, failure: None })))
    }

    // ---- taking

    /// Takes the message if it is whole and belongs to no reader.
    pub(crate) fn finish(&mut self) -> Option<Message> {
        let open = self.open.take_if(|open| open.whole && open.consumer == Consumer::Recv)?;
        let payload = Bytes::from(std::mem::take(&mut self.payload));
        Some(Message::from_validated(open.kind, payload))
    }

    /// Gives the open message to a reader, and returns its kind.
    pub(crate) fn begin_reading(&mut self) -> Option<MessageKind> {
        let open = self.open.as_mut().filter(|open| open.consumer == Consumer::Recv)?;
        open.consumer = Consumer::Reader;
        Some(open.kind)
    }

    /// Moves a part of the reader's message into `buf`, or nothing at the end of the message. Returns `None`
    /// if more has to arrive first.
    pub(crate) fn take_bytes(&mut self, buf: &mut ReadBuf<'_>) -> Option<()> {
        let available = &self.payload[self.taken..];
        let count = available.len().min(buf.remaining());
        buf.put_slice(&available[..count]);
        self.taken += count;
        let some = !available.is_empty();
        if self.taken == self.payload.len() {
            self.payload.clear();
            self.taken = 0;
        }
        (some || self.is_whole()).then_some(())
    }

    /// Notes that the reader of the message was dropped, if there was one. The rest of the message is
    /// skipped.
    pub(crate) fn abandon(&mut self) {
        let Some(open) = self.open.as_mut().filter(|open| open.consumer == Consumer::Reader) else { return };
        open.consumer = Consumer::Nobody;
        if open.whole {
            self.open = None;
        }
        self.payload = Vec::new();
        self.taken = 0;
    }

    /// Releases the memory of bytes that the reader has taken.
    pub(crate) fn park(&mut self) {
        if self.payload.is_empty() && self.has_reader() {
            self.payload = Vec::new();
        }
    }

    // ---- getters

    /// Returns whether there is an open message.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Returns whether all of the open message has arrived.
    pub(crate) fn is_whole(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.whole)
    }

    /// Returns whether the message belongs to a reader.
    pub(crate) fn has_reader(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.consumer == Consumer::Reader)
    }

    /// Returns whether there is an open message that someone may want.
    pub(crate) fn is_wanted(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.consumer != Consumer::Nobody) && !self.is_spent()
    }

    /// Returns whether the reader of the message has taken all of it.
    pub(crate) fn is_spent(&self) -> bool {
        self.has_reader() && self.is_whole() && self.payload.is_empty()
    }
}
