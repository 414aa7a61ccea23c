//! The receiving half: the events that bytes result in (RFC 6455 5, 6.2, 7.1, 8.1).

mod support;

use bowline_proto::{
    CloseCode, CloseFrame, Data, Event, Failure, Limit, MessageKind, ReceiveHalf, ReceiveLimits, Role,
    Violation,
};
use proptest::prelude::*;
use support::{
    BINARY, CLOSE, CONTINUATION, FIN, KEY, NO_LIMITS, PING, PONG, Receiver, Seen, TEXT, close_payload, data,
    empty_close, frame_for, joined, masked_frame, unmasked_frame,
};

const ROLES: [Role; 2] = [Role::Client, Role::Server];
const EURO: &[u8] = "€".as_bytes();

/// Returns the events of `wire`, received in one piece.
fn received(role: Role, wire: &[u8]) -> Result<Vec<Seen>, Failure> {
    let mut receiver = Receiver::new(role);
    receiver.arrive(wire)?;
    assert!(receiver.pending.is_empty(), "left over: {:x?}", receiver.pending);
    Ok(receiver.seen)
}

/// Asserts that a server that received `wire` failed at its last byte, and not before, with `failure`.
#[track_caller]
fn assert_fails_at_the_end(mut receiver: Receiver, wire: &[u8], failure: impl Into<Failure>) {
    let failure = failure.into();
    for (i, byte) in wire.iter().enumerate() {
        let expected = if i + 1 == wire.len() { Err(failure) } else { Ok(()) };
        assert_eq!(receiver.arrive(&[*byte]), expected, "byte {i} of {wire:x?}");
    }
    // RFC 6455 7.1.7: later bytes are not processed. The failure is returned again, and no byte is taken.
    let mut next = unmasked_frame(FIN | TEXT, b"next");
    for _ in 0..3 {
        assert_eq!(receiver.half.handle_bytes(&mut next), Err(failure));
        assert_eq!(receiver.half.handle_bytes(&mut []), Err(failure));
    }
    assert_eq!(next, unmasked_frame(FIN | TEXT, b"next"));
    assert!(!receiver.half.is_closed());
    assert!(!receiver.half.is_at_data(&next));
    assert_eq!(receiver.half.whole_frame_size(&next), None);
    assert_eq!(receiver.half.remaining(), 0);
}

// ---- messages

