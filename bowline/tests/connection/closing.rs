//! The closing handshake, in every order.

use std::io;
use std::time::Duration;

use bowline::{CloseCode, ErrorKind, Limits, MessageKind, Role, pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::support::frames::{Frame, all_frames, encode_all};
use crate::support::wire::Wire;
use crate::support::{open, peer_of, poll_times, settle};

#[tokio::test]
async fn rfc6455_7_1_1_the_server_ends_the_transport_first() {
    // The server ends the transport, whichever side closes.
    for we_close in [true, false] {
        let (socket, wire) = open(Role::Server, Limits::default());
        let sender = socket.sender();
        let close = tokio::spawn(async move {
            if !we_close {
                sender.closed().await;
            }
            sender.close(CloseCode::NORMAL, "").await
        });
        settle().await;
        wire.feed_frame(Role::Client, &Frame::close(1000, ""));
        assert_eq!(wire.next_frame(Role::Server).await, Frame::close(1000, ""));
        wire.until(Wire::is_shut_down).await;
        assert!(!close.is_finished(), "the transport has not ended");
        wire.end();
        assert_eq!(close.await.unwrap().unwrap().code(), CloseCode::NORMAL);
        assert!(wire.is_dropped());
    }
    // A client waits for the server.
    let (socket, wire) = open(Role::Client, Limits::default());
    let sender = socket.sender();
    let close = tokio::spawn(async move { sender.close(CloseCode::NORMAL, "").await });
    assert_eq!(wire.next_frame(Role::Client).await, Frame::close(1000, ""));
    wire.feed_frame(Role::Server, &Frame::close(1000, ""));
    settle().await;
    assert!(!wire.is_shut_down() && !wire.is_dropped() && !close.is_finished());
    wire.end();
    assert!(close.await.unwrap().is_ok());
    assert!(wire.is_dropped());
}

#[tokio::test(start_paused = true)]
async fn a_client_does_not_wait_longer_than_the_close_timeout_for_the_server_to_end() {
    let (socket, wire) = open(Role::Client, Limits::default());
    wire.feed_frame(Role::Server, &Frame::close(4000, "bye"));
    let start = Instant::now();
    let frame = socket.close(CloseCode::NORMAL, "").await.unwrap();
    assert_eq!((frame.code(), frame.reason()), (CloseCode(4000), "bye"), "the answer came");
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert!(wire.is_dropped());
}

#[tokio::test]
async fn ours_first_ends_normally_whatever_the_peer_answers() {
    for role in [Role::Client, Role::Server] {
        for answer in [Frame::close(1011, "oh"), Frame::close(1000, ""), Frame::close_without_code()] {
            let (mut socket, wire) = open(role, Limits::default());
            let sender = socket.sender();
            let close = tokio::spawn(async move { sender.close(CloseCode(4000), "ours").await });
            assert_eq!(wire.next_frame(role).await, Frame::close(4000, "ours"));
            wire.feed_frame(peer_of(role), &answer);
            wire.end();
            for _ in 0..3 {
                assert_eq!(socket.recv().await.unwrap(), None);
            }
            let frame = close.await.unwrap().unwrap();
            assert_eq!(frame.code().0, answer.close_code());
            assert_eq!(socket.close_frame(), Some(frame));
        }
    }
}

#[tokio::test]
async fn the_peers_first_is_an_error_unless_it_is_normal() {
    for role in [Role::Client, Role::Server] {
        for (frame, normal) in [
            (Frame::close(1000, "done"), true),
            (Frame::close(1001, ""), true),
            (Frame::close_without_code(), true),
            (Frame::close(1011, "oh"), false),
            (Frame::close(4999, ""), false),
        ] {
            let (mut socket, wire) = open(role, Limits::default());
            wire.feed_frame(peer_of(role), &Frame::text("before"));
            wire.feed_frame(peer_of(role), &frame);
            // RFC 6455 5.5.1: bytes after the Close frame are ignored.
            wire.feed(&[0xFF; 50]);
            assert_eq!(socket.recv().await.unwrap(), Some("before".into()));
            for _ in 0..3 {
                match socket.recv().await {
                    Ok(end) => assert!(normal && end.is_none()),
                    Err(error) => {
                        assert!(!normal);
                        assert_eq!(error.kind(), ErrorKind::Closed);
                        assert_eq!(error.close_frame().unwrap().code().0, frame.close_code());
                    }
                }
            }
            assert_eq!(wire.next_frame(role).await, frame, "the echo");
            assert_eq!(socket.send("late").await.unwrap_err().kind(), ErrorKind::Closed);
            wire.end();
            let close = socket.close(CloseCode::NORMAL, "").await.unwrap();
            assert_eq!(close.code().0, frame.close_code());
            assert!(wire.take_written().is_empty(), "one Close frame is enough");
        }
    }
}

#[tokio::test]
async fn simultaneous_closes_end_both_sides() {
    for _ in 0..100 {
        let (mut client, mut server) = pair();
        let closes =
            tokio::join!(client.close(CloseCode(4001), "client"), server.close(CloseCode(4002), "server"));
        assert_eq!(closes.0.unwrap().code(), CloseCode(4002));
        assert_eq!(closes.1.unwrap().code(), CloseCode(4001));
        assert_eq!(client.recv().await.unwrap(), None);
        assert_eq!(server.recv().await.unwrap(), None);
    }
}

#[tokio::test]
async fn close_goes_behind_what_was_accepted() {
    let (socket, wire) = open(Role::Client, Limits::default().write_buffer(10));
    wire.set_room(0);
    socket.send("accepted, and long").await.unwrap();
    let waiting = tokio::spawn({
        let sender = socket.sender();
        async move { sender.send("waiting").await }
    });
    settle().await;
    assert!(poll_times(2, socket.close(CloseCode::NORMAL, "")).await.is_none());
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    wire.set_room(usize::MAX);
    assert_eq!(wire.next_frame(Role::Client).await, Frame::text("accepted, and long"));
    assert_eq!(wire.next_frame(Role::Client).await, Frame::close(1000, ""));
}

#[tokio::test]
async fn messages_that_are_here_when_we_close_are_delivered_and_later_ones_are_not() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    let frames = [
        Frame::text("one"),
        Frame::binary("tw").unfinished(),
        Frame::continuation("o"),
        Frame::text("three, unfinished").unfinished(),
    ];
    wire.feed(&encode_all(Role::Client, &frames));
    settle().await;
    let sender = socket.sender();
    let close = tokio::spawn(async move { sender.close(CloseCode::NORMAL, "").await });
    settle().await;
    let later = [
        Frame::continuation("the end of three"),
        // The message is ignored: neither its size nor its text is checked.
        Frame::text(vec![0xFF; 2 * 1024 * 1024]),
        Frame::close(1000, ""),
    ];
    wire.feed(&encode_all(Role::Client, &later));
    wire.end();
    assert!(close.await.unwrap().is_ok());
    assert_eq!(socket.recv().await.unwrap(), Some("one".into()));
    assert_eq!(socket.recv().await.unwrap(), Some(b"two".to_vec().into()));
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(socket.recv().await.unwrap(), None);
}

