//! `recv`, `reader`, limits, violations, and what happens when nobody reads.

use std::io;
use std::time::Duration;

use bowline::{Acceptor, Adoption, CloseCode, Connector, ErrorKind, Limits, Message, Role, WebSocket};
use bowline_proto::Opcode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support;
use crate::support::frames::{Frame, encode_all};
use crate::support::wire::Wire;
use crate::support::{open, peer_of, poll_once, poll_times, settle};

/// Decrypted messages are delivered, though TCP has nothing more.
#[tokio::test]
async fn messages_in_several_records_of_tls_are_received() {
    let (of_server, of_client) = support::tls::configs();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let connecting = TlsConnector::from(of_client).connect("localhost".try_into().unwrap(), peer);
    let (stream, peer) = tokio::join!(TlsAcceptor::from(of_server).accept(stream), connecting);
    let mut socket = Acceptor::new().adopt(stream.unwrap(), Adoption::new()).unwrap();
    let mut peer = peer.unwrap();
    for round in 0..10 {
        let texts = (0..5).map(|number| format!("{round}, {number}")).collect::<Vec<_>>();
        for text in &texts {
            let frame = Frame::text(text).encode(Role::Client);
            io::Write::write_all(&mut peer.get_mut().1.writer(), &frame).unwrap();
        }
        peer.flush().await.unwrap();
        for text in texts {
            let message = timeout(Duration::from_secs(20), socket.recv()).await.unwrap();
            assert_eq!(message.unwrap(), Some(text.into()));
        }
    }
}

#[tokio::test]
async fn messages_arrive_whole_however_they_are_split() {
    let large: Vec<u8> = (0..500_000_u32).map(|i| (i % 251) as u8).collect();
    let text = "héllo €😀 ".repeat(10_000);
    let (front, back) = text.as_bytes().split_at(7);
    let frames = [
        Frame::binary(&large),
        Frame::text("small"),
        Frame::text(front).unfinished(),
        Frame::ping("between"),
        Frame::continuation(back),
        Frame::binary(&large[..100_000]).unfinished(),
        Frame::continuation([]).unfinished(),
        Frame::continuation(&large[100_000..]),
        Frame::binary([]),
    ];
    let expected: [Message; 5] =
        [large.clone().into(), "small".into(), text.as_str().into(), large.into(), Vec::new().into()];
    for role in [Role::Client, Role::Server] {
        let bytes = encode_all(peer_of(role), &frames);
        for piece in [1, 2, 3, 13, 1000, 16_384, 65_536, 65_537, 200_000, usize::MAX] {
            if piece < 100 && role == Role::Client {
                continue;
            }
            let (mut socket, wire) = open(role, Limits::default());
            wire.set_chunk(piece);
            wire.feed(&bytes);
            for message in &expected {
                assert_eq!(socket.recv().await.unwrap().as_ref(), Some(message), "{piece} bytes a read");
            }
        }
    }
}

#[tokio::test]
async fn a_large_message_is_followed_by_others_in_the_same_read() {
    for size in [65_000, 65_536, 131_072, 262_144, 1_000_000] {
        let (mut socket, wire) = open(Role::Server, Limits::default());
        let payload = vec![7; size];
        wire.feed(&encode_all(Role::Client, &[Frame::binary(&payload), Frame::text("a"), Frame::text("b")]));
        assert_eq!(socket.recv().await.unwrap().unwrap().into_bytes(), payload);
        assert_eq!(socket.recv().await.unwrap(), Some("a".into()));
        assert_eq!(socket.recv().await.unwrap(), Some("b".into()));
    }
}

#[tokio::test]
async fn a_message_of_64_kib_that_is_there_takes_one_read() {
    let whole = vec![Frame::binary([7; 65_536])];
    let mut fragments = vec![Frame::continuation([7; 4096]).unfinished(); 16];
    fragments[0] = Frame::binary([7; 4096]).unfinished();
    fragments[15] = Frame::continuation([7; 4096]);
    for frames in [whole, fragments] {
        let (mut socket, wire) = open(Role::Server, Limits::default());
        wire.feed(&encode_all(Role::Client, &frames));
        assert_eq!(socket.recv().await.unwrap().unwrap().into_bytes().len(), 65_536);
        assert_eq!(wire.calls().0, 1, "{} frames", frames.len());
    }
}

