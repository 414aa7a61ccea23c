//! The sending half: the exact bytes of frames, and refusals (RFC 6455 5, 6.1).

mod support;

use bowline_proto::{CloseCode, CloseFrame, FrameHeader, MessageKind, Misuse, Role, SendHalf};
use proptest::prelude::*;
use support::{
    BINARY, CLOSE, CONTINUATION, FIN, KEY, PING, PONG, Receiver, TEXT, data, empty_close, joined,
    masked_frame, unmasked_frame,
};

/// Returns the frame in the form that `role` must send.
fn frame_of(role: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    match role {
        Role::Client => masked_frame(first, payload),
        Role::Server => unmasked_frame(first, payload),
    }
}

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// Returns the bytes that `command` encodes.
fn sent(
    half: &mut SendHalf,
    command: impl FnOnce(&mut SendHalf, &mut Vec<u8>) -> Result<(), Misuse>,
) -> Vec<u8> {
    let mut out = b"before".to_vec();
    command(half, &mut out).unwrap();
    assert!(out.starts_with(b"before"));
    out.split_off(6)
}

/// Asserts that `command` is refused and encodes nothing.
fn refused(
    half: &mut SendHalf,
    misuse: Misuse,
    command: impl FnOnce(&mut SendHalf, &mut Vec<u8>) -> Result<(), Misuse>,
) {
    let mut out = b"before".to_vec();
    assert_eq!(command(half, &mut out), Err(misuse));
    assert_eq!(out, b"before");
}

#[test]
fn rfc6455_5_7_examples() {
    let hello = b"Hello";
    let mut server = SendHalf::new(Role::Server);
    let mut client = SendHalf::new(Role::Client);
    assert_eq!(
        sent(&mut server, |half, out| half.message(MessageKind::Text, hello, KEY, out)),
        [0x81, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F]
    );
    assert_eq!(
        sent(&mut client, |half, out| half.message(MessageKind::Text, hello, KEY, out)),
        [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]
    );
    assert_eq!(
        sent(&mut server, |half, out| half.fragment(MessageKind::Text, b"Hel", KEY, out)),
        [0x01, 0x03, 0x48, 0x65, 0x6C]
    );
    assert_eq!(
        sent(&mut server, |half, out| half.last_fragment(MessageKind::Text, b"lo", KEY, out)),
        [0x80, 0x02, 0x6C, 0x6F]
    );
    assert_eq!(
        sent(&mut server, |half, out| half.ping(hello, KEY, out)),
        [0x89, 0x05, 0x48, 0x65, 0x6C, 0x6C, 0x6F]
    );
    assert_eq!(
        sent(&mut client, |half, out| half.pong(hello, KEY, out)),
        [0x8A, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58]
    );
    let message = sent(&mut server, |half, out| half.message(MessageKind::Binary, &[7; 256], KEY, out));
    assert_eq!(message, [&[0x82, 0x7E, 0x01, 0x00], &[7; 256][..]].concat());
    let message = sent(&mut server, |half, out| half.message(MessageKind::Binary, &vec![7; 65536], KEY, out));
    assert_eq!(message, [&[0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0], &vec![7; 65536][..]].concat());
}

#[test]
fn rfc6455_5_1_a_client_masks_and_a_server_does_not() {
    // Sizes around the forms of the length, and around the blocks of masking.
    let sizes = [0, 1, 3, 4, 7, 125, 126, 127, 4097, 4095, 4096, 8191, 8192, 8193, 65535, 65536, 70_001];
    // Miri is slow.
    let sizes = if cfg!(miri) { &sizes[..9] } else { &sizes[..] };
    for role in ROLES {
        for &size in sizes {
            let payload: Vec<u8> = (0..size).map(|i| u8::try_from(i % 253).unwrap()).collect();
            for (kind, opcode) in [(MessageKind::Text, TEXT), (MessageKind::Binary, BINARY)] {
                let mut half = SendHalf::new(role);
                let message = sent(&mut half, |half, out| half.message(kind, &payload, KEY, out));
                assert!(message == frame_of(role, FIN | opcode, &payload), "{role:?}, {size} bytes");
            }
        }
    }
}

