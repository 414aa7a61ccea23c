//! The distance over which compressed messages refer back, measured by a decoder of RFC 1951.
#![cfg(feature = "deflate")]

use bowline_proto::Deflater;

// RFC 7692 7.1.2: the peer may have no more memory than the negotiated window.
#[test]
fn rfc7692_7_1_2_nothing_refers_back_further_than_the_window() {
    for window_bits in 9..=15 {
        // Repetitions after distances just within and just beyond the window.
        let distances = [-300, -263, -262, -258, -1, 0, 1, 40].map(|more| (1 << window_bits) + more);
        let messages = distances.map(|distance| noise(usize::try_from(distance).unwrap()).repeat(2));
        for level in 1..=9 {
            for takes_over in [false, true] {
                let mut deflater = Deflater::new(level, window_bits, takes_over);
                let mut decoder = Decoder::default();
                for message in &messages {
                    if !takes_over {
                        decoder.out.clear();
                    }
                    let mut payload = Vec::new();
                    let (first, second) = message.split_at(message.len() / 3);
                    deflater.fragment(first, false, &mut payload);
                    deflater.last_fragment(second, &mut payload);
                    payload.extend([0x00, 0x00, 0xFF, 0xFF]);
                    let start = decoder.out.len();
                    decoder.decode(&payload);
                    assert!(decoder.out[start..] == *message);
                }
                let furthest = decoder.furthest;
                assert!(
                    furthest <= 1 << window_bits,
                    "{furthest} back with {window_bits} bits at level {level}"
                );
                assert!(
                    furthest > 1 << (window_bits - 2),
                    "{furthest} with {window_bits} bits at level {level}"
                );
            }
        }
    }
}

/// Returns incompressible bytes, which are equal in each run.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[derive(Default)]
struct Decoder {
    out: Vec<u8>,
    /// The largest distance so far.
    furthest: usize,
}

impl Decoder {
    /// Decodes blocks until no bytes are left (RFC 1951 3.2.3).
    fn decode(&mut self, payload: &[u8]) {
        let mut bits = Bits { bytes: payload, position: 0 };
        while bits.position.div_ceil(8) < payload.len() {
            let is_last = bits.take(1);
            match bits.take(2) {
                0 => {
                    bits.position = bits.position.next_multiple_of(8);
                    let (len, complement) = (bits.take(16), bits.take(16));
                    assert_eq!(len, complement ^ 0xFFFF);
                    self.out.extend((0..len).map(|_| u8::try_from(bits.take(8)).unwrap()));
                }
                1 => {
                    let lengths = [(8, 144), (9, 112), (7, 24), (8, 8)];
                    let lengths: Vec<_> = lengths
                        .into_iter()
                        .flat_map(|(length, count)| std::iter::repeat_n(length, count))
                        .collect();
                    self.block(&mut bits, &Code::new(&lengths), &Code::new(&[5; 30]));
                }
                2 => {
                    let (literals, distances) = dynamic_codes(&mut bits);
                    self.block(&mut bits, &literals, &distances);
                }
                _ => panic!("there is no such block"),
            }
            if is_last == 1 {
                bits.position = bits.position.next_multiple_of(8);
            }
        }
    }

    /// Decodes literals, and lengths with distances (RFC 1951 3.2.5).
    fn block(&mut self, bits: &mut Bits<'_>, literals: &Code, distances: &Code) {
        loop {
            let len = match literals.next(bits) {
                literal @ 0..256 => {
                    self.out.push(u8::try_from(literal).unwrap());
                    continue;
                }
                256 => return,
                code @ 257..265 => code - 254,
                285 => 258,
                code => {
                    let extra = (code - 261) / 4;
                    3 + ((4 + (code - 261) % 4) << extra) + bits.take(extra)
                }
            };
            let distance = match distances.next(bits) {
                code @ 0..4 => code + 1,
                code => {
                    let extra = (code - 2) / 2;
                    1 + ((2 + code % 2) << extra) + bits.take(extra)
                }
            };
            self.furthest = self.furthest.max(distance);
            for _ in 0..len {
                self.out.push(self.out[self.out.len() - distance]);
            }
        }
    }
}

/// Decodes the codes for literals and for distances of a dynamic block (RFC 1951 3.2.7).
fn dynamic_codes(bits: &mut Bits<'_>) -> (Code, Code) {
    let (literals, distances, count) = (257 + bits.take(5), 1 + bits.take(5), 4 + bits.take(4));
    let mut lengths = vec![0; 19];
    for place in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15].into_iter().take(count) {
        lengths[place] = bits.take(3);
    }
    let code = Code::new(&lengths);
    let mut lengths = Vec::new();
    while lengths.len() < literals + distances {
        let (length, times) = match code.next(bits) {
            16 => (*lengths.last().unwrap(), 3 + bits.take(2)),
            17 => (0, 3 + bits.take(3)),
            18 => (0, 11 + bits.take(7)),
            length => (length, 1),
        };
        lengths.extend(std::iter::repeat_n(length, times));
    }
    let distances = lengths.split_off(literals);
    (Code::new(&lengths), Code::new(&distances))
}

/// A Huffman code (RFC 1951 3.2.2).
struct Code {
    /// The number of symbols by the number of their bits.
    counts: [usize; 16],
    /// All symbols, ordered by the number of their bits.
    symbols: Vec<usize>,
}

impl Code {
    /// Creates the code in which the symbols have these numbers of bits.
    fn new(lengths: &[usize]) -> Self {
        let mut counts = [0; 16];
        for length in lengths {
            counts[*length] += 1;
        }
        let mut symbols: Vec<_> = (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        Self { counts, symbols }
    }

    fn next(&self, bits: &mut Bits<'_>) -> usize {
        let (mut code, mut first, mut shorter) = (0, 0, 0);
        for count in &self.counts[1..] {
            code = code << 1 | bits.take(1);
            first <<= 1;
            if code < first + count {
                return self.symbols[shorter + code - first];
            }
            first += count;
            shorter += count;
        }
        panic!("there is no such code");
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Bits<'_> {
    /// Returns the next bits as a number. The first bit is the least significant.
    fn take(&mut self, count: usize) -> usize {
        let bit = |position: usize| usize::from(self.bytes[position / 8] >> (position % 8) & 1);
        let number = (0..count).map(|i| bit(self.position + i) << i).sum();
        self.position += count;
        number
    }
}
