//! Close codes and Close frames (RFC 6455 5.5.1 and 7.4, and the IANA registry).

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::error::{Failure, Misuse, Violation};
use crate::utf8::Utf8Validator;

/// A close code: the number that says why a connection is closed (RFC 6455 7.4).
///
/// The codes are registered in the IANA "WebSocket Close Code Number Registry". The type can hold any number;
/// [`is_allowed`](Self::is_allowed) returns `true` for a code that may appear in a Close frame.
///
/// ```
/// use bowline_proto::{CloseCode, Failure, Violation};
///
/// assert!(CloseCode::GOING_AWAY.is_allowed());
/// // 4000 to 4999 are free for applications.
/// assert!(CloseCode(4001).is_allowed());
/// // 1005 stands for a Close frame without a code, so the number may not appear in one.
/// assert!(!CloseCode::NO_STATUS.is_allowed());
///
/// let failure = Failure::Violation(Violation::InvalidText);
/// assert_eq!(CloseCode::from(failure), CloseCode::INVALID_DATA);
/// assert_eq!(CloseCode::INVALID_DATA.to_string(), "1007");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// 1000: the purpose of the connection has been fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: an endpoint goes away, as when a server shuts down or a browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: the peer sent a kind of data that can't be accepted.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// 1005: the Close frame has no code (RFC 6455 7.1.5). The number itself is never sent.
    pub const NO_STATUS: Self = Self(1005);
    /// 1006: the connection ended without a Close frame. Never sent.
    pub const ABNORMAL: Self = Self(1006);
    /// 1007: the data does not match the kind of the message, such as text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// 1008: a message violates a policy of the receiver, and no other code fits.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// 1009: a message is too big to process.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// 1010: a client expected an extension that the server did not negotiate.
    pub const MANDATORY_EXTENSION: Self = Self(1010);
    /// 1011: an unexpected condition prevents the sender of the code from continuing.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the service is restarting.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: the service is overloaded, and the client should try again later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);
    /// 1014: a gateway received an invalid response from its upstream server.
    pub const BAD_GATEWAY: Self = Self(1014);
    /// 1015: the TLS handshake failed. Never sent.
    pub const TLS_HANDSHAKE: Self = Self(1015);

    /// Returns `true` if the code may appear in a Close frame.
    ///
    /// Codes 1000-1003 and 1007-1014 are registered, 3000-3999 are for libraries and frameworks, and
    /// 4000-4999 are for applications. Codes 1004, 1005, 1006 and 1015 are reserved (RFC 6455 7.4).
    pub const fn is_allowed(self) -> bool {
        // RFC 6455 7.4.2: 0-999 are not used, and 1000-2999 need a registration.
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl From<Failure> for CloseCode {
    /// Returns the close code with which to fail the connection.
    fn from(failure: Failure) -> Self {
        use crate::error::Limit;
        match failure {
            // RFC 6455 7.4.1, 8.1
            Failure::Violation(
                Violation::InvalidText | Violation::InvalidCloseReason | Violation::InvalidCompression,
            ) => Self::INVALID_DATA,
            Failure::Violation(
                Violation::ReservedBits
                | Violation::UnknownOpcode(_)
                | Violation::UnmaskedFrame
                | Violation::MaskedFrame
                | Violation::NonMinimalLength
                | Violation::LengthOverflow
                | Violation::FragmentedControlFrame
                | Violation::OversizedControlFrame
                | Violation::UnexpectedContinuation
                | Violation::ExpectedContinuation
                | Violation::CloseBodyTooShort
                | Violation::InvalidCloseCode(_),
            ) => Self::PROTOCOL_ERROR,
            Failure::Limit(Limit::MessageSize(_) | Limit::CompressedSize(_)) => Self::MESSAGE_TOO_BIG,
            Failure::Limit(Limit::FramesPerMessage(_)) => Self::POLICY_VIOLATION,
        }
    }
}

/// The code and reason of a Close frame.
///
/// A Close frame may be empty. Its code is then [`CloseCode::NO_STATUS`], as RFC 6455 7.1.5 defines, and its
/// reason is empty. Each frame that was received may also be sent, so a proxy can pass all of them on.
///
/// ```
/// use bowline_proto::{CloseCode, CloseFrame, Misuse};
///
/// let frame = CloseFrame::new(CloseCode(4001), "session expired")?;
/// assert_eq!(frame.to_string(), "4001 (session expired)");
/// let empty = CloseFrame::new(CloseCode::NO_STATUS, "")?;
/// assert_eq!(empty.to_string(), "no code");
/// assert_eq!(CloseFrame::new(CloseCode::ABNORMAL, ""), Err(Misuse::ReservedCloseCode(1006)));
/// # Ok::<(), Misuse>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    code: CloseCode,
    reason: Box<str>,
}

