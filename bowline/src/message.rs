//! Messages as the application receives and sends them.
//!
//! - [`Message`] is a received message: text as [`Utf8Bytes`], or binary data as [`Bytes`].
//! - [`Payload`] is the argument of `send`: anything that converts into a message, borrowed or owned.
//! - [`Prepared`] is a message that is encoded, and compressed, once for many connections.
//!
//! This folder lies above `compression`, because a [`Prepared`] message keeps its compressed forms. Nothing
//! here knows about connections.

mod payload;
mod prepared;
mod utf8_bytes;

use bowline_proto::MessageKind;
use bytes::Bytes;

pub use payload::Payload;
pub(crate) use payload::Source;
pub use prepared::Prepared;
pub(crate) use prepared::PreparedFrame;
pub use utf8_bytes::Utf8Bytes;

/// A text or binary message.
///
/// Control frames never appear as messages, because the library handles them. [`WebSocket::recv`] returns
/// messages; [`WebSocket::send`] accepts them, and also the strings and byte buffers that convert into one.
///
/// Cloning is cheap: both kinds hold their payload in shared, immutable memory.
///
/// [`WebSocket::recv`]: crate::WebSocket::recv
/// [`WebSocket::send`]: crate::WebSocket::send
///
/// # Examples
///
/// ```
/// use bowline::Message;
///
/// fn describe(message: &Message) -> String {
///     match message {
///         Message::Text(text) => format!("the text {text:?}"),
///         Message::Binary(bytes) => format!("{} bytes", bytes.len()),
///     }
/// }
///
/// assert_eq!(describe(&"hello".into()), "the text \"hello\"");
/// assert_eq!(describe(&vec![1, 2, 3].into()), "3 bytes");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// A text message (opcode 0x1, RFC 6455 5.6).
    Text(Utf8Bytes),
    /// A binary message (opcode 0x2, RFC 6455 5.6).
    Binary(Bytes),
}

impl Message {
    /// Creates a message from a payload that is valid UTF-8 if `kind` is text.
    #[inline]
    pub(crate) fn from_validated(kind: MessageKind, payload: Bytes) -> Self {
        match kind {
            MessageKind::Text => Self::Text(Utf8Bytes::from_validated(payload)),
            MessageKind::Binary => Self::Binary(payload),
        }
    }

    /// Returns the payload of either kind.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_str().as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Converts the message into its payload, without copying.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Text(text) => text.into(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// Returns the text, or `None` if the message is binary.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// Returns the kind of the message: text or binary.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Text(_) => MessageKind::Text,
            Self::Binary(_) => MessageKind::Binary,
        }
    }

    /// Returns the size of the payload, in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Returns `true` if the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<&str> for Message {
    /// Copies the text.
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Utf8Bytes> for Message {
    fn from(text: Utf8Bytes) -> Self {
        Self::Text(text)
    }
}

impl From<&[u8]> for Message {
    /// Copies the bytes.
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes))
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}