#[tokio::test]
async fn a_reader_gives_a_message_as_it_arrives() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    let bytes = Frame::text("0123456789").encode(Role::Client);
    // The header and four bytes of the payload.
    wire.feed(&bytes[..10]);
    let mut reader = socket.reader().await.unwrap().unwrap();
    let mut piece = [0; 16];
    assert_eq!(reader.read(&mut piece).await.unwrap(), 4);
    assert!(poll_times(3, reader.read(&mut piece)).await.is_none());
    wire.feed(&bytes[10..]);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "456789");
    assert_eq!(reader.read(&mut piece).await.unwrap(), 0, "the end stays the end");
    drop(reader);
    wire.end();
    assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn a_reader_of_a_message_that_breaks_off_fails() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed_frame(Role::Client, &Frame::text("begun").unfinished());
    let mut reader = socket.reader().await.unwrap().unwrap();
    wire.end();
    let mut text = String::new();
    let error = reader.read_to_string(&mut text).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    drop(reader);
    assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
}

#[tokio::test]
async fn the_rest_of_a_dropped_readers_message_is_still_validated() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed_frame(Role::Client, &Frame::text("valid").unfinished());
    drop(socket.reader().await.unwrap());
    wire.feed_frame(Role::Client, &Frame::continuation([0xFF]));
    assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(wire.next_frame(Role::Server).await.close_code(), 1007);
}

/// Returns the application's error, and the close code that the peer receives.
async fn expect_failure(limits: Limits, bytes: &[u8]) -> (bowline::Error, u16) {
    let (mut socket, wire) = open(Role::Server, limits);
    wire.feed(bytes);
    let error = socket.recv().await.unwrap_err();
    let again = socket.recv().await.unwrap_err();
    assert_eq!(error.to_string(), again.to_string(), "after the end it stays ended");
    assert_eq!(socket.send("more").await.unwrap_err().kind(), error.kind());
    let close = wire.next_frame(Role::Server).await;
    // RFC 6455 7.1.7: the connection fails. Later bytes are discarded until the peer has ended as well.
    wire.until(Wire::is_shut_down).await;
    wire.feed(&vec![0; 100_000]);
    wire.until(|wire| wire.unread() == 0).await;
    assert!(!wire.is_dropped());
    wire.end();
    wire.until(Wire::is_dropped).await;
    assert!(wire.take_written().is_empty(), "nothing follows the Close frame");
    (error, close.close_code())
}

#[tokio::test]
async fn going_over_a_limit_names_the_limit_and_its_setting() {
    let limits = Limits::default().message_size(10).frames_per_message(3);
    // Only the header has arrived.
    let header = &Frame::binary([0; 11]).encode(Role::Client)[..6];
    let (error, code) = expect_failure(limits.clone(), header).await;
    assert_eq!((error.kind(), code), (ErrorKind::Limit, 1009));
    assert!(error.to_string().contains("10 bytes") && error.to_string().contains("Limits::message_size"));

    let fragments = [Frame::text("123456").unfinished(), Frame::continuation("12345")];
    let (error, code) = expect_failure(limits.clone(), &encode_all(Role::Client, &fragments)).await;
    assert_eq!((error.kind(), code), (ErrorKind::Limit, 1009));

    let empty = Frame::continuation([]).unfinished();
    let fragments = [Frame::text([]).unfinished(), empty.clone(), empty.clone(), empty];
    let (error, code) = expect_failure(limits, &encode_all(Role::Client, &fragments)).await;
    assert_eq!((error.kind(), code), (ErrorKind::Limit, 1008));
    assert!(error.to_string().contains("Limits::frames_per_message"));
}

#[tokio::test]
async fn the_default_limits_are_on() {
    let header = |size: u64| {
        let mut bytes = vec![0x82, 0xFF];
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    };
    for size in [1024 * 1024 + 1, 1 << 32, (1 << 63) - 1] {
        let (error, code) = expect_failure(Limits::default(), &header(size)).await;
        assert_eq!((error.kind(), code), (ErrorKind::Limit, 1009), "{size} bytes announced");
    }
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed(&Frame::binary(vec![0; 1024 * 1024]).encode(Role::Client));
    assert_eq!(socket.recv().await.unwrap().unwrap().len(), 1024 * 1024);
}