#[tokio::test]
async fn a_reader_keeps_what_is_here_when_we_close() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed(&encode_all(Role::Client, &[Frame::text("being read"), Frame::text("next")]));
    let sender = socket.sender();
    let mut reader = socket.reader().await.unwrap().unwrap();
    let mut text = [0; 6];
    reader.read_exact(&mut text).await.unwrap();
    assert!(poll_times(3, sender.close(CloseCode::NORMAL, "")).await.is_none());
    let mut rest = String::new();
    reader.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "read");
    drop(reader);
    wire.feed_frame(Role::Client, &Frame::close(1000, ""));
    assert_eq!(socket.recv().await.unwrap(), Some("next".into()));
    assert_eq!(socket.recv().await.unwrap(), None);
}

#[tokio::test]
async fn a_reader_fails_when_we_close_in_the_middle_of_its_message() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed_frame(Role::Client, &Frame::text("begun").unfinished());
    let sender = socket.sender();
    let mut reader = socket.reader().await.unwrap().unwrap();
    assert!(poll_times(3, sender.close(CloseCode::NORMAL, "")).await.is_none());
    wire.feed(&encode_all(Role::Client, &[Frame::continuation("ended"), Frame::close(1000, "")]));
    let mut text = Vec::new();
    assert_eq!(reader.read_to_end(&mut text).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(text, b"begun");
    drop(reader);
    assert_eq!(socket.recv().await.unwrap(), None);
}

