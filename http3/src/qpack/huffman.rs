//! The Huffman code of strings (RFC 9204 4.1.2, RFC 7541 Appendix B).
//!
//! The code is canonical: codes of one length are consecutive numbers, in the order of their symbols, and a
//! longer code continues where the shorter ones end. So the lengths alone define the code.

/// The shortest code, in bits.
const SHORTEST: usize = 5;

/// The longest code, in bits.
const LONGEST: usize = 30;

/// The symbol that never occurs, except that its first bits are the padding.
const END: usize = 256;

/// The length of the code of each byte, and of [`END`], in bits.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// The code of one symbol: so many bits, the last of which are the lowest.
#[derive(Clone, Copy)]
struct Code {
    bits: u32,
    len: u8,
}

/// The codes of one length.
#[derive(Clone, Copy)]
struct Level {
    /// The first code.
    first: u32,
    /// The number of codes.
    count: u32,
    /// The place of the first symbol in [`Tables::sorted`].
    start: usize,
}

struct Tables {
    codes: [Code; 257],
    levels: [Level; LONGEST + 1],
    /// The symbols in the order of their codes.
    sorted: [usize; 257],
}

static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut codes = [Code { bits: 0, len: 0 }; 257];
    let mut levels = [Level { first: 0, count: 0, start: 0 }; LONGEST + 1];
    let mut sorted = [0; 257];
    let (mut next, mut place, mut len) = (0, 0, SHORTEST);
    while len <= LONGEST {
        levels[len] = Level { first: next, count: 0, start: place };
        let mut symbol = 0;
        while symbol <= END {
            if LENGTHS[symbol] as usize == len {
                codes[symbol] = Code { bits: next, len: LENGTHS[symbol] };
                sorted[place] = symbol;
                levels[len].count += 1;
                (next, place) = (next + 1, place + 1);
            }
            symbol += 1;
        }
        next <<= 1;
        len += 1;
    }
    Tables { codes, levels, sorted }
}

/// Returns the size of the encoded string, in bytes.
pub(super) fn encoded_len(bytes: &[u8]) -> usize {
    let bits: usize = bytes.iter().map(|byte| usize::from(LENGTHS[usize::from(*byte)])).sum();
    bits.div_ceil(8)
}

/// Appends the encoded string to `out`.
pub(super) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    // Less than a byte of bits is left over from each symbol.
    let (mut bits, mut len) = (0_u64, 0);
    for byte in bytes {
        let code = TABLES.codes[usize::from(*byte)];
        bits = (bits << code.len) | u64::from(code.bits);
        len += code.len;
        while len >= 8 {
            len -= 8;
            out.push(low_byte(bits >> len));
        }
    }
    if len > 0 {
        // RFC 7541 5.2: the padding is the beginning of the code of the end, which is all ones.
        out.push(low_byte(bits << (8 - len)) | (0xff >> len));
    }
}

fn low_byte(bits: u64) -> u8 {
    let [.., low] = bits.to_be_bytes();
    low
}

/// Appends the decoded string to `out`. Returns `false` if the string is malformed.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    let (mut code, mut len) = (0_u32, 0);
    for byte in bytes {
        for shift in (0..8).rev() {
            code = (code << 1) | u32::from((byte >> shift) & 1);
            len += 1;
            let Level { first, count, start } = TABLES.levels[len];
            if code.wrapping_sub(first) < count {
                let symbol = TABLES.sorted[start + (code - first) as usize];
                // RFC 7541 5.2: a string with the symbol of the end is malformed.
                let Ok(byte) = u8::try_from(symbol) else { return false };
                out.push(byte);
                (code, len) = (0, 0);
            } else if len == LONGEST {
                return false;
            }
        }
    }
    // RFC 7541 5.2: the padding is shorter than a byte, and all ones.
    len < 8 && code == (1 << len) - 1
}

#[cfg(test)]
mod tests {
    use super::{decode, encode, encoded_len};

    #[test]
    fn the_examples_of_rfc_7541_c_4_are_met() {
        for (text, encoded) in [
            ("www.example.com", 0xf1e3_c2e5_f23a_6ba0_ab90_f4ff_u128),
            ("no-cache", 0xa8eb_1064_9cbf),
            ("custom-value", 0x25_a849_e95b_b8e8_b4bf),
        ] {
            let mut out = Vec::new();
            encode(text.as_bytes(), &mut out);
            let number = out.iter().fold(0, |number, byte| (number << 8) | u128::from(*byte));
            assert_eq!((number, encoded_len(text.as_bytes())), (encoded, out.len()));
            let mut back = Vec::new();
            assert!(decode(&out, &mut back));
            assert_eq!(back, text.as_bytes());
        }
    }

    #[test]
    fn every_byte_survives() {
        let all: Vec<u8> = (0..=255).collect();
        for end in 0..all.len() {
            let (mut out, mut back) = (Vec::new(), Vec::new());
            encode(&all[end..], &mut out);
            assert!(decode(&out, &mut back));
            assert_eq!(back, &all[end..]);
        }
    }

    #[test]
    fn rfc_7541_5_2_padding_of_a_byte_zeros_and_the_end_are_malformed() {
        // `a` is 00011.
        for malformed in [&[0b0001_1111, 0xff][..], &[0b0001_1000], &[0xff, 0xff, 0xff, 0xff], &[0xff]] {
            assert!(!decode(malformed, &mut Vec::new()), "{malformed:x?}");
        }
        assert!(decode(&[0b0001_1111], &mut Vec::new()));
        assert!(decode(&[], &mut Vec::new()));
    }
}
