//! Invalid frames of a hostile peer.

use bowline::{ErrorKind, Limits, Message, Role};
use bowline_proto::Opcode;

use crate::support::allocations::{TAKEN, held, peak_since_now};
use crate::support::frames::{Frame, encode_all};
use crate::support::wire::Wire;
use crate::support::{self, open, peer_of, settle, warm_up};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// The encoding of a payload length: in 7, 16 or 64 bits.
#[derive(Clone, Copy, Debug)]
enum Length {
    Short(u8),
    Medium(u16),
    Long(u64),
}

/// Encodes a valid or invalid frame header for `role`, with a masking key of zeros if masked.
fn header(role: Role, first: u8, length: Length) -> Vec<u8> {
    let mask_bit = if role == Role::Server { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match length {
        Length::Short(length) => bytes.push(mask_bit | length),
        Length::Medium(length) => {
            bytes.push(mask_bit | 0x7E);
            bytes.extend(length.to_be_bytes());
        }
        Length::Long(length) => {
            bytes.push(mask_bit | 0x7F);
            bytes.extend(length.to_be_bytes());
        }
    }
    if role == Role::Server {
        bytes.extend([0; 4]);
    }
    bytes
}

/// Returns the reaction of `role` to invalid bytes: the kind of the error and the code in the Close frame.
/// The reaction must not depend on how the bytes are split.
async fn refused_with(role: Role, limits: &Limits, bytes: &[u8]) -> (ErrorKind, u16) {
    let whole = refused(role, limits, bytes, usize::MAX).await;
    assert_eq!(refused(role, limits, bytes, 1).await, whole, "byte by byte it is the same");
    whole
}

async fn refused(role: Role, limits: &Limits, bytes: &[u8], chunk: usize) -> (ErrorKind, u16) {
    let (mut socket, wire) = open(role, limits.clone());
    wire.set_chunk(chunk);
    wire.feed(bytes);
    let result = socket.recv().await;
    let error = result.expect_err("no message comes of it, and no normal end");
    assert!(error.to_string().len() > 20, "it says what is wrong: {error}");
    assert_eq!(socket.recv().await.expect_err("it stays ended").kind(), error.kind());
    assert_eq!(socket.send("more").await.expect_err("nothing can be sent").kind(), error.kind());
    // RFC 6455 7.1.7: later bytes are ignored.
    wire.feed(&encode_all(peer_of(role), &[Frame::ping("p"), Frame::text("t"), Frame::close(1000, "")]));
    wire.until(|wire| wire.unread() == 0).await;
    wire.end();
    wire.until(Wire::is_dropped).await;
    let frames = wire.take_frames(role);
    assert_eq!(frames.len(), 1, "a Close frame, and nothing else: {frames:?}");
    (error.kind(), frames[0].close_code())
}

async fn assert_violation(role: Role, bytes: &[u8], named: &str) {
    let refused = refused_with(role, &Limits::default(), bytes).await;
    assert_eq!(refused, (ErrorKind::Protocol, 1002), "{role:?}, {named}: {bytes:?}");
}

// ---- lengths

#[tokio::test]
async fn announced_sizes_are_refused_before_memory_is_taken() {
    warm_up().await;
    let limit = (ErrorKind::Limit, 1009);
    let violation = (ErrorKind::Protocol, 1002);
    for role in ROLES {
        for first in [0x01, 0x02, 0x81, 0x82] {
            for (size, expected) in [
                (1 << 63, violation),
                (u64::MAX, violation),
                ((1 << 63) - 1, limit),
                ((1 << 32) + 5, limit),
                (1024 * 1024 + 1, limit),
            ] {
                let bytes = header(role, first, Length::Long(size));
                let peak = peak_since_now();
                assert_eq!(
                    refused_with(role, &Limits::default(), &bytes).await,
                    expected,
                    "{role:?}, {size}"
                );
                let peak = peak();
                assert!(peak < 16 * 1024, "{role:?}: {peak} bytes were taken for {size} announced");
            }
        }
    }
}

/// A limit, even the largest, holds for all fragments of a message together.
#[tokio::test]
async fn sizes_of_fragments_do_not_overflow() {
    for role in ROLES {
        let mut bytes = Frame::binary([7; 10]).unfinished().encode(peer_of(role));
        bytes.extend(header(role, 0x80, Length::Long((1 << 63) - 1)));
        let refused = refused_with(role, &Limits::default(), &bytes).await;
        assert_eq!(refused, (ErrorKind::Limit, 1009));

        let (mut socket, wire) = open(role, Limits::default().message_size(usize::MAX));
        wire.feed(&bytes);
        assert!(support::poll_times(10, socket.recv()).await.is_none(), "within the limit it is waited for");
    }
}

#[tokio::test]
async fn fifteen_bytes_on_each_of_10_000_connections_cost_next_to_nothing() {
    const CONNECTIONS: usize = 10_000;
    for role in ROLES {
        warm_up().await;
        let connections: Vec<_> = (0..CONNECTIONS).map(|_| open(role, Limits::default())).collect();
        settle().await;
        let mut bytes = header(role, 0x82, Length::Long(1024 * 1024));
        bytes.resize(15, 7);
        let before = held();
        for (_, wire) in &connections {
            wire.feed(&bytes);
        }
        settle().await;
        let each = (held() - before) / 10_000;
        assert!(each < 250, "{role:?}: each connection holds {each} bytes");
        println!("{role:?}: {each} bytes for each connection");

        // And while the application waits for the message.
        let before = held();
        let mut waiting = Vec::with_capacity(CONNECTIONS);
        for (mut socket, wire) in connections {
            assert!(support::poll_times(2, socket.recv()).await.is_none());
            assert_eq!(wire.unread(), 0);
            waiting.push((socket, wire));
        }
        let each = (held() - before) / 10_000;
        println!("{role:?}: {each} bytes more while it is received");
        assert!(each < 250, "{role:?}: each connection holds {each} bytes");
    }
}

#[tokio::test]
async fn rfc6455_5_2_non_minimal_lengths_are_refused() {
    for role in ROLES {
        for first in [0x81, 0x82] {
            for length in [
                Length::Medium(0),
                Length::Medium(1),
                Length::Medium(125),
                Length::Long(0),
                Length::Long(125),
                Length::Long(126),
                Length::Long(0xFFFF),
            ] {
                assert_violation(role, &header(role, first, length), "non-minimal length").await;
            }
        }
    }
}

// ---- the first two bytes

#[tokio::test]
async fn rfc6455_5_2_reserved_bits_are_refused() {
    for role in ROLES {
        for reserved in 1..8 {
            for opcode in [1, 2, 8, 9, 10] {
                let bytes = header(role, 0x80 | reserved << 4 | opcode, Length::Short(0));
                assert_violation(role, &bytes, "reserved bits").await;
            }
            // In the middle of a message as well.
            let mut bytes = Frame::text("a").unfinished().encode(peer_of(role));
            bytes.extend(header(role, 0x80 | reserved << 4, Length::Short(0)));
            assert_violation(role, &bytes, "reserved bits").await;
        }
    }
}

#[tokio::test]
async fn rfc6455_5_2_unknown_opcodes_are_refused() {
    for role in ROLES {
        for opcode in (3..8).chain(11..16) {
            for fin in [0, 0x80] {
                let bytes = header(role, fin | opcode, Length::Short(0));
                assert_violation(role, &bytes, "unknown opcode").await;
            }
        }
    }
}

#[tokio::test]
async fn rfc6455_5_1_frames_are_masked_by_clients_alone() {
    for role in ROLES {
        for frame in [
            Frame::text("t"),
            Frame::text(""),
            Frame::binary("b"),
            Frame::ping("p"),
            Frame::pong("p"),
            Frame::close(1000, ""),
            Frame::close_without_code(),
        ] {
            // As if the peer had the role of this side.
            assert_violation(role, &frame.encode(role), "masking").await;
        }
        let mut bytes = Frame::text("a").unfinished().encode(peer_of(role));
        bytes.extend(Frame::continuation("b").encode(role));
        assert_violation(role, &bytes, "masking").await;
    }
}

#[tokio::test]
async fn rfc6455_5_5_control_frames_are_small_and_whole() {
    for role in ROLES {
        for opcode in [8, 9, 10] {
            for length in [
                Length::Medium(126),
                Length::Medium(0xFFFF),
                Length::Medium(125),
                Length::Long(1 << 16),
                Length::Long(1 << 40),
            ] {
                assert_violation(role, &header(role, 0x80 | opcode, length), "large control frame").await;
            }
            for length in [0, 2, 125] {
                let bytes = header(role, opcode, Length::Short(length));
                assert_violation(role, &bytes, "fragmented control frame").await;
            }
        }
    }
}

// ---- fragments

#[tokio::test]
async fn rfc6455_5_4_a_new_message_inside_a_fragmented_one_is_refused() {
    for role in ROLES {
        for first in [Frame::text("a"), Frame::binary("a"), Frame::text(""), Frame::binary("")] {
            for second in [Frame::text("b"), Frame::binary("b"), Frame::text("b").unfinished()] {
                let frames = [first.clone().unfinished(), Frame::continuation("c").unfinished(), second];
                let bytes = encode_all(peer_of(role), &frames);
                assert_violation(role, &bytes, "interleaved messages").await;
            }
        }
        for first in [Frame::continuation("a"), Frame::continuation("a").unfinished()] {
            assert_violation(role, &first.encode(peer_of(role)), "nothing to continue").await;
        }
        // A message that has ended can't continue either.
        let frames = [Frame::text("a").unfinished(), Frame::continuation("b"), Frame::continuation("c")];
        let (mut socket, wire) = open(role, Limits::default());
        wire.feed(&encode_all(peer_of(role), &frames));
        assert_eq!(socket.recv().await.unwrap(), Some("ab".into()));
        assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Protocol);
        assert_eq!(wire.next_frame(role).await.close_code(), 1002);
    }
}

