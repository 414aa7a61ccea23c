//! Text is UTF-8, and is validated as it arrives (RFC 6455 8.1).

use bowline::{ErrorKind, Limits, Role};
use tokio::io::AsyncReadExt;

use crate::support::frames::{Frame, encode_all};
use crate::support::open;

const TEXT: &str = "aé€😀";

#[tokio::test]
async fn a_code_point_may_be_split_at_every_byte() {
    for first in 0..=TEXT.len() {
        for second in first..=TEXT.len() {
            let parts =
                [&TEXT.as_bytes()[..first], &TEXT.as_bytes()[first..second], &TEXT.as_bytes()[second..]];
            let frames = [
                Frame::text(parts[0]).unfinished(),
                Frame::ping("between"),
                Frame::continuation(parts[1]).unfinished(),
                Frame::continuation(parts[2]),
            ];
            let bytes = encode_all(Role::Client, &frames);
            for chunk in [1, 3, usize::MAX] {
                let (mut socket, wire) = open(Role::Server, Limits::default());
                wire.set_chunk(chunk);
                wire.feed(&bytes);
                wire.feed(&bytes);
                assert_eq!(socket.recv().await.unwrap(), Some(TEXT.into()));
                let mut text = String::new();
                socket.reader().await.unwrap().unwrap().read_to_string(&mut text).await.unwrap();
                assert_eq!(text, TEXT);
            }
        }
    }
}

#[tokio::test]
async fn an_invalid_byte_is_reported_before_its_frame_is_complete() {
    let invalid: [&[u8]; 5] = [b"\xFF", b"\xC0", b"\xE2\x28", b"\xED\xA0", b"\xF4\x90"];
    for sequence in invalid {
        for offset in [0, 1, 1000] {
            let mut payload = vec![b'a'; offset];
            payload.extend_from_slice(sequence);
            let arrived = payload.len();
            payload.resize(arrived + 100, b'a');
            let bytes = Frame::text(&payload).encode(Role::Client);
            let (mut socket, wire) = open(Role::Server, Limits::default());
            wire.feed(&bytes[..bytes.len() - 100]);
            let error = socket.recv().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{sequence:?}");
            assert_eq!(wire.next_frame(Role::Server).await.close_code(), 1007);
        }
    }
}

#[tokio::test]
async fn text_that_ends_inside_a_code_point_is_invalid() {
    for frames in [
        vec![Frame::text(&TEXT.as_bytes()[..2])],
        vec![Frame::text(TEXT).unfinished(), Frame::continuation(&TEXT.as_bytes()[..2])],
        vec![Frame::text(&TEXT.as_bytes()[..2]).unfinished(), Frame::continuation([])],
    ] {
        let (mut socket, wire) = open(Role::Server, Limits::default());
        wire.feed(&encode_all(Role::Client, &frames));
        assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Protocol);
        assert_eq!(wire.next_frame(Role::Server).await.close_code(), 1007);
    }
}

#[tokio::test]
async fn an_invalid_close_reason_is_reported_before_its_frame_is_complete() {
    let mut bytes = Frame::close(1000, "").encode(Role::Server);
    bytes[1] += 50;
    bytes.extend_from_slice(b"ok \xFF");
    let (mut socket, wire) = open(Role::Client, Limits::default());
    wire.feed(&bytes);
    assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(wire.next_frame(Role::Client).await.close_code(), 1007);
}

/// Each further 64 KiB of payload never cost more reads or a longer wait than the 64 KiB before. Each step is
/// checked for itself, so that a cost that grows with the message shows without a clock.
#[tokio::test]
async fn much_text_in_small_fragments_arrives_whole() {
    const SIZE: usize = 4 * 1024 * 1024;
    let limits = Limits::default().message_size(SIZE).frames_per_message(100_000);
    let (mut socket, wire) = open(Role::Server, limits);
    let text = "0123456789abcdeé€😀".repeat(SIZE / 24);
    let receiving = tokio::spawn(async move { socket.recv().await });
    let mut pieces = text.as_bytes().chunks(64).enumerate().peekable();
    while let Some((number, piece)) = pieces.next() {
        let frame = if number == 0 { Frame::text(piece) } else { Frame::continuation(piece) };
        wire.feed_frame(Role::Client, &if pieces.peek().is_some() { frame.unfinished() } else { frame });
        if number % 500 == 0 {
            wire.until(|wire| wire.unread() == 0).await;
            assert!(wire.calls().0 <= number / 500 + 1, "no piece is read twice");
        }
    }
    assert_eq!(receiving.await.unwrap().unwrap().unwrap().as_text(), Some(text.as_str()));
}