#[test]
fn rfc6455_5_7_examples() {
    let hello = data(MessageKind::Text, b"Hello", true, true);
    let masked = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    assert_eq!(received(Role::Client, b"\x81\x05Hello"), Ok(vec![hello.clone()]));
    assert_eq!(received(Role::Server, &masked), Ok(vec![hello]));
    assert_eq!(
        received(Role::Client, b"\x01\x03Hel\x80\x02lo"),
        Ok(vec![data(MessageKind::Text, b"Hel", true, false), data(MessageKind::Text, b"lo", false, true)])
    );
    assert_eq!(received(Role::Client, b"\x89\x05Hello"), Ok(vec![Seen::Ping(b"Hello".to_vec())]));
    let masked = [0x8A, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    assert_eq!(received(Role::Server, &masked), Ok(vec![Seen::Pong(b"Hello".to_vec())]));
    for size in [256, 65536] {
        let wire = unmasked_frame(FIN | BINARY, &vec![7; size]);
        let expected = data(MessageKind::Binary, &vec![7; size], true, true);
        assert_eq!(received(Role::Client, &wire), Ok(vec![expected]));
    }
}

#[test]
fn ranges_are_positions_in_the_callers_buffer() {
    let mut half = ReceiveHalf::new(Role::Server, NO_LIMITS);
    let mut wire = masked_frame(TEXT, b"Hello");
    wire.extend(masked_frame(PING, b"ping"));
    let untouched = wire.clone();
    let (taken, event) = half.handle_bytes(&mut wire).unwrap();
    let expected =
        Data { kind: MessageKind::Text, compressed: false, payload: 6..11, first: true, last: false };
    assert_eq!((taken, event), (11, Some(Event::Data(expected))));
    assert_eq!(wire[6..11], *b"Hello");
    // Bytes that were not taken are unchanged.
    assert_eq!(wire[11..], untouched[11..]);
    assert_eq!(half.handle_bytes(&mut wire[11..]), Ok((10, Some(Event::Ping(6..10)))));
    assert_eq!(wire[17..], *b"ping");
    assert_eq!(half.handle_bytes(&mut []), Ok((0, None)));
}

#[test]
fn payload_comes_out_as_it_arrives() {
    for role in ROLES {
        let wire = frame_for(role, FIN | BINARY, &[1, 2, 3, 4, 5, 6, 7]);
        let header = wire.len() - 7;
        let mut receiver = Receiver::new(role);
        for byte in &wire[..header - 1] {
            receiver.arrive(&[*byte]).unwrap();
            assert_eq!(receiver.take_seen(), []);
            assert_eq!(receiver.half.remaining(), 0);
        }
        receiver.arrive(&wire[header - 1..header]).unwrap();
        assert_eq!(receiver.take_seen(), [data(MessageKind::Binary, &[], true, false)]);
        assert_eq!(receiver.half.remaining(), 7);
        receiver.arrive(&wire[header..header + 3]).unwrap();
        assert_eq!(receiver.take_seen(), [data(MessageKind::Binary, &[1, 2, 3], false, false)]);
        assert_eq!(receiver.half.remaining(), 4);
        receiver.arrive(&[]).unwrap();
        assert_eq!(receiver.take_seen(), []);
        receiver.arrive(&wire[header + 3..]).unwrap();
        assert_eq!(receiver.take_seen(), [data(MessageKind::Binary, &[4, 5, 6, 7], false, true)]);
        assert_eq!(receiver.half.remaining(), 0);
    }
}

#[test]
fn rfc6455_5_4_fragments_with_control_frames_between_them() {
    for role in ROLES {
        let wire = [
            frame_for(role, TEXT, b"one"),
            frame_for(role, PING, b"ping"),
            frame_for(role, CONTINUATION, b""),
            frame_for(role, PONG, b""),
            frame_for(role, CONTINUATION, b"two"),
            frame_for(role, PING, b""),
            frame_for(role, FIN | CONTINUATION, b"three"),
            frame_for(role, BINARY, b""),
            frame_for(role, FIN | CONTINUATION, b""),
            frame_for(role, FIN | TEXT, b""),
        ];
        let (text, binary) = (MessageKind::Text, MessageKind::Binary);
        let expected = vec![
            data(text, b"one", true, false),
            Seen::Ping(b"ping".to_vec()),
            data(text, b"", false, false),
            Seen::Pong(vec![]),
            data(text, b"two", false, false),
            Seen::Ping(vec![]),
            data(text, b"three", false, true),
            data(binary, b"", true, false),
            data(binary, b"", false, true),
            data(text, b"", true, true),
        ];
        assert_eq!(received(role, &wire.concat()), Ok(expected));
    }
}

#[test]
fn rfc6455_5_4_a_continuation_continues_something() {
    for first in [CONTINUATION, FIN | CONTINUATION] {
        let wire = &masked_frame(first, b"one")[..6];
        assert_fails_at_the_end(Receiver::new(Role::Server), wire, Violation::UnexpectedContinuation);
        // Nor after a message that has ended, in one frame or several.
        let mut receiver = Receiver::new(Role::Server);
        receiver.arrive(&masked_frame(FIN | TEXT, b"one")).unwrap();
        assert_fails_at_the_end(receiver.clone(), wire, Violation::UnexpectedContinuation);
        receiver.arrive(&masked_frame(TEXT, b"one")).unwrap();
        receiver.arrive(&masked_frame(FIN | CONTINUATION, b"two")).unwrap();
        assert_fails_at_the_end(receiver, wire, Violation::UnexpectedContinuation);
    }
}

#[test]
fn rfc6455_5_4_messages_are_not_interleaved() {
    for first in [TEXT, BINARY, FIN | TEXT, FIN | BINARY] {
        let mut receiver = Receiver::new(Role::Server);
        receiver.arrive(&masked_frame(BINARY, b"one")).unwrap();
        let wire = &masked_frame(first, b"new")[..6];
        assert_fails_at_the_end(receiver, wire, Violation::ExpectedContinuation);
    }
}

// ---- headers

#[test]
fn rfc6455_5_1_a_server_refuses_unmasked_frames() {
    for first in [TEXT, BINARY, FIN | TEXT, FIN | BINARY, PING, PONG, CLOSE] {
        let wire = &unmasked_frame(first, b"")[..2];
        assert_fails_at_the_end(Receiver::new(Role::Server), wire, Violation::UnmaskedFrame);
    }
}

#[test]
fn rfc6455_5_1_a_client_refuses_masked_frames() {
    for first in [TEXT, BINARY, FIN | TEXT, FIN | BINARY, PING, PONG, CLOSE] {
        let wire = &masked_frame(first, b"12")[..6];
        assert_fails_at_the_end(Receiver::new(Role::Client), wire, Violation::MaskedFrame);
        // A masking key of zeros is a key too.
        assert_fails_at_the_end(
            Receiver::new(Role::Client),
            &[first, 0x82, 0, 0, 0, 0],
            Violation::MaskedFrame,
        );
    }
}

#[test]
fn rfc6455_5_3_a_key_of_zeros_masks_nothing() {
    let wire = b"\x81\x85\0\0\0\0Hello";
    assert_eq!(received(Role::Server, wire), Ok(vec![data(MessageKind::Text, b"Hello", true, true)]));
}

#[test]
fn rfc6455_5_2_reserved_bits_are_0_without_an_extension() {
    for reserved in [0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70] {
        for first in [FIN | TEXT, BINARY, PING, PONG, CLOSE] {
            let wire = &masked_frame(reserved | first, b"12")[..6];
            assert_fails_at_the_end(Receiver::new(Role::Server), wire, Violation::ReservedBits);
        }
        let mut receiver = Receiver::new(Role::Server);
        receiver.arrive(&masked_frame(TEXT, b"one")).unwrap();
        let wire = &masked_frame(reserved | FIN | CONTINUATION, b"two")[..6];
        assert_fails_at_the_end(receiver, wire, Violation::ReservedBits);
    }
}

#[test]
fn rfc6455_5_2_wrong_headers_fail() {
    let headers: [(&[u8], Violation); 7] = [
        (&[0x83, 0x80], Violation::UnknownOpcode(3)),
        (&[0x8B, 0x80], Violation::UnknownOpcode(11)),
        (&[0x09, 0x80], Violation::FragmentedControlFrame),
        (&[0x89, 0xFE], Violation::OversizedControlFrame),
        (&[0x88, 0xFF], Violation::OversizedControlFrame),
        (&[0x82, 0xFE, 0, 125], Violation::NonMinimalLength),
        (&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], Violation::LengthOverflow),
    ];
    for (wire, violation) in headers {
        assert_fails_at_the_end(Receiver::new(Role::Server), wire, violation);
        // The frame may also come between the fragments of a message.
        let mut receiver = Receiver::new(Role::Server);
        receiver.arrive(&masked_frame(TEXT, b"one")).unwrap();
        assert_fails_at_the_end(receiver, wire, violation);
    }
}

