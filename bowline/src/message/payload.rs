//! What `send` takes for a message.

use bowline_proto::MessageKind;
use bytes::Bytes;

use crate::message::{Message, Prepared, Utf8Bytes};

/// What `send` takes: made by `into()` from text (`&str`, `&String`, `String`, [`Utf8Bytes`]), from bytes (`&[u8]`,
/// `&[u8; N]`, `&Vec<u8>`, `Vec<u8>`, [`Bytes`]), from a [`Message`] or a `&`[`Prepared`].
///
/// Borrowed data is copied once, straight into the write buffer. So is what is owned and small; from 16 KiB on it is sent from
/// where it is, or from 64 KiB on while replies gather. A client masks it there, if nobody else has it; else it is copied.
#[derive(Debug)]
pub struct Payload<'a> {
    /// The tag of this fills a word, so that the payload moves by whole words: with the kind inside, it moved by pieces across
    /// them, which the processor waits for.
    pub(crate) source: Source<'a>,
    pub(crate) kind: MessageKind,
    /// Whether it is compressed, whatever its size.
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

    /// Has the message compressed, or not, whatever its size, if compression was agreed on.
    ///
    /// One that would not get smaller is sent as it is, unless later ones may refer to it.
    ///
    /// ```
    /// # async fn example(socket: &bowline::WebSocket) -> Result<(), bowline::Error> {
    /// use bowline::Payload;
    ///
    /// socket.send(Payload::from("a secret").compress(false)).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "deflate")]
    pub fn compress(mut self, compress: bool) -> Self {
        self.compress = Some(compress);
        self
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
        Self { source: Source::Prepared(prepared), kind: prepared.kind, compress: None }
    };
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::borrowed(MessageKind::Binary, bytes)
    }
}
