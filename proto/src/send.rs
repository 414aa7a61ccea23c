//! The sending half of a connection (RFC 6455 5 and 6.1).

use alloc::vec::Vec;

use crate::close::CloseFrame;
use crate::error::Misuse;
use crate::frame::{COMPRESSED, FrameHeader, MessageKind, Opcode, Role, encode_header, first_byte};
use crate::mask::{append_masked, mask};

/// The sending half of a connection, which appends frames to the caller's buffer.
///
/// A client masks the payload of every frame, either in place or while copying. `masking_key` must be fresh
/// for each frame and come from a cryptographically secure generator (RFC 6455 5.3, 10.3). A server ignores
/// the argument.
///
/// - commands: [`message`](Self::message), [`message_in_place`](Self::message_in_place),
///   [`message_header`](Self::message_header), [`message_apart`](Self::message_apart),
///   [`encoded_message`](Self::encoded_message), [`compressed_message`](Self::compressed_message),
///   [`fragment`](Self::fragment), [`last_fragment`](Self::last_fragment),
///   [`compressed_fragment`](Self::compressed_fragment), [`ping`](Self::ping), [`pong`](Self::pong),
///   [`close`](Self::close)
/// - getters: all others
///
/// ```
/// use bowline_proto::{CloseCode, CloseFrame, MessageKind, Misuse, Role, SendHalf};
///
/// let mut half = SendHalf::new(Role::Server);
/// let mut out = Vec::new();
/// half.message(MessageKind::Text, b"Hello", [0; 4], &mut out)?;
/// half.close(&CloseFrame::new(CloseCode::NO_STATUS, "")?, [0; 4], &mut out)?;
/// assert_eq!(out, b"\x81\x05Hello\x88\x00");
/// assert_eq!(half.ping(b"", [0; 4], &mut out), Err(Misuse::CloseSent));
/// # Ok::<(), Misuse>(())
/// ```
#[derive(Clone, Debug)]
pub struct SendHalf {
    role: Role,
    /// Set if some fragments of a message were sent, but not the last.
    in_message: bool,
    closed: bool,
}

impl SendHalf {
    /// Creates the sending half of an endpoint with this role, right after the opening handshake.
    pub fn new(role: Role) -> Self {
        Self { role, in_message: false, closed: false }
    }

    /// Encodes a whole message in one frame.
    ///
    /// # Errors
    ///
    /// Returns [`Misuse::CloseSent`] if the Close frame was sent, and [`Misuse::MessageOpen`] if a fragmented
    /// message has not ended.
    #[inline]
    pub fn message(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        self.check_message()?;
        self.frame(first_byte(true, 0, kind.into()), payload, masking_key, out);
        Ok(())
    }

    /// Encodes a whole message in one frame whose payload is compressed, as negotiated in the handshake
    /// (RFC 7692 6).
    ///
    /// # Errors
    ///
    /// Returns [`Misuse::CloseSent`] if the Close frame was sent, and [`Misuse::MessageOpen`] if a fragmented
    /// message has not ended.
    pub fn compressed_message(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        self.check_message()?;
        self.frame(first_byte(true, COMPRESSED, kind.into()), payload, masking_key, out);
        Ok(())
    }

    /// Encodes a whole message in one frame inside the buffer that holds the payload.
    ///
    /// The payload follows [`FrameHeader::MAX_SIZE`] bytes of room for the header. Returns the position at
    /// which the frame begins. A payload of unknown size, such as the output of a serialiser, need not be
    /// copied.
    ///
    /// ```
    /// use bowline_proto::{FrameHeader, MessageKind, Role, SendHalf};
    ///
    /// let mut buffer = vec![0; FrameHeader::MAX_SIZE];
    /// buffer.extend_from_slice(b"Hello");
    /// let start = SendHalf::new(Role::Server).message_in_place(MessageKind::Text, [0; 4], &mut buffer)?;
    /// assert_eq!(buffer[start..], *b"\x81\x05Hello");
    /// # Ok::<(), bowline_proto::Misuse>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Misuse::CloseSent`] if the Close frame was sent, [`Misuse::MessageOpen`] if a fragmented
    /// message has not ended, and [`Misuse::NoRoomForHeader`] if the buffer is smaller than the room for the
    /// header.
    pub fn message_in_place(
        &mut self,
        kind: MessageKind,
        masking_key: [u8; 4],
        buffer: &mut Vec<u8>,
    ) -> Result<usize, Misuse> {
        self.check_message()?;
        let end = buffer.len();
        let payload = buffer.get_mut(FrameHeader::MAX_SIZE..).ok_or(Misuse::NoRoomForHeader)?;
        let (len, masking_key) = (payload.len() as u64, self.mask_own(payload, masking_key));
        // The header is appended after the payload, and then moved to its place.
        encode_header(first_byte(true, 0, kind.into()), len, masking_key, buffer);
        let start = FrameHeader::MAX_SIZE - (buffer.len() - end);
        buffer.copy_within(end.., start);
        buffer.truncate(end);
        Ok(start)
    }