#[tokio::test]
async fn rfc6455_7_1_7_violations_fail_the_connection() {
    let frame = |frame: Frame| frame.encode(Role::Client);
    let cases = [
        (Frame::text("not masked").encode(Role::Server), 1002),
        (vec![0xC1, 0x80], 1002),
        (vec![0x83, 0x80], 1002),
        (vec![0x09, 0x80], 1002),
        (vec![0x89, 0xFE, 0, 126], 1002),
        (vec![0x82, 0xFE, 0, 5], 1002),
        (frame(Frame::continuation("nothing to continue")), 1002),
        (encode_all(Role::Client, &[Frame::text("a").unfinished(), Frame::text("b")]), 1002),
        (frame(Frame::new(Opcode::Close, [3])), 1002),
        (frame(Frame::close(1005, "")), 1002),
        (frame(Frame::text([b'a', 0xC0])), 1007),
    ];
    for (bytes, expected) in cases {
        let mut header = bytes.clone();
        header.resize(header.len().max(6), 0);
        let (error, code) = expect_failure(Limits::default(), &header).await;
        assert_eq!((error.kind(), code), (ErrorKind::Protocol, expected), "{bytes:?}: {error}");
    }
    // A client rejects masked frames.
    let (mut socket, wire) = open(Role::Client, Limits::default());
    wire.feed_frame(Role::Client, &Frame::text("masked"));
    assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Protocol);
    assert_eq!(wire.next_frame(Role::Client).await.close_code(), 1002);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_end_after_a_violation_is_dropped_after_the_close_timeout() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed_frame(Role::Server, &Frame::text("not masked"));
    assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Protocol);
    let start = tokio::time::Instant::now();
    wire.until(Wire::is_dropped).await;
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[tokio::test]
async fn messages_in_front_of_a_violation_are_delivered() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    let mut bytes = Frame::text("good").encode(Role::Client);
    bytes.extend(Frame::text("bad").encode(Role::Server));
    wire.feed(&bytes);
    assert_eq!(socket.recv().await.unwrap(), Some("good".into()));
    assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Protocol);
}

#[tokio::test]
async fn an_end_without_a_close_frame_is_said_in_those_words() {
    let (mut socket, wire) = open(Role::Client, Limits::default());
    wire.feed_frame(Role::Server, &Frame::text("last"));
    wire.end();
    assert_eq!(socket.recv().await.unwrap(), Some("last".into()));
    let error = socket.recv().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    assert!(error.to_string().contains("without a Close frame"), "{error}");
    assert_eq!(socket.send("more").await.unwrap_err().kind(), ErrorKind::Disconnected);

    let (mut socket, wire) = open(Role::Client, Limits::default());
    wire.break_off(io::ErrorKind::ConnectionReset);
    let error = socket.recv().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disconnected);
    assert!(std::error::Error::source(&error).is_some());
}

// ---- nobody reads

#[tokio::test]
async fn pings_are_answered_though_nobody_reads() {
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default());
        for number in 0..10_u8 {
            wire.feed_frame(peer_of(role), &Frame::ping([number]));
            assert_eq!(wire.next_frame(role).await, Frame::pong([number]));
        }
        wire.feed_frame(peer_of(role), &Frame::pong("nobody asked"));
        settle().await;
        assert!(wire.take_written().is_empty());
        drop(socket);
    }
}

