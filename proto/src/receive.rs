//! The receiving half of a connection (RFC 6455 5 and 6.2).

use alloc::vec::Vec;
use core::ops::Range;

use crate::close::CloseFrame;
use crate::error::{Failure, Limit, Violation};
use crate::frame::{COMPRESSED, FrameHeader, MessageKind, Opcode, Role};
use crate::mask::{mask, to_unmasked};
use crate::utf8::{Utf8Validator, is_utf8};

/// The limits on a message that the peer sends.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveLimits {
    /// The largest size of a message in bytes, all fragments together.
    pub message_size: u64,
    /// The largest number of frames in a message, including empty frames.
    pub frames_per_message: u32,
}

/// The receiving half of a connection, which turns bytes into [`Event`]s.
///
/// The half works in place on the caller's buffer and owns no buffer: [`handle_bytes`](Self::handle_bytes)
/// unmasks payloads in the caller's buffer and returns ranges of it. Data frames are returned as their bytes
/// arrive, and control frames as soon as they are complete.
///
/// - inputs: [`handle_bytes`](Self::handle_bytes), [`take_whole_message`](Self::take_whole_message),
///   [`unmask_whole_message`](Self::unmask_whole_message)
/// - commands: [`allow_compression`](Self::allow_compression), [`discard_data`](Self::discard_data),
///   [`fail`](Self::fail)
/// - getters: all others
///
/// ```
/// use bowline_proto::{Data, Event, MessageKind, ReceiveHalf, ReceiveLimits, Role};
///
/// let limits = ReceiveLimits { message_size: 1 << 20, frames_per_message: 1024 };
/// let mut half = ReceiveHalf::new(Role::Client, limits);
/// // Three of the payload's five bytes have arrived.
/// let mut bytes = *b"\x81\x05Hel";
/// let (taken, event) = half.handle_bytes(&mut bytes)?;
/// let data = Data { kind: MessageKind::Text, compressed: false, payload: 2..5, first: true, last: false };
/// assert_eq!((taken, event), (5, Some(Event::Data(data))));
/// assert_eq!(half.remaining(), 2);
/// // The rest of the message, and a Ping frame after it.
/// let mut bytes = *b"lo\x89\x00";
/// let (taken, event) = half.handle_bytes(&mut bytes)?;
/// let data = Data { kind: MessageKind::Text, compressed: false, payload: 0..2, first: false, last: true };
/// assert_eq!((taken, event), (2, Some(Event::Data(data))));
/// assert_eq!(half.handle_bytes(&mut bytes[taken..])?, (2, Some(Event::Ping(2..2))));
/// # Ok::<(), bowline_proto::Failure>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReceiveHalf {
    role: Role,
    limits: ReceiveLimits,
    state: State,
    /// The message that has begun and not ended.
    message: Option<OpenMessage>,
    utf8: Utf8Validator,
    allows_compression: bool,
    discards_data: bool,
}

/// The position in the stream of frames.
///
/// ```text
/// Header ──the header of a data frame──▶ Payload ──the end of the payload──▶ Header
///    │                                      │
///    ├────────────────a failure─────────────┴──▶ Failed
///    └────────────────a Close frame────────────▶ Closed
/// ```
///
/// [`ReceiveHalf::fail`] leads from every state to `Failed`.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Between two frames.
    Header,
    /// In the payload of a data frame.
    Payload {
        fin: bool,
        masking_key: [u8; 4],
        received: u64,
        remaining: u64,
    },
    /// After the Close frame.
    Closed,
    Failed(Failure),
}

#[derive(Clone, Copy, Debug)]
struct OpenMessage {
    kind: MessageKind,
    compressed: bool,
    size: u64,
    frames: u32,
}

/// An event of [`ReceiveHalf::handle_bytes`]. Ranges are positions in the bytes passed to the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A part of a message.
    Data(Data),
    /// A Ping frame with the range of its payload. The answer is a Pong frame with an identical payload
    /// (RFC 6455 5.5.2, 5.5.3).
    Ping(Range<usize>),
    /// A Pong frame with the range of its payload.
    Pong(Range<usize>),
    /// The Close frame. All later bytes are ignored.
    Close(CloseFrame),
}

/// A part of a message: the payload bytes of one frame that have just arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The kind of the whole message.
    pub kind: MessageKind,
    /// Set if the message is compressed (RFC 7692). Compressed messages are not limited in size, and their
    /// text is not validated.
    pub compressed: bool,
    /// The range of the unmasked payload, empty if only a header has arrived. Text is valid UTF-8 so far, but
    /// may end inside a code point.
    pub payload: Range<usize>,
    /// Set on the first part of a message.
    pub first: bool,
    /// Set on the last part of a message.
    pub last: bool,
}

