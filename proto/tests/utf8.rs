//! UTF-8 in pieces (RFC 6455 8.1, RFC 3629), with and without the feature `simdutf8`.

use bowline_proto::{InvalidUtf8, Utf8Validator};
use proptest::prelude::*;

/// The sizes of the text around the tested part, chosen around the sizes of SIMD blocks. Miri is slow.
const FILLS: &[usize] = if cfg!(miri) { &[16] } else { &[1, 15, 16, 31, 32, 63, 64, 65, 128] };

/// Returns `true` if `prefix` can be the beginning of UTF-8, by the table of RFC 3629 4, byte by byte.
fn can_go_on(prefix: &[u8]) -> bool {
    // The ranges of the bytes that the current code point still needs.
    let mut missing: &[(u8, u8)] = &[];
    for &byte in prefix {
        missing = match missing {
            [(low, high), rest @ ..] if (*low..=*high).contains(&byte) => rest,
            [_, ..] => return false,
            [] => match byte {
                0x00..=0x7F => &[],
                0xC2..=0xDF => &[(0x80, 0xBF)],
                0xE0 => &[(0xA0, 0xBF), (0x80, 0xBF)],
                0xE1..=0xEC | 0xEE..=0xEF => &[(0x80, 0xBF), (0x80, 0xBF)],
                0xED => &[(0x80, 0x9F), (0x80, 0xBF)],
                0xF0 => &[(0x90, 0xBF), (0x80, 0xBF), (0x80, 0xBF)],
                0xF1..=0xF3 => &[(0x80, 0xBF), (0x80, 0xBF), (0x80, 0xBF)],
                0xF4 => &[(0x80, 0x8F), (0x80, 0xBF), (0x80, 0xBF)],
                _ => return false,
            },
        };
    }
    true
}

/// Feeds a text piece by piece and compares every result with the reference.
fn check<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) {
    let mut validator = Utf8Validator::new();
    let mut text = Vec::new();
    for piece in pieces {
        text.extend_from_slice(piece);
        let expected = if can_go_on(&text) { Ok(()) } else { Err(InvalidUtf8) };
        assert_eq!(validator.feed(piece), expected, "{text:x?}, the last {} bytes of it new", piece.len());
        if expected.is_err() {
            return;
        }
        assert_eq!(validator.is_complete(), std::str::from_utf8(&text).is_ok(), "{text:x?}");
    }
}

fn check_every_split(text: &[u8]) {
    check([text]);
    check(text.chunks(1));
    for split in 0..=text.len() {
        let (front, back) = text.split_at(split);
        check([front, back]);
        check([front, &[], back]);
    }
}

/// The bytes at the edges of every class of RFC 3629 4.
const EDGES: [u8; 25] = [
    0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
    0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF8, 0xFF,
];

#[test]
fn every_pair_of_bytes() {
    for a in 0..=0xFF {
        for b in if cfg!(miri) { 0xBF..=0xC0 } else { 0..=0xFF } {
            check([&[a, b][..]]);
            check([&[a][..], &[b]]);
        }
    }
}

#[test]
fn every_sequence_of_four_edges() {
    let step = if cfg!(miri) { 97 } else { 1 };
    let count = EDGES.len().pow(4);
    for number in (0..count).step_by(step) {
        let digit = |place| EDGES[number / EDGES.len().pow(place) % EDGES.len()];
        let text = [digit(3), digit(2), digit(1), digit(0)];
        check([&text[..]]);
        check(text.chunks(1));
        check(text.chunks(3));
    }
}

#[test]
fn every_code_point_class_split_at_every_byte() {
    let points = "\u{0}\u{7F}\u{80}\u{7FF}\u{800}\u{FFF}\u{1000}\u{CFFF}\u{D000}\u{D7FF}\u{E000}\u{FFFD}\
        \u{FFFE}\u{FFFF}\
        \u{10000}\u{3FFFF}\u{40000}\u{FFFFF}\u{100000}\u{10FFFF}";
    check_every_split(points.as_bytes());
    for point in points.chars() {
        let text = point.to_string();
        check_every_split(text.as_bytes());
        for fill in FILLS {
            let fill = "x".repeat(*fill);
            check_every_split(format!("{fill}{point}").as_bytes());
            check_every_split(format!("{point}{fill}").as_bytes());
        }
    }
}

