//! The compression of messages that are sent.

use std::cell::Cell;

use crate::connection::outbound::fragment::FragmentEnd;
#[cfg(feature = "deflate")]
use crate::message::Payload;
use crate::message::compression::CompressorSettings;
use crate::message::compression::codec::Deflater;

/// The largest capacity of the buffer that a thread keeps for compressed messages on their way into a write
/// buffer.
const SCRATCH_CAPACITY: usize = 256 * 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The compressor of a connection. It consists of its settings alone until a message has to be compressed.
pub(crate) struct Compressor {
    pub(crate) compressing: CompressorSettings,
    deflater: Option<Box<Deflater>>,
}

impl Compressor {
    pub(crate) fn new(compressing: CompressorSettings) -> Self {
        Self { compressing, deflater: None }
    }

    /// Returns whether a message of `len` bytes is compressed. `choice` is that of its sender, if there is
    /// one.
    pub(crate) fn wants(&self, choice: Option<bool>, len: usize) -> bool {
        choice.unwrap_or(len >= self.compressing.threshold)
    }

    /// Passes the compressed message to `send`, or `None` if it would be larger than the original.
    pub(crate) fn message<T>(&mut self, payload: &[u8], send: impl FnOnce(Option<&[u8]>) -> T) -> T {
        let grows = |compressed: &[u8]| {
            // With context takeover, everything that went into the window has to be sent.
            !self.compressing.is_taken_over && compressed.len() >= payload.len()
        };
        with_scratch(|scratch| {
            Self::deflater(self.compressing, &mut self.deflater).message(payload, scratch);
            send((!grows(scratch)).then_some(&*scratch))
        })
    }

    /// Passes a compressed part of a message to `send`. Returns `None` if there is nothing to be sent yet.
    pub(crate) fn fragment<T>(
        &mut self,
        payload: &[u8],
        end: FragmentEnd,
        send: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        with_scratch(|scratch| {
            let deflater = Self::deflater(self.compressing, &mut self.deflater);
            match end {
                FragmentEnd::More => deflater.fragment(payload, false, scratch),
                FragmentEnd::Flush => deflater.fragment(payload, true, scratch),
                FragmentEnd::Last => deflater.last_fragment(payload, scratch),
            }
            (!scratch.is_empty()).then(|| send(scratch))
        })
    }

    /// Resets the window, because it no longer matches the data that the peer has received.
    pub(crate) fn forget(&mut self) {
        if let Some(deflater) = &mut self.deflater {
            deflater.forget();
        }
    }

    /// Returns the deflater, which is allocated for the first message.
    fn deflater(compressing: CompressorSettings, deflater: &mut Option<Box<Deflater>>) -> &mut Deflater {
        let CompressorSettings { level, window_bits, is_taken_over, .. } = compressing;
        deflater.get_or_insert_with(|| Box::new(Deflater::new(level, window_bits, is_taken_over)))
    }
}

/// Lends an empty buffer of this thread to `work`.
fn with_scratch<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let mut scratch = SCRATCH.try_with(Cell::take).unwrap_or_default();
    let result = work(&mut scratch);
    scratch.clear();
    if scratch.capacity() <= SCRATCH_CAPACITY {
        // This fails only while the thread ends.
        let _ = SCRATCH.try_with(|spare| spare.set(scratch));
    }
    result
}

// Here, because browsers compress as they like.
#[cfg(feature = "deflate")]
impl Payload<'_> {
    /// Sets whether the message is compressed, regardless of its size. Default: messages that reach
    /// [`CompressionOptions::threshold`](crate::CompressionOptions::threshold) are.
    ///
    /// The setting has no effect on connections that did not negotiate compression. A message that
    /// compression would not make smaller is sent uncompressed, unless later messages may refer to its
    /// content (context takeover).
    ///
    /// # Examples
    ///
    /// ```
    /// # async fn example(socket: &bowline::WebSocket) -> Result<(), bowline::Error> {
    /// use bowline::Payload;
    ///
    /// socket.send(Payload::from("a secret").compress(false)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn compress(mut self, compress: bool) -> Self {
        self.compress = Some(compress);
        self
    }
}
