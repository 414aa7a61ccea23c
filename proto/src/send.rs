//! The sending half of a connection (RFC 6455 5 and 6.1).

use alloc::vec::Vec;

use crate::close::CloseFrame;
use crate::error::Misuse;
use crate::frame::{COMPRESSED, FrameHeader, MessageKind, Opcode, Role};
use crate::mask::{append_masked, mask};

/// The sending half of a connection, which appends frames to the caller's buffer.
///
/// Every frame of a client is masked, while it is copied or in place. `masking_key` must be fresh for each
/// frame and come from a cryptographically secure generator (RFC 6455 5.3, 10.3); a server's is not used.
///
/// - commands: [`message`](Self::message), [`message_in_place`](Self::message_in_place),
///   [`message_header`](Self::message_header), [`message_apart`](Self::message_apart),
///   [`encoded_message`](Self::encoded_message), [`fragment`](Self::fragment),
///   [`last_fragment`](Self::last_fragment), [`ping`](Self::ping), [`pong`](Self::pong),
///   [`close`](Self::close)
/// - getters: all others
///
/// ```
/// use bowline_proto::{MessageKind, Misuse, Role, SendHalf};
///
/// let mut half = SendHalf::new(Role::Server);
/// let mut out = Vec::new();
/// half.message(MessageKind::Text, b"Hello", [0; 4], &mut out)?;
/// half.close(None, [0; 4], &mut out)?;
/// assert_eq!(out, b"\x81\x05Hello\x88\x00");
/// assert_eq!(half.ping(b"", [0; 4], &mut out), Err(Misuse::CloseSent));
/// # Ok::<(), Misuse>(())
/// ```
#[derive(Clone, Debug)]
pub struct SendHalf {
    role: Role,
    /// `true` between the first and the last fragment of a message.
    in_message: bool,
    closed: bool,
}

impl SendHalf {
    /// Creates the sending half of `role`'s connection, right after the opening handshake.
    pub fn new(role: Role) -> Self {
        Self { role, in_message: false, closed: false }
    }

    /// Encodes a whole message in one frame.
    ///
    /// # Errors
    ///
    /// - Returns [`Misuse::CloseSent`] if the Close frame was sent.
    /// - Returns [`Misuse::MessageOpen`] if a fragmented message is not finished.
    #[inline]
    pub fn message(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        self.check_message()?;
        self.frame(true, 0, kind.into(), payload, masking_key, out);
        Ok(())
    }

    /// Encodes a whole message with a compressed payload, as negotiated in the handshake (RFC 7692 6).
    ///
    /// # Errors
    ///
    /// - Returns [`Misuse::CloseSent`] if the Close frame was sent.
    /// - Returns [`Misuse::MessageOpen`] if a fragmented message is not finished.
    pub fn compressed_message(
        &mut self,
        kind: MessageKind,
        payload: &[u8],
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        self.check_message()?;
        self.frame(true, COMPRESSED, kind.into(), payload, masking_key, out);
        Ok(())
    }

    /// Makes a whole message in one frame of a buffer that holds its payload already, behind
    /// [`FrameHeader::MAX_SIZE`] bytes of room for the header; gives the position at which the frame begins.
    ///
    /// So a payload whose size is known only once it is written, like that of a serialiser, need not be
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
    /// - Returns [`Misuse::CloseSent`] if the Close frame was sent.
    /// - Returns [`Misuse::MessageOpen`] if a fragmented message is not finished.
    /// - Returns [`Misuse::NoRoomForHeader`] if the buffer is smaller than the room for the header.
    pub fn message_in_place(
        &mut self,
        kind: MessageKind,
        masking_key: [u8; 4],
        buffer: &mut Vec<u8>,
    ) -> Result<usize, Misuse> {
        self.check_message()?;
        let end = buffer.len();
        let payload = buffer.get_mut(FrameHeader::MAX_SIZE..).ok_or(Misuse::NoRoomForHeader)?;
        // RFC 6455 5.1, 5.3: a client masks all frames, a server none.
        let masking_key = (self.role == Role::Client).then_some(masking_key);
        let header = header(true, 0, kind.into(), payload.len(), masking_key);
        if let Some(key) = masking_key {
            mask(payload, key, 0);
        }
        // The header is written after the payload, and then moved to its place.
        header.encode(buffer);
        let start = FrameHeader::MAX_SIZE - (buffer.len() - end);
        buffer.copy_within(end.., start);
        buffer.truncate(end);
        Ok(start)
    }

    /// Encodes the header alone of a whole message in one frame; the payload must follow it on the wire.
    ///
    /// # Errors
    ///
    /// - Returns [`Misuse::CloseSent`] if the Close frame was sent.
    /// - Returns [`Misuse::MessageOpen`] if a fragmented message is not finished.
    /// - Returns [`Misuse::UnmaskedPayload`] if the half is a client's.
    pub fn message_header(
        &mut self,
        kind: MessageKind,
        payload_len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        self.encoded_message()?;
        header(true, 0, kind.into(), payload_len, None).encode(out);
        Ok(())
    }

