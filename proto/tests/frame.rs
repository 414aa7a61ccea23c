//! Frame headers (RFC 6455 5.2), encoded and decoded.

use bowline_proto::{FrameHeader, MessageKind, Opcode, Violation};
use proptest::prelude::*;

const OPCODES: [(u8, Opcode); 6] = [
    (0x0, Opcode::Continuation),
    (0x1, Opcode::Text),
    (0x2, Opcode::Binary),
    (0x8, Opcode::Close),
    (0x9, Opcode::Ping),
    (0xA, Opcode::Pong),
];

fn encoded(header: &FrameHeader) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes
}

fn data_header(payload_len: u64, masking_key: Option<[u8; 4]>) -> FrameHeader {
    FrameHeader { fin: true, reserved: 0, opcode: Opcode::Binary, masking_key, payload_len }
}

/// Generates headers that may be on the wire.
fn any_header() -> impl Strategy<Value = FrameHeader> {
    let payload_len = prop_oneof![0..=125_u64, 126..=0xFFFF_u64, 0x1_0000..=i64::MAX as u64];
    (any::<bool>(), 0..8_u8, 0..6_usize, any::<Option<[u8; 4]>>(), payload_len).prop_map(
        |(fin, reserved, opcode, masking_key, payload_len)| {
            let (_, opcode) = OPCODES[opcode];
            let control = opcode.is_control();
            FrameHeader {
                fin: fin || control,
                reserved,
                opcode,
                masking_key,
                payload_len: if control { payload_len % 126 } else { payload_len },
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(header in any_header(), behind in any::<Vec<u8>>()) {
        let mut bytes = encoded(&header);
        let size = bytes.len();
        prop_assert!(size <= FrameHeader::MAX_SIZE);
        bytes.extend(behind);
        prop_assert_eq!(FrameHeader::decode(&bytes), Ok(Some((header, size))));
    }

    #[test]
    fn what_is_decoded_is_encoded_the_same(bytes in any::<[u8; 20]>()) {
        if let Ok(decoded) = FrameHeader::decode(&bytes) {
            let (header, size) = decoded.expect("20 bytes hold every header");
            prop_assert_eq!(encoded(&header), &bytes[..size]);
        }
    }

    #[test]
    fn a_part_of_a_header_needs_more(header in any_header()) {
        let bytes = encoded(&header);
        for size in 0..bytes.len() {
            prop_assert_eq!(FrameHeader::decode(&bytes[..size]), Ok(None), "{} bytes", size);
        }
    }
}

#[test]
fn rfc6455_5_2_every_bit_has_its_place() {
    for (bits, opcode) in OPCODES {
        for reserved in 0..8 {
            let header = FrameHeader { fin: true, reserved, opcode, masking_key: None, payload_len: 3 };
            let bytes = [0x80 | reserved << 4 | bits, 3];
            assert_eq!(encoded(&header), bytes);
            assert_eq!(FrameHeader::decode(&bytes), Ok(Some((header, 2))));
        }
    }
    let header =
        FrameHeader { fin: false, reserved: 4, opcode: Opcode::Text, masking_key: None, payload_len: 0 };
    assert_eq!(encoded(&header), [0x41, 0]);
    assert_eq!(FrameHeader::decode(&[0x41, 0]), Ok(Some((header, 2))));
}

#[test]
fn rfc6455_5_2_lengths_in_their_three_forms() {
    let forms: [(u64, &[u8]); 9] = [
        (0, &[0x82, 0]),
        (1, &[0x82, 1]),
        (125, &[0x82, 125]),
        (126, &[0x82, 126, 0, 126]),
        (0xFF, &[0x82, 126, 0, 0xFF]),
        (0x0100, &[0x82, 126, 1, 0]),
        (0xFFFF, &[0x82, 126, 0xFF, 0xFF]),
        (0x1_0000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        (i64::MAX as u64, &[0x82, 127, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
    ];
    for (len, bytes) in forms {
        let header = data_header(len, None);
        assert_eq!(encoded(&header), bytes, "{len}");
        assert_eq!(FrameHeader::decode(bytes), Ok(Some((header, bytes.len()))), "{len}");

        let header = data_header(len, Some([1, 2, 3, 4]));
        let mut bytes = bytes.to_vec();
        bytes[1] |= 0x80;
        bytes.extend([1, 2, 3, 4]);
        assert_eq!(encoded(&header), bytes, "{len}, masked");
        assert_eq!(FrameHeader::decode(&bytes), Ok(Some((header, bytes.len()))), "{len}, masked");
    }
}

#[test]
fn the_largest_header_has_the_maximum_size() {
    assert_eq!(encoded(&data_header(0x1_0000, Some([0; 4]))).len(), FrameHeader::MAX_SIZE);
}

#[test]
fn encode_appends() {
    let mut out = b"before".to_vec();
    data_header(1, None).encode(&mut out);
    assert_eq!(out, b"before\x82\x01");
}

#[test]
fn rfc6455_5_2_lengths_take_the_fewest_bytes() {
    for len in 0..126 {
        assert_eq!(FrameHeader::decode(&[0x82, 126, 0, len]), Err(Violation::NonMinimalLength), "{len}");
    }
    for len in [0, 1, 125, 126, 0xFFFF_u64] {
        let bytes = [&[0x82, 127], &len.to_be_bytes()[..]].concat();
        assert_eq!(FrameHeader::decode(&bytes), Err(Violation::NonMinimalLength), "{len}");
        // The error is found before the masking key has arrived.
        let bytes = [&[0x82, 0xFF], &len.to_be_bytes()[..]].concat();
        assert_eq!(FrameHeader::decode(&bytes), Err(Violation::NonMinimalLength), "{len}, masked");
    }
}

#[test]
fn rfc6455_5_2_the_most_significant_bit_of_a_length_is_0() {
    for len in [1 << 63, 1 << 63 | 0x1_0000, u64::MAX] {
        let bytes = [&[0x82, 127], &len.to_be_bytes()[..]].concat();
        assert_eq!(FrameHeader::decode(&bytes), Err(Violation::LengthOverflow), "{len:#x}");
    }
}

#[test]
fn rfc6455_5_2_unknown_opcodes_fail() {
    for opcode in (3..8).chain(11..16) {
        for fin in [0, 0x80] {
            // Only the first two bytes have arrived.
            for second in [0, 126, 127, 0xFF] {
                assert_eq!(
                    FrameHeader::decode(&[fin | opcode, second]),
                    Err(Violation::UnknownOpcode(opcode))
                );
            }
        }
    }
}

#[test]
fn rfc6455_5_5_control_frames_are_not_fragmented() {
    for opcode in [8, 9, 10] {
        assert_eq!(FrameHeader::decode(&[opcode, 0]), Err(Violation::FragmentedControlFrame));
        assert_eq!(FrameHeader::decode(&[opcode, 0x80]), Err(Violation::FragmentedControlFrame));
    }
}

#[test]
fn rfc6455_5_5_control_frames_have_at_most_125_bytes() {
    for opcode in [8, 9, 10] {
        assert!(matches!(FrameHeader::decode(&[0x80 | opcode, 125]), Ok(Some(_))));
        // The error is found in the first two bytes, before the length has arrived.
        for second in [0x7E, 0x7F, 0xFE, 0xFF] {
            assert_eq!(FrameHeader::decode(&[0x80 | opcode, second]), Err(Violation::OversizedControlFrame));
        }
    }
}

#[test]
fn rfc6455_5_2_control_opcodes() {
    for (bits, opcode) in OPCODES {
        assert_eq!(opcode.is_control(), bits & 0x8 != 0, "{opcode:?}");
    }
    assert_eq!(Opcode::from(MessageKind::Text), Opcode::Text);
    assert_eq!(Opcode::from(MessageKind::Binary), Opcode::Binary);
}
