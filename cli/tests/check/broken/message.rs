//! Messages of the server: fragments, text, compression.

use bowline::proto::{DeflateParameters, Inflater, MessageKind, Utf8Validator};

use super::fault::Fault;

/// The largest message.
const MESSAGE_MAX: usize = 1 << 20;

/// The largest number of frames in a message.
const FRAMES_MAX: usize = 10_000;

/// A message whose last frame has not arrived yet.
pub(super) struct OpenMessage {
    pub(super) kind: MessageKind,
    pub(super) compressed: bool,
    payload: Vec<u8>,
    frames: usize,
    utf8: Utf8Validator,
}

impl OpenMessage {
    pub(super) fn new(kind: MessageKind, compressed: bool) -> Self {
        Self { kind, compressed, payload: Vec::new(), frames: 0, utf8: Utf8Validator::new() }
    }

    /// Counts a frame. Returns the code with which to fail.
    pub(super) fn begin_frame(&mut self, announced: u64) -> Result<(), u16> {
        self.frames += 1;
        if self.frames > FRAMES_MAX || self.payload.len() as u64 + announced > MESSAGE_MAX as u64 {
            return Err(1009);
        }
        Ok(())
    }

    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// Adds bytes of a frame's payload.
    pub(super) fn push(&mut self, bytes: &[u8], fault: Fault) -> Result<(), u16> {
        self.payload.extend_from_slice(bytes);
        let is_checked = (self.kind == MessageKind::Text && !self.compressed) || fault == Fault::ChecksBinary;
        let is_late = matches!(fault, Fault::NoUtf8 | Fault::AcceptsSurrogates | Fault::ChecksTextLate);
        if is_checked && !is_late {
            self.utf8.feed(bytes).map_err(|_| 1007_u16)?;
        }
        Ok(())
    }

    /// Ends a frame that is not the last.
    pub(super) fn end_frame(&mut self, fault: Fault) -> Result<(), u16> {
        if fault == Fault::Utf8PerFrame && self.kind == MessageKind::Text && !self.utf8.is_complete() {
            return Err(1007);
        }
        Ok(())
    }

    /// Ends the message, and returns its payload.
    pub(super) fn end(self, deflate: Option<DeflateParameters>, fault: Fault) -> Result<Vec<u8>, u16> {
        let mut payload = self.payload;
        if self.compressed && deflate.is_some() {
            payload = match inflate(&payload, self.kind, fault) {
                Ok(payload) => payload,
                Err(_) if fault == Fault::IgnoresInvalidDeflate => Vec::new(),
                Err(code) => return Err(code),
            };
        }
        let is_text = self.kind == MessageKind::Text;
        let is_valid = match fault {
            Fault::NoUtf8 => true,
            Fault::NoUtf8AfterDeflate => self.compressed || std::str::from_utf8(&payload).is_ok(),
            Fault::AcceptsSurrogates if payload.contains(&0xed) => true,
            _ => std::str::from_utf8(&payload).is_ok(),
        };
        if is_text && !is_valid { Err(1007) } else { Ok(payload) }
    }
}

fn inflate(payload: &[u8], kind: MessageKind, fault: Fault) -> Result<Vec<u8>, u16> {
    let mut inflater = Inflater::new(MESSAGE_MAX as u64, 15, false);
    // Otherwise the decompressor would check the text itself.
    let kind = if fault == Fault::NoUtf8AfterDeflate { MessageKind::Binary } else { kind };
    inflater.begin(kind);
    let (mut rest, mut out) = (payload, Vec::new());
    loop {
        let progress = inflater
            .inflate(rest, true, &mut out)
            .map_err(|failure| bowline::proto::CloseCode::from(failure).0)?;
        rest = &rest[progress.consumed..];
        if progress.done {
            return Ok(out);
        }
        if progress.needs_input {
            return Err(1007);
        }
    }
}