#[tokio::test]
async fn a_peers_close_that_is_here_already_was_first() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed(&encode_all(Role::Client, &[Frame::text("unread"), Frame::close(4000, "theirs")]));
    settle().await;
    wire.end();
    let frame = socket.close(CloseCode::NORMAL, "ours").await.unwrap();
    assert_eq!(frame.code(), CloseCode(4000));
    assert_eq!(all_frames(Role::Server, wire.take_written()), [Frame::close(4000, "theirs")]);
    assert_eq!(socket.recv().await.unwrap(), Some("unread".into()));
    assert_eq!(socket.recv().await.unwrap_err().close_frame().unwrap().code(), CloseCode(4000));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_ends_in_a_timeout() {
    for blocked in [false, true] {
        let (mut socket, wire) = open(Role::Client, Limits::default());
        if blocked {
            wire.set_room(3);
            socket.send("is not taken").await.unwrap();
        }
        let start = Instant::now();
        let sender = socket.sender();
        let (first, second, received) = tokio::join!(
            sender.close(CloseCode::NORMAL, ""),
            sender.close(CloseCode::NORMAL, "again"),
            socket.recv(),
        );
        assert_eq!(first.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(second.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(received.unwrap(), None, "ours was first");
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        assert!(wire.is_dropped());
        assert_eq!(socket.close(CloseCode::NORMAL, "").await.unwrap_err().kind(), ErrorKind::Timeout);
    }
}

#[tokio::test]
async fn a_transport_that_dies_midway_ends_the_close() {
    for role in [Role::Client, Role::Server] {
        for kind in [None, Some(io::ErrorKind::ConnectionReset)] {
            let (mut socket, wire) = open(role, Limits::default());
            let sender = socket.sender();
            let close = tokio::spawn(async move { sender.close(CloseCode::NORMAL, "").await });
            settle().await;
            match kind {
                None => wire.end(),
                Some(kind) => wire.break_off(kind),
            }
            let error = close.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Disconnected);
            assert_eq!(std::error::Error::source(&error).is_some(), kind.is_some());
            assert_eq!(socket.recv().await.unwrap(), None);
            assert_eq!(socket.close_frame(), None);
        }
    }
}

/// The peer neither answers nor ends its stream.
#[tokio::test(start_paused = true)]
async fn writing_that_fails_is_said_by_recv_too() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        wire.break_writing(io::ErrorKind::BrokenPipe);
        socket.send("into the void").await.unwrap();
        assert_eq!(socket.send("again").await.unwrap_err().kind(), ErrorKind::Disconnected);
        wire.feed_frame(peer_of(role), &Frame::text("what has arrived can be received"));
        assert!(socket.recv().await.unwrap().is_some());
        let error = socket.recv().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected, "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[tokio::test]
async fn rfc6455_5_5_1_a_close_frame_may_be_empty() {
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default());
        let sender = socket.sender();
        let close = tokio::spawn(async move { sender.close(CloseCode::NO_STATUS, "").await });
        assert_eq!(wire.next_frame(role).await, Frame::close_without_code());
        assert_eq!(socket.close_frame(), None);
        wire.feed_frame(peer_of(role), &Frame::close_without_code());
        wire.end();
        let answer = close.await.unwrap().unwrap();
        assert_eq!((answer.code(), answer.reason()), (CloseCode::NO_STATUS, ""));
        assert_eq!(socket.close_frame(), Some(answer));
    }
}

#[tokio::test]
async fn a_code_or_reason_that_may_not_be_sent_sends_nothing() {
    let (socket, wire) = open(Role::Client, Limits::default());
    for code in [0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65535] {
        let error = socket.close(CloseCode(code), "").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&code.to_string()), "{error}");
    }
    let error = socket.close(CloseCode::NORMAL, &"x".repeat(124)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("123"), "{error}");
    let error = socket.close(CloseCode::NO_STATUS, "why").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.to_string(), "a Close frame without a code (1005, NO_STATUS) can't have a reason");
    assert!(wire.take_written().is_empty());
    socket.send("still usable").await.unwrap();
    assert_eq!(wire.next_frame(Role::Client).await, Frame::text("still usable"));
}

#[tokio::test]
async fn an_unfinished_message_closes_with_1011() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    let mut writer = socket.writer(MessageKind::Binary).await.unwrap();
    writer.write_all(b"begun").await.unwrap();
    writer.flush().await.unwrap();
    drop(writer);
    assert_eq!(wire.next_frame(Role::Server).await, Frame::binary("begun").unfinished());
    assert_eq!(wire.next_frame(Role::Server).await.close_code(), 1011);
    wire.feed_frame(Role::Client, &Frame::close(1011, ""));
    assert_eq!(socket.recv().await.unwrap(), None);
    assert!(socket.send("more").await.unwrap_err().to_string().contains("MessageWriter"));
}