#[test]
fn the_events_before_a_failure_come_first() {
    let mut receiver = Receiver::new(Role::Client);
    let wire = [unmasked_frame(FIN | TEXT, b"good"), unmasked_frame(PING, b""), vec![0x83, 0]].concat();
    assert_eq!(receiver.arrive(&wire), Err(Violation::UnknownOpcode(3).into()));
    assert_eq!(receiver.seen, [data(MessageKind::Text, b"good", true, true), Seen::Ping(vec![])]);
}

// ---- limits

fn limits(message_size: u64, frames_per_message: u32) -> ReceiveLimits {
    ReceiveLimits { message_size, frames_per_message }
}

#[test]
fn rfc6455_10_4_the_size_of_a_message_is_checked_before_its_payload_arrives() {
    let receiver = Receiver::with_limits(Role::Server, limits(10, 100));
    let wire = &masked_frame(FIN | BINARY, &[0; 11])[..6];
    assert_fails_at_the_end(receiver.clone(), wire, Limit::MessageSize(10));
    // The largest possible length.
    let huge = [&[0x82, 0xFF, 0x7F], &[0xFF; 7][..], &KEY].concat();
    assert_fails_at_the_end(receiver.clone(), &huge, Limit::MessageSize(10));

    // Each message may have exactly the size of the limit, in one frame or in several.
    let mut receiver = receiver;
    for _ in 0..3 {
        receiver.arrive(&masked_frame(FIN | BINARY, &[0; 10])).unwrap();
        receiver.arrive(&masked_frame(BINARY, &[0; 4])).unwrap();
        receiver.arrive(&masked_frame(PING, &[0; 100])).unwrap();
        receiver.arrive(&masked_frame(FIN | CONTINUATION, &[0; 6])).unwrap();
    }
    receiver.arrive(&masked_frame(BINARY, &[0; 4])).unwrap();
    let wire = &masked_frame(CONTINUATION, &[0; 7])[..6];
    assert_fails_at_the_end(receiver, wire, Limit::MessageSize(10));
}

#[test]
fn rfc6455_5_2_the_largest_length_there_is() {
    let mut receiver = Receiver::new(Role::Client);
    receiver.arrive(&unmasked_frame(BINARY, &[0; 2])).unwrap();
    // 2^63 - 1 bytes are announced, and never arrive.
    receiver.arrive(&[&[0x00, 127, 0x7F], &[0xFF; 7][..]].concat()).unwrap();
    assert_eq!(receiver.half.remaining(), i64::MAX as u64);
    receiver.arrive(&[0; 1000]).unwrap();
    assert_eq!(receiver.half.remaining(), i64::MAX as u64 - 1000);
}

#[test]
fn frames_of_a_message_are_counted_and_empty_ones_too() {
    let mut receiver = Receiver::with_limits(Role::Server, limits(100, 3));
    for _ in 0..2 {
        receiver.arrive(&masked_frame(BINARY, b"")).unwrap();
        receiver.arrive(&masked_frame(CONTINUATION, b"")).unwrap();
        // Control frames are not part of the message.
        receiver.arrive(&masked_frame(PING, b"")).unwrap();
        receiver.arrive(&masked_frame(FIN | CONTINUATION, b"1")).unwrap();
    }
    receiver.arrive(&masked_frame(BINARY, b"1")).unwrap();
    receiver.arrive(&masked_frame(CONTINUATION, b"")).unwrap();
    receiver.arrive(&masked_frame(CONTINUATION, b"")).unwrap();
    let wire = &masked_frame(FIN | CONTINUATION, b"")[..6];
    assert_fails_at_the_end(receiver, wire, Limit::FramesPerMessage(3));

    let none = Receiver::with_limits(Role::Server, limits(100, 0));
    assert_fails_at_the_end(none, &masked_frame(FIN | BINARY, b"")[..6], Limit::FramesPerMessage(0));
}

// ---- text