/// Feeds fragments for as long as the connection accepts them. Returns their number and the end of the
/// connection.
async fn pour_fragments(role: Role, limits: Limits, payload: &[u8]) -> (usize, bowline::Error) {
    const BATCH: usize = 1000;
    let (mut socket, wire) = open(role, limits);
    let receiving = tokio::spawn(async move { socket.recv().await });
    wire.feed_frame(peer_of(role), &Frame::binary([]).unfinished());
    let batch = encode_all(peer_of(role), &vec![Frame::continuation(payload).unfinished(); BATCH]);
    let mut fed = 0;
    while !receiving.is_finished() && fed < 3_000_000 {
        wire.feed(&batch);
        fed += BATCH;
        wire.until(|wire| wire.unread() == 0).await;
        settle().await;
    }
    assert!(receiving.is_finished(), "{role:?}: {fed} fragments were taken");
    (fed, receiving.await.unwrap().expect_err("no message comes of it"))
}

#[tokio::test]
async fn endless_fragments_go_over_the_limit_of_frames_or_of_size() {
    warm_up().await;
    for role in ROLES {
        for payload in ["", "x"] {
            let peak = peak_since_now();
            let (fed, error) = pour_fragments(role, Limits::default(), payload.as_bytes()).await;
            let peak = peak();
            assert_eq!(error.kind(), ErrorKind::Limit);
            assert!(error.to_string().contains("Limits::frames_per_message"), "{error}");
            assert_eq!(fed, 17_000, "16,384 is the limit");
            assert!(peak < 150_000, "{role:?}: {peak} bytes were held");
        }
        let limits = Limits::default().frames_per_message(u32::MAX).message_size(100_000);
        let peak = peak_since_now();
        let (fed, error) = pour_fragments(role, limits, b"x").await;
        let peak = peak();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(error.to_string().contains("Limits::message_size"), "{error}");
        assert_eq!(fed, 101_000);
        assert!(peak < 350_000, "{role:?}: {peak} bytes were held");
    }
}