/// A recv that has been given up, or that has returned, leaves the work to the library.
#[tokio::test(start_paused = true)]
async fn pings_are_answered_between_two_calls_of_recv() {
    let start = tokio::time::Instant::now();
    let (mut socket, wire) = open(Role::Server, Limits::default());
    assert!(poll_times(3, socket.recv()).await.is_none());
    wire.feed_frame(Role::Client, &Frame::ping("after a recv was dropped"));
    assert_eq!(wire.next_frame(Role::Server).await, Frame::pong("after a recv was dropped"));
    {
        // The `recv` was woken, and is dropped before it can act.
        let mut recv = std::pin::pin!(socket.recv());
        assert!(poll_once(recv.as_mut()).await.is_none());
        wire.feed_frame(Role::Client, &Frame::ping("for a recv that is gone"));
    }
    assert_eq!(wire.next_frame(Role::Server).await, Frame::pong("for a recv that is gone"));
    assert!(start.elapsed().is_zero(), "nothing was handed to the application that it could be busy with");
    {
        // The `recv` had to wait, so the connection's task was not woken. Now the application is busy.
        let mut recv = std::pin::pin!(socket.recv());
        assert!(poll_once(recv.as_mut()).await.is_none());
        settle().await;
        wire.feed_frame(Role::Client, &Frame::text("work"));
        assert_eq!(recv.await.unwrap(), Some("work".into()));
    }
    settle().await;
    wire.feed_frame(Role::Client, &Frame::ping("for nobody in particular"));
    assert_eq!(wire.next_frame(Role::Server).await, Frame::pong("for nobody in particular"));
    for together in [false, true] {
        let ping = Frame::ping("while the application is busy");
        wire.feed_frame(Role::Client, &Frame::text("work"));
        if together {
            wire.feed_frame(Role::Client, &ping);
        }
        assert_eq!(socket.recv().await.unwrap(), Some("work".into()));
        if !together {
            settle().await;
            wire.feed_frame(Role::Client, &ping);
        }
        assert_eq!(wire.next_frame(Role::Server).await, Frame::pong("while the application is busy"));
    }
    assert!(start.elapsed() < 3 * Duration::from_secs(1), "each within a second: {:?}", start.elapsed());
}

/// This holds however many messages were received before, and whenever the last was.
#[tokio::test(start_paused = true)]
async fn pings_are_answered_once_a_lively_application_stops_reading() {
    for messages in 0..40 {
        let (mut socket, wire) = open(Role::Server, Limits::default());
        for _ in 0..messages {
            let (message, ()) = tokio::join!(socket.recv(), async {
                tokio::time::advance(Duration::from_millis(90)).await;
                wire.feed_frame(Role::Client, &Frame::text("work"));
            });
            assert_eq!(message.unwrap(), Some("work".into()));
        }
        let start = tokio::time::Instant::now();
        wire.feed_frame(Role::Client, &Frame::ping("while it is away"));
        assert_eq!(wire.next_frame(Role::Server).await, Frame::pong("while it is away"));
        let passed = start.elapsed();
        assert!(passed < Duration::from_secs(1), "{passed:?} after {messages} messages");
    }
}

/// A message, directly followed by the end of the connection: the application can still answer.
#[tokio::test(start_paused = true)]
async fn an_application_that_was_handed_a_message_can_answer_it_before_the_end() {
    for role in [Role::Client, Role::Server] {
        let violation = Frame::text("masked the wrong way").encode(role);
        for end in [Frame::close(1000, "").encode(peer_of(role)), violation] {
            for together in [true, false] {
                let (mut socket, wire) = open(role, Limits::default());
                settle().await;
                wire.feed_frame(peer_of(role), &Frame::text("question"));
                if together {
                    wire.feed(&end);
                }
                assert_eq!(socket.recv().await.unwrap(), Some("question".into()));
                wire.feed(if together { &[] } else { &end });
                settle().await;
                socket.send("answer").await.unwrap();
                assert_eq!(wire.next_frame(role).await, Frame::text("answer"));
                assert!(!matches!(socket.recv().await, Ok(Some(_))));
                assert_eq!(wire.next_frame(role).await.opcode, Opcode::Close);
            }
        }
    }
}

/// Replies wait for the end of the batch, so they must not be lost with it.
#[tokio::test]
async fn replies_to_a_batch_go_out_though_the_stream_ends_behind_it() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        let batch = [Frame::text("a"), Frame::ping("b"), Frame::text("c")];
        wire.feed(&encode_all(peer_of(role), &batch));
        wire.end();
        assert_eq!(socket.recv().await.unwrap(), Some("a".into()));
        socket.send("a").await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some("c".into()));
        assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
        assert_eq!(wire.take_frames(role), [Frame::text("a"), Frame::pong("b")], "{role:?}");
    }
}