/// A message that arrived in one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeMessage {
    /// The kind of the message.
    pub kind: MessageKind,
    /// The unmasked payload. Text is valid UTF-8.
    pub payload: Vec<u8>,
    /// The size of the frame in bytes, header included.
    pub frame_size: usize,
}

/// A frame that is a whole message, before its payload is unmasked and validated.
struct WholeFrame<'a> {
    kind: MessageKind,
    masked: &'a [u8],
    masking_key: Option<[u8; 4]>,
    /// The size of the frame in bytes, header included.
    size: usize,
}

impl ReceiveHalf {
    /// Creates the receiving half of an endpoint with this role, right after the opening handshake.
    pub fn new(role: Role, limits: ReceiveLimits) -> Self {
        Self {
            role,
            limits,
            state: State::Header,
            message: None,
            utf8: Utf8Validator::new(),
            allows_compression: false,
            discards_data: false,
        }
    }

    /// Allows compressed messages from now on, as negotiated in the handshake (RFC 7692).
    pub fn allow_compression(&mut self) {
        self.allows_compression = true;
    }

    /// Processes the front of `bytes` in place, up to one event.
    ///
    /// Returns the number of bytes taken, and the event if there is one. The caller repeats the call with the
    /// remaining bytes until there is no event. The bytes left then must be passed again, followed by the
    /// bytes that arrive next. After the Close frame, all bytes are taken without an event.
    ///
    /// # Errors
    ///
    /// Returns a [`Failure`] if the peer violates the protocol or exceeds a limit. Failures are returned as
    /// soon as an invalid header is complete or the first invalid byte of a payload arrives, even in the
    /// middle of a frame. All later calls return an equal failure.
    pub fn handle_bytes(&mut self, bytes: &mut [u8]) -> Result<(usize, Option<Event>), Failure> {
        let result = match self.state {
            State::Header => self.handle_frame(bytes),
            State::Payload { .. } if bytes.is_empty() => Ok((0, None)),
            State::Payload { .. } => self.handle_payload(bytes, 0),
            State::Closed => Ok((bytes.len(), None)),
            State::Failed(failure) => Err(failure),
        };
        if let Err(failure) = result {
            self.state = State::Failed(failure);
        }
        result
    }

    /// Decodes a whole message in one valid frame, the most frequent case, by a shorter path.
    ///
    /// The frame is at the front of `bytes`, and the caller continues after [`WholeMessage::frame_size`]
    /// bytes. The payload is unmasked while it is copied. Text is validated in a second pass over the copy.
    ///
    /// Returns `None` in all other cases, which are left to [`handle_bytes`](Self::handle_bytes).
    ///
    /// ```
    /// use bowline_proto::{MessageKind, ReceiveHalf, ReceiveLimits, Role};
    ///
    /// let limits = ReceiveLimits { message_size: 1 << 20, frames_per_message: 1024 };
    /// let half = ReceiveHalf::new(Role::Client, limits);
    /// let message = half.take_whole_message(b"\x81\x05Hello\x89\x00").expect("a whole message");
    /// assert_eq!((message.kind, &*message.payload), (MessageKind::Text, &b"Hello"[..]));
    /// assert_eq!(message.frame_size, 7);
    /// // A Ping frame is not a message.
    /// assert_eq!(half.take_whole_message(b"\x89\x00"), None);
    /// ```
    #[inline]
    pub fn take_whole_message(&self, bytes: &[u8]) -> Option<WholeMessage> {
        let WholeFrame { kind, masked, masking_key, size: frame_size } = self.whole_frame(bytes)?;
        let payload = match masking_key {
            Some(masking_key) => to_unmasked(masked, masking_key),
            None => masked.to_vec(),
        };
        let valid = kind == MessageKind::Binary || is_utf8(&payload);
        valid.then_some(WholeMessage { kind, payload, frame_size })
    }

    /// Returns `true` if `bytes` begin with what [`take_whole_message`](Self::take_whole_message) takes,
    /// unless it turns out to be invalid text.
    #[inline]
    pub fn is_at_whole_message(&self, bytes: &[u8]) -> bool {
        self.whole_frame(bytes).is_some()
    }

    /// Decodes a message as [`take_whole_message`](Self::take_whole_message) does, and unmasks the payload in
    /// place.
    ///
    /// Returns the kind of the message and the range of its payload, which ends with the frame. If the result
    /// is `None`, `bytes` are unchanged.
    #[inline]
    pub fn unmask_whole_message(&self, bytes: &mut [u8]) -> Option<(MessageKind, Range<usize>)> {
        let WholeFrame { kind, masked, masking_key, size } = self.whole_frame(bytes)?;
        let range = size - masked.len()..size;
        let payload = &mut bytes[range.clone()];
        mask_with(payload, masking_key);
        if kind == MessageKind::Text && !is_utf8(payload) {
            mask_with(payload, masking_key);
            return None;
        }
        Some((kind, range))
    }

