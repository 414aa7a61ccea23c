//! The parts of `bowline-http3` that have no I/O: frames, settings, the peer's streams, and QPACK. The first
//! byte chooses the part and the pieces, and the others come from the network.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peer_streams::{PeerState, PeerStream, Verdict};
use qpack::{Secrecy, SectionEncoder, SectionError, decode_section};
use stream::Side;
use wire::{FramePart, FrameReader};

#[allow(dead_code, reason = "the rest of the crate uses it")]
#[path = "../../http3/src/peer_streams.rs"]
mod peer_streams;
#[path = "../../http3/src/qpack.rs"]
mod qpack;
#[allow(dead_code, reason = "the rest of the crate uses it")]
#[path = "../../http3/src/wire.rs"]
mod wire;

/// The part of the crate's file of this name that `peer_streams` needs.
mod stream {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Side {
        Client,
        Server,
    }
}

/// The largest size of a decoded section.
const MAX_SECTION: usize = 1024;

fuzz_target!(|data: &[u8]| {
    let Some((&first, bytes)) = data.split_first() else { return };
    let size = usize::from(first >> 2) + 1;
    match first % 4 {
        0 => read_frames(bytes, size),
        1 => receive(Side::Client, bytes, size),
        2 => receive(Side::Server, bytes, size),
        _ => decode(bytes),
    }
});

/// All bytes are consumed, and the parts are the same whatever the pieces.
fn read_frames(bytes: &[u8], size: usize) {
    let read = |size| {
        let (mut reader, mut begun, mut payload) = (FrameReader::new(), Vec::new(), Vec::new());
        for mut piece in bytes.chunks(size) {
            while let Some(part) = reader.read(&mut piece, usize::MAX) {
                match part {
                    FramePart::Begin(header) => begun.push(header),
                    FramePart::Payload { bytes, .. } => payload.extend_from_slice(bytes),
                }
            }
            assert!(piece.is_empty());
        }
        (begun, payload, reader.is_between_frames())
    };
    assert_eq!(read(size), read(bytes.len().max(1)));
}

/// The verdict is the same whatever the pieces.
fn receive(side: Side, bytes: &[u8], size: usize) {
    let receive = |size| {
        let (mut state, mut stream) = (PeerState::new(side), PeerStream::new());
        let mut pieces = bytes.chunks(size).map(|piece| state.receive(&mut stream, piece));
        let verdict = pieces.find(|verdict| *verdict != Ok(Verdict::Read));
        drop(pieces);
        (verdict, state.settings, state.goaway)
    };
    assert_eq!(receive(size), receive(bytes.len().max(1)));
}

/// A section that can be decoded is within the limit, and survives.
fn decode(section: &[u8]) {
    let decode = |section: &[u8]| {
        let mut lines = Vec::new();
        decode_section(section, MAX_SECTION, |name, value| {
            lines.push((name.to_vec(), value.to_vec()));
            Ok::<_, SectionError>(())
        })?;
        Ok::<_, SectionError>(lines)
    };
    let Ok(lines) = decode(section) else { return };
    let size: usize = lines.iter().map(|(name, value)| 32 + name.len() + value.len()).sum();
    assert!(size <= MAX_SECTION);
    let mut encoder = SectionEncoder::new();
    for (name, value) in &lines {
        let Ok(name) = std::str::from_utf8(name) else { return };
        encoder.push(name, value, Secrecy::Ordinary);
    }
    assert_eq!(decode(&encoder.finish()), Ok(lines));
}