impl CloseFrame {
    /// Creates a Close frame that may be sent. With [`CloseCode::NO_STATUS`], the frame is empty.
    ///
    /// # Errors
    ///
    /// - Returns [`Misuse::ReservedCloseCode`] if the code is neither [allowed](CloseCode::is_allowed) nor
    ///   [`CloseCode::NO_STATUS`].
    /// - Returns [`Misuse::ReasonWithoutCode`] if the code is [`CloseCode::NO_STATUS`] and the reason is not
    ///   empty.
    /// - Returns [`Misuse::CloseReasonTooLong`] if the reason is over 123 bytes long.
    pub fn new(code: CloseCode, reason: &str) -> Result<Self, Misuse> {
        // RFC 6455 5.5.1: the body may be empty. If there is one, a code comes before the reason.
        if code == CloseCode::NO_STATUS {
            return if reason.is_empty() { Ok(Self::without_code()) } else { Err(Misuse::ReasonWithoutCode) };
        }
        // RFC 6455 7.4.1: 1005, 1006 and 1015 must not be set by an endpoint.
        if !code.is_allowed() {
            return Err(Misuse::ReservedCloseCode(code.0));
        }
        // RFC 6455 5.5: the payload, two bytes of code included, has at most 125 bytes.
        if reason.len() > 123 {
            return Err(Misuse::CloseReasonTooLong(reason.len()));
        }
        Ok(Self { code, reason: reason.into() })
    }

    /// Returns the frame with an empty payload.
    fn without_code() -> Self {
        Self { code: CloseCode::NO_STATUS, reason: Box::default() }
    }

    /// Returns the close code, which is [`CloseCode::NO_STATUS`] if the frame is empty.
    pub fn code(&self) -> CloseCode {
        self.code
    }

    /// Returns the reason: an explanation for people of at most 123 bytes, and often empty.
    ///
    /// Nothing is escaped, so a reason from the peer may contain line breaks and escape sequences. `Display`
    /// escapes such characters.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns the payload of the frame.
    pub(crate) fn payload(&self) -> Vec<u8> {
        // RFC 6455 7.4.1: 1005 stands for an empty body, and is not sent itself.
        if self.code == CloseCode::NO_STATUS {
            return Vec::new();
        }
        // RFC 6455 5.5.1: the code in network byte order precedes the reason.
        let mut payload = self.code.0.to_be_bytes().to_vec();
        payload.extend_from_slice(self.reason.as_bytes());
        payload
    }

    /// Parses the payload of a Close frame.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Violation> {
        // RFC 6455 7.1.5: without a code in the frame, the close code is considered to be 1005.
        if payload.is_empty() {
            return Ok(Self::without_code());
        }
        Self::check_prefix(payload)?;
        let (code, reason) = payload.split_first_chunk().ok_or(Violation::CloseBodyTooShort)?;
        let reason = core::str::from_utf8(reason).map_err(|_| Violation::InvalidCloseReason)?;
        Ok(Self { code: CloseCode(u16::from_be_bytes(*code)), reason: reason.to_owned().into() })
    }

    /// Checks the first bytes of a payload, before the rest has arrived.
    pub(crate) fn check_prefix(payload: &[u8]) -> Result<(), Violation> {
        let Some((code, reason)) = payload.split_first_chunk() else { return Ok(()) };
        let code = CloseCode(u16::from_be_bytes(*code));
        if !code.is_allowed() {
            return Err(Violation::InvalidCloseCode(code.0));
        }
        // RFC 6455 5.5.1, 8.1: the reason is UTF-8.
        Utf8Validator::new().feed(reason).map_err(|_| Violation::InvalidCloseReason)
    }
}

impl fmt::Display for CloseFrame {
    /// Writes the code and the reason for people to read, or `no code` for an empty frame.
    ///
    /// Control characters in the reason, and characters that change the direction of text, are escaped as in
    /// Rust. Unescaped, such characters could forge lines of a log or control a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code == CloseCode::NO_STATUS {
            return f.write_str("no code");
        }
        // `Display` of a number can pad, which is 0.6 KB of a program in a page.
        f.write_str(&u64::from(self.code.0).to_string())?;
        if self.reason.is_empty() {
            return Ok(());
        }
        f.write_str(" (")?;
        Escaped(&self.reason).fmt(f)?;
        f.write_char(')')
    }
}

/// Text of a peer, displayed without the characters that could forge a line of a log or control a terminal.
///
/// Control characters, invisible characters and those that change the direction of text are escaped as in
/// Rust, and so is the backslash. All else is written as it is.
///
/// ```
/// use bowline_proto::Escaped;
///
/// let reason = "no such room\nINFO all is well \u{202e}";
/// assert_eq!(Escaped(reason).to_string(), r"no such room\nINFO all is well \u{202e}");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\0' => f.write_str("\\0"),
            '\t' => f.write_str("\\t"),
            '\n' => f.write_str("\\n"),
            '\r' => f.write_str("\\r"),
            '\\' => f.write_str("\\\\"),
            _ if is_hidden(character) => character.escape_unicode().fmt(f),
            _ => f.write_char(character),
        })
    }
}

/// Returns whether a character shows nothing of itself, but may change how others are shown.
///
/// `char::escape_debug` also knows which characters are not assigned, by tables that would be a tenth of a
/// small program in a page.
fn is_hidden(character: char) -> bool {
    matches!(
        character,
        // Control characters (Cc).
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        // Format characters (Cf), and the separators of lines and paragraphs (Zl, Zp).
        | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}
