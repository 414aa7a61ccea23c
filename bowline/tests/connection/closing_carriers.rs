//! The end of a connection over real transports: TCP, TLS and HTTP/2. `http3/tests` includes this file, for
//! HTTP/3.

use std::time::Duration;

use bowline::{CloseCode, ErrorKind, Limits, MessageKind, Role, Sender, WebSocket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::frames::{Frame, encode_all, take_frames};
use crate::support::pairs::{CARRIERS, Carrier, Stream, both, with_raw_peer};
use crate::support::peer_of;

/// Reads the next frame from `role`, or the end of the stream.
async fn read_frame(role: Role, stream: &mut Box<dyn Stream>) -> Option<Frame> {
    let mut bytes = Vec::new();
    loop {
        if let Some(frame) = take_frames(role, &mut bytes).pop() {
            return Some(frame);
        }
        match stream.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => return None,
        }
    }
}

async fn for_each(test: impl AsyncFn(Role, Carrier)) {
    for &carrier in CARRIERS {
        for role in [Role::Client, Role::Server] {
            let bounded = timeout(Duration::from_secs(20), test(role, carrier));
            bounded.await.unwrap_or_else(|_| panic!("{role:?} over {carrier:?} hangs"));
        }
    }
}

/// A client that sends everything and then ends its direction, as `echo message | tool` does, still receives
/// its answers.
#[tokio::test]
async fn the_peer_may_end_its_direction_before_it_is_answered() {
    for_each(async |role, carrier| {
        for count in [1, 2, 500] {
            let (mut socket, mut peer) = with_raw_peer(role, carrier, Limits::default()).await;
            let echoing = tokio::spawn(async move {
                let end = loop {
                    match socket.recv().await {
                        Ok(Some(message)) => {
                            // As a server that performs a lookup.
                            tokio::task::yield_now().await;
                            socket.send(message).await.unwrap();
                        }
                        end => break end,
                    }
                };
                assert_eq!(end.unwrap_err().kind(), ErrorKind::Disconnected);
                assert!(socket.send("once it is told").await.is_err());
            });
            let messages: Vec<_> = (0..count).map(|number| Frame::text(number.to_string())).collect();
            peer.write_all(&encode_all(peer_of(role), &messages)).await.unwrap();
            peer.shutdown().await.unwrap();
            let mut received = Vec::new();
            peer.read_to_end(&mut received).await.unwrap();
            assert_eq!(take_frames(role, &mut received), messages, "{role:?} over {carrier:?}");
            echoing.await.unwrap();
        }
    })
    .await;
}

/// From a peer that has ended its direction, no pong will come.
#[tokio::test]
async fn a_ping_to_a_peer_that_has_ended_its_direction_fails() {
    for_each(async |role, carrier| {
        let (mut socket, mut peer) = with_raw_peer(role, carrier, Limits::default()).await;
        peer.write_all(&Frame::text("last").encode(peer_of(role))).await.unwrap();
        peer.flush().await.unwrap();
        assert_eq!(socket.recv().await.unwrap(), Some("last".into()));
        let sender = socket.sender();
        let waiting = tokio::spawn(async move { sender.ping().await });
        assert!(read_frame(role, &mut peer).await.is_some());
        peer.shutdown().await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Disconnected);
        assert_eq!(socket.ping().await.unwrap_err().kind(), ErrorKind::Disconnected);
        socket.send("still").await.unwrap();
        assert_eq!(read_frame(role, &mut peer).await, Some(Frame::text("still")));
    })
    .await;
}

/// A side that only sends notices the peer's end without reading.
#[tokio::test]
async fn the_end_of_a_peer_that_was_never_read_is_the_end_for_senders() {
    for_each(async |role, carrier| {
        let (socket, mut peer) = with_raw_peer(role, carrier, Limits::default()).await;
        peer.shutdown().await.unwrap();
        socket.sender().closed().await;
        assert_eq!(socket.send("more").await.unwrap_err().kind(), ErrorKind::Disconnected);
    })
    .await;
}

