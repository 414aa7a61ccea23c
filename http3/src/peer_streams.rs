//! The unidirectional streams of the peer, without I/O (RFC 9114 6.2, 7.2; RFC 9204 4.2).
//!
//! ```text
//! Untyped --type--> Control    SETTINGS first, then GOAWAY, MAX_PUSH_ID, CANCEL_PUSH, unknown frames
//!            |----> Encoder    nothing but Set Dynamic Table Capacity 0, as our capacity is 0
//!            |----> Decoder    nothing but Stream Cancellation, as we insert nothing
//!            |----> Push       a violation
//!            '----> unknown    not read
//! ```
//!
//! Control, encoder and decoder occur once and last as long as the connection. No payload is gathered but
//! that of a SETTINGS frame of at most [`MAX_SETTINGS`] bytes, and of the frames with one integer.

use crate::stream::Side;
use crate::wire::{
    ErrorCode, FrameHeader, FramePart, FrameReader, FrameType, MAX_SETTINGS, PartialVarint, Settings,
    StreamType, Violation,
};

/// The size of the largest payload that is one integer.
const MAX_ID: u64 = 8;

/// The bits that tell a Stream Cancellation (RFC 9204 4.4.2), and those of its first part.
const CANCELLATION: u8 = 0b0100_0000;
const CANCELLATION_MASK: u8 = 0b1100_0000;
const CANCELLATION_ID: u8 = 0b0011_1111;

/// Set Dynamic Table Capacity (RFC 9204 4.3.1) to 0.
const CAPACITY_0: u8 = 0b0010_0000;

/// The state of the peer, as far as its streams have told.
pub(crate) struct PeerState {
    side: Side,
    /// The types of the streams that may occur once.
    seen: Vec<StreamType>,
    pub(crate) settings: Option<Settings>,
    /// The identifier of the last GOAWAY.
    pub(crate) goaway: Option<u64>,
    max_push_id: u64,
}

/// A unidirectional stream of the peer.
pub(crate) enum PeerStream {
    Untyped(PartialVarint),
    Control { frames: FrameReader, payload: Vec<u8> },
    Encoder,
    Decoder(Instruction),
}

/// The progress in an instruction of a decoder stream.
#[derive(Clone, Copy)]
pub(crate) enum Instruction {
    Begin,
    /// So many bytes of the integer have arrived after the first one.
    Within(u8),
}

/// The decision about a stream after its bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Read,
    /// RFC 9114 6.2: the type is unknown, so the stream is not read.
    Ignore,
}

impl PeerStream {
    pub(crate) fn new() -> Self {
        Self::Untyped(PartialVarint::default())
    }
}

impl PeerState {
    /// `side` is this side.
    pub(crate) fn new(side: Side) -> Self {
        Self { side, seen: Vec::new(), settings: None, goaway: None, max_push_id: 0 }
    }

    /// Processes bytes of a stream.
    pub(crate) fn receive(
        &mut self,
        stream: &mut PeerStream,
        mut bytes: &[u8],
    ) -> Result<Verdict, Violation> {
        if let PeerStream::Untyped(partial) = stream {
            let Some(number) = partial.read(&mut bytes) else { return Ok(Verdict::Read) };
            let kind = StreamType::of(number);
            *stream = match kind {
                StreamType::Control => {
                    PeerStream::Control { frames: FrameReader::new(), payload: Vec::new() }
                }
                StreamType::QpackEncoder => PeerStream::Encoder,
                StreamType::QpackDecoder => PeerStream::Decoder(Instruction::Begin),
                StreamType::Unknown => return Ok(Verdict::Ignore),
                StreamType::Push => return Err(self.pushed()),
            };
            // RFC 9114 6.2.1, RFC 9204 4.2: a second stream of these types is an error.
            if self.seen.contains(&kind) {
                let why = "a second stream has a type that occurs once";
                return Err(Violation::new(ErrorCode::STREAM_CREATION_ERROR, why));
            }
            self.seen.push(kind);
        }
        match stream {
            PeerStream::Control { frames, payload } => self.receive_control(frames, payload, bytes)?,
            PeerStream::Encoder => receive_encoder(bytes)?,
            PeerStream::Decoder(instruction) => receive_decoder(instruction, bytes)?,
            PeerStream::Untyped(_) => {}
        }
        Ok(Verdict::Read)
    }