/// Small messages that arrive together are decoded together, with no visible effect on any way of receiving.
#[tokio::test]
async fn a_batch_is_received_in_order_by_recv_and_readers_alike() {
    for role in [Role::Client, Role::Server] {
        // More than one block holds, and among them messages that never enter a block.
        let messages: Vec<Frame> = (0..3000)
            .map(|number: usize| match number % 7 {
                0 => Frame::text(format!("{number}€")),
                1 => Frame::text(""),
                2 => Frame::binary(vec![7; number]),
                _ => Frame::binary(number.to_be_bytes()),
            })
            .collect();
        let (mut socket, wire) = open(role, Limits::default());
        wire.feed(&encode_all(peer_of(role), &messages));
        for (number, sent) in messages.iter().enumerate() {
            let mut payload = Vec::new();
            match number % 5 {
                0 => {
                    let mut reader = socket.reader().await.unwrap().unwrap();
                    reader.read_to_end(&mut payload).await.unwrap();
                    assert_eq!(reader.read(&mut [0]).await.unwrap(), 0, "the end stays");
                }
                1 => {
                    // The rest of the message is skipped.
                    let mut reader = socket.reader().await.unwrap().unwrap();
                    let mut first = vec![0; sent.payload.len() / 2];
                    reader.read_exact(&mut first).await.unwrap();
                    assert_eq!(first, sent.payload[..first.len()]);
                    continue;
                }
                _ => payload = socket.recv().await.unwrap().unwrap().into_bytes().into(),
            }
            assert!(payload == sent.payload, "{role:?}: message {number}");
        }
        wire.end();
        assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Disconnected);
    }
}

/// A Close frame or a violation that arrived with messages takes effect after the last of them was received,
/// so that all of them can be answered.
#[tokio::test]
async fn the_end_that_follows_a_batch_waits_for_its_last_message() {
    for role in [Role::Client, Role::Server] {
        let mut invalid = Frame::text("?");
        invalid.payload[0] = 0xFF;
        for end in [Frame::close(1000, ""), invalid] {
            let (mut socket, wire) = open(role, Limits::default());
            settle().await;
            let mut frames = vec![Frame::text("message"); 5];
            frames.push(end);
            wire.feed(&encode_all(peer_of(role), &frames));
            for _ in 0..5 {
                assert_eq!(socket.recv().await.unwrap(), Some("message".into()));
                settle().await;
                socket.send("reply").await.unwrap();
            }
            assert!(!matches!(socket.recv().await, Ok(Some(_))));
            settle().await;
            let written = wire.take_frames(role);
            assert_eq!(written[..5], vec![Frame::text("reply"); 5]);
            assert_eq!((written.len(), written[5].opcode), (6, Opcode::Close), "{role:?}");
        }
    }
}

/// This also holds for a `Sender`, while the `WebSocket` works through a batch.
#[tokio::test]
async fn what_is_left_of_a_batch_is_received_after_a_close() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        let mut frames = vec![Frame::text("message"); 5];
        frames.push(Frame::binary(vec![7; 5000]));
        frames.push(Frame::text("last"));
        wire.feed(&encode_all(peer_of(role), &frames));
        assert_eq!(socket.recv().await.unwrap(), Some("message".into()));
        let sender = socket.sender();
        let closing = tokio::spawn(async move { sender.close(CloseCode::NORMAL, "").await });
        settle().await;
        for _ in 1..5 {
            assert_eq!(socket.recv().await.unwrap(), Some("message".into()));
        }
        assert_eq!(socket.recv().await.unwrap(), Some(vec![7; 5000].into()));
        assert_eq!(socket.recv().await.unwrap(), Some("last".into()));
        wire.feed_frame(peer_of(role), &Frame::close(1000, ""));
        assert_eq!(socket.recv().await.unwrap(), None);
        wire.end();
        closing.await.unwrap().unwrap();
    }
}

/// The rest of a batch counts as unread, like bytes in the read buffer. The peer's silence proves nothing,
/// and later frames wait until the last message was received.
#[tokio::test(start_paused = true)]
async fn a_ping_behind_a_batch_is_answered_once_its_last_message_was_received() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        settle().await;
        let mut frames = vec![Frame::text("message"); 5];
        frames.push(Frame::ping("behind"));
        wire.feed(&encode_all(peer_of(role), &frames));
        assert_eq!(socket.recv().await.unwrap(), Some("message".into()));
        for _ in 1..5 {
            // The keepalive would have declared the peer dead by now. The time is no multiple of its
            // interval, at which it would also answer.
            tokio::time::sleep(Duration::from_secs(3607)).await;
            assert!(wire.take_frames(role).iter().all(|frame| frame.opcode == Opcode::Ping));
            assert_eq!(socket.recv().await.unwrap(), Some("message".into()));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(wire.take_frames(role), [Frame::pong("behind")], "{role:?}");
    }
}