/// With data in flight in both directions, over a transport that holds little.
#[tokio::test]
async fn close_with_data_in_flight() {
    let (mut client, mut server) = pair();
    let flood = |sender: bowline::Sender| {
        tokio::spawn(async move { while sender.send(vec![7; 10_000]).await.is_ok() {} })
    };
    let floods = [flood(client.sender()), flood(server.sender())];
    for _ in 0..10 {
        client.recv().await.unwrap().unwrap();
        server.recv().await.unwrap().unwrap();
    }
    let receiving = async { while server.recv().await.unwrap().is_some() {} };
    let (close, ()) = tokio::join!(client.close(CloseCode::NORMAL, "enough"), receiving);
    assert_eq!(close.unwrap().code(), CloseCode::NORMAL);
    assert_eq!(server.close_frame().unwrap().reason(), "enough");
    for flood in floods {
        flood.await.unwrap();
    }
}

#[test]
fn a_runtime_that_is_shut_down_leaves_nobody_hanging() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let ((mut socket, _other), sender) = first.block_on(async {
        let pair = pair();
        let sender = pair.0.sender();
        (pair, sender)
    });
    drop(first);
    runtime().block_on(async {
        assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
        assert!(sender.send("more").await.is_err());
        assert!(sender.close(CloseCode::NORMAL, "").await.is_err());
    });
}

#[tokio::test(start_paused = true)]
async fn closing_after_writing_has_failed_does_not_hide_the_failure() {
    let (mut socket, wire) = open(Role::Client, Limits::default());
    wire.break_writing(std::io::ErrorKind::BrokenPipe);
    let _ = socket.send("is lost").await;
    assert!(socket.close(CloseCode::NORMAL, "").await.is_err());
    assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
}

/// Nobody has to be waited for, whatever is unread.
#[tokio::test(start_paused = true)]
async fn closing_after_writing_has_failed_takes_no_time() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        wire.feed(&encode_all(peer_of(role), &[Frame::text("unread"), Frame::text("unread, too")]));
        settle().await;
        wire.break_writing(io::ErrorKind::BrokenPipe);
        let _ = socket.send("is lost").await;
        let start = Instant::now();
        let error = socket.close(CloseCode::NORMAL, "").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected);
        assert!(start.elapsed().is_zero(), "it took {:?}", start.elapsed());
        for expected in ["unread", "unread, too"] {
            assert_eq!(socket.recv().await.unwrap(), Some(expected.into()));
        }
        assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
    }
}

/// Our Close frame was first, so the peer's is only the answer.
#[tokio::test]
async fn a_reader_in_the_middle_of_a_message_hears_that_we_have_closed() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        let sender = socket.sender();
        wire.feed_frame(peer_of(role), &Frame::text("a part").unfinished());
        let mut reader = socket.reader().await.unwrap().unwrap();
        reader.read_exact(&mut [0; 6]).await.unwrap();
        let closing = tokio::spawn(async move { sender.close(CloseCode(4000), "").await });
        assert_eq!(wire.next_frame(role).await, Frame::close(4000, ""));
        wire.feed_frame(peer_of(role), &Frame::close(4000, ""));
        wire.end();
        let error = reader.read(&mut [0; 6]).await.unwrap_err();
        let error = error.get_ref().and_then(|error| error.downcast_ref::<bowline::Error>()).unwrap();
        assert_eq!((error.kind(), error.close_frame()), (ErrorKind::Closed, None), "{error}");
        drop(reader);
        closing.await.unwrap().unwrap();
        assert_eq!(socket.recv().await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_close_begins_without_waiting_for_its_end() {
    let (mut client, mut server) = pair();
    server.send("sent before").await.unwrap();
    settle().await;
    client.begin_close(CloseCode::NORMAL, "done").unwrap();
    // Nothing more can be sent, and another close waits for the end of this one.
    assert_eq!(client.send("late").await.unwrap_err().kind(), ErrorKind::Closed);
    client.sender().begin_close(CloseCode::GOING_AWAY, "too late").unwrap();
    assert_eq!(client.recv().await.unwrap().unwrap(), "sent before".into());
    assert_eq!(server.recv().await.unwrap(), None);
    assert_eq!(server.close_frame().unwrap().reason(), "done");
    assert_eq!(client.recv().await.unwrap(), None);
    let error = client.begin_close(CloseCode(1005), "a reason").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
