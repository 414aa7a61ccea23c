//! The argument of `send`.

use bowline_proto::MessageKind;
use bytes::Bytes;

use crate::message::{Message, Prepared, Utf8Bytes};

/// A message to be sent, borrowed or owned.
///
/// [`WebSocket::send`](crate::WebSocket::send) and its siblings accept everything that converts into a
/// payload, and so does [`Prepared::new`]:
///
/// | from | the message is |
/// |---|---|
/// | `&str`, `&String`, `String`, [`Utf8Bytes`] | text |
/// | `&[u8]`, `&[u8; N]`, `&Vec<u8>`, `Vec<u8>`, [`Bytes`] | binary |
/// | [`Message`], `&`[`Prepared`] | of the kind of the value |
///
/// Borrowed payloads are copied once, straight into the write buffer, and so are small owned ones. Owned
/// payloads of at least 16 KiB are queued without copying; while replies to messages that arrived together
/// are held back, the threshold is 64 KiB. A client masks a queued payload in place if nothing else refers to
/// the memory, and copies the payload otherwise.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), bowline::Error> {
/// let (client, mut server) = bowline::pair();
/// let count = 3;
/// client.send("borrowed text").await?;
/// client.send(format!("owned text {count}")).await?;
/// client.send(&[1, 2, 3]).await?;
/// assert_eq!(server.recv().await?, Some("borrowed text".into()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Payload<'a> {
    /// The tag of this enum fills a word, so a payload moves by whole words. With the kind inside the
    /// enum, moves straddled words, and the processor stalled on them.
    pub(crate) source: Source<'a>,
    pub(crate) kind: MessageKind,
    /// Overrides the choice by size of whether the message is compressed.
    pub(crate) compress: Option<bool>,
}

#[derive(Debug)]
pub(crate) enum Source<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
    Prepared(&'a Prepared),
}

impl<'a> Payload<'a> {
    fn borrowed(kind: MessageKind, bytes: &'a [u8]) -> Self {
        Self { source: Source::Borrowed(bytes), kind, compress: None }
    }

    fn owned(kind: MessageKind, bytes: impl Into<Bytes>) -> Self {
        Self { source: Source::Owned(bytes.into()), kind, compress: None }
    }

    pub(crate) fn parts(&self) -> (MessageKind, &[u8]) {
        let bytes = match &self.source {
            Source::Borrowed(bytes) => bytes,
            Source::Owned(bytes) => &bytes[..],
            Source::Prepared(prepared) => prepared.payload(),
        };
        (self.kind, bytes)
    }

    pub(crate) fn prepared(&self) -> Option<&'a Prepared> {
        match &self.source {
            Source::Prepared(prepared) => Some(prepared),
            Source::Borrowed(_) | Source::Owned(_) => None,
        }
    }
}

macro_rules! payload_from {
    ($($type:ty, $name:ident => $payload:expr;)*) => {
        $(impl<'a> From<$type> for Payload<'a> {
            fn from($name: $type) -> Self {
                $payload
            }
        })*
    };
}

payload_from! {
    &'a str, text => Self::borrowed(MessageKind::Text, text.as_bytes());
    &'a String, text => Self::borrowed(MessageKind::Text, text.as_bytes());
    String, text => Self::owned(MessageKind::Text, text);
    Utf8Bytes, text => Self::owned(MessageKind::Text, text);
    &'a [u8], bytes => Self::borrowed(MessageKind::Binary, bytes);
    &'a Vec<u8>, bytes => Self::borrowed(MessageKind::Binary, bytes);
    Vec<u8>, bytes => Self::owned(MessageKind::Binary, bytes);
    Bytes, bytes => Self::owned(MessageKind::Binary, bytes);
    Message, message => Self::owned(message.kind(), message.into_bytes());
    &'a Prepared, prepared => {
        Self { source: Source::Prepared(prepared), kind: prepared.kind, compress: prepared.compress }
    };
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::borrowed(MessageKind::Binary, bytes)
    }
}