/// An application that received messages may be busy for a long time, and send nothing.
#[tokio::test(start_paused = true)]
async fn what_follows_a_batch_is_answered_while_the_application_is_busy() {
    for role in [Role::Client, Role::Server] {
        for messages in 1..=3 {
            for (behind, answer) in [
                (Frame::ping("behind").encode(peer_of(role)), Frame::pong("behind")),
                (Frame::close(1000, "").encode(peer_of(role)), Frame::close(1000, "")),
                (Frame::ping("masked the wrong way").encode(role), Frame::close(1002, "")),
            ] {
                for in_time in [true, false] {
                    let (stream, wire) = crate::support::wire::wire();
                    // With keepalive, the driver would check now and then.
                    let mut socket = match role {
                        Role::Server => {
                            Acceptor::new().keepalive(None).adopt(stream, Adoption::new()).unwrap()
                        }
                        Role::Client => {
                            Connector::new().keepalive(None).adopt(stream, Adoption::new()).unwrap()
                        }
                    };
                    settle().await;
                    let mut frames = encode_all(peer_of(role), &vec![Frame::text("work"); messages]);
                    if in_time {
                        frames.extend(&behind);
                    }
                    wire.feed(&frames);
                    // The driver reads up to the first message.
                    settle().await;
                    if !in_time {
                        wire.feed(&behind);
                    }
                    for _ in 0..messages {
                        assert_eq!(socket.recv().await.unwrap(), Some("work".into()));
                    }
                    let start = tokio::time::Instant::now();
                    let answered = timeout(Duration::from_secs(60), wire.next_frame(role)).await;
                    assert_eq!(answered.expect("it is answered"), answer, "{role:?}");
                    assert!(start.elapsed() < Duration::from_secs(1), "{role:?}: {messages} messages");
                }
            }
        }
    }
}

/// The pongs to pings that arrived together gather, but only as many as may be stuck if the peer does not
/// read.
#[tokio::test]
async fn pings_behind_a_batch_of_a_peer_that_does_not_read_are_owed_few_pongs() {
    for messages in [0, 2] {
        let (mut socket, wire) = open(Role::Server, Limits::default());
        wire.set_room(0);
        let mut frames = vec![Frame::text("m"); messages];
        frames.extend((0..1500).map(|_| Frame::ping("p".repeat(125))));
        wire.feed(&encode_all(Role::Client, &frames));
        for _ in 0..messages {
            assert!(socket.recv().await.unwrap().is_some());
        }
        assert!(timeout(Duration::from_millis(20), socket.recv()).await.is_err());
        assert_eq!(wire.unread(), 0);
        wire.set_room(usize::MAX);
        socket.flush().await.unwrap();
        settle().await;
        let pongs = wire.take_frames(Role::Server).len();
        assert!(pongs <= 16, "{pongs} pongs behind {messages} messages");
    }
}

#[tokio::test]
async fn a_close_is_echoed_though_nobody_reads() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        let sender = socket.sender();
        wire.feed_frame(peer_of(role), &Frame::close(4000, "bye"));
        assert_eq!(wire.next_frame(role).await, Frame::close(4000, "bye"));
        sender.closed().await;
        wire.end();
        wire.until(Wire::is_dropped).await;
        assert_eq!(sender.close_frame().unwrap().reason(), "bye");
        let error = socket.recv().await.unwrap_err();
        assert_eq!(error.close_frame().unwrap().code(), CloseCode(4000));
    }
}

#[tokio::test]
async fn reading_stops_at_the_first_message_that_nobody_has_asked_for() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed_frame(Role::Client, &Frame::ping("in front"));
    wire.feed_frame(Role::Client, &Frame::text("unread"));
    wire.feed_frame(Role::Client, &Frame::ping("behind"));
    assert_eq!(wire.next_frame(Role::Server).await, Frame::pong("in front"));
    for _ in 0..1000 {
        wire.feed_frame(Role::Client, &Frame::binary([0; 1000]));
        settle().await;
    }
    assert!(wire.unread() > 900_000, "memory is bounded by one read: {} bytes are left", wire.unread());
    assert!(wire.take_written().is_empty());
    assert_eq!(socket.recv().await.unwrap(), Some("unread".into()));
    assert_eq!(wire.next_frame(Role::Server).await, Frame::pong("behind"));
}