#[test]
fn rfc6455_8_1_a_code_point_split_at_every_byte() {
    for role in ROLES {
        for point in ["é", "€", "😀"] {
            let text = format!("a{point}b");
            for split in 0..=text.len() {
                let (front, back) = text.as_bytes().split_at(split);
                // Split across fragments, with a control frame and an empty fragment in between.
                let wire = [
                    frame_for(role, TEXT, front),
                    frame_for(role, PING, EURO),
                    frame_for(role, CONTINUATION, b""),
                    frame_for(role, FIN | CONTINUATION, back),
                ]
                .concat();
                // Split across reads too: byte by byte, and in two reads of every size.
                for read in (0..=wire.len()).step_by(if cfg!(miri) { 5 } else { 1 }) {
                    let mut receiver = Receiver::new(role);
                    receiver.arrive(&wire[..read]).unwrap();
                    receiver.arrive(&wire[read..]).unwrap();
                    assert_eq!(texts(&receiver.seen), [text.as_str()]);
                }
                let mut receiver = Receiver::new(role);
                for byte in wire {
                    receiver.arrive(&[byte]).unwrap();
                }
                assert_eq!(texts(&receiver.seen), [text.as_str()]);
            }
        }
    }
}

/// Returns the text messages among the events.
fn texts(seen: &[Seen]) -> Vec<String> {
    let mut texts = Vec::new();
    let mut text = Vec::new();
    for seen in seen {
        if let Seen::Data { kind: MessageKind::Text, payload, first, last } = seen {
            assert_eq!(*first, text.is_empty() && *first);
            text.extend_from_slice(payload);
            if *last {
                texts.push(String::from_utf8(std::mem::take(&mut text)).unwrap());
            }
        }
    }
    texts
}

#[test]
fn rfc6455_8_1_an_invalid_byte_is_found_before_its_frame_is_complete() {
    let wrong: [&[u8]; 5] = [b"abc\x80", b"abc\xC0", b"abc\xE0\x80", b"abc\xED\xA0", b"abc\xF4\x90"];
    for role in ROLES {
        for text in wrong {
            // The frame has a hundred more bytes, and is not the last of the message.
            let payload = [text, &[b'x'; 100]].concat();
            let wire = frame_for(role, TEXT, &payload);
            let wire = &wire[..wire.len() - 100];
            assert_fails_at_the_end(Receiver::new(role), wire, Violation::InvalidText);
            // Everything in one read.
            assert_eq!(received(role, wire), Err(Violation::InvalidText.into()));
            // After a fragment.
            let mut receiver = Receiver::new(role);
            receiver.arrive(&frame_for(role, TEXT, EURO)).unwrap();
            let wire = frame_for(role, CONTINUATION, &payload);
            assert_fails_at_the_end(receiver, &wire[..wire.len() - 100], Violation::InvalidText);
        }
    }
}

#[test]
fn rfc6455_8_1_a_code_point_that_goes_on_wrongly_in_the_next_fragment() {
    let mut receiver = Receiver::new(Role::Client);
    receiver.arrive(&unmasked_frame(TEXT, b"\xE2\x82")).unwrap();
    receiver.arrive(&unmasked_frame(PING, b"\xAC")).unwrap();
    assert_fails_at_the_end(receiver, &unmasked_frame(CONTINUATION, b"x"), Violation::InvalidText);
}

#[test]
fn rfc6455_8_1_a_message_does_not_end_inside_a_code_point() {
    for (size, point) in [(1, "é"), (1, "€"), (2, "€"), (1, "😀"), (2, "😀"), (3, "😀")] {
        let part = &point.as_bytes()[..size];
        let wire = masked_frame(FIN | TEXT, part);
        assert_fails_at_the_end(Receiver::new(Role::Server), &wire, Violation::InvalidText);
        // The last fragment may be empty.
        let mut receiver = Receiver::new(Role::Server);
        receiver.arrive(&masked_frame(TEXT, part)).unwrap();
        let wire = masked_frame(FIN | CONTINUATION, b"");
        assert_fails_at_the_end(receiver, &wire, Violation::InvalidText);
    }
}

#[test]
fn rfc6455_5_6_binary_is_any_bytes() {
    let wire = unmasked_frame(FIN | BINARY, b"\xFF\xC0\x80");
    assert_eq!(
        received(Role::Client, &wire),
        Ok(vec![data(MessageKind::Binary, b"\xFF\xC0\x80", true, true)])
    );
    let wire = [unmasked_frame(BINARY, b"\xE2"), unmasked_frame(FIN | CONTINUATION, b"\xE2")].concat();
    assert!(received(Role::Client, &wire).is_ok());
}

#[test]
fn four_mebibytes_of_text_in_small_fragments_take_linear_time() {
    // A code point lies across every border between fragments. Every frame has a buffer of its own and is
    // passed once. A call can only examine 66 bytes and a state of fixed size.
    const FRAGMENTS: usize = if cfg!(miri) { 256 } else { 4 * 1024 * 1024 / 64 };
    assert!(size_of::<ReceiveHalf>() <= 128);
    let text = format!("{}€", "x".repeat(61)).repeat(FRAGMENTS);
    let text = format!("x{}", &text[..text.len() - 1 - EURO.len()]) + &"x".repeat(EURO.len());
    assert_eq!(text.len(), FRAGMENTS * 64);

    let mut half = ReceiveHalf::new(Role::Client, limits(text.len() as u64, u32::MAX));
    let (mut calls, mut bytes) = (0, 0);
    for (i, fragment) in text.as_bytes().chunks(64).enumerate() {
        let first = if i == 0 { TEXT } else { CONTINUATION };
        let fin = if i + 1 == FRAGMENTS { FIN } else { 0 };
        let mut frame = unmasked_frame(fin | first, fragment);
        let (taken, event) = half.handle_bytes(&mut frame).unwrap();
        assert_eq!(taken, frame.len());
        let Some(Event::Data(data)) = event else { panic!("no data: {event:?}") };
        assert_eq!((data.first, data.last), (i == 0, i + 1 == FRAGMENTS));
        calls += 1;
        bytes += data.payload.len();
    }
    assert_eq!((calls, bytes), (FRAGMENTS, text.len()));
}

