//! Connections with and without compression, for tests in which compression must make no difference.

use bowline::{Acceptor, Adoption, Connector, Payload, Role, WebSocket};
#[cfg(feature = "deflate")]
use bowline::{Compression, CompressionOptions, DeflateParameters};
#[cfg(feature = "deflate")]
use bowline_proto::{Deflater, Inflater, MessageKind, Opcode};

use super::frames::Frame;
use super::pairs::Stream;

/// The mode of compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Plain,
    #[cfg(feature = "deflate")]
    NoContextTakeover,
    #[cfg(feature = "deflate")]
    ContextTakeover,
}

pub const MODES: &[Mode] = &[
    Mode::Plain,
    #[cfg(feature = "deflate")]
    Mode::NoContextTakeover,
    #[cfg(feature = "deflate")]
    Mode::ContextTakeover,
];

impl Mode {
    /// Creates a connection on a stream. If it compresses, it compresses messages of all sizes.
    pub fn adopt(
        self,
        role: Role,
        connector: &Connector,
        acceptor: &Acceptor,
        stream: impl Stream,
    ) -> WebSocket {
        let (mut connector, mut acceptor, mut adoption) =
            (connector.clone(), acceptor.clone(), Adoption::new());
        #[cfg(feature = "deflate")]
        if let Some((options, parameters)) = self.compression() {
            connector = connector.compression(options);
            acceptor = acceptor.compression(options);
            adoption = adoption.compression(parameters);
        }
        match role {
            Role::Client => connector.adopt(stream, adoption).unwrap(),
            Role::Server => acceptor.adopt(stream, adoption).unwrap(),
        }
    }

    #[cfg(feature = "deflate")]
    fn compression(self) -> Option<(CompressionOptions, DeflateParameters)> {
        let compression = match self {
            Self::Plain => return None,
            Self::NoContextTakeover => Compression::NoContextTakeover,
            Self::ContextTakeover => Compression::ContextTakeover,
        };
        let none = compression == Compression::NoContextTakeover;
        let parameters = DeflateParameters {
            server_no_context_takeover: none,
            client_no_context_takeover: none,
            ..DeflateParameters::default()
        };
        Some((compression.options().threshold(0), parameters))
    }
}

/// Returns a message that is to be compressed or not, where possible.
#[cfg(feature = "deflate")]
pub fn compress(payload: Payload<'_>, compress: bool) -> Payload<'_> {
    payload.compress(compress)
}

#[cfg(not(feature = "deflate"))]
pub fn compress(payload: Payload<'_>, _compress: bool) -> Payload<'_> {
    payload
}

/// The codec of a peer that a test plays.
pub struct Codec {
    #[cfg(feature = "deflate")]
    codec: Option<(Deflater, Inflater)>,
}

#[cfg(not(feature = "deflate"))]
#[expect(clippy::unused_self, reason = "they have the signatures of the real ones")]
impl Codec {
    pub fn new(_mode: Mode) -> Self {
        Self {}
    }

    pub fn encode(&mut self, frames: Vec<Frame>) -> Vec<Frame> {
        frames
    }

    pub fn decode(&mut self, frames: Vec<Frame>) -> Vec<Frame> {
        frames
    }
}

#[cfg(feature = "deflate")]
impl Codec {
    pub fn new(mode: Mode) -> Self {
        let codec = mode.compression().map(|(_, parameters)| {
            let takes_over = !parameters.client_no_context_takeover;
            (Deflater::new(6, 15, takes_over), Inflater::new(u64::MAX, 15, takes_over))
        });
        Self { codec }
    }

    /// Converts messages to this peer's frames, with an unchanged number of frames.
    pub fn encode(&mut self, mut frames: Vec<Frame>) -> Vec<Frame> {
        let Some((deflater, _)) = &mut self.codec else { return frames };
        for frame in frames.iter_mut().filter(|frame| is_data(frame)) {
            let mut payload = Vec::new();
            if frame.fin {
                deflater.last_fragment(&frame.payload, &mut payload);
            } else {
                deflater.fragment(&frame.payload, true, &mut payload);
            }
            frame.payload = payload;
            frame.compressed = frame.opcode != Opcode::Continuation;
        }
        frames
    }

    /// Converts received frames to uncompressed ones.
    pub fn decode(&mut self, mut frames: Vec<Frame>) -> Vec<Frame> {
        let Some((_, inflater)) = &mut self.codec else { return frames };
        let mut compressed = false;
        for frame in frames.iter_mut().filter(|frame| is_data(frame)) {
            match frame.opcode {
                Opcode::Continuation => assert!(!frame.compressed, "only the first frame says it"),
                _ => compressed = std::mem::take(&mut frame.compressed),
            }
            if !compressed {
                continue;
            }
            match frame.opcode {
                Opcode::Text => inflater.begin(MessageKind::Text),
                Opcode::Binary => inflater.begin(MessageKind::Binary),
                _ => {}
            }
            let payload = std::mem::take(&mut frame.payload);
            let mut input = &payload[..];
            loop {
                let step = inflater.inflate(input, frame.fin, &mut frame.payload).unwrap();
                input = &input[step.consumed..];
                if step.needs_input || step.done {
                    break;
                }
            }
        }
        frames
    }
}

#[cfg(feature = "deflate")]
fn is_data(frame: &Frame) -> bool {
    matches!(frame.opcode, Opcode::Text | Opcode::Binary | Opcode::Continuation)
}