#[test]
fn rfc6455_5_4_fragments_after_the_first_are_continuations() {
    for role in ROLES {
        let mut half = SendHalf::new(role);
        let kind = MessageKind::Binary;
        let expected = frame_of(role, BINARY, b"one");
        assert_eq!(sent(&mut half, |half, out| half.fragment(kind, b"one", KEY, out)), expected);
        let expected = frame_of(role, CONTINUATION, b"");
        assert_eq!(sent(&mut half, |half, out| half.fragment(kind, b"", KEY, out)), expected);
        // Only the kind of the first fragment counts.
        let expected = frame_of(role, CONTINUATION, b"two");
        assert_eq!(sent(&mut half, |half, out| half.fragment(MessageKind::Text, b"two", KEY, out)), expected);
        let expected = frame_of(role, FIN | CONTINUATION, b"three");
        assert_eq!(sent(&mut half, |half, out| half.last_fragment(kind, b"three", KEY, out)), expected);
        // A message of one fragment, after which the next message begins.
        let expected = frame_of(role, FIN | TEXT, b"alone");
        let kind = MessageKind::Text;
        assert_eq!(sent(&mut half, |half, out| half.last_fragment(kind, b"alone", KEY, out)), expected);
        let expected = frame_of(role, FIN | TEXT, b"whole");
        assert_eq!(sent(&mut half, |half, out| half.message(kind, b"whole", KEY, out)), expected);
    }
}

#[test]
fn rfc6455_5_4_control_frames_pass_between_fragments() {
    for role in ROLES {
        let mut half = SendHalf::new(role);
        let kind = MessageKind::Text;
        sent(&mut half, |half, out| half.fragment(kind, b"one", KEY, out));
        assert_eq!(sent(&mut half, |half, out| half.ping(b"ping", KEY, out)), frame_of(role, PING, b"ping"));
        assert_eq!(sent(&mut half, |half, out| half.pong(b"", KEY, out)), frame_of(role, PONG, b""));
        let expected = frame_of(role, CONTINUATION, b"two");
        assert_eq!(sent(&mut half, |half, out| half.fragment(kind, b"two", KEY, out)), expected);
        // An unfinished message does not prevent the Close frame.
        assert_eq!(
            sent(&mut half, |half, out| half.close(&empty_close(), KEY, out)),
            frame_of(role, CLOSE, b"")
        );
    }
}

#[test]
fn rfc6455_5_4_messages_are_not_interleaved() {
    let mut half = SendHalf::new(Role::Server);
    sent(&mut half, |half, out| half.fragment(MessageKind::Text, b"one", KEY, out));
    for kind in [MessageKind::Text, MessageKind::Binary] {
        refused(&mut half, Misuse::MessageOpen, |half, out| half.message(kind, b"new", KEY, out));
        refused(&mut half, Misuse::MessageOpen, |half, out| half.message_header(kind, 3, out));
        refused(&mut half, Misuse::MessageOpen, |half, out| half.message_apart(kind, &mut [0; 3], KEY, out));
        refused(&mut half, Misuse::MessageOpen, |half, _| half.encoded_message());
    }
    // The message can still be finished, and other messages can be sent afterwards.
    let last = sent(&mut half, |half, out| half.last_fragment(MessageKind::Text, b"two", KEY, out));
    assert_eq!(last, unmasked_frame(FIN | CONTINUATION, b"two"));
    sent(&mut half, |half, out| half.message(MessageKind::Text, b"new", KEY, out));
}

#[test]
fn rfc6455_5_5_control_frames_have_at_most_125_bytes() {
    for role in ROLES {
        let mut half = SendHalf::new(role);
        let most = [1; 125];
        assert_eq!(sent(&mut half, |half, out| half.ping(&most, KEY, out)), frame_of(role, PING, &most));
        assert_eq!(sent(&mut half, |half, out| half.pong(&most, KEY, out)), frame_of(role, PONG, &most));
        for size in [126, 127, 65536] {
            let misuse = Misuse::OversizedControlFrame(size);
            refused(&mut half, misuse, |half, out| half.ping(&vec![1; size], KEY, out));
            refused(&mut half, misuse, |half, out| half.pong(&vec![1; size], KEY, out));
        }
        // A refusal changes nothing.
        assert_eq!(sent(&mut half, |half, out| half.ping(b"", KEY, out)), frame_of(role, PING, b""));
    }
}