#[tokio::test]
async fn a_million_empty_continuations_cost_nothing_that_grows() {
    const FRAMES: usize = 1_000_000;
    warm_up().await;
    for role in ROLES {
        // Fragments within limits that the user has raised.
        let (mut socket, wire) = open(role, Limits::default().frames_per_message(u32::MAX));
        let receiving = tokio::spawn(async move { socket.recv().await });
        wire.feed_frame(peer_of(role), &Frame::text("a").unfinished());
        let batch = encode_all(peer_of(role), &vec![Frame::continuation([]).unfinished(); 1000]);
        let peak = peak_since_now();
        let taken = TAKEN.get();
        for _ in 0..FRAMES / 1000 {
            wire.feed(&batch);
            wire.until(|wire| wire.unread() == 0).await;
        }
        settle().await;
        let peak = peak();
        assert!(peak < 50_000, "{role:?}: {peak} bytes were held at once");
        // The test's stream allocates for each read.
        let taken = (TAKEN.get() - taken) / 1_000_000;
        assert!(taken < 100, "{role:?}: {taken} bytes were taken for each frame");
        assert!(!receiving.is_finished());
        wire.feed_frame(peer_of(role), &Frame::continuation("b"));
        assert_eq!(receiving.await.unwrap().unwrap(), Some(Message::from("ab")));
    }
}

