//! The errors, separated by blame: violations by the peer, limits of ours, and misuse by our own side.

use core::fmt;

/// A violation of the protocol by the peer. Our side must fail the connection (RFC 6455 7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// RFC 6455 5.2: a reserved bit is set, and no extension that defines the bit was negotiated.
    ReservedBits,
    /// RFC 6455 5.2: the opcode is one of 3-7 and 11-15.
    UnknownOpcode(u8),
    /// RFC 6455 5.1: a client's frame is not masked.
    UnmaskedFrame,
    /// RFC 6455 5.1: a server's frame is masked.
    MaskedFrame,
    /// RFC 6455 5.2: a payload length is not encoded in the fewest bytes.
    NonMinimalLength,
    /// RFC 6455 5.2: the most significant bit of a 64-bit payload length is set.
    LengthOverflow,
    /// RFC 6455 5.4: a control frame is fragmented.
    FragmentedControlFrame,
    /// RFC 6455 5.5: a control frame has a payload of over 125 bytes.
    OversizedControlFrame,
    /// RFC 6455 5.4: a continuation frame has no message to continue.
    UnexpectedContinuation,
    /// RFC 6455 5.4: a new message begins inside a fragmented message.
    ExpectedContinuation,
    /// RFC 6455 5.5.1: a Close frame has a payload of one byte.
    CloseBodyTooShort,
    /// RFC 6455 7.4: a Close frame has a code that is reserved or not registered.
    InvalidCloseCode(u16),
    /// RFC 6455 8.1: a text message is not UTF-8.
    InvalidText,
    /// RFC 7692 7.2.2: a compressed message can't be decompressed.
    InvalidCompression,
    /// RFC 6455 8.1: the reason in a Close frame is not UTF-8.
    InvalidCloseReason,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedBits => f.write_str("a frame has a reserved bit set that no extension defines"),
            Self::UnknownOpcode(opcode) => write!(f, "a frame has the unknown opcode {opcode:#x}"),
            Self::UnmaskedFrame => f.write_str("a client's frame is not masked"),
            Self::MaskedFrame => f.write_str("a server's frame is masked"),
            Self::NonMinimalLength => f.write_str("a payload length is not encoded in the fewest bytes"),
            Self::LengthOverflow => f.write_str("a payload length has its most significant bit set"),
            Self::FragmentedControlFrame => f.write_str("a control frame is fragmented"),
            Self::OversizedControlFrame => f.write_str("a control frame has a payload of over 125 bytes"),
            Self::UnexpectedContinuation => f.write_str("a continuation frame has no message to continue"),
            Self::ExpectedContinuation => {
                f.write_str("a new message begins before the fragmented one has ended")
            }
            Self::CloseBodyTooShort => f.write_str("a Close frame has a payload of one byte"),
            Self::InvalidCloseCode(code) => write!(f, "a Close frame has the invalid code {code}"),
            Self::InvalidText => f.write_str("a text message is not UTF-8"),
            Self::InvalidCompression => f.write_str("a compressed message can't be decompressed"),
            Self::InvalidCloseReason => f.write_str("the reason in a Close frame is not UTF-8"),
        }
    }
}

impl core::error::Error for Violation {}

/// A limit of ours that the peer exceeded. Our side must fail the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// A message is larger than this number of bytes.
    MessageSize(u64),
    /// A message has more than this number of frames.
    FramesPerMessage(u32),
    /// The compressed form of a message counts for more than this number of bytes, as defined by `Inflater`.
    CompressedSize(u64),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MessageSize(limit) => write!(f, "a message is larger than the limit of {limit} bytes"),
            Self::FramesPerMessage(limit) => write!(f, "a message has more frames than the limit of {limit}"),
            Self::CompressedSize(limit) => {
                write!(f, "the compressed form of a message is over the limit of {limit} bytes")
            }
        }
    }
}

impl core::error::Error for Limit {}

/// The reason why a [`ReceiveHalf`](crate::ReceiveHalf) accepts no more bytes.
///
/// [`CloseCode::from`](crate::CloseCode) returns the close code with which to fail the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer broke the protocol.
    Violation(Violation),
    /// The peer exceeded a limit.
    Limit(Limit),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation(violation) => violation.fmt(f),
            Self::Limit(limit) => limit.fmt(f),
        }
    }
}

impl core::error::Error for Failure {}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<Limit> for Failure {
    fn from(limit: Limit) -> Self {
        Self::Limit(limit)
    }
}

/// A request by our own side to send something that may not be sent. Nothing was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// RFC 6455 5.5.1: no frame may follow the Close frame.
    CloseSent,
    /// RFC 6455 5.4: a fragmented message must end before another begins.
    MessageOpen,
    /// RFC 6455 5.5: a control frame carries at most 125 bytes.
    OversizedControlFrame(usize),
    /// RFC 6455 7.4: this close code may not be sent.
    ReservedCloseCode(u16),
    /// RFC 6455 5.5.1: a Close frame without a code has no reason.
    ReasonWithoutCode,
    /// RFC 6455 5.5: a close reason has at most 123 bytes, as the Close frame carries the code too.
    CloseReasonTooLong(usize),
    /// RFC 6455 5.1: a client must mask its payloads, so its caller may not write a payload unmasked.
    UnmaskedPayload,
    /// A buffer is too small to have room for a header before the payload.
    NoRoomForHeader,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CloseSent => f.write_str("no frame may be sent after the Close frame"),
            Self::MessageOpen => f.write_str("a fragmented message must be finished before another begins"),
            Self::OversizedControlFrame(size) => {
                write!(f, "a control frame carries at most 125 bytes, not {size}")
            }
            Self::ReservedCloseCode(code) => write!(f, "the close code {code} may not be sent"),
            Self::ReasonWithoutCode => {
                f.write_str("a Close frame without a code (1005, NO_STATUS) can't have a reason")
            }
            Self::CloseReasonTooLong(size) => {
                write!(f, "a close reason has at most 123 bytes, not {size}")
            }
            Self::UnmaskedPayload => f.write_str("a client's payload must be masked"),
            Self::NoRoomForHeader => f.write_str("the buffer has no room for a header before the payload"),
        }
    }
}

impl core::error::Error for Misuse {}
