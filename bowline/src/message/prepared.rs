//! Messages that are encoded once for many connections.

use std::sync::{Arc, Mutex, PoisonError};

use bowline_proto::{MessageKind, Misuse, Role, SendHalf};
use bytes::Bytes;

use crate::compression::CompressorSettings;
use crate::compression::codec::Deflater;
use crate::message::Message;

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
            .expect("a new connection takes a message");
        bytes.shrink_to_fit();
        let payload_start = bytes.len() - payload.len();
        Self { bytes: bytes.into(), payload_start }
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_start..]
    }
}