    /// Encodes the header alone, too, and masks the payload where it is if this is a client's; the payload
    /// must follow the header on the wire.
    ///
    /// # Errors
    ///
    /// - Returns [`Misuse::CloseSent`] if the Close frame was sent.
    /// - Returns [`Misuse::MessageOpen`] if a fragmented message is not finished.
    ///
    /// After an error, the payload is unchanged.
    pub fn message_apart(
        &mut self,
        kind: MessageKind,
        payload: &mut [u8],
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        self.check_message()?;
        let masking_key = (self.role == Role::Client).then_some(masking_key);
        header(true, 0, kind.into(), payload.len(), masking_key).encode(out);
        if let Some(key) = masking_key {
            mask(payload, key, 0);
        }
        Ok(())
    }

    /// Sends a whole message in one frame that was encoded before, by another half; the frame must be next on
    /// the wire.
    ///
    /// Only servers can do that, as clients mask each frame anew (RFC 6455 5.3).
    ///
    /// # Errors
    ///
    /// - Returns [`Misuse::CloseSent`] if the Close frame was sent.
    /// - Returns [`Misuse::MessageOpen`] if a fragmented message is not finished.
    /// - Returns [`Misuse::UnmaskedPayload`] if the half is a client's.
    pub fn encoded_message(&mut self) -> Result<(), Misuse> {
        self.check_message()?;
        if self.role == Role::Client { Err(Misuse::UnmaskedPayload) } else { Ok(()) }
    }

    /// Encodes a fragment that others follow; the first begins the message.
    ///
    /// The kind is that of the whole message, and counts in the first fragment only. Text may be split inside
    /// a code point.
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

    /// Encodes the fragment that ends the message, which may be its only one.
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

    /// Encodes a fragment of a message that was compressed, as agreed on in the handshake (RFC 7692 6);
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

    /// Encodes a Ping frame; it may come between the fragments of a message.
    ///
    /// # Errors
    ///
    /// - Returns [`Misuse::CloseSent`] if the Close frame was sent.
    /// - Returns [`Misuse::OversizedControlFrame`] if the payload has more than 125 bytes.
    pub fn ping(&mut self, payload: &[u8], masking_key: [u8; 4], out: &mut Vec<u8>) -> Result<(), Misuse> {
        self.control(Opcode::Ping, payload, masking_key, out)
    }

    /// Encodes a Pong frame; it may come between the fragments of a message.
    ///
    /// # Errors
    ///
    /// - Returns [`Misuse::CloseSent`] if the Close frame was sent.
    /// - Returns [`Misuse::OversizedControlFrame`] if the payload has more than 125 bytes.
    pub fn pong(&mut self, payload: &[u8], masking_key: [u8; 4], out: &mut Vec<u8>) -> Result<(), Misuse> {
        self.control(Opcode::Pong, payload, masking_key, out)
    }

    /// Encodes the Close frame, with no code for `None`. No frame may follow it.
    ///
    /// # Errors
    ///
    /// Returns [`Misuse::CloseSent`] if the Close frame was sent.
    pub fn close(
        &mut self,
        frame: Option<&CloseFrame>,
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) -> Result<(), Misuse> {
        let payload = frame.map(CloseFrame::payload).unwrap_or_default();
        self.control(Opcode::Close, &payload, masking_key, out)?;
        self.closed = true;
        Ok(())
    }

    /// Returns `true` if the Close frame was sent.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns the role.
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
        self.frame(fin, reserved, opcode, payload, masking_key, out);
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
        // RFC 6455 5.5: control frames have at most 125 bytes.
        if payload.len() > 125 {
            return Err(Misuse::OversizedControlFrame(payload.len()));
        }
        self.frame(true, 0, opcode, payload, masking_key, out);
        Ok(())
    }

    #[inline]
    fn frame(
        &self,
        fin: bool,
        reserved: u8,
        opcode: Opcode,
        payload: &[u8],
        masking_key: [u8; 4],
        out: &mut Vec<u8>,
    ) {
        // RFC 6455 5.1, 5.3: a client masks all frames, a server none.
        match self.role {
            Role::Server => {
                out.reserve(FrameHeader::MAX_SIZE + payload.len());
                header(fin, reserved, opcode, payload.len(), None).encode(out);
                out.extend_from_slice(payload);
            }
            Role::Client => {
                out.reserve(FrameHeader::MAX_SIZE + payload.len());
                header(fin, reserved, opcode, payload.len(), Some(masking_key)).encode(out);
                append_masked(payload, masking_key, out);
            }
        }
    }
}

#[inline]
fn header(
    fin: bool,
    reserved: u8,
    opcode: Opcode,
    payload_len: usize,
    masking_key: Option<[u8; 4]>,
) -> FrameHeader {
    FrameHeader { fin, reserved, opcode, masking_key, payload_len: payload_len as u64 }
}
