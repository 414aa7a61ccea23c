//! Receiving: no panic, bytes that were not consumed stay unchanged, and the result doesn't depend on how the
//! bytes are split.
#![no_main]

use bowline_fuzz::{NO_LIMITS, Receiver, assert_same, pieces, take_byte};
use bowline_proto::{FrameHeader, ReceiveLimits, Role};
use libfuzzer_sys::fuzz_target;

// role and limits, two splits, then the bytes that arrive
fuzz_target!(|data: &[u8]| {
    let mut bytes = data;
    let options = take_byte(&mut bytes);
    let splits = [take_byte(&mut bytes), take_byte(&mut bytes)];
    let role = if options & 1 == 0 { Role::Client } else { Role::Server };
    let limits = match options & 2 {
        0 => NO_LIMITS,
        _ => ReceiveLimits { message_size: 40, frames_per_message: 3 },
    };
    let receive = |pieces: &[&[u8]]| {
        let mut receiver = Receiver::new(role, limits);
        if options & 4 != 0 {
            receiver.half.discard_data();
        }
        let result = pieces.iter().try_for_each(|piece| receiver.arrive(piece));
        (receiver, result)
    };

    let (whole, result) = receive(&[bytes]);
    for splits in [&[0][..], &splits] {
        let (split, split_result) = receive(&pieces(bytes, splits));
        assert_eq!(result, split_result);
        assert_same(&whole, &split, result.is_err());
        if result.is_ok() {
            assert_eq!(whole.pending, split.pending);
            assert_eq!(whole.half.remaining(), split.half.remaining());
            assert_eq!(whole.half.is_closed(), split.half.is_closed());
        }
    }
    check_header(bytes);
});

/// Asserts that a decoded header is encoded to the original bytes, and that every shorter input is
/// incomplete.
fn check_header(bytes: &[u8]) {
    let Ok(Some((header, size))) = FrameHeader::decode(bytes) else { return };
    let mut encoded = Vec::new();
    header.encode(&mut encoded);
    assert_eq!(encoded, bytes[..size]);
    for shorter in 0..size {
        assert_eq!(FrameHeader::decode(&bytes[..shorter]), Ok(None));
    }
}
