//! Messages as the application receives and sends them.
//!
//! - [`Message`] is a received message: text as [`Utf8Bytes`], or binary data as [`Bytes`].
//! - [`Payload`] is the argument of `send`: anything that converts into a message, borrowed or owned.
//! - [`Prepared`] is a message that is encoded, and compressed, once for many connections.
//! - [`compression`] has the options of permessage-deflate, and the codec.
//!
//! Nothing here knows about connections.

#[cfg_attr(
    any(
        all(target_family = "wasm", target_os = "unknown"),
        not(all(feature = "deflate", any(feature = "client", feature = "server")))
    ),
    allow(dead_code, unreachable_pub, unused_imports, reason = "its public part needs these features")
)]
pub(crate) mod compression;
mod payload;
mod prepared;
pub(crate) mod tally;
mod utf8_bytes;

use bowline_proto::MessageKind;
use bytes::Bytes;

use crate::error::{Error, ErrorKind};

pub use payload::Payload;
pub(crate) use payload::Source;
pub use prepared::Prepared;
pub(crate) use prepared::PreparedFrame;
pub use utf8_bytes::Utf8Bytes;

/// A text or binary message.
///
/// Control frames never appear as messages, because the library handles them. [`WebSocket::recv`] returns
/// messages; [`WebSocket::send`] accepts them, and also the strings and byte buffers that convert into one:
/// see [`Payload`].
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

    /// Converts a text message into its text, without copying.
    ///
    /// # Examples
    ///
    /// ```
    /// use bowline::{Error, WebSocket};
    ///
    /// /// Receives names, and ends with an error if one is not text.
    /// async fn names(mut socket: WebSocket) -> Result<Vec<String>, Error> {
    ///     let mut names = Vec::new();
    ///     while let Some(message) = socket.recv().await? {
    ///         names.push(message.into_text()?.into());
    ///     }
    ///     Ok(names)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::InvalidData`] if the message is binary, even if its payload is valid UTF-8.
    pub fn into_text(self) -> Result<Utf8Bytes, Error> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Binary(bytes) => {
                let text =
                    format!("a text message was expected, but {} bytes of binary data arrived", bytes.len());
                Err(Error::new(ErrorKind::InvalidData, text))
            }
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

macro_rules! message_from {
    ($($(#[$doc:meta])* $type:ty, $name:ident => $message:expr;)*) => {
        $(impl From<$type> for Message {
            $(#[$doc])*
            fn from($name: $type) -> Self {
                $message
            }
        })*
    };
}

message_from! {
    /// Copies the text.
    &str, text => Self::Text(text.into());
    /// Copies the text.
    &String, text => Self::Text(text.as_str().into());
    String, text => Self::Text(text.into());
    Utf8Bytes, text => Self::Text(text);
    /// Copies the bytes.
    &[u8], bytes => Self::Binary(Bytes::copy_from_slice(bytes));
    /// Copies the bytes.
    &Vec<u8>, bytes => Self::Binary(Bytes::copy_from_slice(bytes));
    Vec<u8>, bytes => Self::Binary(bytes.into());
    Bytes, bytes => Self::Binary(bytes);
}

impl<const N: usize> From<&[u8; N]> for Message {
    /// Copies the bytes.
    fn from(bytes: &[u8; N]) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes))
    }
}