// ---- closing

#[tokio::test]
async fn rfc6455_7_4_wrong_bodies_of_close_frames_are_refused() {
    for role in ROLES {
        let one_byte = Frame::new(Opcode::Close, [3]).encode(peer_of(role));
        assert_violation(role, &one_byte, "a body of one byte").await;
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            for reason in ["", "a reason"] {
                let bytes = Frame::close(code, reason).encode(peer_of(role));
                assert_violation(role, &bytes, &format!("close code {code}")).await;
            }
        }
        let mut body = 1000_u16.to_be_bytes().to_vec();
        body.extend(*b"\xC3\x28");
        let bytes = Frame::new(Opcode::Close, body).encode(peer_of(role));
        let refused = refused_with(role, &Limits::default(), &bytes).await;
        assert_eq!(refused, (ErrorKind::Protocol, 1007));
    }
}

/// The first Close frame decides, whatever follows it.
#[tokio::test]
async fn rfc6455_1_4_bytes_after_a_close_frame_are_nothing() {
    for role in ROLES {
        let peer = peer_of(role);
        for behind in [
            Frame::text("late").encode(peer),
            Frame::ping("late").encode(peer),
            Frame::close(1002, "again").encode(peer),
            Frame::text("wrongly masked").encode(role),
            vec![0xFF; 1000],
            header(role, 0x82, Length::Long(u64::MAX)),
        ] {
            for chunk in [usize::MAX, 1] {
                let (mut socket, wire) = open(role, Limits::default());
                wire.set_chunk(chunk);
                let mut bytes = Frame::text("first").encode(peer);
                bytes.extend(Frame::close(1000, "bye").encode(peer));
                bytes.extend(&behind);
                wire.feed(&bytes);
                assert_eq!(socket.recv().await.unwrap(), Some("first".into()));
                assert_eq!(socket.recv().await.unwrap(), None);
                wire.until(|wire| wire.unread() == 0).await;
                wire.end();
                wire.until(Wire::is_dropped).await;
                assert_eq!(wire.take_frames(role), [Frame::close(1000, "bye")], "{role:?}: the echo alone");
                assert_eq!(socket.close_frame().unwrap().reason(), "bye");
            }
        }
    }
}