#[test]
fn a_call_per_event_and_one_per_read() {
    let wire = unmasked_frame(FIN | TEXT, b"0123456789").repeat(100);
    let mut receiver = Receiver::new(Role::Client);
    receiver.arrive(&wire).unwrap();
    assert_eq!((receiver.seen.len(), receiver.calls), (100, 101));
}

// ---- closing

#[test]
fn rfc6455_5_5_1_bodies_of_close_frames() {
    for role in ROLES {
        assert_eq!(received(role, &frame_for(role, CLOSE, b"")), Ok(vec![Seen::Close(empty_close())]));
        for (code, reason) in [(1000, ""), (1001, "bye"), (1014, "€"), (3000, ""), (4999, &*"r".repeat(123))]
        {
            let wire = frame_for(role, CLOSE, &close_payload(code, reason.as_bytes()));
            let frame = CloseFrame::new(CloseCode(code), reason).unwrap();
            assert_eq!(received(role, &wire), Ok(vec![Seen::Close(frame)]));
        }
        let wire = frame_for(role, CLOSE, &[3]);
        assert_fails_at_the_end(Receiver::new(role), &wire, Violation::CloseBodyTooShort);
    }
}

#[test]
fn rfc6455_7_4_every_code_in_a_close_frame() {
    for code in (0..=u16::MAX).step_by(if cfg!(miri) { 331 } else { 1 }) {
        let wire = unmasked_frame(CLOSE, &close_payload(code, b"why"));
        let result = received(Role::Client, &wire);
        match CloseFrame::new(CloseCode(code), "why") {
            Ok(frame) => assert_eq!(result, Ok(vec![Seen::Close(frame)])),
            Err(_) => assert_eq!(result, Err(Violation::InvalidCloseCode(code).into())),
        }
    }
}

#[test]
fn rfc6455_7_4_a_wrong_code_is_found_before_the_frame_is_complete() {
    for role in ROLES {
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535] {
            let wire = frame_for(role, CLOSE, &close_payload(code, b"reason"));
            let wire = &wire[..wire.len() - 6];
            assert_fails_at_the_end(Receiver::new(role), wire, Violation::InvalidCloseCode(code));
        }
    }
}

#[test]
fn rfc6455_8_1_a_wrong_reason_is_found_before_the_frame_is_complete() {
    for role in ROLES {
        for reason in [&b"why\xFF"[..], b"why\xE0\x80", b"\xF4\x90"] {
            let payload = close_payload(1000, &[reason, b"behind"].concat());
            let wire = frame_for(role, CLOSE, &payload);
            let wire = &wire[..wire.len() - 6];
            assert_fails_at_the_end(Receiver::new(role), wire, Violation::InvalidCloseReason);
        }
        // A reason that ends inside a code point.
        let wire = frame_for(role, CLOSE, &close_payload(1000, b"\xE2\x82"));
        assert_fails_at_the_end(Receiver::new(role), &wire, Violation::InvalidCloseReason);
    }
}

#[test]
fn a_part_of_a_control_frame_is_left_as_it_was() {
    for first in [PING, PONG, CLOSE] {
        let wire = masked_frame(first, &close_payload(1000, "grüße €".as_bytes()));
        for size in 0..wire.len() {
            let mut part = wire[..size].to_vec();
            let mut half = ReceiveHalf::new(Role::Server, NO_LIMITS);
            for _ in 0..2 {
                assert_eq!(half.handle_bytes(&mut part), Ok((0, None)));
                assert_eq!(part, wire[..size]);
            }
        }
    }
}

#[test]
fn rfc6455_1_4_what_follows_the_close_frame_is_discarded() {
    for role in ROLES {
        let mut receiver = Receiver::new(role);
        // The frame may also come in the middle of a message.
        receiver.arrive(&frame_for(role, TEXT, b"one")).unwrap();
        receiver.take_seen();
        assert!(!receiver.half.is_closed());
        let behind = [vec![0xFF; 100], frame_for(role, CLOSE, b"")].concat();
        receiver.arrive(&[frame_for(role, CLOSE, b""), behind].concat()).unwrap();
        assert_eq!(receiver.take_seen(), [Seen::Close(empty_close())]);
        assert!(receiver.half.is_closed());
        let mut more = [0x83; 1000];
        assert_eq!(receiver.half.handle_bytes(&mut more), Ok((1000, None)));
        assert_eq!(receiver.half.handle_bytes(&mut []), Ok((0, None)));
        let next = frame_for(role, FIN | TEXT, b"next");
        assert!(!receiver.half.is_at_data(&next));
        assert_eq!(receiver.half.whole_frame_size(&next), None);
    }
}

// ---- after our Close frame