#[tokio::test]
async fn ping_drives_reading_and_waits_for_its_own_pong_or_a_later_one() {
    for role in [Role::Client, Role::Server] {
        let (mut socket, wire) = open(role, Limits::default());
        let sender = socket.sender();
        let ping = || {
            let sender = sender.clone();
            tokio::spawn(async move { sender.ping().await })
        };
        let pings = [ping(), ping(), ping()];
        let mut payloads = Vec::new();
        for _ in &pings {
            let frame = wire.next_frame(role).await;
            assert_eq!(frame.opcode, Opcode::Ping);
            assert!(!payloads.contains(&frame.payload), "each has a payload of its own");
            payloads.push(frame.payload);
        }
        wire.feed_frame(peer_of(role), &Frame::pong("unsolicited"));
        settle().await;
        assert!(pings.iter().all(|ping| !ping.is_finished()), "no pong of theirs has come");
        // RFC 6455 5.5.3: a peer may answer only the newest of the pings that it has received.
        wire.feed_frame(peer_of(role), &Frame::pong(&payloads[1]));
        settle().await;
        assert_eq!([0, 1, 2].map(|number| pings[number].is_finished()), [true, true, false]);
        // The pong waits behind an unread message until somebody reads it.
        wire.feed_frame(peer_of(role), &Frame::text("unread"));
        wire.feed_frame(peer_of(role), &Frame::pong(&payloads[2]));
        settle().await;
        assert!(!pings[2].is_finished());
        assert_eq!(socket.recv().await.unwrap(), Some("unread".into()));
        assert!(poll_times(100, socket.recv()).await.is_none());
        for ping in pings {
            ping.await.unwrap().unwrap();
        }
    }
}

/// The pong to the keepalive's ping also answers earlier pings.
#[tokio::test(start_paused = true)]
async fn a_ping_that_the_keepalive_overtakes_is_settled_with_it() {
    for role in [Role::Client, Role::Server] {
        let (socket, wire) = open(role, Limits::default());
        let sender = socket.sender();
        let ping = tokio::spawn(async move { sender.ping().await });
        let first = wire.next_frame(role).await;
        let keepalive = wire.next_frame(role).await;
        assert_ne!(first.payload, keepalive.payload);
        wire.feed_frame(peer_of(role), &Frame::pong(""));
        settle().await;
        assert!(!ping.is_finished(), "an unsolicited pong settles nothing");
        wire.feed_frame(peer_of(role), &Frame::pong(&keepalive.payload));
        ping.await.unwrap().unwrap();
    }
}

/// This also holds right after a message, when the task would leave the application alone for a while.
#[tokio::test(start_paused = true)]
async fn a_ping_after_a_message_measures_nothing_but_the_round_trip() {
    let (mut socket, wire) = open(Role::Server, Limits::default());
    wire.feed_frame(Role::Client, &Frame::text("message"));
    assert_eq!(socket.recv().await.unwrap(), Some("message".into()));
    let answer = async {
        let ping = wire.next_frame(Role::Server).await;
        wire.feed_frame(Role::Client, &Frame::pong(&ping.payload));
    };
    let (round_trip, ()) = tokio::join!(socket.ping(), answer);
    assert!(round_trip.unwrap().is_zero());
}

/// Even if a `recv` was polled once and is kept, but not polled again.
#[tokio::test(start_paused = true)]
async fn ping_and_close_do_not_depend_on_a_recv_that_is_not_polled() {
    let start = tokio::time::Instant::now();
    let (mut socket, wire) = open(Role::Server, Limits::default());
    let sender = socket.sender();
    let mut recv = std::pin::pin!(socket.recv());
    assert!(poll_once(recv.as_mut()).await.is_none());
    settle().await;
    let answer = async {
        let ping = wire.next_frame(Role::Server).await;
        wire.feed_frame(Role::Client, &Frame::pong(&ping.payload));
    };
    let (pong, ()) = tokio::join!(sender.ping(), answer);
    pong.unwrap();
    let answer = async {
        let close = wire.next_frame(Role::Server).await;
        wire.feed_frame(Role::Client, &close);
        wire.end();
    };
    let (close, ()) = tokio::join!(sender.close(CloseCode::NORMAL, ""), answer);
    assert_eq!(close.unwrap().code(), CloseCode::NORMAL);
    assert_eq!(recv.await.unwrap(), None);
    assert!(start.elapsed().is_zero(), "no timer had to help");
}

