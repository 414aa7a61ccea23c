//! permessage-deflate: the codec and its negotiation (RFC 7692).
#![cfg(feature = "deflate")]

use bowline_proto::header::Extension;
use bowline_proto::{
    CloseCode, DeflateParameters, Deflater, Failure, Inflater, InvalidAnswer, Limit, MessageKind, Violation,
};
use proptest::prelude::*;

const NO_LIMIT: u64 = u64::MAX;

/// Decompresses a message whose payload arrives in these pieces.
fn inflate(inflater: &mut Inflater, kind: MessageKind, pieces: &[&[u8]]) -> Result<Vec<u8>, Failure> {
    inflater.begin(kind);
    let mut out = Vec::new();
    for (i, mut piece) in pieces.iter().copied().enumerate() {
        let last = i == pieces.len() - 1;
        loop {
            let step = inflater.inflate(piece, last, &mut out)?;
            piece = &piece[step.consumed..];
            if step.needs_input || step.done {
                assert!(piece.is_empty() && step.done == last);
                break;
            }
        }
    }
    Ok(out)
}

fn inflated(payload: &[u8]) -> Result<Vec<u8>, Failure> {
    inflate(&mut Inflater::new(NO_LIMIT, 15, false), MessageKind::Binary, &[payload])
}

fn deflated(deflater: &mut Deflater, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    deflater.message(payload, &mut out);
    out
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

// ---- decompressing

#[test]
fn rfc7692_7_2_3_examples() {
    // One block, a stored block, a final block, two blocks, and an empty message.
    let examples: [(&[u8], &[u8]); 5] = [
        (&[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00], b"Hello"),
        (&[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00], b"Hello"),
        (&[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00], b"Hello"),
        (&[0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00], b"Hello"),
        (&[0x00], b""),
    ];
    for (payload, message) in examples {
        assert_eq!(inflated(payload).unwrap(), message);
        // Byte by byte.
        let pieces: Vec<_> = payload.chunks(1).collect();
        let mut inflater = Inflater::new(NO_LIMIT, 15, false);
        assert_eq!(inflate(&mut inflater, MessageKind::Text, &pieces).unwrap(), message);
    }
}

#[test]
fn the_window_is_taken_over_or_not() {
    // RFC 7692 7.2.3.2: the second "Hello" refers to the first.
    let (first, second) = ([0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00], [0xF2, 0x00, 0x11, 0x00, 0x00]);
    let mut inflater = Inflater::new(NO_LIMIT, 15, true);
    for payload in [&first[..], &second, &second] {
        assert_eq!(inflate(&mut inflater, MessageKind::Text, &[payload]).unwrap(), b"Hello");
    }
    let mut inflater = Inflater::new(NO_LIMIT, 15, false);
    assert_eq!(inflate(&mut inflater, MessageKind::Text, &[&first]).unwrap(), b"Hello");
    let error = inflate(&mut inflater, MessageKind::Text, &[&second]).unwrap_err();
    assert_eq!(error, Failure::Violation(Violation::InvalidCompression));
}

#[test]
fn the_window_goes_on_behind_a_last_block() {
    let mut inflater = Inflater::new(NO_LIMIT, 15, true);
    let last_block = [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00];
    assert_eq!(inflate(&mut inflater, MessageKind::Text, &[&last_block]).unwrap(), b"Hello");
    let reference = [0xF2, 0x00, 0x11, 0x00, 0x00];
    assert_eq!(inflate(&mut inflater, MessageKind::Text, &[&reference]).unwrap(), b"Hello");
    // Two last blocks in one message.
    let mut alone = Inflater::new(NO_LIMIT, 15, false);
    let both = [&last_block[..7], &last_block].concat();
    assert_eq!(inflate(&mut alone, MessageKind::Text, &[&both]).unwrap(), b"HelloHello");
    // Both within one message. The byte that should follow a last block at the end may be missing.
    let both = [&last_block[..7], &reference, &[0x00, 0x00, 0xFF, 0xFF], &last_block[..7]].concat();
    assert_eq!(inflate(&mut inflater, MessageKind::Text, &[&both]).unwrap(), b"HelloHelloHello");
}

#[test]
fn an_empty_payload_is_an_empty_message() {
    assert_eq!(inflated(&[]).unwrap(), b"");
    let mut inflater = Inflater::new(NO_LIMIT, 15, false);
    assert_eq!(inflate(&mut inflater, MessageKind::Text, &[b"", b"", b""]).unwrap(), b"");
}

#[test]
fn what_is_cut_off_or_wrong_is_a_violation() {
    let text = noise(300).iter().flat_map(|byte| [*byte; 3]).collect::<Vec<_>>();
    let whole = deflated(&mut Deflater::new(6, 15, false), &text);
    assert_eq!(inflated(&whole).unwrap(), text);
    for end in 1..whole.len() {
        let error = inflated(&whole[..end]).unwrap_err();
        assert_eq!(error, Failure::Violation(Violation::InvalidCompression), "cut off at {end}");
        assert_eq!(CloseCode::from(error), CloseCode::INVALID_DATA);
    }
    // A block of the reserved type, a stored block whose lengths differ, and a reference before the
    // beginning.
    for wrong in [&[0x07][..], &[0x00, 0x05, 0x00, 0x05, 0x00], &[0xF2, 0x00, 0x11, 0x00, 0x00]] {
        assert_eq!(inflated(wrong).unwrap_err(), Failure::Violation(Violation::InvalidCompression));
    }
}

#[test]
fn the_limit_is_on_what_comes_out() {
    for size in [0, 1, 1000, 65_536, 1_000_000] {
        let payload = deflated(&mut Deflater::new(6, 15, false), &vec![0; size]);
        let limit = size as u64;
        let mut exact = Inflater::new(limit, 15, false);
        assert_eq!(inflate(&mut exact, MessageKind::Binary, &[&payload]).unwrap(), vec![0; size]);
        if size > 0 {
            let mut over = Inflater::new(limit - 1, 15, false);
            let error = inflate(&mut over, MessageKind::Binary, &[&payload]).unwrap_err();
            assert_eq!(error, Failure::Limit(Limit::MessageSize(limit - 1)));
        }
    }
}

#[test]
fn a_bomb_takes_no_more_memory_than_the_limit() {
    let bomb = deflated(&mut Deflater::new(9, 15, false), &vec![0; 64 << 20]);
    assert!(bomb.len() < 100_000);
    let mut inflater = Inflater::new(1 << 20, 15, false);
    inflater.begin(MessageKind::Binary);
    let (mut input, mut out) = (&bomb[..], Vec::new());
    let error = loop {
        match inflater.inflate(input, true, &mut out) {
            Ok(step) => input = &input[step.consumed..],
            Err(error) => break error,
        }
    };
    assert_eq!(error, Failure::Limit(Limit::MessageSize(1 << 20)));
    assert!(out.capacity() <= 1 << 20, "{}", out.capacity());
}

#[test]
fn a_message_of_any_size_takes_no_more_memory_than_the_limit() {
    let zeros = vec![0; 100_000];
    for size in (1..100_000).step_by(499).chain((1..700).map(|more| 65_536 + more)) {
        let payload = deflated(&mut Deflater::new(6, 15, false), &zeros[..size]);
        let limit = size + size / 4;
        let mut inflater = Inflater::new(limit as u64, 15, false);
        inflater.begin(MessageKind::Binary);
        let (mut input, mut out) = (&payload[..], Vec::new());
        loop {
            let step = inflater.inflate(input, true, &mut out).unwrap();
            assert!(out.capacity() <= limit, "{} for {size}", out.capacity());
            if step.done {
                break;
            }
            input = &input[step.consumed..];
        }
        assert_eq!(out.len(), size);
    }
}

#[test]
fn one_step_brings_64_kib_at_most() {
    let payload = deflated(&mut Deflater::new(9, 15, false), &vec![0; 1 << 20]);
    let mut inflater = Inflater::new(NO_LIMIT, 15, false);
    inflater.begin(MessageKind::Binary);
    let (mut input, mut total) = (&payload[..], 0);
    loop {
        let mut out = Vec::new();
        let step = inflater.inflate(input, true, &mut out).unwrap();
        assert!(out.len() <= 64 * 1024);
        total += out.len();
        input = &input[step.consumed..];
        if step.done {
            break;
        }
    }
    assert_eq!(total, 1 << 20);
}

// Decompressors are reused too. Wherever a decompressor was abandoned or has failed, its next user begins
// with an empty window.
#[test]
fn a_message_that_was_not_read_to_its_end_leaves_nothing_behind() {
    let text: Vec<u8> = (0..500_u32).flat_map(|i| (i * i % 251).to_string().into_bytes()).collect();
    let whole = deflated(&mut Deflater::new(9, 15, false), &text);
    let (hello, reference) = ([0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00], [0xF2, 0x00, 0x11, 0x00, 0x00]);
    for end in 0..=whole.len() {
        for wrong in [&[][..], &[0x07], &[0xFF; 20]] {
            for takes_over in [false, true] {
                let mut left = Inflater::new(NO_LIMIT, 15, takes_over);
                left.begin(MessageKind::Binary);
                let _ = left.inflate(&[&whole[..end], wrong].concat(), false, &mut Vec::new());
                drop(left);
                let mut inflater = Inflater::new(NO_LIMIT, 15, true);
                let error = inflate(&mut inflater, MessageKind::Text, &[&reference]).unwrap_err();
                assert_eq!(error, Failure::Violation(Violation::InvalidCompression));
                let mut inflater = Inflater::new(NO_LIMIT, 15, true);
                for (payload, message) in
                    [(&hello[..], &b"Hello"[..]), (&reference, b"Hello"), (&whole, &text)]
                {
                    assert_eq!(inflate(&mut inflater, MessageKind::Binary, &[payload]).unwrap(), message);
                }
            }
        }
    }
}

/// Final blocks, stored blocks, blocks of fixed codes and headers of dynamic codes, all without content.
const EMPTY_BLOCKS: [&[u8]; 5] = [
    &[0x03, 0x00],
    &[0x01, 0x00, 0x00, 0xFF, 0xFF],
    &[0x00, 0x00, 0x00, 0xFF, 0xFF],
    // Four of 10 bits.
    &[0x02, 0x08, 0x20, 0x80, 0x00],
    &[0x04, 0xC0, 0x81, 0x00, 0x00, 0x00, 0x00, 0x00, 0x90, 0xFF, 0x6B, 0x00, 0x00, 0x00, 0xFF, 0xFF],
];

// RFC 6455 10.4: the cost of a message is limited, even if there is no output.
#[test]
fn a_message_from_which_nothing_comes_has_an_end() {
    for block in EMPTY_BLOCKS {
        for takes_over in [false, true] {
            let mut inflater = Inflater::new(1 << 20, 15, takes_over);
            let window = deflated(&mut Deflater::new(6, 15, false), &noise(40_000));
            inflate(&mut inflater, MessageKind::Binary, &[&window]).unwrap();

            let (payload, mut out, mut len) = (block.repeat(1000), Vec::new(), 0);
            inflater.begin(MessageKind::Binary);
            let error = 'message: loop {
                let mut input = &payload[..];
                while !input.is_empty() {
                    match inflater.inflate(input, false, &mut out) {
                        Ok(step) => {
                            // A step is a bounded amount of work, and memory is only allocated for output.
                            assert!(step.consumed <= 1024 && !step.done);
                            assert_eq!(out.capacity(), 0);
                            len += step.consumed;
                            input = &input[step.consumed..];
                        }
                        Err(error) => break 'message error,
                    }
                }
                assert!(len < 3 << 20, "{block:?}: it has no end");
            };
            let limit = (2 << 20) + (256 << 10);
            assert_eq!(error, Failure::Limit(Limit::CompressedSize(limit)), "{block:?}");
            assert_eq!(CloseCode::from(error), CloseCode::MESSAGE_TOO_BIG);
            // Each last block counts for more than its size.
            let is_last = block[0] & 1 == 1;
            assert_eq!(len < (block.len() << 16), is_last, "{block:?}: {len}");
        }
    }
}

