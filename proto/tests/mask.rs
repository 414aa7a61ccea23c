//! Masking, compared with its definition (RFC 6455 5.3).

use bowline_proto::mask;

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// The number of sizes. Miri is slow.
const SIZES: usize = if cfg!(miri) { 20 } else { 150 };

/// Masks by the definition of the RFC: octet i is combined with octet i modulo 4 of the key.
fn by_definition(payload: &[u8], offset: usize) -> Vec<u8> {
    payload.iter().enumerate().map(|(i, byte)| byte ^ KEY[(offset + i) % 4]).collect()
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
}

#[test]
fn rfc6455_5_3_every_length_and_offset() {
    for len in 0..SIZES {
        for offset in 0..SIZES {
            let mut bytes = payload(len);
            mask(&mut bytes, KEY, offset as u64);
            assert_eq!(bytes, by_definition(&payload(len), offset), "length {len}, offset {offset}");
        }
    }
}

#[test]
fn rfc6455_5_3_every_start_in_memory() {
    for start in 0..17 {
        let mut bytes = payload(200);
        mask(&mut bytes[start..], KEY, 0);
        assert_eq!(bytes[..start], payload(200)[..start]);
        assert_eq!(bytes[start..], by_definition(&payload(200)[start..], 0));
    }
}

#[test]
fn rfc6455_5_3_every_split() {
    for len in 0..SIZES {
        for split in 0..=len {
            let mut bytes = payload(len);
            let (front, back) = bytes.split_at_mut(split);
            mask(front, KEY, 0);
            mask(back, KEY, split as u64);
            assert_eq!(bytes, by_definition(&payload(len), 0), "length {len}, split at {split}");
        }
    }
}

#[test]
fn twice_is_the_payload_again() {
    let mut bytes = payload(1000);
    mask(&mut bytes, KEY, 5);
    assert_ne!(bytes, payload(1000));
    mask(&mut bytes, KEY, 5);
    assert_eq!(bytes, payload(1000));
}

#[test]
fn the_largest_offset() {
    let mut bytes = payload(10);
    mask(&mut bytes, KEY, u64::MAX);
    assert_eq!(bytes, by_definition(&payload(10), 3));
}