#[tokio::test]
async fn a_ping_flood_from_a_peer_that_does_not_read_is_owed_one_pong() {
    let (socket, wire) = open(Role::Server, Limits::default());
    wire.set_room(1);
    wire.feed_frame(Role::Client, &Frame::ping("first"));
    for number in 0..100_000_u32 {
        wire.feed_frame(Role::Client, &Frame::ping(number.to_string()));
    }
    wire.until(Wire::is_idle).await;
    wire.set_room(usize::MAX);
    assert_eq!(wire.next_frame(Role::Server).await, Frame::pong("first"));
    assert_eq!(wire.next_frame(Role::Server).await, Frame::pong("99999"));
    settle().await;
    assert!(wire.take_written().is_empty());
    drop(socket);
}

// ---- fairness

/// A flooding connection beside a quiet one, on one thread.
async fn flood_beside_quiet(mut flooded: WebSocket, flooding: tokio::task::JoinHandle<()>) {
    let (quiet, mut other) = bowline::pair();
    let flood = tokio::spawn(async move {
        while let Some(message) = flooded.recv().await.unwrap() {
            flooded.send(message).await.unwrap();
        }
    });
    let echo = tokio::spawn(async move {
        while let Ok(Some(message)) = other.recv().await {
            other.send(message).await.unwrap();
        }
    });
    let mut quiet = quiet;
    let rounds = async {
        for _ in 0..50 {
            quiet.send("is there time for me?").await.unwrap();
            quiet.recv().await.unwrap().unwrap();
        }
    };
    timeout(Duration::from_secs(20), rounds).await.expect("the quiet connection gets its turn");
    flood.abort();
    flooding.abort();
    echo.abort();
}

#[tokio::test]
async fn a_flood_in_memory_does_not_starve_others() {
    let (socket, wire) = open(Role::Server, Limits::default());
    let batch = encode_all(Role::Client, &vec![Frame::binary([]); 10_000]);
    let flooding = tokio::spawn(async move {
        loop {
            wire.feed(&batch);
            wire.take_written();
            tokio::task::yield_now().await;
        }
    });
    flood_beside_quiet(socket, flooding).await;
}

/// The stream is always ready, in both directions, and takes no part in tokio's budget.
#[derive(Clone)]
struct Endless {
    first: Option<Vec<u8>>,
    repeated: Vec<u8>,
    /// The number of bytes per read, if there is room.
    read_size: usize,
}

impl tokio::io::AsyncRead for Endless {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        if let Some(first) = self.first.take() {
            buf.put_slice(&first);
        }
        while buf.filled().len() < self.read_size && buf.remaining() > self.repeated.len() {
            buf.put_slice(&self.repeated);
        }
        std::task::Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Endless {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::task::Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

async fn endless_beside_quiet(endless: Endless) {
    let limits = Limits::default().frames_per_message(u32::MAX);
    let adopt =
        || bowline::Acceptor::new().limits(limits.clone()).adopt(endless.clone(), Adoption::new()).unwrap();
    // In `recv`, and in the connection's task.
    let (socket, unread) = (adopt(), adopt());
    // This also holds while a dropped connection waits for its peer to end.
    drop(adopt());
    flood_beside_quiet(socket, tokio::spawn(std::future::pending())).await;
    drop(unread);
}

#[tokio::test]
async fn a_flood_of_pings_does_not_starve_others() {
    let repeated = Frame::ping("flood").encode(Role::Client);
    endless_beside_quiet(Endless { first: None, repeated, read_size: usize::MAX }).await;
}

/// The frames have no effect, so that only reading costs time.
#[tokio::test]
async fn a_flood_of_pongs_does_not_starve_others() {
    let repeated = Frame::pong("flood").encode(Role::Client);
    endless_beside_quiet(Endless { first: None, repeated, read_size: 1024 }).await;
}

#[tokio::test]
async fn a_message_without_end_does_not_starve_others() {
    let first = Frame::binary([]).unfinished().encode(Role::Client);
    let repeated = Frame::continuation([]).unfinished().encode(Role::Client);
    endless_beside_quiet(Endless { first: Some(first), repeated, read_size: 1024 }).await;
}