#[test]
fn rfc6455_5_5_1_the_body_of_a_close_frame() {
    for role in ROLES {
        let frame = CloseFrame::new(CloseCode::GOING_AWAY, "bye").unwrap();
        let mut half = SendHalf::new(role);
        assert!(!half.is_closed());
        let close = sent(&mut half, |half, out| half.close(&frame, KEY, out));
        assert_eq!(close, frame_of(role, CLOSE, b"\x03\xE9bye"));
        assert!(half.is_closed());
        assert_eq!(half.role(), role);

        let longest = CloseFrame::new(CloseCode(4999), &"r".repeat(123)).unwrap();
        let close = sent(&mut SendHalf::new(role), |half, out| half.close(&longest, KEY, out));
        assert_eq!(close, frame_of(role, CLOSE, &[&[0x13, 0x87], &[b'r'; 123][..]].concat()));

        let close = sent(&mut SendHalf::new(role), |half, out| half.close(&empty_close(), KEY, out));
        assert_eq!(close, frame_of(role, CLOSE, b""));
    }
}

#[test]
fn rfc6455_5_5_1_nothing_follows_the_close_frame() {
    for role in ROLES {
        for in_message in [false, true] {
            let mut half = SendHalf::new(role);
            let (kind, misuse) = (MessageKind::Text, Misuse::CloseSent);
            if in_message {
                sent(&mut half, |half, out| half.fragment(kind, b"one", KEY, out));
            }
            sent(&mut half, |half, out| half.close(&empty_close(), KEY, out));
            refused(&mut half, misuse, |half, out| half.message(kind, b"", KEY, out));
            refused(&mut half, misuse, |half, out| half.message_header(kind, 0, out));
            let mut payload = *b"as it was";
            refused(&mut half, misuse, |half, out| half.message_apart(kind, &mut payload, KEY, out));
            assert_eq!(payload, *b"as it was");
            refused(&mut half, misuse, |half, _| half.encoded_message());
            refused(&mut half, misuse, |half, out| half.fragment(kind, b"", KEY, out));
            refused(&mut half, misuse, |half, out| half.last_fragment(kind, b"", KEY, out));
            refused(&mut half, misuse, |half, out| half.ping(b"", KEY, out));
            refused(&mut half, misuse, |half, out| half.ping(&[0; 126], KEY, out));
            refused(&mut half, misuse, |half, out| half.pong(b"", KEY, out));
            refused(&mut half, misuse, |half, out| half.close(&empty_close(), KEY, out));
            assert!(half.is_closed());
        }
    }
}

#[test]
fn rfc6455_5_3_a_client_does_not_leave_its_payload_to_the_caller() {
    let mut client = SendHalf::new(Role::Client);
    let misuse = Misuse::UnmaskedPayload;
    refused(&mut client, misuse, |half, out| half.message_header(MessageKind::Binary, 5, out));
    refused(&mut client, misuse, |half, _| half.encoded_message());
    sent(&mut client, |half, out| half.message(MessageKind::Binary, b"five.", KEY, out));
}

#[test]
fn a_message_that_was_encoded_before_encodes_nothing() {
    let mut half = SendHalf::new(Role::Server);
    assert_eq!(sent(&mut half, |half, _| half.encoded_message()), b"");
    let next = sent(&mut half, |half, out| half.message(MessageKind::Text, b"next", KEY, out));
    assert_eq!(next, unmasked_frame(FIN | TEXT, b"next"));
}

#[test]
fn a_header_alone_is_that_of_the_message() {
    for size in [0, 125, 126, 65535, 65536] {
        let mut half = SendHalf::new(Role::Server);
        let header = sent(&mut half, |half, out| half.message_header(MessageKind::Text, size, out));
        let whole = unmasked_frame(FIN | TEXT, &vec![0; size]);
        assert_eq!(header, whole[..whole.len() - size]);
        let (decoded, taken) = FrameHeader::decode(&header).unwrap().unwrap();
        assert_eq!((decoded.payload_len, taken), (size as u64, header.len()));
    }
}

