//! SHA-1 (RFC 3174) and base64 (RFC 4648), for the sizes that the opening handshake needs.

/// The schedule of the second block, which is the same for each input: zeros, and the length in bits (480).
const LAST_SCHEDULE: [u32; 80] = {
    let mut block = [0; 64];
    block[62] = 0x01;
    block[63] = 0xE0;
    schedule(&block)
};

/// Computes the SHA-1 digest of 60 bytes: a key of 24 bytes and a GUID of 36 bytes.
pub(crate) fn sha1(input: &[u8; 60]) -> [u8; 20] {
    // RFC 3174 4: a one bit, zeros, and the length in bits fill up two blocks of 64 bytes.
    let mut block = [0; 64];
    block[..60].copy_from_slice(input);
    block[60] = 0x80;

    let state = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476, 0xC3D2_E1F0];
    let state = compress(state, &schedule(&block));
    let state = compress(state, &LAST_SCHEDULE);
    let mut digest = [0; 20];
    for (out, word) in digest.chunks_exact_mut(4).zip(state) {
        out.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// Returns the words of a block, one for each round.
const fn schedule(block: &[u8; 64]) -> [u32; 80] {
    let mut words = [0; 80];
    let mut t = 0;
    while t < 80 {
        words[t] = if t < 16 {
            u32::from_be_bytes([block[4 * t], block[4 * t + 1], block[4 * t + 2], block[4 * t + 3]])
        } else {
            (words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16]).rotate_left(1)
        };
        t += 1;
    }
    words
}

fn compress(state: [u32; 5], words: &[u32; 80]) -> [u32; 5] {
    // RFC 3174 5: the functions, in forms that take fewer operations.
    let choose = |b: u32, c: u32, d: u32| d ^ (b & (c ^ d));
    let parity = |b: u32, c: u32, d: u32| b ^ c ^ d;
    let majority = |b: u32, c: u32, d: u32| (b & c) | (d & (b | c));

    let mut next = rounds(state, &words[..20], 0x5A82_7999, choose);
    next = rounds(next, &words[20..40], 0x6ED9_EBA1, parity);
    next = rounds(next, &words[40..60], 0x8F1B_BCDC, majority);
    next = rounds(next, &words[60..], 0xCA62_C1D6, parity);
    for (value, before) in next.iter_mut().zip(state) {
        *value = value.wrapping_add(before);
    }
    next
}

/// Does the rounds of these words, which share a function and a constant. Measured: with one loop for all 80
/// rounds, an answer to a key takes twice as many instructions.
#[inline]
fn rounds(
    state: [u32; 5],
    words: &[u32],
    constant: u32,
    function: impl Fn(u32, u32, u32) -> u32,
) -> [u32; 5] {
    words.iter().fold(state, |[a, b, c, d, e], word| {
        let mixed = a.rotate_left(5).wrapping_add(function(b, c, d)).wrapping_add(e);
        [mixed.wrapping_add(*word).wrapping_add(constant), a, b.rotate_left(30), c, d]
    })
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
