//! Messages that are encoded once for many connections.

use std::sync::{Arc, Mutex, PoisonError};

use bowline_proto::{MessageKind, Misuse, Role, SendHalf};
use bytes::Bytes;

use crate::message::Payload;
use crate::message::compression::CompressorSettings;
use crate::message::compression::codec::Deflater;

/// A message that is encoded once and sent to many connections.
///
/// The message is also compressed only once for each combination of level and window among the connections.
///
/// - **Servers** share a frame of at least 1 KiB between all connections. Smaller frames are copied into each
///   write buffer, which is cheaper than sharing.
/// - **Clients** have to mask each frame with a new key (RFC 6455 5.3), so only the compression is shared.
/// - **With context takeover**, the message refers to no earlier message. Messages after it refer neither to
///   it nor to anything sent before it.
///
/// Cloning is cheap: clones share the encoded and the compressed forms.
///
/// # Examples
///
/// A broadcast has to decide about subscribers that don't keep up. This one closes their connections. To skip
/// the message for them instead, ignore [`TrySendError::Full`](crate::TrySendError::Full); to wait for the
/// slowest subscriber, use `send(&news).await`. The example `broadcast` in the repository shows all three.
/// [`Limits::unsent`](crate::Limits::unsent) says when a subscriber counts as slow, and how old its messages
/// can be.
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
    /// Overrides the choice by size of whether the message is compressed.
    pub(crate) compress: Option<bool>,
    compressed: Arc<CompressedForms>,
}

/// A whole message in one unmasked frame, as a server sends it.
#[derive(Clone, Debug)]
pub(crate) struct PreparedFrame {
    pub(crate) bytes: Bytes,
    payload_start: usize,
}

/// The compressed forms of a message: one for each combination of settings that has come up.
#[derive(Debug, Default)]
struct CompressedForms(Mutex<Vec<CompressedForm>>);

#[derive(Debug)]
struct CompressedForm {
    level: u8,
    window_bits: u8,
    /// `None` if compression does not make the message smaller.
    frame: Option<PreparedFrame>,
}

impl Prepared {
    /// Encodes a message: everything that [`WebSocket::send`](crate::WebSocket::send) accepts.
    ///
    /// Compression happens later, when the message is first sent on a connection that has negotiated it. The
    /// choice of `Payload::compress` is kept.
    ///
    /// # Examples
    ///
    /// ```
    /// use bowline::Prepared;
    ///
    /// let (text, data) = (Prepared::new("news"), Prepared::new(b"\x01\x02"));
    /// ```
    pub fn new<'a>(message: impl Into<Payload<'a>>) -> Self {
        let payload = message.into();
        let (kind, bytes) = payload.parts();
        let (frame, compressed) = match payload.prepared() {
            Some(prepared) => (prepared.frame.clone(), Arc::clone(&prepared.compressed)),
            None => (
                PreparedFrame::new(bytes, |half, payload, frame| half.message(kind, payload, [0; 4], frame)),
                Arc::default(),
            ),
        };
        Self { kind, frame, compress: payload.compress, compressed }
    }

    /// Returns the frame of the message, compressed without reference to other messages.
    ///
    /// Returns `None` if compression does not make the message smaller.
    pub(crate) fn compressed(&self, compressing: CompressorSettings) -> Option<PreparedFrame> {
        let CompressorSettings { level, window_bits, .. } = compressing;
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
            .expect("a half-connection that is new accepts a message");
        bytes.shrink_to_fit();
        let payload_start = bytes.len() - payload.len();
        Self { bytes: bytes.into(), payload_start }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(self.payload_start..).unwrap_or_default()
    }
}
