//! Masking (RFC 6455 5.3).

/// Masks or unmasks `payload` in place: the operation is its own inverse.
///
/// `offset` is how many bytes of the same frame's payload came before these.
///
/// ```
/// let key = [0x37, 0xFA, 0x21, 0x3D];
/// let mut payload = *b"Hello";
/// bowline_proto::mask(&mut payload, key, 0);
/// assert_eq!(payload, [0x7F, 0x9F, 0x4D, 0x51, 0x58]);
/// let (front, back) = payload.split_at_mut(3);
/// bowline_proto::mask(front, key, 0);
/// bowline_proto::mask(back, key, 3);
/// assert_eq!(&payload, b"Hello");
/// ```
pub fn mask(payload: &mut [u8], mut masking_key: [u8; 4], offset: u64) {
    masking_key.rotate_left((offset % 4) as usize);
    let [a, b, c, d] = masking_key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Eight bytes a step in a loop without branches, which the compiler turns into vector instructions.
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes((&*chunk).try_into().expect("a chunk has 8 bytes"));
        chunk.copy_from_slice(&(word ^ wide).to_ne_bytes());
    }
    // RFC 6455 5.3: octet i is combined with octet i modulo 4 of the key.
    for (byte, key) in chunks.into_remainder().iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}
