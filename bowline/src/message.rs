//! Messages, and what `send` takes for one.

use std::sync::{Arc, Mutex, PoisonError};

use bowline_proto::{MessageKind, Misuse, Role, SendHalf};
use bytes::Bytes;

use crate::codec::Deflater;
use crate::compression::Compressing;

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

/// A message encoded once, to be sent to many connections; and compressed once for each level and window that they have
/// agreed on.
///
/// A server sends it without another copy, from 1 KiB on; a smaller one is copied, which is cheaper than to share it. A
/// client has to mask each frame anew (RFC 6455 5.3), so that only the compression is saved there. With context takeover, it
/// refers to nothing before it, and the messages behind it to nothing before them.
///
/// # Examples
///
/// Who does not keep up is to be dealt with: here, such a connection is closed. To skip the message instead, do nothing
/// about `Full`; to wait for the slowest, `send(&news).await` does. The example `broadcast` shows all three.
///
/// ```
/// use bowline::{CloseCode, Prepared, Sender, TrySendError};
///
/// fn broadcast(news: &str, subscribers: &mut Vec<Sender>) {
///     let news = Prepared::new(news);
///     subscribers.retain(|subscriber| match subscriber.try_send(&news) {
///         Ok(()) => true,
///         Err(TrySendError::Full(_)) => {
///             let subscriber = subscriber.clone();
///             tokio::spawn(async move { subscriber.close(CloseCode::POLICY_VIOLATION, "too slow").await });
///             false
///         }
///         Err(TrySendError::Closed(_)) => false,
///     });
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(crate) kind: MessageKind,
    pub(crate) frame: PreparedFrame,
    compressed: Arc<CompressedForms>,
}

/// A whole message in one frame, as a server sends it.
#[derive(Clone, Debug)]
pub(crate) struct PreparedFrame {
    pub(crate) bytes: Bytes,
    payload_start: usize,
}

/// The message as it was compressed, for each way to compress it that has come up.
#[derive(Debug, Default)]
struct CompressedForms(Mutex<Vec<CompressedForm>>);

#[derive(Debug)]
struct CompressedForm {
    level: u8,
    window_bits: u8,
    /// `None` if it would not be smaller.
    frame: Option<PreparedFrame>,
}

impl Prepared {
    /// Encodes a message.
    pub fn new(message: impl Into<Message>) -> Self {
        let message = message.into();
        let kind = message.kind();
        let frame = PreparedFrame::new(message.as_bytes(), |half, payload, frame| {
            half.message(kind, payload, [0; 4], frame)
        });
        Self { kind, frame, compressed: Arc::default() }
    }

    /// The frame of the message compressed without reference to other messages; `None` if it would not be smaller.
    pub(crate) fn compressed(&self, compressing: Compressing) -> Option<PreparedFrame> {
        let Compressing { level, window_bits, .. } = compressing;
        let mut forms = self.compressed.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = forms.iter().find(|form| form.level == level && form.window_bits == window_bits);
        if let Some(known) = known {
            return known.frame.clone();
        }
        let mut payload = Vec::new();
        Deflater::new(level, window_bits, false).message(self.payload(), &mut payload);
        let frame = (payload.len() < self.payload().len()).then(|| {
            PreparedFrame::new(&payload, |half, payload, frame| {
                half.compressed_message(self.kind, payload, [0; 4], frame)
            })
        });
        forms.push(CompressedForm { level, window_bits, frame: frame.clone() });
        frame
    }

    pub(crate) fn payload(&self) -> &[u8] {
        self.frame.payload()
    }
}

impl PreparedFrame {
    fn new(
        payload: &[u8],
        encode: impl FnOnce(&mut SendHalf, &[u8], &mut Vec<u8>) -> Result<(), Misuse>,
    ) -> Self {
        let mut bytes = Vec::new();
        encode(&mut SendHalf::new(Role::Server), payload, &mut bytes)
            .expect("a new connection takes a message");
        bytes.shrink_to_fit();
        let payload_start = bytes.len() - payload.len();
        Self { bytes: bytes.into(), payload_start }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_start..]
    }
}