    /// Encodes only the header of a whole message in one frame.
    ///
    /// The payload must follow the header on the wire.
    ///
    /// # Errors
    ///
    /// Returns [`Misuse::CloseSent`] if the Close frame was sent, [`Misuse::MessageOpen`] if a fragmented
    /// message has not ended, and [`Misuse::UnmaskedPayload`] if this endpoint is a client.
    pub fn message_header(
        &mut self,
        kind: MessageKind,
        payload_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        self.encoded_message()?;
        encode_header(first_byte(true, 0, kind.into()), payload_len as u64, None, out);
        Ok(())
    }

    /// Encodes only the header of a whole message in one frame, and masks a client's payload in place.
    ///
    /// The payload must follow the header on the wire.
    ///
    /// # Errors
    ///
    /// Returns [`Misuse::CloseSent`] if the Close frame was sent, and [`Misuse::MessageOpen`] if a fragmented
    /// message has not ended. The payload is then unchanged.
    pub fn message_apart(
        &mut self,
        kind: MessageKind,
        payload: &mut [u8],
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        self.check_message()?;
        let masking_key = self.mask_own(payload, masking_key);
        encode_header(first_byte(true, 0, kind.into()), payload.len() as u64, masking_key, out);
        Ok(())
    }

    /// Checks that a whole message in one frame, encoded by another half, may be sent now.
    ///
    /// The frame must come next on the wire. Only servers can share frames, since clients mask each frame
    /// with a fresh key (RFC 6455 5.3).
    ///
    /// # Errors
    ///
    /// Returns [`Misuse::CloseSent`] if the Close frame was sent, [`Misuse::MessageOpen`] if a fragmented
    /// message has not ended, and [`Misuse::UnmaskedPayload`] if this endpoint is a client.
    pub fn encoded_message(&mut self) -> Result<(), Misuse> {
        self.check_message()?;
        if self.role == Role::Client { Err(Misuse::UnmaskedPayload) } else { Ok(()) }
    }

    /// Encodes a fragment that other fragments follow. The first fragment begins the message.
    ///
    /// `kind` is the kind of the whole message, and only counts with the first fragment. Text may be split
    /// inside a code point.
    ///
    /// ```
    /// use bowline_proto::{MessageKind, Misuse, Role, SendHalf};
    ///
    /// let mut half = SendHalf::new(Role::Server);
    /// let mut out = Vec::new();
    /// half.fragment(MessageKind::Text, b"Hel", [0; 4], &mut out)?;
    /// // Control frames may come between fragments, other messages may not.
    /// half.ping(b"", [0; 4], &mut out)?;
    /// let refused = half.message(MessageKind::Text, b"Bye", [0; 4], &mut out);
    /// assert_eq!(refused, Err(Misuse::MessageOpen));
    /// half.last_fragment(MessageKind::Text, b"lo", [0; 4], &mut out)?;
    /// assert_eq!(out, b"\x01\x03Hel\x89\x00\x80\x02lo");
    /// # Ok::<(), Misuse>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Misuse::CloseSent`] if the Close frame was sent.
    pub fn fragment(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        self.any_fragment(false, 0, kind, payload, masking_key, out)
    }

    /// Encodes the last fragment of a message, which may also be the only one.
    ///
    /// # Errors
    ///
    /// Returns [`Misuse::CloseSent`] if the Close frame was sent.
    pub fn last_fragment(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        self.any_fragment(true, 0, kind, payload, masking_key, out)
    }

