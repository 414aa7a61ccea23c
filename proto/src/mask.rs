//! Masking (RFC 6455 5.3).

use alloc::vec::Vec;

/// The number of bytes that the longest run of vector instructions masks. Measured: with 64, 1 KiB took 35
/// instructions more.
const BLOCK: usize = 256;

/// The number of bytes that are masked per step: a word if the processor can gather and scatter words, and a
/// block otherwise.
///
/// With a block per step, the compiler would gather and scatter the words of several blocks. Such code
/// took ten times as long when measured.
const STEP: usize =
    if cfg!(any(target_feature = "avx512f", target_feature = "sve")) { size_of::<u32>() } else { BLOCK };

/// The number of bytes that are copied and then masked at a time.
const PIECE: usize = 4096;

/// Masks or unmasks `payload` in place (RFC 6455 5.3). The operation is its own inverse.
///
/// `offset` is the number of bytes that precede `payload` in the payload of its frame.
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
#[inline]
pub fn mask(payload: &mut [u8], masking_key: [u8; 4], offset: u64) {
    // RFC 6455 5.3: octet i is combined with octet i modulo 4 of the key.
    let key = u32::from_be_bytes(masking_key).rotate_left((offset % 4) as u32 * 8).to_be_bytes();
    let (blocks, mut rest) = payload.split_at_mut(payload.len() / BLOCK * BLOCK);
    for step in blocks.chunks_exact_mut(STEP) {
        mask_words(step, key);
    }
    // The rest is masked by halves, since each of these sizes occurs at most once.
    rest = mask_first::<128>(rest, key);
    rest = mask_first::<64>(rest, key);
    rest = mask_first::<32>(rest, key);
    rest = mask_first::<16>(rest, key);
    rest = mask_first::<8>(rest, key);
    rest = mask_first::<4>(rest, key);
    rest.iter_mut().zip(&key).for_each(|(byte, key)| *byte ^= key);
}

/// Appends `payload` to `out`, masked or unmasked.
///
/// The copy proceeds in pieces that stay in the nearest cache, so memory is traversed only once.
#[inline]
pub(crate) fn append_masked(payload: &[u8], masking_key: [u8; 4], out: &mut Vec<u8>) {
    // The size of a piece is a multiple of 4, so each piece begins with the first octet of the key.
    for piece in payload.chunks(PIECE) {
        let start = out.len();
        out.extend_from_slice(piece);
        mask(&mut out[start..], masking_key, 0);
    }
}

/// Returns an unmasked copy of `payload` without spare capacity.
#[inline]
pub(crate) fn to_unmasked(payload: &[u8], masking_key: [u8; 4]) -> Vec<u8> {
    if payload.len() <= PIECE {
        let mut unmasked = payload.to_vec();
        mask(&mut unmasked, masking_key, 0);
        return unmasked;
    }
    // Measured: a large payload is faster in one pass. The spare capacity of the last step is cut off in
    // place.
    let steps = payload.chunks_exact(STEP);
    let rest = steps.remainder();
    let mut unmasked = Vec::with_capacity(payload.len().div_ceil(STEP));
    unmasked.extend(steps.map(|step| {
        let mut step: [u8; STEP] = step.try_into().expect("a step has its size");
        mask_words(&mut step, masking_key);
        step
    }));
    let mut unmasked = unmasked.into_flattened();
    let start = unmasked.len();
    unmasked.extend_from_slice(rest);
    mask(&mut unmasked[start..], masking_key, 0);
    unmasked.shrink_to_fit();
    unmasked
}

/// Masks the first `N` bytes and returns the rest. Masks nothing if there are fewer than `N` bytes.
#[inline]
fn mask_first<const N: usize>(bytes: &mut [u8], key: [u8; 4]) -> &mut [u8] {
    if bytes.len() < N {
        return bytes;
    }
    let (first, rest) = bytes.split_at_mut(N);
    mask_words(first, key);
    rest
}

/// Masks whole words. If the number of words is fixed, the compiler emits vector instructions.
#[inline]
fn mask_words(bytes: &mut [u8], key: [u8; 4]) {
    let key = u32::from_ne_bytes(key);
    for word in bytes.chunks_exact_mut(4) {
        let masked = u32::from_ne_bytes((&*word).try_into().expect("a word has 4 bytes")) ^ key;
        word.copy_from_slice(&masked.to_ne_bytes());
    }
}