#[tokio::test]
async fn simultaneous() {
    for &carrier in CARRIERS {
        for _ in 0..20 {
            let (mut client, mut server) = both(carrier).await;
            let closes = tokio::join!(
                client.close(CloseCode(4001), "client"),
                server.close(CloseCode(4002), "server")
            );
            // One Close frame may arrive before the other side calls `close`, whose frame is then the echo.
            let (by_client, by_server) = (closes.0.unwrap(), closes.1.unwrap());
            assert!(matches!(by_client.code().0, 4001 | 4002), "{by_client}");
            assert!(matches!(by_server.code().0, 4001 | 4002), "{by_server}");
            assert_eq!(client.recv().await.ok().flatten(), None);
            assert_eq!(server.recv().await.ok().flatten(), None);
        }
    }
}

#[tokio::test]
async fn repeated() {
    for_each(async |role, carrier| {
        let (client, server) = both(carrier).await;
        let (closing, mut other) = if role == Role::Client { (client, server) } else { (server, client) };
        let peer = tokio::spawn(async move { other.recv().await });
        for _ in 0..3 {
            let frame = closing.close(CloseCode::NORMAL, "again").await.unwrap();
            assert_eq!((frame.code(), frame.reason()), (CloseCode::NORMAL, "again"));
        }
        assert_eq!(peer.await.unwrap().unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn with_data_in_flight_both_ways() {
    for_each(async |role, carrier| {
        let (client, server) = both(carrier).await;
        let (closing, mut other) = if role == Role::Client { (client, server) } else { (server, client) };
        let flood = |sender: bowline::Sender| {
            tokio::spawn(async move {
                let mut count = 0;
                while sender.send(vec![7; 50_000]).await.is_ok() {
                    count += 1;
                }
                count
            })
        };
        let (ours, theirs) = (flood(closing.sender()), flood(other.sender()));
        let receiving = tokio::spawn(async move {
            let mut received = 0;
            // 4000 is an error for the one that did not close.
            while let Ok(Some(_)) = other.recv().await {
                received += 1;
                if received == 20 {
                    // The peer stops reading for a while. The closing handshake has to succeed nevertheless.
                    tokio::task::yield_now().await;
                }
            }
            (received, other.close_frame())
        });
        // Each time, both directions fill the buffers of the transport.
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        let frame = closing.close(CloseCode(4000), "enough").await.unwrap();
        assert_eq!(frame.code(), CloseCode(4000));
        let (received, close) = match receiving.await {
            Ok(result) => result,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(received, ours.await.unwrap(), "what was accepted before the close arrives");
        assert_eq!(close.unwrap().reason(), "enough");
        theirs.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_peer_never_answers() {
    for_each(async |role, carrier| {
        let limits = Limits::default().close_timeout(Duration::from_millis(50));
        let (socket, mut peer) = with_raw_peer(role, carrier, limits).await;
        let error = socket.close(CloseCode::NORMAL, "").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(read_frame(role, &mut peer).await, Some(Frame::close(1000, "")));
        assert_eq!(read_frame(role, &mut peer).await, None, "the transport has ended");
    })
    .await;
}

#[tokio::test]
async fn the_peer_answers_with_another_code() {
    for_each(async |role, carrier| {
        let (mut socket, mut peer) = with_raw_peer(role, carrier, Limits::default()).await;
        let answering = tokio::spawn(async move {
            assert_eq!(read_frame(role, &mut peer).await, Some(Frame::close(1000, "")));
            peer.write_all(&Frame::close(4321, "other").encode(peer_of(role))).await.unwrap();
            peer.flush().await.unwrap();
            if role == Role::Server {
                // RFC 6455 7.1.1: a client waits for the server to end the transport.
                assert_eq!(read_frame(role, &mut peer).await, None);
            }
            peer.shutdown().await.unwrap();
            // The end in the other direction is orderly too: over TLS, with a close_notify.
            assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
        });
        let frame = socket.close(CloseCode::NORMAL, "").await.unwrap();
        assert_eq!((frame.code(), frame.reason()), (CloseCode(4321), "other"));
        assert_eq!(socket.recv().await.unwrap(), None);
        answering.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_transport_dies_midway() {
    for_each(async |role, carrier| {
        let (mut socket, mut peer) = with_raw_peer(role, carrier, Limits::default()).await;
        let dying = tokio::spawn(async move {
            assert!(read_frame(role, &mut peer).await.is_some());
            // No answer, and over TLS no close_notify either.
            drop(peer);
        });
        let error = socket.close(CloseCode::NORMAL, "").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Disconnected, "{error:?}");
        assert!(error.to_string().contains("without a Close frame"), "{error}");
        assert_eq!(socket.recv().await.unwrap(), None);
        dying.await.unwrap();
    })
    .await;
}

/// A peer that has sent many unread bytes must still receive our Close frame, which a TCP reset would
/// overtake.
#[tokio::test]
async fn a_violation_with_unread_data_behind_it_does_not_reset_the_connection() {
    for_each(async |role, carrier| {
        let (mut socket, mut peer) = with_raw_peer(role, carrier, Limits::default()).await;
        let sending = tokio::spawn(async move {
            // Masked the wrong way round.
            peer.write_all(&Frame::text("wrong").encode(role)).await.unwrap();
            let (mut reading, mut writing) = tokio::io::split(peer);
            let flood = tokio::spawn(async move {
                for _ in 0..100 {
                    if writing.write_all(&[0; 10_000]).await.is_err() {
                        break;
                    }
                }
                writing
            });
            let mut received = Vec::new();
            reading.read_to_end(&mut received).await.expect("the end, and no reset");
            let mut writing = flood.await.unwrap();
            let _ = writing.shutdown().await;
            received
        });
        assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Protocol);
        drop(socket);
        let mut received = sending.await.unwrap();
        let frames = take_frames(role, &mut received);
        assert_eq!(frames.iter().map(Frame::close_code).collect::<Vec<_>>(), [1002]);
    })
    .await;
}

#[tokio::test]
async fn a_dropped_websocket_writes_what_was_sent_and_ends_without_a_close_frame() {
    for_each(async |role, carrier| {
        if !carrier.ends_on_drop(role) {
            return;
        }
        let (socket, mut peer) = with_raw_peer(role, carrier, Limits::default()).await;
        let payload = vec![7; 3_000_000];
        socket.send(&payload).await.unwrap();
        drop(socket);
        let mut received = Vec::new();
        peer.read_to_end(&mut received).await.unwrap();
        assert_eq!(take_frames(role, &mut received), [Frame::binary(payload)]);
        assert!(received.is_empty());
    })
    .await;
}

/// The peer writes a lot before it reads. Our Close frame must not wait for the peer, nor the peer's for us.
#[tokio::test]
async fn the_last_words_reach_a_peer_that_writes_before_it_reads() {
    for_each(async |role, carrier| {
        for too_large in [true, false] {
            if !too_large && !carrier.ends_on_drop(role) {
                continue;
            }
            let limits =
                Limits::default().write_buffer(8 * 1024 * 1024).close_timeout(Duration::from_secs(10));
            let (mut socket, mut peer) = with_raw_peer(role, carrier, limits).await;
            // More than the transport accepts at once.
            for _ in 0..6 {
                socket.send(vec![7; 1024 * 1024]).await.unwrap();
            }
            let ours = tokio::spawn(async move {
                if too_large {
                    assert_eq!(socket.recv().await.unwrap_err().kind(), ErrorKind::Limit);
                    Some(socket)
                } else {
                    drop(socket);
                    None
                }
            });
            let flood = Frame::binary(vec![1; 16 * 1024 * 1024]).encode(peer_of(role));
            peer.write_all(&flood).await.unwrap();
            peer.flush().await.unwrap();
            let mut bytes = Vec::new();
            peer.read_to_end(&mut bytes).await.unwrap();
            let frames = take_frames(role, &mut bytes);
            assert!(bytes.is_empty(), "{role:?} over {carrier:?}: the last frame is whole");
            assert!(frames[..6].iter().all(|frame| frame.payload.len() == 1024 * 1024));
            let closes: Vec<_> = frames[6..].iter().map(Frame::close_code).collect();
            assert_eq!(closes, if too_large { vec![1009] } else { Vec::new() });
            drop(ours.await.unwrap());
        }
    })
    .await;
}

/// Passes messages on, and then the end.
async fn relay(from: &mut WebSocket, to: Sender) {
    while let Ok(Some(message)) = from.recv().await {
        if to.send(message).await.is_err() {
            break;
        }
    }
    if let Some(frame) = from.close_frame() {
        to.close(frame.code(), frame.reason()).await.unwrap();
    }
}

#[tokio::test]
async fn rfc6455_7_1_5_a_proxy_passes_on_every_close_frame() {
    for_each(async |role, carrier| {
        for (code, reason) in [(1005, ""), (1000, ""), (1001, "restart"), (1011, ""), (4001, "logged out")] {
            let code = CloseCode(code);
            let (client, mut to_client) = both(carrier).await;
            let (mut to_server, server) = both(carrier).await;
            let proxy = tokio::spawn(async move {
                let (client, server) = (to_client.sender(), to_server.sender());
                tokio::join!(relay(&mut to_client, server), relay(&mut to_server, client));
            });
            let (closing, mut other) = if role == Role::Client { (client, server) } else { (server, client) };
            closing.send("the last message").await.unwrap();
            assert_eq!(other.recv().await.unwrap(), Some("the last message".into()));
            assert_eq!((closing.close_frame(), other.close_frame()), (None, None), "no Close frame yet");
            let (answer, end) = tokio::join!(closing.close(code, reason), other.recv());
            let is_normal = matches!(code.0, 1000 | 1001 | 1005);
            assert_eq!(end.map_err(|error| error.kind()).err(), (!is_normal).then_some(ErrorKind::Closed));
            let received = other.close_frame().unwrap();
            assert_eq!((received.code(), received.reason()), (code, reason));
            assert_eq!(answer.unwrap(), received, "the echo");
            let refused = other.send("late").await.unwrap_err();
            assert_eq!(refused.close_frame(), Some(&received));
            proxy.await.unwrap();
        }
    })
    .await;
}

/// Whatever other tasks wait for, a close that begins ends all of it.
#[tokio::test]
async fn a_close_that_begins_ends_all_that_others_do() {
    for_each(async |role, carrier| {
        let (client, server) = both(carrier).await;
        let (mut near, mut far) = if role == Role::Client { (client, server) } else { (server, client) };
        let sender = near.sender();
        let sending = tokio::spawn({
            let sender = sender.clone();
            async move { while sender.send("x".repeat(1000)).await.is_ok() {} }
        });
        let writing = tokio::spawn({
            let sender = sender.clone();
            async move {
                let mut writer = sender.writer(MessageKind::Binary).await.unwrap();
                writer.write_all(&[7; 1000]).await.unwrap();
                // All other senders wait meanwhile.
                sender.closed().await;
                assert!(writer.write_all(&[7; 1000]).await.is_err());
            }
        });
        let pinging = tokio::spawn({
            let sender = sender.clone();
            async move { while sender.ping().await.is_ok() {} }
        });
        let receiving = tokio::spawn(async move {
            while let Some(message) = near.recv().await.unwrap() {
                assert_eq!(message, "from afar".into());
            }
        });
        for _ in 0..3 {
            far.send("from afar").await.unwrap();
            assert!(far.reader().await.unwrap().is_some());
        }
        sender.begin_close(CloseCode::GOING_AWAY, "leaving").unwrap();
        let closing = tokio::spawn({
            let sender = sender.clone();
            async move { sender.close(CloseCode::NORMAL, "second").await }
        });
        assert_eq!(sender.try_send("late").unwrap_err().into_inner(), "late");
        let end = loop {
            match far.reader().await {
                Ok(Some(_)) => {}
                end => break end.map(drop),
            }
        };
        end.unwrap();
        assert_eq!(far.close_frame().unwrap().reason(), "leaving");
        assert_eq!(
            closing.await.unwrap().unwrap().code(),
            CloseCode::GOING_AWAY,
            "{role:?} over {carrier:?}"
        );
        for task in [sending, writing, pinging, receiving] {
            task.await.unwrap();
        }
    })
    .await;
}