#[test]
fn discarded_data_is_neither_validated_nor_counted() {
    let mut receiver = Receiver::with_limits(Role::Server, limits(10, 2));
    receiver.arrive(&masked_frame(TEXT, b"0123456\xE2")).unwrap();
    receiver.half.discard_data();
    let wire = [
        masked_frame(CONTINUATION, b"\xFF\xFF"),
        masked_frame(CONTINUATION, &[0xC0; 1000]),
        masked_frame(PING, b"ping"),
        masked_frame(FIN | CONTINUATION, b"\xE2"),
        masked_frame(FIN | TEXT, &[0xFF; 1000]),
    ];
    receiver.take_seen();
    receiver.arrive(&wire.concat()).unwrap();
    let text = MessageKind::Text;
    // Events are still returned, with unmasked payloads.
    assert_eq!(
        receiver.take_seen(),
        [
            data(text, b"\xFF\xFF", false, false),
            data(text, &[0xC0; 1000], false, false),
            Seen::Ping(b"ping".to_vec()),
            data(text, b"\xE2", false, true),
            data(text, &[0xFF; 1000], true, true),
        ]
    );
    receiver.arrive(&masked_frame(CLOSE, b"")).unwrap();
    assert_eq!(receiver.take_seen(), [Seen::Close(empty_close())]);
}

#[test]
fn frames_around_discarded_data_keep_their_rules() {
    let discarding = || {
        let mut receiver = Receiver::new(Role::Server);
        receiver.half.discard_data();
        receiver
    };
    let failing: [(Vec<u8>, Violation); 5] = [
        (masked_frame(CONTINUATION, b"")[..6].to_vec(), Violation::UnexpectedContinuation),
        (unmasked_frame(FIN | TEXT, b"")[..2].to_vec(), Violation::UnmaskedFrame),
        (vec![0x83, 0x80], Violation::UnknownOpcode(3)),
        (masked_frame(0xC1, b""), Violation::ReservedBits),
        (masked_frame(CLOSE, &close_payload(1005, b"")), Violation::InvalidCloseCode(1005)),
    ];
    for (wire, violation) in failing {
        assert_fails_at_the_end(discarding(), &wire, violation);
    }
    let mut receiver = discarding();
    receiver.arrive(&masked_frame(TEXT, b"")).unwrap();
    assert_fails_at_the_end(receiver, &masked_frame(FIN | TEXT, b""), Violation::ExpectedContinuation);
}

// ---- what comes next

#[test]
fn is_at_data_looks_at_the_next_frame() {
    for role in ROLES {
        let mut receiver = Receiver::new(role);
        assert!(!receiver.half.is_at_data(&[]));
        for (first, expected) in [
            (TEXT, true),
            (FIN | BINARY, true),
            (CONTINUATION, true),
            (PING, false),
            (PONG, false),
            (CLOSE, false),
        ] {
            // One byte is enough.
            assert_eq!(receiver.half.is_at_data(&[first]), expected);
            assert_eq!(receiver.half.is_at_data(&frame_for(role, first, b"12")), expected);
        }
        // In the middle of a payload, data comes next, whatever the next byte is and even if no byte has
        // arrived.
        let wire = frame_for(role, FIN | BINARY, &[PING; 4]);
        receiver.arrive(&wire[..wire.len() - 2]).unwrap();
        assert!(receiver.half.is_at_data(&[]));
        assert!(receiver.half.is_at_data(&[PING]));
        receiver.arrive(&wire[wire.len() - 2..]).unwrap();
        assert!(!receiver.half.is_at_data(&[PING]));
    }
}

#[test]
fn whole_frame_size_needs_all_of_it() {
    for role in ROLES {
        let mut receiver = Receiver::new(role);
        for wire in [
            frame_for(role, FIN | TEXT, b""),
            frame_for(role, BINARY, b"12345"),
            frame_for(role, FIN | BINARY, &[0; 300]),
            frame_for(role, PING, b"ping"),
        ] {
            for size in 0..wire.len() {
                assert_eq!(receiver.half.whole_frame_size(&wire[..size]), None, "{size} of {}", wire.len());
            }
            assert_eq!(receiver.half.whole_frame_size(&wire), Some(wire.len()));
            let followed = [&wire[..], b"more"].concat();
            assert_eq!(receiver.half.whole_frame_size(&followed), Some(wire.len()));
        }
        // Lengths far beyond the bytes, and the middle of a frame.
        let far = [&[0x82, 127, 0x7F], &[0xFF; 7][..]].concat();
        assert_eq!(receiver.half.whole_frame_size(&far), None);
        let invalid = [&[0x82, 255], &[0xFF; 8][..]].concat();
        assert_eq!(receiver.half.whole_frame_size(&invalid), None);
        let wire = frame_for(role, FIN | BINARY, &[0; 10]);
        receiver.arrive(&wire[..wire.len() - 1]).unwrap();
        assert_eq!(receiver.half.whole_frame_size(&wire), None);
    }
}

// ---- whole messages

const ALL_OF_IT: std::ops::RangeInclusive<usize> = 0..=1200;

