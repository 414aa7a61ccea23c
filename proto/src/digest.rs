//! SHA-1 (RFC 3174) and base64 (RFC 4648), for the sizes that the opening handshake needs.

/// Computes the SHA-1 digest of 60 bytes: a key of 24 bytes and a GUID of 36 bytes.
pub(crate) fn sha1(input: &[u8; 60]) -> [u8; 20] {
    // RFC 3174 4: a one bit, zeros, and the length in bits fill up two blocks of 64 bytes.
    let mut padded = [0; 128];
    padded[..60].copy_from_slice(input);
    padded[60] = 0x80;
    padded[120..].copy_from_slice(&480_u64.to_be_bytes());

    let mut state = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0];
    for block in padded.chunks_exact(64) {
        compress(&mut state, block);
    }
    let mut digest = [0; 20];
    for (out, word) in digest.chunks_exact_mut(4).zip(state) {
        out.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[expect(clippy::many_single_char_names, reason = "they are RFC 3174's")]
fn compress(state: &mut [u32; 5], block: &[u8]) {
    let mut words = [0_u32; 80];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = u32::from_be_bytes(bytes.try_into().expect("a chunk has 4 bytes"));
    }
    for t in 16..80 {
        words[t] = (words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16]).rotate_left(1);
    }
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for (t, word) in words.into_iter().enumerate() {
        let (f, k) = match t {
            0..20 => ((b & c) | (!b & d), 0x5A82_7999),
            20..40 => (b ^ c ^ d, 0x6ED9_EBA1),
            40..60 => ((b & c) | (b & d) | (c & d), 0x8F1B_BCDC),
            _ => (b ^ c ^ d, 0xCA62_C1D6_u32),
        };
        let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(word).wrapping_add(k);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
    }
    for (word, value) in state.iter_mut().zip([a, b, c, d, e]) {
        *word = word.wrapping_add(value);
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encodes `input` as base64 with padding into `out`, which must have the size of the result.
pub(crate) fn base64(input: &[u8], out: &mut [u8]) {
    for (bytes, out) in input.chunks(3).zip(out.chunks_exact_mut(4)) {
        let byte = |i: usize| u32::from(bytes.get(i).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for (i, out) in out.iter_mut().enumerate() {
            // A group of one byte has two digits, and a group of two bytes has three.
            *out = if i > bytes.len() { b'=' } else { ALPHABET[(group >> (18 - 6 * i)) as usize & 0x3F] };
        }
    }
}

/// Returns `true` if `text` is the base64 of 16 bytes: 22 digits, whose unused bits are zero, and `==`.
pub(crate) fn is_base64_of_16_bytes(text: &[u8; 24]) -> bool {
    let value = |digit: u8| ALPHABET.iter().position(|&candidate| candidate == digit);
    text.ends_with(b"==")
        && text[..22].iter().all(|&digit| value(digit).is_some())
        && value(text[21]).is_some_and(|value| value.trailing_zeros() >= 4)
}
