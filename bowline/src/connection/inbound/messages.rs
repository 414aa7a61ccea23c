//! Messages out of the inbound half: whole ones for `recv`, and parts of one for its reader.

use bowline_proto::MessageKind;
use bytes::Bytes;
use tokio::io::ReadBuf;

use crate::connection::inbound::assembler::Assembler;
use crate::connection::inbound::batch::Batch;
use crate::connection::inbound::end::Notice;
use crate::connection::inbound::undelivered::UndeliveredMessage;
use crate::connection::inbound::{HandedOut, Inbound};
use crate::error::Error;
use crate::message::Message;

impl Inbound {
    /// Takes the next whole message, or returns the end. Returns `None` if neither is there yet.
    pub(crate) fn take_message(&mut self) -> Option<Result<Option<Message>, Error>> {
        if let Some(message) = self.take_whole_message() {
            return Some(Ok(Some(message)));
        }
        if self.message.is_open() || self.undelivered.is_some() {
            self.message.abandon();
            let message = self.take_undelivered().or_else(|| self.message.finish());
            if message.is_some() {
                return Some(Ok(message));
            }
        }
        self.end().map(|end| end.map(|()| None))
    }

    /// Returns whether the next thing for the application may be at the front of the buffer.
    #[inline]
    fn is_next_in_buffer(&self) -> bool {
        !self.buffer.is_empty() && !self.message.is_open() && !self.delivery.discards() && self.end.is_none()
    }

    /// Takes the next message if all of it is in one frame and in memory, and if it is the next thing for the
    /// application.
    #[inline]
    fn take_whole_message(&mut self) -> Option<Message> {
        if !self.is_next_in_buffer() {
            return None;
        }
        let message = self.half.take_whole_message(self.buffer.bytes())?;
        self.buffer.consume(message.frame_size);
        self.tally.add_message(message.payload.len());
        let payload = Bytes::from(message.payload.into_boxed_slice());
        Some(Message::from_validated(message.kind, payload))
    }

    /// Returns whether the next frame in memory is a whole message, though it may be invalid text.
    #[inline]
    pub(crate) fn has_message(&self) -> bool {
        self.is_next_in_buffer() && self.half.is_at_whole_message(self.buffer.bytes())
    }

    /// Takes the next small messages into `batch`, all at once. The last batch was handed out entirely.
    pub(crate) fn fill(&mut self, batch: &mut Batch) {
        let size = batch.fill(&self.half, self.buffer.bytes_mut(), &mut self.tally);
        self.buffer.consume(size);
        self.has_batch = batch.has_messages();
    }

    /// Notes that the last message of the batch was handed out.
    pub(crate) fn end_batch(&mut self) {
        self.has_batch = false;
    }

    /// Makes a message of a batch the open message, which belongs to its reader.
    pub(crate) fn read_whole(&mut self, message: Message) {
        self.message = Assembler::of(message);
    }

    /// Gives the open message to a reader and returns its kind, or returns the end.
    pub(crate) fn take_start(&mut self) -> Option<Result<Option<MessageKind>, Error>> {
        self.message.abandon();
        if let Some(message) = self.take_undelivered() {
            let kind = message.kind();
            self.message = Assembler::of(message);
            return Some(Ok(Some(kind)));
        }
        if let Some(kind) = self.message.begin_reading() {
            return Some(Ok(Some(kind)));
        }
        self.end().map(|end| end.map(|()| None))
    }

    /// Takes the next of the undelivered messages.
    ///
    /// A compressed message only starts to be decompressed, so this function returns `None`. The message is
    /// taken once [`decompress_part`](Self::decompress_part) has completed the message.
    fn take_undelivered(&mut self) -> Option<Message> {
        let undelivered = self.undelivered.as_mut()?;
        if self.decompressor.as_ref().is_some_and(|decompressor| decompressor.is_pending()) {
            return None;
        }
        if let Some(message) = self.message.finish() {
            return Some(message);
        }
        match undelivered.pop()? {
            UndeliveredMessage::Message(message) => Some(message),
            UndeliveredMessage::Compressed(kind, payload) => {
                self.message.begin_compressed(kind);
                self.decompressor()?.begin_set_aside(kind, payload);
                // The end is due again only after this message.
                if let Some(end) = self.end.as_mut().filter(|end| end.notice == Notice::Due) {
                    end.notice = Notice::Settled;
                }
                None
            }
        }
    }

    /// Moves a part of the reader's message into `buf`, or nothing at the end of the message.
    pub(crate) fn take_bytes(&mut self, buf: &mut ReadBuf<'_>) -> Option<Result<(), Error>> {
        if self.message.take_bytes(buf).is_some() {
            return Some(Ok(()));
        }
        (self.due_end().is_some() || !self.message.is_open()).then(|| Err(self.interruption()))
    }

    /// Notes that the reader of the message was dropped. The rest of the message is skipped.
    pub(crate) fn abandon_message(&mut self) {
        self.message.abandon();
    }

    /// Notes that the application was handed something.
    pub(crate) fn hand_out(&mut self) {
        self.handed_out = HandedOut::Recently;
    }

    /// Returns whether the application was handed anything since the last call.
    pub(crate) fn take_handed_out(&mut self) -> bool {
        let recently = self.handed_out == HandedOut::Recently;
        if recently {
            self.handed_out = HandedOut::Before;
        }
        recently
    }
}