#[test]
fn take_whole_message_gives_what_handle_bytes_gives() {
    let text = "a€😀".repeat(200);
    for role in ROLES {
        let half = Receiver::new(role).half;
        for size in ALL_OF_IT.step_by(if cfg!(miri) { 97 } else { 1 }).chain([65_534, 65_535]) {
            let binary: Vec<u8> = (0..size).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect();
            let text = text.get(..size).map(|text| (TEXT, MessageKind::Text, text.as_bytes()));
            for (opcode, kind, payload) in
                [(BINARY, MessageKind::Binary, &binary[..])].into_iter().chain(text)
            {
                let wire = frame_for(role, FIN | opcode, payload);
                let message = half.take_whole_message(&[&wire[..], b"more"].concat()).unwrap();
                assert_eq!((message.kind, message.frame_size), (kind, wire.len()));
                assert!(message.payload == payload, "{size}");
                let mut bytes = [&wire[..], b"more"].concat();
                let (unmasked, range) = half.unmask_whole_message(&mut bytes).unwrap();
                assert_eq!((unmasked, range.end), (kind, wire.len()));
                assert!(bytes[range.clone()] == *payload, "{size}");
                assert!(bytes[..range.start] == wire[..range.start] && bytes[range.end..] == *b"more");
                assert_eq!(received(role, &wire), Ok(vec![data(kind, payload, true, true)]));
            }
        }
    }
}

#[test]
fn take_whole_message_needs_all_of_it() {
    for role in ROLES {
        let half = Receiver::new(role).half;
        for len in [0, 1, 125, 126, 600] {
            let wire = frame_for(role, FIN | BINARY, &vec![7; len]);
            for size in 0..wire.len() {
                assert_eq!(half.take_whole_message(&wire[..size]), None, "{size} of {}", wire.len());
            }
        }
    }
}

#[test]
fn take_whole_message_leaves_all_else_to_handle_bytes() {
    for role in ROLES {
        let receiver = Receiver::with_limits(role, limits(1000, 5));
        let refused = |receiver: &Receiver, wire: &[u8]| {
            let mut bytes = wire.to_vec();
            let message = receiver.half.take_whole_message(wire);
            let unmasked = receiver.half.unmask_whole_message(&mut bytes);
            assert_eq!(unmasked.is_none(), message.is_none());
            assert!(message.is_some() || bytes == wire, "what was refused is left as it was");
            message.is_none()
        };
        let good = frame_for(role, FIN | TEXT, b"good");
        assert!(!refused(&receiver, &good));
        // Fragments, control frames, reserved bits and opcodes.
        for first in (0..=255).filter(|first| ![FIN | TEXT, FIN | BINARY].contains(first)) {
            assert!(refused(&receiver, &frame_for(role, first, b"good")), "{first:#x}");
        }
        // Masked by the wrong side.
        assert!(refused(
            &receiver,
            &frame_for(if role == Role::Client { Role::Server } else { Role::Client }, FIN | TEXT, b"good")
        ));
        // Lengths that are not encoded in the fewest bytes.
        let mask_bit = if role == Role::Server { 0x80 } else { 0 };
        assert!(refused(&receiver, &[&[FIN | TEXT, mask_bit | 0x7E, 0, 125], &[0; 200][..]].concat()));
        assert!(refused(
            &receiver,
            &[&[FIN | TEXT, mask_bit | 0x7F, 0, 0, 0, 0, 0, 0, 0, 130], &[0; 200][..]].concat()
        ));
        // Messages that are larger than a limit, or too large for the shorter path.
        assert!(!refused(&receiver, &frame_for(role, FIN | BINARY, &[0; 1000])));
        assert!(refused(&receiver, &frame_for(role, FIN | BINARY, &[0; 1001])));
        assert!(refused(&Receiver::with_limits(role, limits(1000, 0)), &good));
        assert!(refused(&Receiver::new(role), &frame_for(role, FIN | BINARY, &vec![0; 65_536])));
        // Text that is not UTF-8.
        assert!(refused(&receiver, &frame_for(role, FIN | TEXT, &EURO[..2])));
        assert!(!refused(&receiver, &frame_for(role, FIN | BINARY, &EURO[..2])));
        // In a message, in a frame, after the Close frame, after a violation, and while data is discarded.
        for (wire, size) in [
            (frame_for(role, TEXT, b"begun"), usize::MAX),
            (frame_for(role, FIN | TEXT, b"begun, not ended"), 8),
            (frame_for(role, CLOSE, &[]), usize::MAX),
            (frame_for(role, FIN | 0x3, &[]), usize::MAX),
        ] {
            let mut receiver = receiver.clone();
            let _ = receiver.arrive(&wire[..size.min(wire.len())]);
            assert!(refused(&receiver, &good), "after {wire:x?}");
        }
        let mut receiver = receiver;
        receiver.half.discard_data();
        assert!(refused(&receiver, &good));
    }
}

// ---- any bytes, any split

#[derive(Clone, Debug)]
struct Message {
    kind: MessageKind,
    payload: Vec<u8>,
    /// The positions at which the message is cut into fragments.
    cuts: Vec<prop::sample::Index>,
    /// The control frame before each fragment: a Ping (`true`), a Pong (`false`), or none.
    controls: Vec<Option<(bool, Vec<u8>)>>,
}

fn any_message() -> impl Strategy<Value = Message> {
    let text = "[a-c€é😀]{0,60}".prop_map(|text| (MessageKind::Text, text.into_bytes()));
    let binary = any::<Vec<u8>>().prop_map(|bytes| (MessageKind::Binary, bytes));
    let control = (any::<bool>(), prop::collection::vec(any::<u8>(), 0..=125));
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..5);
    let controls = prop::collection::vec(prop::option::weighted(0.3, control), 6);
    (prop_oneof![text, binary], cuts, controls).prop_map(|((kind, payload), cuts, controls)| Message {
        kind,
        payload,
        cuts,
        controls,
    })
}