    /// Processes the end of a stream.
    pub(crate) fn end(stream: &PeerStream) -> Result<(), Violation> {
        match stream {
            // RFC 9114 6.2: a stream may end before its type.
            PeerStream::Untyped(_) => Ok(()),
            // RFC 9114 6.2.1, RFC 9204 4.2: the others last as long as the connection.
            _ => Err(Violation::new(ErrorCode::CLOSED_CRITICAL_STREAM, "a critical stream was closed")),
        }
    }

    fn pushed(&self) -> Violation {
        match self.side {
            // RFC 9114 6.2.2: only servers push.
            Side::Server => Violation::new(ErrorCode::STREAM_CREATION_ERROR, "a client opened a push stream"),
            // RFC 9114 4.6: this client has allowed no push.
            Side::Client => Violation::new(ErrorCode::ID_ERROR, "the server pushes, but no push was allowed"),
        }
    }

    fn receive_control(
        &mut self,
        frames: &mut FrameReader,
        payload: &mut Vec<u8>,
        mut bytes: &[u8],
    ) -> Result<(), Violation> {
        while let Some(part) = frames.read(&mut bytes, usize::MAX) {
            match part {
                FramePart::Begin(header) => {
                    self.check_control_frame(header)?;
                    payload.clear();
                    if header.len == 0 && header.kind != FrameType::Unknown {
                        self.control_frame(header.kind, &[])?;
                    }
                }
                FramePart::Payload { kind: FrameType::Unknown, .. } => {}
                FramePart::Payload { kind, bytes, is_last } => {
                    payload.extend_from_slice(bytes);
                    if is_last {
                        self.control_frame(kind, payload)?;
                        *payload = Vec::new();
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks a frame of the control stream before its payload.
    fn check_control_frame(&self, header: FrameHeader) -> Result<(), Violation> {
        let unexpected = |why| Err(Violation::new(ErrorCode::FRAME_UNEXPECTED, why));
        match (header.kind, self.settings) {
            (FrameType::Settings, None) if header.len > MAX_SETTINGS => {
                Err(Violation::new(ErrorCode::EXCESSIVE_LOAD, "the SETTINGS frame is too large"))
            }
            (FrameType::Settings, None) => Ok(()),
            // RFC 9114 6.2.1: SETTINGS is the first frame.
            (_, None) => Err(Violation::new(ErrorCode::MISSING_SETTINGS, "the first frame is not SETTINGS")),
            // RFC 9114 7.2.4: SETTINGS occurs once.
            (FrameType::Settings, Some(_)) => unexpected("a second SETTINGS frame was received"),
            // RFC 9114 7.2.7: only clients send MAX_PUSH_ID.
            (FrameType::MaxPushId, _) if self.side == Side::Client => unexpected("a server sent MAX_PUSH_ID"),
            (FrameType::Goaway | FrameType::MaxPushId | FrameType::CancelPush, _) if header.len > MAX_ID => {
                Err(Violation::new(ErrorCode::FRAME_ERROR, "a frame with one integer is longer"))
            }
            (FrameType::Goaway | FrameType::MaxPushId | FrameType::CancelPush | FrameType::Unknown, _) => {
                Ok(())
            }
            // RFC 9114 7.2.1, 7.2.2, 7.2.5, 7.2.8: these are not frames of a control stream.
            (FrameType::Data | FrameType::Headers | FrameType::PushPromise | FrameType::Reserved, _) => {
                unexpected("a frame is not one of the control stream")
            }
        }
    }

    fn control_frame(&mut self, kind: FrameType, payload: &[u8]) -> Result<(), Violation> {
        if kind == FrameType::Settings {
            self.settings = Some(Settings::parse(payload)?);
            return Ok(());
        }
        let mut rest = payload;
        let id = PartialVarint::default().read(&mut rest).filter(|_| rest.is_empty());
        // RFC 9114 7.1: the payload is the integer, no less and no more.
        let id = id.ok_or(Violation::new(ErrorCode::FRAME_ERROR, "a frame does not contain one integer"))?;
        match kind {
            FrameType::Goaway => self.receive_goaway(id),
            // RFC 9114 7.2.7: the largest push ID never falls.
            FrameType::MaxPushId if id < self.max_push_id => {
                Err(Violation::new(ErrorCode::ID_ERROR, "MAX_PUSH_ID has become smaller"))
            }
            FrameType::MaxPushId => {
                self.max_push_id = id;
                Ok(())
            }
            // RFC 9114 7.2.3: nothing was promised.
            _ => Err(Violation::new(ErrorCode::ID_ERROR, "CANCEL_PUSH names a push that was not promised")),
        }
    }

    fn receive_goaway(&mut self, id: u64) -> Result<(), Violation> {
        // RFC 9114 7.2.6: a server names a request, that is, a bidirectional stream of the client.
        if self.side == Side::Client && id % 4 != 0 {
            return Err(Violation::new(ErrorCode::ID_ERROR, "GOAWAY names a stream that is no request"));
        }
        // RFC 9114 5.2: the identifier never grows.
        if self.goaway.is_some_and(|last| id > last) {
            return Err(Violation::new(ErrorCode::ID_ERROR, "the identifier of GOAWAY has grown"));
        }
        self.goaway = Some(id);
        Ok(())
    }
}

fn receive_encoder(bytes: &[u8]) -> Result<(), Violation> {
    // RFC 9204 3.2.3, 4.3.1: without capacity, nothing can be inserted, and no other capacity be set.
    if bytes.iter().all(|byte| *byte == CAPACITY_0) {
        return Ok(());
    }
    let why = "the encoder stream uses a dynamic table, whose capacity is 0";
    Err(Violation::new(ErrorCode::ENCODER_STREAM_ERROR, why))
}

fn receive_decoder(instruction: &mut Instruction, bytes: &[u8]) -> Result<(), Violation> {
    let invalid = |why| Err(Violation::new(ErrorCode::DECODER_STREAM_ERROR, why));
    for byte in bytes {
        *instruction = match *instruction {
            Instruction::Begin if byte & CANCELLATION_MASK == CANCELLATION => match byte & CANCELLATION_ID {
                CANCELLATION_ID => Instruction::Within(0),
                _ => Instruction::Begin,
            },
            // RFC 9204 4.4.1, 4.4.3: nothing was inserted, so there is nothing to acknowledge.
            Instruction::Begin => {
                return invalid("the decoder stream acknowledges entries that do not exist");
            }
            Instruction::Within(_) if byte & 0x80 == 0 => Instruction::Begin,
            // RFC 9204 4.1.1: an integer has at most 62 bits.
            Instruction::Within(8) => return invalid("an integer on the decoder stream is too large"),
            Instruction::Within(count) => Instruction::Within(count + 1),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{PeerState, PeerStream, Verdict};
    use crate::stream::Side;
    use crate::wire::{ErrorCode, Settings, goaway};

    /// Returns the state after these bytes of one stream, or the code of the violation, whatever the pieces.
    fn after(side: Side, bytes: &[u8]) -> Result<PeerState, ErrorCode> {
        let receive = |size| {
            let (mut state, mut stream) = (PeerState::new(side), PeerStream::new());
            for piece in bytes.chunks(size) {
                state.receive(&mut stream, piece).map_err(|violation| violation.code)?;
            }
            Ok(state)
        };
        let whole = receive(bytes.len().max(1)).map(|state| (state.settings, state.goaway));
        for size in 1..bytes.len() {
            assert_eq!(
                receive(size).map(|state| (state.settings, state.goaway)),
                whole,
                "in pieces of {size}"
            );
        }
        receive(bytes.len().max(1))
    }

    fn control(frames: &[u8]) -> Vec<u8> {
        let mut bytes = Settings::default().open_control_stream();
        bytes.extend_from_slice(frames);
        bytes
    }

    #[test]
    fn rfc_9114_6_2_1_settings_come_first_and_once() {
        assert!(after(Side::Client, &control(&[])).unwrap().settings.is_some());
        let twice = control(&[0x04, 0x00]);
        assert_eq!(after(Side::Client, &twice).err(), Some(ErrorCode::FRAME_UNEXPECTED));
        assert_eq!(after(Side::Client, &[0x00, 0x07, 0x01, 0x00]).err(), Some(ErrorCode::MISSING_SETTINGS));
        assert_eq!(after(Side::Client, &[0x00, 0x21, 0x00]).err(), Some(ErrorCode::MISSING_SETTINGS));
        // An empty one is valid.
        assert!(after(Side::Client, &[0x00, 0x04, 0x00]).unwrap().settings.is_some());
        // RFC 9114 10.5: a frame that would take memory without end.
        let huge = [0x00, 0x04, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(after(Side::Client, &huge).err(), Some(ErrorCode::EXCESSIVE_LOAD));
    }

    #[test]
    fn rfc_9114_7_2_frames_of_other_streams_are_refused() {
        for kind in [0x00, 0x01, 0x02, 0x05, 0x06, 0x08, 0x09] {
            let found = after(Side::Server, &control(&[kind, 0x00])).err();
            assert_eq!(found, Some(ErrorCode::FRAME_UNEXPECTED), "{kind:#x}");
        }
        // RFC 9114 9: unknown frames are skipped, whatever their size.
        assert!(after(Side::Server, &control(&[0x21, 0x03, 1, 2, 3, 0x40, 0x42, 0x00])).is_ok());
    }

    #[test]
    fn rfc_9114_5_2_the_identifier_of_goaway_never_grows() {
        let frames = [goaway(8), goaway(8), goaway(4)].concat();
        assert_eq!(after(Side::Client, &control(&frames)).unwrap().goaway, Some(4));
        let grown = [goaway(4), goaway(8)].concat();
        assert_eq!(after(Side::Client, &control(&grown)).err(), Some(ErrorCode::ID_ERROR));
        // RFC 9114 7.2.6: a server names a request.
        assert_eq!(after(Side::Client, &control(&goaway(3))).err(), Some(ErrorCode::ID_ERROR));
        assert!(after(Side::Server, &control(&goaway(3))).is_ok());
        for malformed in [&[0x07, 0x00][..], &[0x07, 0x02, 0x00, 0x00], &[0x07, 0x09]] {
            assert_eq!(after(Side::Client, &control(malformed)).err(), Some(ErrorCode::FRAME_ERROR));
        }
    }

    #[test]
    fn rfc_9114_7_2_7_pushes_are_no_way_around() {
        assert_eq!(after(Side::Client, &control(&[0x0d, 0x01, 1])).err(), Some(ErrorCode::FRAME_UNEXPECTED));
        assert!(after(Side::Server, &control(&[0x0d, 0x01, 1, 0x0d, 0x01, 1])).is_ok());
        let fallen = control(&[0x0d, 0x01, 2, 0x0d, 0x01, 1]);
        assert_eq!(after(Side::Server, &fallen).err(), Some(ErrorCode::ID_ERROR));
        for side in [Side::Client, Side::Server] {
            assert_eq!(after(side, &control(&[0x03, 0x01, 0])).err(), Some(ErrorCode::ID_ERROR));
        }
        assert_eq!(after(Side::Server, &[0x01]).err(), Some(ErrorCode::STREAM_CREATION_ERROR));
        assert_eq!(after(Side::Client, &[0x01]).err(), Some(ErrorCode::ID_ERROR));
    }

    #[test]
    fn rfc_9204_4_3_the_encoder_stream_can_insert_nothing() {
        assert!(after(Side::Server, &[0x02, 0x20, 0x20]).is_ok());
        // Another capacity, and the three ways to insert.
        for byte in [0x21, 0x3f, 0xc0, 0x80, 0x41, 0x00] {
            assert_eq!(after(Side::Server, &[0x02, byte]).err(), Some(ErrorCode::ENCODER_STREAM_ERROR));
        }
    }

    #[test]
    fn rfc_9204_4_4_the_decoder_stream_can_acknowledge_nothing() {
        assert!(after(Side::Server, &[0x03, 0x40, 0x7f, 0x80, 0x01, 0x44]).is_ok());
        for byte in [0x80, 0xff, 0x00, 0x01, 0x3f] {
            assert_eq!(after(Side::Server, &[0x03, byte]).err(), Some(ErrorCode::DECODER_STREAM_ERROR));
        }
        let endless = [&[0x03, 0x7f][..], &[0x80; 10]].concat();
        assert_eq!(after(Side::Server, &endless).err(), Some(ErrorCode::DECODER_STREAM_ERROR));
    }

    #[test]
    fn critical_streams_occur_once_and_never_end() {
        for kind in [0x00, 0x02, 0x03] {
            let mut state = PeerState::new(Side::Server);
            let (mut first, mut second) = (PeerStream::new(), PeerStream::new());
            assert_eq!(state.receive(&mut first, &[kind]), Ok(Verdict::Read));
            let found = state.receive(&mut second, &[kind]).unwrap_err().code;
            assert_eq!(found, ErrorCode::STREAM_CREATION_ERROR);
            assert_eq!(PeerState::end(&first).unwrap_err().code, ErrorCode::CLOSED_CRITICAL_STREAM);
        }
        let mut unknown = PeerStream::new();
        assert_eq!(PeerState::new(Side::Server).receive(&mut unknown, &[0x21, 1]), Ok(Verdict::Ignore));
        assert_eq!(PeerState::end(&PeerStream::new()), Ok(()));
    }
}
