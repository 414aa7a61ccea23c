//! Masking (RFC 6455 5.3).

use alloc::vec::Vec;

/// How many bytes are masked a step.
const BLOCK: usize = 64;

/// How many bytes are copied before they are masked.
const PIECE: usize = 4096;

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
#[inline]
pub fn mask(payload: &mut [u8], masking_key: [u8; 4], offset: u64) {
    let mut key = masking_key;
    key.rotate_left((offset % 4) as usize);
    let key = twice(key);
    let mut blocks = payload.chunks_exact_mut(BLOCK);
    for block in &mut blocks {
        mask_block(block, key);
    }
    let mut words = blocks.into_remainder().chunks_exact_mut(8);
    for word in &mut words {
        mask_word(word, key);
    }
    // RFC 6455 5.3: octet i is combined with octet i modulo 4 of the key.
    for (byte, key) in words.into_remainder().iter_mut().zip(key.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// Appends `payload`, masked or unmasked.
///
/// It goes by pieces that stay in the nearest cache, so that memory is passed over once.
#[inline]
pub(crate) fn append_masked(payload: &[u8], masking_key: [u8; 4], out: &mut Vec<u8>) {
    // A multiple of 4, so that each piece begins with the first octet of the key.
    for piece in payload.chunks(PIECE) {
        let start = out.len();
        out.extend_from_slice(piece);
        mask(&mut out[start..], masking_key, 0);
    }
}

/// A copy of `payload` without its mask, and without capacity to spare.
#[inline]
pub(crate) fn to_unmasked(payload: &[u8], masking_key: [u8; 4]) -> Vec<u8> {
    if payload.len() <= PIECE {
        let mut unmasked = payload.to_vec();
        mask(&mut unmasked, masking_key, 0);
        return unmasked;
    }
    // Measured: a large one is faster in one pass, block by block; the last block is cut off in place.
    let key = twice(masking_key);
    let blocks = payload.chunks_exact(BLOCK);
    let rest = blocks.remainder();
    let mut unmasked = Vec::with_capacity(payload.len().div_ceil(BLOCK));
    unmasked.extend(blocks.map(|block| {
        let mut block: [u8; BLOCK] = block.try_into().expect("a block has its size");
        mask_block(&mut block, key);
        block
    }));
    let mut unmasked = unmasked.into_flattened();
    let start = unmasked.len();
    unmasked.extend_from_slice(rest);
    mask(&mut unmasked[start..], masking_key, 0);
    unmasked.shrink_to_fit();
    unmasked
}

/// The key in native order, twice over.
#[inline]
fn twice(masking_key: [u8; 4]) -> u64 {
    let key = u64::from(u32::from_ne_bytes(masking_key));
    key << 32 | key
}

/// Without branches, so that the compiler turns it into vector instructions.
#[inline]
fn mask_block(block: &mut [u8], key: u64) {
    block.chunks_exact_mut(8).for_each(|word| mask_word(word, key));
}

#[inline]
fn mask_word(word: &mut [u8], key: u64) {
    let masked = u64::from_ne_bytes((&*word).try_into().expect("a word has 8 bytes")) ^ key;
    word.copy_from_slice(&masked.to_ne_bytes());
}