/// Returns the frames of `messages` and the events that the frames must result in, joined.
fn on_the_wire(role: Role, messages: &[Message]) -> (Vec<u8>, Vec<Seen>) {
    let mut wire = Vec::new();
    let mut expected = Vec::new();
    for message in messages {
        let mut cuts: Vec<_> = message.cuts.iter().map(|cut| cut.index(message.payload.len() + 1)).collect();
        cuts.push(message.payload.len());
        cuts.sort_unstable();
        let mut start = 0;
        let mut opcode = if message.kind == MessageKind::Text { TEXT } else { BINARY };
        for (i, end) in cuts.iter().copied().enumerate() {
            if let Some((ping, payload)) = &message.controls[i] {
                wire.extend(frame_for(role, if *ping { PING } else { PONG }, payload));
                expected.push(if *ping { Seen::Ping(payload.clone()) } else { Seen::Pong(payload.clone()) });
            }
            let last = i + 1 == cuts.len();
            let fin = if last { FIN } else { 0 };
            wire.extend(frame_for(role, fin | opcode, &message.payload[start..end]));
            expected.push(data(message.kind, &message.payload[start..end], i == 0, last));
            opcode = CONTINUATION;
            start = end;
        }
    }
    (wire, joined(expected))
}

fn any_role() -> impl Strategy<Value = Role> {
    prop::sample::select(ROLES.to_vec())
}

proptest! {
    #[test]
    fn the_same_events_however_the_bytes_arrive(
        role in any_role(),
        messages in prop::collection::vec(any_message(), 0..5),
        close in any::<Option<bool>>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let (mut wire, mut expected) = on_the_wire(role, &messages);
        if let Some(code) = close {
            let going_away = CloseFrame::new(CloseCode::GOING_AWAY, "fin").unwrap();
            let frame = if code { going_away } else { empty_close() };
            let payload = if code { close_payload(1001, b"fin") } else { vec![] };
            wire.extend(frame_for(role, CLOSE, &payload));
            expected.push(Seen::Close(frame));
        }
        let whole = received(role, &wire).unwrap();
        prop_assert_eq!(&joined(whole), &expected);

        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        let mut receiver = Receiver::new(role);
        for cut in cuts.windows(2) {
            receiver.arrive(&wire[cut[0]..cut[1]]).unwrap();
        }
        prop_assert_eq!(&joined(receiver.take_seen()), &expected);

        let mut receiver = Receiver::new(role);
        for byte in &wire {
            receiver.arrive(&[*byte]).unwrap();
        }
        prop_assert_eq!(&joined(receiver.take_seen()), &expected);
    }

    #[test]
    fn a_damaged_byte_is_judged_the_same_however_the_bytes_arrive(
        role in any_role(),
        messages in prop::collection::vec(any_message(), 1..4),
        damaged in any::<prop::sample::Index>(),
        damage in 1..=255_u8,
        size in 1..20_usize,
    ) {
        let (mut wire, _) = on_the_wire(role, &messages);
        let damaged = damaged.index(wire.len());
        wire[damaged] ^= damage;
        let mut whole = Receiver::with_limits(role, limits(1000, 10));
        let expected = whole.arrive(&wire);
        let mut parts = Receiver::with_limits(role, limits(1000, 10));
        let result = wire.chunks(size).try_for_each(|part| parts.arrive(part));
        prop_assert_eq!(result, expected);
        if expected.is_ok() {
            prop_assert_eq!(joined(parts.seen), joined(whole.seen));
        }
    }

    #[test]
    fn any_bytes_are_safe(
        role in any_role(),
        wire in prop::collection::vec(prop_oneof![any::<u8>(), 0..3_u8, 0x80..=0x8A_u8], 0..200),
        size in 1..50_usize,
    ) {
        let mut receiver = Receiver::with_limits(role, limits(100, 5));
        for part in wire.chunks(size) {
            let _ = receiver.half.is_at_data(part);
            let _ = receiver.half.whole_frame_size(part);
            let message = receiver.half.take_whole_message(part);
            let mut bytes = part.to_vec();
            let unmasked = receiver.half.unmask_whole_message(&mut bytes);
            prop_assert!(message.is_none() || receiver.half.is_at_whole_message(part));
            prop_assert_eq!(unmasked.is_some(), message.is_some());
            if let Some((message, (kind, range))) = message.as_ref().zip(unmasked) {
                prop_assert_eq!((kind, range.end), (message.kind, message.frame_size));
                prop_assert_eq!(&bytes[range], &message.payload[..]);
            } else {
                prop_assert_eq!(&bytes[..], part);
            }
            if let Some(message) = message.filter(|_| receiver.pending.is_empty()) {
                let mut other = receiver.clone();
                other.arrive(&part[..message.frame_size]).unwrap();
                prop_assert_eq!(other.seen.last(), Some(&data(message.kind, &message.payload, true, true)));
                prop_assert!(other.pending.is_empty());
            }
            if receiver.arrive(part).is_err() {
                break;
            }
        }
    }
}