#[test]
fn a_payload_apart_makes_the_message_with_its_header() {
    for role in ROLES {
        for size in [0, 5, 125, 126, 65535, 65536] {
            let mut half = SendHalf::new(role);
            let mut payload: Vec<u8> = b"payload".iter().copied().cycle().take(size).collect();
            let whole = sent(&mut half, |half, out| half.message(MessageKind::Text, &payload, KEY, out));
            let header =
                sent(&mut half, |half, out| half.message_apart(MessageKind::Text, &mut payload, KEY, out));
            assert_eq!([header, payload].concat(), whole, "{role:?} {size}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_sent_is_received(
        from_client in any::<bool>(),
        messages in prop::collection::vec(
            (any::<bool>(), prop::collection::vec(any::<Vec<u8>>(), 1..4), any::<[u8; 4]>()),
            0..6,
        ),
    ) {
        let (sender, receiver) =
            if from_client { (Role::Client, Role::Server) } else { (Role::Server, Role::Client) };
        let mut half = SendHalf::new(sender);
        let mut wire = Vec::new();
        let mut expected = Vec::new();
        for (pings, fragments, key) in messages {
            let kind = MessageKind::Binary;
            let (last, others) = fragments.split_last().expect("at least one");
            for fragment in others {
                half.fragment(kind, fragment, key, &mut wire).unwrap();
            }
            half.last_fragment(kind, last, key, &mut wire).unwrap();
            expected.push(data(kind, &fragments.concat(), true, true));
            if pings {
                half.ping(&key, key, &mut wire).unwrap();
                expected.push(support::Seen::Ping(key.to_vec()));
            }
        }
        let frame = CloseFrame::new(CloseCode::NORMAL, "end").unwrap();
        half.close(&frame, [9; 4], &mut wire).unwrap();
        expected.push(support::Seen::Close(frame));

        let mut receiver = Receiver::new(receiver);
        receiver.arrive(&wire).unwrap();
        prop_assert_eq!(joined(receiver.take_seen()), expected);
    }
}

// Whatever the size of the header, the frame equals that of a message that is copied.
#[test]
fn a_message_in_place_is_the_same_frame() {
    for role in [Role::Client, Role::Server] {
        for len in [0, 1, 125, 126, 65_535, 65_536, 70_001] {
            let payload: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            let mut copied = Vec::new();
            SendHalf::new(role).message(MessageKind::Text, &payload, [1, 2, 3, 4], &mut copied).unwrap();
            let mut buffer = vec![0xAA; FrameHeader::MAX_SIZE];
            buffer.extend_from_slice(&payload);
            let mut half = SendHalf::new(role);
            let start = half.message_in_place(MessageKind::Text, [1, 2, 3, 4], &mut buffer).unwrap();
            assert!(buffer[start..] == copied, "{role:?}, {len} bytes");
        }
    }
}

#[test]
fn a_message_in_place_is_refused_as_any_other() {
    let place = || vec![0; FrameHeader::MAX_SIZE + 1];
    let mut half = SendHalf::new(Role::Client);
    let mut small = vec![0; FrameHeader::MAX_SIZE - 1];
    let refused = half.message_in_place(MessageKind::Binary, [1, 2, 3, 4], &mut small);
    assert_eq!(refused, Err(Misuse::NoRoomForHeader));
    half.fragment(MessageKind::Text, b"", [0; 4], &mut Vec::new()).unwrap();
    let mut buffer = place();
    let refused = half.message_in_place(MessageKind::Binary, [1, 2, 3, 4], &mut buffer);
    assert_eq!(refused, Err(Misuse::MessageOpen));
    half.close(&empty_close(), [0; 4], &mut Vec::new()).unwrap();
    let refused = half.message_in_place(MessageKind::Binary, [1, 2, 3, 4], &mut buffer);
    assert_eq!((refused, buffer), (Err(Misuse::CloseSent), place()));
}