    /// Returns the frame at the front of `bytes` if the frame is a whole message with a valid header.
    #[expect(clippy::inline_always, reason = "measured: part of the shortest path of a small message")]
    #[inline(always)]
    fn whole_frame<'a>(&self, bytes: &'a [u8]) -> Option<WholeFrame<'a>> {
        let [first, second, rest @ ..] = bytes else { return None };
        let kind = match first {
            0x81 => MessageKind::Text,
            0x82 => MessageKind::Binary,
            _ => return None,
        };
        let between_messages = matches!(self.state, State::Header) && self.message.is_none();
        if !between_messages || self.discards_data || self.limits.frames_per_message == 0 {
            return None;
        }
        // Over 126 if the length takes eight bytes or the mask bit is wrong.
        let (mask_bit, key_size) = if self.role == Role::Server { (0x80, 4) } else { (0, 0) };
        let (len, start) = match *second ^ mask_bit {
            len @ 0..126 => (usize::from(len), 2 + key_size),
            126 => match u16::from_be_bytes(*rest.first_chunk()?) {
                len @ 126.. => (usize::from(len), 4 + key_size),
                _ => return None,
            },
            _ => return None,
        };
        if len as u64 > self.limits.message_size {
            return None;
        }
        let size = start + len;
        let masked = bytes.get(start..size)?;
        let masking_key = bytes[start - key_size..start].first_chunk().copied();
        Some(WholeFrame { kind, masked, masking_key, size })
    }

    /// Returns the limits on received messages.
    pub fn limits(&self) -> ReceiveLimits {
        self.limits
    }

    /// Fails this half, so no more bytes are accepted.
    ///
    /// The caller fails the half if, for example, the payload of a compressed message is invalid.
    pub fn fail(&mut self, failure: Failure) {
        self.state = State::Failed(failure);
    }

    /// Stops validating and counting the payload of data frames.
    ///
    /// A caller does so after sending its Close frame, until the peer's arrives. Events are still returned.
    pub fn discard_data(&mut self) {
        self.discards_data = true;
    }

    /// Returns the number of bytes of the current data frame's payload that have not arrived yet.
    pub fn remaining(&self) -> u64 {
        match self.state {
            State::Payload { remaining, .. } => remaining,
            _ => 0,
        }
    }

    /// Returns `true` if `bytes` begin or continue a data frame.
    ///
    /// `bytes` are the bytes that [`handle_bytes`](Self::handle_bytes) has not taken yet.
    pub fn is_at_data(&self, bytes: &[u8]) -> bool {
        match self.state {
            // RFC 6455 5.2: control opcodes have the high bit of the four set.
            State::Header => bytes.first().is_some_and(|first| first & 0x08 == 0),
            State::Payload { .. } => true,
            State::Closed | State::Failed(_) => false,
        }
    }

    /// Returns the size of the frame at the front of `bytes`, valid or not, if the whole frame is there.
    ///
    /// `bytes` are the bytes that [`handle_bytes`](Self::handle_bytes) has not taken yet.
    #[inline]
    pub fn whole_frame_size(&self, bytes: &[u8]) -> Option<usize> {
        if !matches!(self.state, State::Header) {
            return None;
        }
        let size = usize::try_from(FrameHeader::frame_size(bytes)?).ok()?;
        (size <= bytes.len()).then_some(size)
    }

    /// Returns `true` if the Close frame has arrived.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    fn handle_frame(&mut self, bytes: &mut [u8]) -> Result<(usize, Option<Event>), Failure> {
        let Some((header, size)) = FrameHeader::decode(bytes)? else { return Ok((0, None)) };
        // RFC 7692 6: the first reserved bit is set in the first frame of a compressed message, and in no
        // other.
        let defined = self.allows_compression && matches!(header.opcode, Opcode::Text | Opcode::Binary);
        // RFC 6455 5.2: reserved bits must be 0 unless an extension defines them.
        if header.reserved & !(if defined { COMPRESSED } else { 0 }) != 0 {
            return Err(Violation::ReservedBits.into());
        }
        let masking_key = match (self.role, header.masking_key) {
            (Role::Server, Some(key)) => key,
            (Role::Client, None) => [0; 4],
            // RFC 6455 5.1: a server closes the connection upon a frame that is not masked.
            (Role::Server, None) => return Err(Violation::UnmaskedFrame.into()),
            // RFC 6455 5.1: a client closes the connection upon a masked frame.
            (Role::Client, Some(_)) => return Err(Violation::MaskedFrame.into()),
        };
        if header.opcode.is_control() {
            return self.handle_control(&header, masking_key, size, bytes);
        }
        self.begin_data_frame(&header)?;
        self.state =
            State::Payload { fin: header.fin, masking_key, received: 0, remaining: header.payload_len };
        self.handle_payload(bytes, size)
    }

    /// Applies the rules for messages to the header of a data frame.
    fn begin_data_frame(&mut self, header: &FrameHeader) -> Result<(), Failure> {
        let compressed = header.reserved & COMPRESSED != 0;
        let begin = |kind| OpenMessage { kind, compressed, size: 0, frames: 0 };
        // RFC 6455 5.4: the fragments of one message are not interleaved with those of another.
        let message = match (header.opcode, &mut self.message) {
            (Opcode::Continuation, Some(message)) => message,
            (Opcode::Continuation, None) => return Err(Violation::UnexpectedContinuation.into()),
            (_, Some(_)) => return Err(Violation::ExpectedContinuation.into()),
            (Opcode::Text, none) => none.insert(begin(MessageKind::Text)),
            (_, none) => none.insert(begin(MessageKind::Binary)),
        };
        message.size = message.size.saturating_add(header.payload_len);
        message.frames = message.frames.saturating_add(1);
        if self.discards_data {
            return Ok(());
        }
        // RFC 6455 10.4: implementations limit the size of frames and messages. Both sizes are known here,
        // before any memory is allocated.
        if message.size > self.limits.message_size && !message.compressed {
            return Err(Limit::MessageSize(self.limits.message_size).into());
        }
        if message.frames > self.limits.frames_per_message {
            return Err(Limit::FramesPerMessage(self.limits.frames_per_message).into());
        }
        Ok(())
    }

    /// Unmasks and validates the available part of a data frame's payload, which begins at `start`.
    fn handle_payload(&mut self, bytes: &mut [u8], start: usize) -> Result<(usize, Option<Event>), Failure> {
        let (State::Payload { fin, masking_key, received, remaining }, Some(message)) =
            (&mut self.state, self.message)
        else {
            return Ok((0, None));
        };
        let available = bytes.len() - start;
        let len = usize::try_from(*remaining).map_or(available, |remaining| remaining.min(available));
        let payload = &mut bytes[start..start + len];
        if masking_key != &[0; 4] {
            mask(payload, *masking_key, *received);
        }
        *received += len as u64;
        *remaining -= len as u64;
        let frame_ends = *remaining == 0;
        let last = *fin && frame_ends;
        if message.kind == MessageKind::Text && !message.compressed && !self.discards_data {
            // RFC 6455 8.1: text that is not UTF-8 fails the connection.
            self.utf8.feed(payload).map_err(|_| Violation::InvalidText)?;
            if last && !self.utf8.is_complete() {
                return Err(Violation::InvalidText.into());
            }
        }
        let first = start > 0 && message.frames == 1;
        if frame_ends {
            self.state = State::Header;
        }
        if last {
            self.message = None;
        }
        let OpenMessage { kind, compressed, .. } = message;
        let data = Data { kind, compressed, payload: start..start + len, first, last };
        Ok((start + len, Some(Event::Data(data))))
    }

    fn handle_control(
        &mut self,
        header: &FrameHeader,
        masking_key: [u8; 4],
        start: usize,
        bytes: &mut [u8],
    ) -> Result<(usize, Option<Event>), Failure> {
        #[expect(clippy::cast_possible_truncation, reason = "at most 125, or the header was not decoded")]
        let end = start + header.payload_len as usize;
        let Some(payload) = bytes.get_mut(start..end) else {
            if header.opcode == Opcode::Close {
                // An invalid code or reason fails the connection before the whole frame has arrived.
                let mut arrived = [0; 125];
                let arrived = &mut arrived[..bytes.len() - start];
                arrived.copy_from_slice(&bytes[start..]);
                mask(arrived, masking_key, 0);
                CloseFrame::check_prefix(arrived)?;
            }
            return Ok((0, None));
        };
        mask(payload, masking_key, 0);
        let event = match header.opcode {
            Opcode::Ping => Event::Ping(start..end),
            Opcode::Pong => Event::Pong(start..end),
            _ => {
                let frame = CloseFrame::parse(payload)?;
                self.state = State::Closed;
                Event::Close(frame)
            }
        };
        Ok((end, Some(event)))
    }
}

/// Masks or unmasks a whole payload in place, if it is masked at all.
#[inline]
fn mask_with(payload: &mut [u8], masking_key: Option<[u8; 4]>) {
    if let Some(key) = masking_key {
        mask(payload, key, 0);
    }
}
