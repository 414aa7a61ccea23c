//! Messages, and what `send` takes for one.

use bowline_proto::{MessageKind, Misuse, Role, SendHalf};
use bytes::Bytes;

use crate::utf8_bytes::Utf8Bytes;

/// A message: data only. Control frames are handled by the library.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Text.
    Text(Utf8Bytes),
    /// Bytes.
    Binary(Bytes),
}

impl Message {
    /// A message whose payload was validated if it is text.
    #[inline]
    pub(crate) fn from_validated(kind: MessageKind, payload: Bytes) -> Self {
        match kind {
            MessageKind::Text => Self::Text(Utf8Bytes::from_validated(payload)),
            MessageKind::Binary => Self::Binary(payload),
        }
    }

    /// The payload, of either kind.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_str().as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The payload, of either kind.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Text(text) => text.into(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The text, or `None` for a binary message.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// Whether it is text or binary.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Text(_) => MessageKind::Text,
            Self::Binary(_) => MessageKind::Binary,
        }
    }

    /// The size of the payload in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<&str> for Message {
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

/// What `send` takes: made by `into()` from text (`&str`, `&String`, `String`, [`Utf8Bytes`]), from bytes (`&[u8]`,
/// `&[u8; N]`, `&Vec<u8>`, `Vec<u8>`, [`Bytes`]), from a [`Message`] or a `&`[`Prepared`].
///
/// Borrowed data is copied once, straight into the write buffer.
#[derive(Debug)]
pub struct Payload<'a>(pub(crate) PayloadKind<'a>);

#[derive(Debug)]
pub(crate) enum PayloadKind<'a> {
    Borrowed(MessageKind, &'a [u8]),
    Owned(MessageKind, Bytes),
    Prepared(&'a Prepared),
}

macro_rules! payload_from {
    ($($type:ty, $name:ident => $payload:expr;)*) => {
        $(impl<'a> From<$type> for Payload<'a> {
            fn from($name: $type) -> Self {
                Self($payload)
            }
        })*
    };
}

payload_from! {
    &'a str, text => PayloadKind::Borrowed(MessageKind::Text, text.as_bytes());
    &'a String, text => PayloadKind::Borrowed(MessageKind::Text, text.as_bytes());
    String, text => PayloadKind::Owned(MessageKind::Text, text.into());
    Utf8Bytes, text => PayloadKind::Owned(MessageKind::Text, text.into());
    &'a [u8], bytes => PayloadKind::Borrowed(MessageKind::Binary, bytes);
    &'a Vec<u8>, bytes => PayloadKind::Borrowed(MessageKind::Binary, bytes);
    Vec<u8>, bytes => PayloadKind::Owned(MessageKind::Binary, bytes.into());
    Bytes, bytes => PayloadKind::Owned(MessageKind::Binary, bytes);
    Message, message => PayloadKind::Owned(message.kind(), message.into_bytes());
    &'a Prepared, prepared => PayloadKind::Prepared(prepared);
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(PayloadKind::Borrowed(MessageKind::Binary, bytes))
    }
}

/// A message encoded once, to be sent to many connections.
///
/// A server sends it without another copy. A client has to mask each frame anew (RFC 6455 5.3), so nothing is saved
/// there.
///
/// ```
/// # async fn broadcast(senders: &[bowline::Sender]) {
/// let news = bowline::Prepared::new("the same for all");
/// for sender in senders {
///     let _ = sender.try_send(&news);
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(crate) kind: MessageKind,
    /// The frame as a server sends it.
    pub(crate) frame: Bytes,
    /// Where the payload begins in the frame.
    pub(crate) payload_start: usize,
}

impl Prepared {
    /// Encodes a message.
    pub fn new(message: impl Into<Message>) -> Self {
        let message = message.into();
        let (kind, payload) = (message.kind(), message.as_bytes());
        let mut frame = Vec::new();
        let encoded: Result<(), Misuse> =
            SendHalf::new(Role::Server).message(kind, payload, [0; 4], &mut frame);
        encoded.expect("a new connection takes a message");
        let payload_start = frame.len() - payload.len();
        Self { kind, frame: frame.into(), payload_start }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.frame[self.payload_start..]
    }
}