#[test]
fn rfc6455_8_1_invalid_sequences() {
    // From Markus Kuhn's "UTF-8 decoder capability and stress test".
    let invalid: [&[u8]; 26] = [
        // Lone continuation bytes.
        b"\x80",
        b"\xBF",
        b"\x80\xBF\x80\xBF",
        // A code point that is cut short by another code point.
        b"\xC3 ",
        b"\xE2\x82 ",
        b"\xF0\x9F\x98 ",
        b"\xE2\xE2\x82\xAC",
        b"\xC3\xC3\xA9",
        // Bytes that never occur.
        b"\xFE",
        b"\xFF",
        b"\xF5\x80\x80\x80",
        b"\xF8\x88\x80\x80\x80",
        b"\xFC\x84\x80\x80\x80\x80",
        // Overlong encodings.
        b"\xC0\xAF",
        b"\xC1\xBF",
        b"\xE0\x80\xAF",
        b"\xE0\x9F\xBF",
        b"\xF0\x80\x80\xAF",
        b"\xF0\x8F\xBF\xBF",
        b"\xF8\x80\x80\x80\xAF",
        // Surrogates, single and paired.
        b"\xED\xA0\x80",
        b"\xED\xBF\xBF",
        b"\xED\xA0\x80\xED\xB0\x80",
        // Code points over U+10FFFF.
        b"\xF4\x90\x80\x80",
        b"\xF7\xBF\xBF\xBF",
        b"\xFB\xBF\xBF\xBF\xBF",
    ];
    for sequence in invalid {
        assert!(!can_go_on(sequence), "{sequence:x?}");
        check_every_split(sequence);
        for before in FILLS {
            check_every_split(&[&vec![b'x'; *before], sequence].concat());
            check_every_split(&[&vec![b'x'; *before], sequence, b"behind it"].concat());
        }
    }
}

#[test]
fn the_first_byte_that_is_wrong_is_found() {
    let wrong_at: [(&[u8], usize); 6] = [
        (b"\xED\xA0\x80", 1),
        (b"\xE0\x9F\x80", 1),
        (b"\xF4\x90\x80\x80", 1),
        (b"\xF0\x8F\x80\x80", 1),
        (b"ab\xC0\xAF", 2),
        (b"\xE2\x82\x28", 2),
    ];
    for (text, position) in wrong_at {
        let mut validator = Utf8Validator::new();
        validator.feed(&text[..position]).unwrap();
        assert_eq!(validator.feed(&text[position..=position]), Err(InvalidUtf8), "{text:x?}");
        // The result is equal if other text precedes and follows in one piece.
        assert_eq!(Utf8Validator::new().feed(&text[..=position]), Err(InvalidUtf8), "{text:x?}");
    }
}

#[test]
fn an_invalid_piece_is_not_taken() {
    let mut validator = Utf8Validator::new();
    validator.feed(b"\xF0\x9F").unwrap();
    for _ in 0..10 {
        assert_eq!(validator.feed(b"\x98("), Err(InvalidUtf8));
        assert_eq!(validator.feed(b"("), Err(InvalidUtf8));
        assert!(!validator.is_complete());
    }
    validator.feed(b"\x98\x80").unwrap();
    assert!(validator.is_complete());
}

fn almost_utf8() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => any::<char>().prop_map(|point| point.to_string().into_bytes()),
        4 => "[ -~]{0,80}".prop_map(String::into_bytes),
        1 => prop::collection::vec(prop::sample::select(EDGES.to_vec()), 1..4),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn the_same_verdict_as_std(text in prop_oneof![almost_utf8(), any::<Vec<u8>>()]) {
        let mut validator = Utf8Validator::new();
        let valid = validator.feed(&text).is_ok() && validator.is_complete();
        prop_assert_eq!(valid, std::str::from_utf8(&text).is_ok());
    }

    #[test]
    fn pieces_make_no_difference(
        text in prop_oneof![almost_utf8(), any::<Vec<u8>>()],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        check(cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]));
    }
}