    /// Encodes a fragment of a compressed message, as negotiated in the handshake (RFC 7692 6).
    ///
    /// `last` ends the message.
    ///
    /// # Errors
    ///
    /// Returns [`Misuse::CloseSent`] if the Close frame was sent.
    pub fn compressed_fragment(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        last: bool,
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        self.any_fragment(last, COMPRESSED, kind, payload, masking_key, out)
    }

    /// Encodes a Ping frame, which may come between the fragments of a message.
    ///
    /// # Errors
    ///
    /// Returns [`Misuse::CloseSent`] if the Close frame was sent, and [`Misuse::OversizedControlFrame`] if
    /// the payload is over 125 bytes long.
    pub fn ping(&mut self, payload: &[u8], masking_key: [u8; 4], out: &mut Vec<u8>) -> Result<(), Misuse> {
        self.control(Opcode::Ping, payload, masking_key, out)
    }

    /// Encodes a Pong frame, which may come between the fragments of a message.
    ///
    /// # Errors
    ///
    /// Returns [`Misuse::CloseSent`] if the Close frame was sent, and [`Misuse::OversizedControlFrame`] if
    /// the payload is over 125 bytes long.
    pub fn pong(&mut self, payload: &[u8], masking_key: [u8; 4], out: &mut Vec<u8>) -> Result<(), Misuse> {
        self.control(Opcode::Pong, payload, masking_key, out)
    }

    /// Encodes the Close frame. No frame may follow the Close frame.
    ///
    /// # Errors
    ///
    /// Returns [`Misuse::CloseSent`] if the Close frame was sent before.
    pub fn close(
        &mut self,
        frame: &CloseFrame,
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        self.control(Opcode::Close, &frame.payload(), masking_key, out)?;
        self.closed = true;
        Ok(())
    }

    /// Returns `true` if the Close frame was sent.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns the role of this endpoint.
    pub fn role(&self) -> Role {
        self.role
    }

    #[inline]
    fn check_message(&self) -> Result<(), Misuse> {
        // RFC 6455 5.5.1: no data frames after the Close frame.
        if self.closed {
            return Err(Misuse::CloseSent);
        }
        // RFC 6455 5.4: the fragments of one message are not interleaved with those of another.
        if self.in_message { Err(Misuse::MessageOpen) } else { Ok(()) }
    }

    /// Masks the payload of a client in place, and returns the masking key of its frame.
    fn mask_own(&self, payload: &mut [u8], masking_key: [u8; 4]) -> Option<[u8; 4]> {
        // RFC 6455 5.1, 5.3: a client masks all frames, a server none.
        let masking_key = (self.role == Role::Client).then_some(masking_key)?;
        mask(payload, masking_key, 0);
        Some(masking_key)
    }

    fn any_fragment(
        &mut self,
        fin: bool,
        reserved: u8,
        kind: MessageKind,
        payload: &[u8],
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        if self.closed {
            return Err(Misuse::CloseSent);
        }
        // RFC 6455 5.4: all fragments but the first are continuation frames.
        let (reserved, opcode) =
            if self.in_message { (0, Opcode::Continuation) } else { (reserved, kind.into()) };
        self.in_message = !fin;
        self.frame(first_byte(fin, reserved, opcode), payload, masking_key, out);
        Ok(())
    }

    fn control(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        if self.closed {
            return Err(Misuse::CloseSent);
        }
        // RFC 6455 5.5: control frames have payloads of at most 125 bytes.
        if payload.len() > 125 {
            return Err(Misuse::OversizedControlFrame(payload.len()));
        }
        self.frame(first_byte(true, 0, opcode), payload, masking_key, out);
        Ok(())
    }

    #[inline(never)]
    fn frame(&self, first: u8, payload: &[u8], masking_key: [u8; 4], out: &mut Vec<u8>) {
        // RFC 6455 5.1, 5.3: a client masks all frames, a server none.
        match self.role {
            Role::Server => {
                out.reserve(FrameHeader::MAX_SIZE + payload.len());
                encode_header(first, payload.len() as u64, None, out);
                out.extend_from_slice(payload);
            }
            Role::Client => masked_frame(first, payload, masking_key, out),
        }
    }
}

#[inline(never)]
fn masked_frame(first: u8, payload: &[u8], masking_key: [u8; 4], out: &mut Vec<u8>) {
    out.reserve(FrameHeader::MAX_SIZE + payload.len());
    encode_header(first, payload.len() as u64, Some(masking_key), out);
    append_masked(payload, masking_key, out);
}