// However a message is flushed, and wherever last blocks are, the message is not mistaken for one without
// output.
#[test]
fn a_message_in_the_smallest_of_pieces_is_no_larger_than_it_may_be() {
    let last_block = [0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    for takes_over in [false, true] {
        // One byte in each frame.
        let message = noise(16_384);
        let mut inflater = Inflater::new(16_384, 15, takes_over);
        let mut deflater = Deflater::new(6, 15, takes_over);
        for _ in 0..2 {
            let mut pieces: Vec<Vec<u8>> = message
                .chunks(1)
                .map(|byte| {
                    let mut piece = Vec::new();
                    deflater.fragment(byte, true, &mut piece);
                    piece
                })
                .collect();
            pieces.push(Vec::new());
            deflater.last_fragment(b"", pieces.last_mut().unwrap());
            let pieces: Vec<_> = pieces.iter().map(Vec::as_slice).collect();
            assert!(inflate(&mut inflater, MessageKind::Binary, &pieces).unwrap() == message);
        }
        // Each fragment ends with a last block.
        let pieces = vec![&last_block[..]; 3000];
        let message = inflate(&mut inflater, MessageKind::Text, &pieces).unwrap();
        assert_eq!(message, b"Hello".repeat(3000));
    }
}

#[test]
fn text_is_validated_as_it_comes_out() {
    let mut deflater = Deflater::new(6, 15, false);
    let valid = deflated(&mut deflater, "κόσμε".repeat(100).as_bytes());
    let mut inflater = Inflater::new(NO_LIMIT, 15, false);
    assert!(inflate(&mut inflater, MessageKind::Text, &[&valid]).is_ok());

    let incomplete = deflated(&mut deflater, "κόσμε".as_bytes().split_last().unwrap().1);
    let error = inflate(&mut inflater, MessageKind::Text, &[&incomplete]).unwrap_err();
    assert_eq!(error, Failure::Violation(Violation::InvalidText));
    assert!(inflate(&mut inflater, MessageKind::Binary, &[&incomplete]).is_ok());

    // The message continues, but is already known to be invalid.
    let mut wrong = Vec::new();
    deflater.fragment(b"\xFF", true, &mut wrong);
    inflater.begin(MessageKind::Text);
    let error = inflater.inflate(&wrong, false, &mut Vec::new()).unwrap_err();
    assert_eq!(error, Failure::Violation(Violation::InvalidText));
}

// ---- compressing

#[test]
fn every_window_and_level_can_be_read() {
    let text: Vec<u8> = (0..40_000_u32).flat_map(|i| (i * i % 251).to_string().into_bytes()).collect();
    for window_bits in 9..=15 {
        for level in 0..=9 {
            for takes_over in [false, true] {
                let mut deflater = Deflater::new(level, window_bits, takes_over);
                let mut inflater = Inflater::new(NO_LIMIT, window_bits, takes_over);
                for message in [&text[..], b"", &text[..1000], b"", b"Hello", &noise(70_000)] {
                    let payload = deflated(&mut deflater, message);
                    assert_eq!(inflate(&mut inflater, MessageKind::Binary, &[&payload]).unwrap(), message);
                }
            }
        }
    }
}

#[test]
fn the_window_is_no_larger_than_agreed() {
    // A repetition after 600 bytes is out of reach of a window of 512 bytes.
    let text = noise(600).repeat(2);
    let size = |window_bits| deflated(&mut Deflater::new(6, window_bits, false), &text).len();
    assert!(size(9) > 1200, "{}", size(9));
    assert!(size(10) < 700, "{}", size(10));
}

#[test]
fn context_takeover_makes_repeated_messages_small() {
    let text = noise(1000);
    let mut deflater = Deflater::new(6, 15, true);
    assert!(deflated(&mut deflater, &text).len() > 1000);
    assert!(deflated(&mut deflater, &text).len() < 30);
    // The output does not refer to forgotten bytes, and an inflater that has not forgotten can still read it.
    deflater.forget();
    assert!(deflated(&mut deflater, &text).len() > 1000);
    let mut deflater = Deflater::new(6, 15, false);
    assert!(deflated(&mut deflater, &text).len() > 1000);
    assert!(deflated(&mut deflater, &text).len() > 1000);
}

#[test]
fn forgetting_keeps_the_other_end_in_step() {
    let mut deflater = Deflater::new(6, 15, true);
    let mut inflater = Inflater::new(NO_LIMIT, 15, true);
    let other = deflated(&mut Deflater::new(1, 15, false), b"from elsewhere");
    for round in 0..20 {
        let text = format!("message {round}, much like the one before");
        let payload = deflated(&mut deflater, text.as_bytes());
        assert_eq!(inflate(&mut inflater, MessageKind::Text, &[&payload]).unwrap(), text.as_bytes());
        if round % 3 == 0 {
            assert_eq!(inflate(&mut inflater, MessageKind::Text, &[&other]).unwrap(), b"from elsewhere");
            deflater.forget();
        }
        if round % 5 == 0 {
            deflater.fragment(b"never sent", true, &mut Vec::new());
            deflater.forget();
        }
    }
}

/// The way in which a message is left without its end.
#[derive(Clone, Copy, Debug)]
enum CutOff {
    Fragment,
    Flush,
    FlushAndFragment,
}

impl CutOff {
    fn apply(self, deflater: &mut Deflater, text: &[u8]) {
        let mut never_sent = Vec::new();
        let (first, second) = text.split_at(text.len() / 2);
        deflater.fragment(first, !matches!(self, Self::Fragment), &mut never_sent);
        if !matches!(self, Self::Flush) {
            deflater.fragment(second, false, &mut never_sent);
        }
    }
}

// Compressors are reused by one connection after the other. No message contains a part of an earlier message
// that was cut off, whoever sends the messages: the output of a reused compressor is exactly that of a new
// one.
#[test]
fn a_message_that_was_cut_off_leaves_nothing_behind() {
    for level in 0..=9 {
        for window_bits in [9, 15] {
            for takes_over in [false, true] {
                let new = move || Deflater::new(level, window_bits, takes_over);
                // A new thread has no idle compressors.
                let expected = std::thread::spawn(move || all_deflated(&mut new())).join().unwrap();
                for cut_off in [CutOff::Fragment, CutOff::Flush, CutOff::FlushAndFragment] {
                    for size in [2, 300, 60_000] {
                        let case =
                            format!("{cut_off:?} of {size} at level {level}, {window_bits}, {takes_over}");
                        let (same, another) = std::thread::spawn(move || {
                            let text = noise(size / 2).repeat(2);
                            let mut deflater = new();
                            all_deflated(&mut deflater);
                            cut_off.apply(&mut deflater, &text);
                            deflater.forget();
                            let same = all_deflated(&mut deflater);
                            cut_off.apply(&mut deflater, &text);
                            drop(deflater);
                            (same, all_deflated(&mut new()))
                        })
                        .join()
                        .unwrap();
                        for payloads in [same, another] {
                            let mut inflater = Inflater::new(NO_LIMIT, window_bits, takes_over);
                            for (payload, message) in payloads.iter().zip(messages()) {
                                let result = inflate(&mut inflater, MessageKind::Binary, &[payload]);
                                assert!(result == Ok(message), "{case}: {:?}", result.map(drop));
                            }
                            assert!(payloads == expected, "{case}: it is not what a new compressor writes");
                        }
                    }
                }
            }
        }
    }
}

fn messages() -> [Vec<u8>; 5] {
    let text = (0..4000_u32).flat_map(|i| (i * i % 251).to_string().into_bytes()).collect();
    [b"Hello".to_vec(), Vec::new(), vec![7; 100], text, noise(3000)]
}

fn all_deflated(deflater: &mut Deflater) -> [Vec<u8>; 5] {
    messages().map(|message| deflated(deflater, &message))
}

#[test]
fn fragments_are_held_back_until_a_flush() {
    let mut deflater = Deflater::new(6, 15, true);
    let mut inflater = Inflater::new(NO_LIMIT, 15, true);
    let (mut first, mut second, mut last) = (Vec::new(), Vec::new(), Vec::new());
    deflater.fragment(b"one ", false, &mut first);
    assert!(first.is_empty());
    deflater.fragment(b"two ", true, &mut first);
    deflater.fragment(b"", true, &mut second);
    deflater.last_fragment(b"", &mut last);
    assert_eq!(last, [0]);
    let message = inflate(&mut inflater, MessageKind::Text, &[&first, &second, &last]).unwrap();
    assert_eq!(message, b"one two ");
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        messages in prop::collection::vec(prop::collection::vec(0_u8..4, 0..3000), 1..6),
        cuts in prop::collection::vec(1_usize..500, 1..8),
        level in 0_u8..=9,
        window_bits in 9_u8..=15,
        takes_over: bool,
    ) {
        let mut deflater = Deflater::new(level, window_bits, takes_over);
        let mut inflater = Inflater::new(3000, window_bits, takes_over);
        let mut cuts = cuts.iter().cycle();
        for message in &messages {
            let mut payload = Vec::new();
            let mut rest = &message[..];
            while rest.len() > 100 {
                let cut = (*cuts.next().unwrap()).min(rest.len());
                deflater.fragment(&rest[..cut], cut % 2 == 0, &mut payload);
                rest = &rest[cut..];
            }
            deflater.last_fragment(rest, &mut payload);
            let mut pieces = Vec::new();
            let mut rest = &payload[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            prop_assert_eq!(&inflate(&mut inflater, MessageKind::Binary, &pieces).unwrap(), message);
        }
    }

    #[test]
    fn anything_may_come_in(payload in prop::collection::vec(any::<u8>(), 0..300), takes_over: bool) {
        let mut inflater = Inflater::new(100_000, 15, takes_over);
        let first = inflate(&mut inflater, MessageKind::Binary, &[&payload]);
        let pieces: Vec<_> = payload.chunks(1).collect();
        let mut inflater = Inflater::new(100_000, 15, takes_over);
        let pieces: &[&[u8]] = if pieces.is_empty() { &[b""] } else { &pieces };
        let second = inflate(&mut inflater, MessageKind::Binary, pieces);
        prop_assert_eq!(first, second);
    }
}

// ---- negotiation

const BOTH: DeflateParameters = DeflateParameters {
    server_no_context_takeover: false,
    client_no_context_takeover: false,
    server_max_window_bits: 15,
    client_max_window_bits: 15,
};

const NEITHER: DeflateParameters = DeflateParameters {
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    server_max_window_bits: 15,
    client_max_window_bits: 15,
};

fn small(server: u8, client: u8) -> DeflateParameters {
    DeflateParameters { server_max_window_bits: server, client_max_window_bits: client, ..BOTH }
}

fn answer(wish: DeflateParameters, offers: &str) -> Option<String> {
    let offers = Extension::parse_list(offers).unwrap();
    wish.accept(&offers).map(|(_, answer)| answer.to_string())
}

#[test]
fn a_server_takes_the_first_offer_that_it_can_meet() {
    let cases = [
        (BOTH, "permessage-deflate", "permessage-deflate"),
        (BOTH, "x-other, permessage-deflate", "permessage-deflate"),
        // A parameter that the client does not offer may not be in the answer.
        (small(15, 10), "permessage-deflate", "permessage-deflate"),
        (
            small(15, 10),
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=10",
        ),
        (
            small(15, 10),
            "permessage-deflate; client_max_window_bits=9",
            "permessage-deflate; client_max_window_bits=9",
        ),
        (BOTH, "permessage-deflate; client_max_window_bits", "permessage-deflate"),
        (
            BOTH,
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate; client_max_window_bits=8",
        ),
        (
            BOTH,
            "permessage-deflate; server_max_window_bits=15",
            "permessage-deflate; server_max_window_bits=15",
        ),
        (
            BOTH,
            "permessage-deflate; server_max_window_bits=9",
            "permessage-deflate; server_max_window_bits=9",
        ),
        (
            small(11, 15),
            "permessage-deflate; server_max_window_bits=12",
            "permessage-deflate; server_max_window_bits=11",
        ),
        (small(11, 15), "permessage-deflate", "permessage-deflate; server_max_window_bits=11"),
        (
            NEITHER,
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        ),
        (
            BOTH,
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover",
        ),
        (
            BOTH,
            "permessage-deflate; client_no_context_takeover",
            "permessage-deflate; client_no_context_takeover",
        ),
        (
            BOTH,
            "permessage-deflate; server_max_window_bits=\"10\"",
            "permessage-deflate; server_max_window_bits=10",
        ),
        // RFC 7692 7.1.3: the second offer is for servers that can't meet the first.
        (
            BOTH,
            "permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=10, \
             permessage-deflate",
            "permessage-deflate; server_max_window_bits=10",
        ),
        (BOTH, "permessage-deflate; unknown, permessage-deflate", "permessage-deflate"),
    ];
    for (wish, offers, expected) in cases {
        assert_eq!(answer(wish, offers).as_deref(), Some(expected), "{offers}");
    }
}

const WRONG: [&str; 17] = [
    "unknown",
    "unknown=1",
    "server_no_context_takeover=1",
    "client_no_context_takeover=true",
    "server_no_context_takeover; server_no_context_takeover",
    "client_no_context_takeover; client_no_context_takeover",
    "server_max_window_bits",
    "server_max_window_bits=7",
    "server_max_window_bits=16",
    "server_max_window_bits=010",
    "server_max_window_bits=+9",
    "server_max_window_bits=1e1",
    "server_max_window_bits=10; server_max_window_bits=10",
    "client_max_window_bits=7",
    "client_max_window_bits=16",
    "client_max_window_bits=09",
    "client_max_window_bits=10; client_max_window_bits=10",
];

#[test]
fn a_server_declines_what_makes_no_sense() {
    for parameters in WRONG {
        assert_eq!(answer(BOTH, &format!("permessage-deflate; {parameters}")), None, "{parameters}");
    }
    for offers in ["", "x-webkit-deflate-frame", "permessage-deflate; server_max_window_bits=8"] {
        assert_eq!(answer(BOTH, offers), None, "{offers}");
    }
}

#[test]
fn a_server_tells_what_was_agreed_on() {
    let offers = Extension::parse_list(
        "permessage-deflate; client_no_context_takeover; server_max_window_bits=12; client_max_window_bits",
    )
    .unwrap();
    let (agreed, _) = small(14, 10).accept(&offers).unwrap();
    let expected = DeflateParameters { client_no_context_takeover: true, ..small(12, 10) };
    assert_eq!(agreed, expected);
    // Without the parameter in the offer, the client may use any window.
    let offers = Extension::parse_list("permessage-deflate").unwrap();
    assert_eq!(small(14, 10).accept(&offers).unwrap().0, small(14, 15));
}

#[test]
fn what_a_client_offers() {
    let offer = |wish: DeflateParameters| wish.offer().to_string();
    assert_eq!(offer(BOTH), "permessage-deflate; client_max_window_bits");
    assert_eq!(
        offer(NEITHER),
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits"
    );
    assert_eq!(
        offer(small(10, 11)),
        "permessage-deflate; server_max_window_bits=10; client_max_window_bits=11"
    );
}

fn verified(wish: DeflateParameters, answer: &str) -> Result<Option<DeflateParameters>, InvalidAnswer> {
    wish.verify(&Extension::parse_list(answer).unwrap())
}

#[test]
fn a_client_takes_the_answers_that_fit_its_offer() {
    assert_eq!(verified(BOTH, ""), Ok(None));
    assert_eq!(verified(BOTH, "permessage-deflate"), Ok(Some(BOTH)));
    let no_takeover = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(verified(BOTH, no_takeover), Ok(Some(NEITHER)));
    assert_eq!(verified(NEITHER, no_takeover), Ok(Some(NEITHER)));
    // A client that offered to drop its context does so, whatever the server answers.
    assert_eq!(verified(NEITHER, "permessage-deflate; server_no_context_takeover"), Ok(Some(NEITHER)));
    let windows = "permessage-deflate; server_max_window_bits=10; client_max_window_bits=8";
    assert_eq!(verified(BOTH, windows), Ok(Some(small(10, 8))));
    assert_eq!(verified(small(10, 12), windows), Ok(Some(small(10, 8))));
    assert_eq!(verified(small(15, 12), "permessage-deflate"), Ok(Some(small(15, 12))));
}

#[test]
fn a_client_refuses_all_other_answers() {
    for answer in ["x-other", "permessage-deflate, x-other", "permessage-deflate, permessage-deflate"] {
        assert_eq!(verified(BOTH, answer), Err(InvalidAnswer::NotOffered), "{answer}");
    }
    for parameters in WRONG.into_iter().chain(["client_max_window_bits"]) {
        let answer = format!("permessage-deflate; {parameters}");
        assert_eq!(verified(BOTH, &answer), Err(InvalidAnswer::Parameter), "{answer}");
    }
    assert_eq!(verified(NEITHER, "permessage-deflate"), Err(InvalidAnswer::ContextTakeover));
    for answer in [
        "permessage-deflate",
        "permessage-deflate; server_max_window_bits=11",
        "permessage-deflate; server_max_window_bits=10; client_max_window_bits=13",
    ] {
        assert_eq!(verified(small(10, 12), answer), Err(InvalidAnswer::WindowBits), "{answer}");
    }
}

fn wishes() -> impl Strategy<Value = DeflateParameters> {
    let parameters = (any::<bool>(), any::<bool>(), 9_u8..=15, 9_u8..=15);
    parameters.prop_map(|(server_no_context_takeover, client_no_context_takeover, server, client)| {
        DeflateParameters { server_no_context_takeover, client_no_context_takeover, ..small(server, client) }
    })
}

fn values() -> impl Strategy<Value = Option<Option<u8>>> {
    prop::option::of(prop::option::of(7_u8..=16))
}

proptest! {
    #[test]
    fn both_sides_agree_on_the_same(client in wishes(), server in wishes()) {
        let offer = client.offer().to_string();
        let (agreed, answer) = server.accept(&Extension::parse_list(&offer).unwrap()).unwrap();
        prop_assert_eq!(verified(client, &answer.to_string()), Ok(Some(agreed)));
        for wish in [client, server] {
            prop_assert!(agreed.server_max_window_bits <= wish.server_max_window_bits);
            prop_assert!(agreed.client_max_window_bits <= wish.client_max_window_bits);
            prop_assert!(agreed.server_no_context_takeover >= wish.server_no_context_takeover);
            prop_assert!(agreed.client_no_context_takeover >= wish.client_no_context_takeover);
        }
    }

    // RFC 7692 7.1: an answer may have `client_max_window_bits` only if the offer had the parameter.
    #[test]
    fn an_answer_holds_what_the_offer_allows(
        server in wishes(),
        flags in (any::<bool>(), any::<bool>()),
        windows in (values(), values()),
    ) {
        let flag = |set: bool, side| set.then(|| format!("{side}_no_context_takeover"));
        let window = |value: Option<Option<u8>>, side| match value? {
            None => Some(format!("{side}_max_window_bits")),
            Some(bits) => Some(format!("{side}_max_window_bits={bits}")),
        };
        let parameters = [
            Some("permessage-deflate".to_owned()),
            flag(flags.0, "server"),
            flag(flags.1, "client"),
            window(windows.0, "server"),
            window(windows.1, "client"),
        ];
        let offer = parameters.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let possible = |value: Option<Option<u8>>| {
            value.flatten().is_none_or(|bits| (8..=15).contains(&bits))
        };
        let possible = possible(windows.0) && possible(windows.1);
        let expected = possible && !matches!(windows.0, Some(None | Some(8)));
        let Some((agreed, answer)) = server.accept(&Extension::parse_list(&offer).unwrap()) else {
            prop_assert!(!expected, "{} was declined", offer);
            return Ok(());
        };
        prop_assert!(expected, "{} was accepted", offer);
        let has = |name: &str| answer.parameters.iter().any(|(other, _)| other == name);
        prop_assert!(windows.1.is_some() || !has("client_max_window_bits"));
        prop_assert!(windows.1.is_some() || agreed.client_max_window_bits == 15);
        prop_assert_eq!(has("server_no_context_takeover"), agreed.server_no_context_takeover);
        prop_assert_eq!(has("client_no_context_takeover"), agreed.client_no_context_takeover);
        prop_assert!(agreed.server_no_context_takeover >= flags.0);
        if let Some(Some(bits)) = windows.0 {
            prop_assert!(has("server_max_window_bits") && agreed.server_max_window_bits <= bits);
        }
        if let Some(Some(bits)) = windows.1 {
            prop_assert!(agreed.client_max_window_bits <= bits);
        }
        prop_assert_eq!(verified(BOTH, &answer.to_string()), Ok(Some(agreed)));
    }
}
