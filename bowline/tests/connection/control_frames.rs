//! Control frames in the hands of the application: payloads of pings, and the function that sees the peer's.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bowline::{
    Adoption, CloseCode, CloseFrame, Connector, ControlFrame, ErrorKind, Limits, Role, Sender, WebSocket,
    pair,
};
use tokio::time::{Instant, sleep_until};

use crate::support::frames::Frame;
use crate::support::wire::{Wire, wire};
use crate::support::{open, peer_of, poll_times, settle};

const ROLES: [Role; 2] = [Role::Client, Role::Server];

#[tokio::test(start_paused = true)]
async fn a_ping_has_the_payload_of_its_caller_and_waits_for_that_pong() {
    for role in ROLES {
        for payload in ["", "a", "probe 17", &"p".repeat(125)] {
            let (socket, wire) = open(role, Limits::default());
            let start = Instant::now();
            let answer = async {
                assert_eq!(wire.next_frame(role).await, Frame::ping(payload));
                wire.feed_frame(peer_of(role), &Frame::pong("unsolicited"));
                wire.feed_frame(peer_of(role), &Frame::pong("8 bytes!"));
                sleep_until(start + Duration::from_millis(50)).await;
                wire.feed_frame(peer_of(role), &Frame::pong(payload));
            };
            let (round_trip, ()) = tokio::join!(socket.ping().payload(payload), answer);
            assert_eq!(round_trip.unwrap(), Duration::from_millis(50), "{payload:?}");
        }
    }
    let (client, _server) = pair();
    client.ping().payload([1, 2, 3]).await.unwrap();
    client.sender().ping().payload(vec![0; 125]).await.unwrap();
}

#[tokio::test]
async fn a_pong_settles_the_pings_before_its_own_whatever_their_payloads() {
    for role in ROLES {
        let (socket, wire) = open(role, Limits::default());
        let sender = socket.sender();
        let pings = [Some("one"), None, Some("two"), Some("three")].map(|payload| {
            let sender = sender.clone();
            tokio::spawn(async move {
                match payload {
                    Some(payload) => sender.ping().payload(payload).await,
                    None => sender.ping().await,
                }
            })
        });
        settle().await;
        assert_eq!(wire.take_frames(role).len(), 4);
        // RFC 6455 5.5.3: a peer may answer only the most recent ping.
        wire.feed_frame(peer_of(role), &Frame::pong("two"));
        settle().await;
        assert_eq!([0, 1, 2, 3].map(|number| pings[number].is_finished()), [true, true, true, false]);
        wire.feed_frame(peer_of(role), &Frame::pong("three"));
        for ping in pings {
            ping.await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn rfc6455_5_5_3_a_pong_may_be_sent_unasked() {
    for role in ROLES {
        let (socket, wire) = open(role, Limits::default());
        socket.pong("still here").await.unwrap();
        socket.sender().pong([0; 125]).await.unwrap();
        assert_eq!(wire.take_frames(role), [Frame::pong("still here"), Frame::pong([0; 125])]);
        assert_eq!(socket.pong([0; 126]).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        socket.begin_close(CloseCode::NORMAL, "").unwrap();
        assert_eq!(socket.pong("").await.unwrap_err().kind(), ErrorKind::Closed);
        settle().await;
        assert_eq!(wire.take_frames(role).len(), 1, "the Close frame alone");
    }
}

#[tokio::test]
async fn a_pong_waits_for_room_and_passes_an_open_message() {
    let (socket, wire) = open(Role::Client, Limits::default());
    let mut writer = socket.writer(bowline::MessageKind::Text).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut writer, b"part").await.unwrap();
    tokio::io::AsyncWriteExt::flush(&mut writer).await.unwrap();
    socket.pong("between").await.unwrap();
    writer.finish().await.unwrap();
    let frames = wire.take_frames(Role::Client);
    assert!(frames.contains(&Frame::pong("between")) && frames.last() != Some(&Frame::pong("between")));
    wire.set_room(0);
    socket.send(vec![0; 200_000]).await.unwrap();
    let mut pong = std::pin::pin!(socket.pong("later"));
    assert!(poll_times(3, pong.as_mut()).await.is_none());
    wire.set_room(usize::MAX);
    pong.await.unwrap();
    assert_eq!(wire.next_frame(Role::Client).await.payload.len(), 200_000);
    assert_eq!(wire.next_frame(Role::Client).await, Frame::pong("later"));
}

/// Senders are woken first, and take all the room each time.
#[tokio::test]
async fn a_pong_is_sent_beside_a_flood_of_messages() {
    let (socket, wire) = open(Role::Server, Limits::default());
    wire.set_room(0);
    let sender = socket.sender();
    let flood = tokio::spawn(async move { while sender.send(vec![0; 64 * 1024]).await.is_ok() {} });
    settle().await;
    let pong = tokio::spawn(async move { socket.pong("still here").await.map(|()| socket) });
    settle().await;
    assert!(!pong.is_finished());
    for _ in 0..5 {
        wire.set_room(65 * 1024);
        settle().await;
    }
    assert!(pong.is_finished());
    pong.await.unwrap().unwrap();
    flood.abort();
}

#[tokio::test]
async fn a_payload_that_may_not_be_sent_sends_nothing() {
    for role in ROLES {
        let (socket, wire) = open(role, Limits::default());
        let error = socket.ping().payload([0; 126]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), "a control frame carries at most 125 bytes, not 126");
        let first = tokio::spawn({
            let sender = socket.sender();
            async move { sender.ping().payload("same").await }
        });
        assert_eq!(wire.next_frame(role).await, Frame::ping("same"));
        let error = socket.ping().payload("same").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("Ping::payload"), "{error}");
        assert!(wire.take_written().is_empty());

        // A payload may be used again after its pong, and after its ping was given up.
        wire.feed_frame(peer_of(role), &Frame::pong("same"));
        first.await.unwrap().unwrap();
        for _ in 0..3 {
            assert!(poll_times(3, socket.ping().payload("same")).await.is_none());
            assert_eq!(wire.next_frame(role).await, Frame::ping("same"));
        }
    }
}

/// Returns a client whose control frames go to `hook`.
fn client_with(hook: impl Fn(ControlFrame) + Send + Sync + 'static) -> (WebSocket, Wire) {
    let (stream, wire) = wire();
    (Connector::new().on_control(hook).adopt(stream, Adoption::new()).unwrap(), wire)
}

fn ping(payload: &'static str) -> ControlFrame {
    ControlFrame::Ping(payload.into())
}

fn pong(payload: &'static str) -> ControlFrame {
    ControlFrame::Pong(payload.into())
}

fn close(code: u16, reason: &str) -> ControlFrame {
    ControlFrame::Close(CloseFrame::new(CloseCode(code), reason).unwrap())
}

#[tokio::test]
async fn a_client_may_look_at_all_control_frames_of_the_server() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let take = {
        let seen = Arc::clone(&seen);
        move || std::mem::take(&mut *seen.lock().unwrap())
    };
    let (mut socket, wire) = client_with(move |frame| seen.lock().unwrap().push(frame));
    // Nobody reads.
    for frame in [Frame::ping("one"), Frame::ping(""), Frame::pong("unasked"), Frame::ping("three")] {
        wire.feed_frame(Role::Server, &frame);
    }
    settle().await;
    assert_eq!(take(), [ping("one"), ping(""), pong("unasked"), ping("three")]);
    assert_eq!(wire.take_frames(Role::Client), ["one", "", "three"].map(Frame::pong));

    // A frame behind a message is seen with the next `recv`.
    wire.feed_frame(Role::Server, &Frame::text("message"));
    wire.feed_frame(Role::Server, &Frame::ping("behind"));
    settle().await;
    assert_eq!(take(), []);
    assert_eq!(socket.recv().await.unwrap(), Some("message".into()));
    assert!(poll_times(3, socket.recv()).await.is_none());
    assert_eq!(take(), [ping("behind")]);

    // The pong to a ping of ours, and the Close frame, also as the answer to ours.
    let answer = async {
        assert_eq!(wire.next_frame(Role::Client).await, Frame::pong("behind"));
        assert_eq!(wire.next_frame(Role::Client).await, Frame::ping("ours"));
        wire.feed_frame(Role::Server, &Frame::pong("ours"));
    };
    let (round_trip, ()) = tokio::join!(socket.ping().payload("ours"), answer);
    round_trip.unwrap();
    assert_eq!(take(), [pong("ours")]);
    wire.feed_frame(Role::Server, &Frame::ping("last"));
    wire.feed_frame(Role::Server, &Frame::close_without_code());
    wire.end();
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(take(), [ping("last"), close(1005, "")]);
    drop(socket);
    settle().await;
    assert_eq!(take(), []);
}

#[tokio::test]
async fn the_answer_to_our_close_frame_is_shown() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seen_by_hook = Arc::clone(&seen);
    let (socket, wire) = client_with(move |frame| seen_by_hook.lock().unwrap().push(frame));
    let closing = tokio::spawn(async move { socket.close(CloseCode(4000), "ours").await });
    assert_eq!(wire.next_frame(Role::Client).await, Frame::close(4000, "ours"));
    wire.feed_frame(Role::Server, &Frame::ping("between"));
    wire.feed_frame(Role::Server, &Frame::close(4001, "theirs"));
    wire.end();
    closing.await.unwrap().unwrap();
    assert_eq!(*seen.lock().unwrap(), [ping("between"), close(4001, "theirs")]);
}

/// The function may use the connection, as no lock is held, and its panic harms nothing.
#[tokio::test]
async fn the_function_for_control_frames_may_call_back_and_panic() {
    let sender = Arc::new(OnceLock::<Sender>::new());
    let known = Arc::clone(&sender);
    let (mut socket, wire) = client_with(move |frame| {
        let sender = known.get().unwrap();
        match frame {
            ControlFrame::Ping(payload) => {
                sender.try_send(payload).unwrap();
                assert!(sender.close_frame().is_none() && !sender.is_closed());
            }
            ControlFrame::Pong(_) => panic!("the application panics, as this test expects"),
            ControlFrame::Close(_) => {
                assert!(sender.is_closed() && sender.close_frame().is_some());
                panic!("the application panics, as this test expects");
            }
        }
    });
    assert!(sender.set(socket.sender()).is_ok());
    for frame in [Frame::ping("one"), Frame::ping("two"), Frame::ping("three")] {
        wire.feed_frame(Role::Server, &frame);
    }
    settle().await;
    let mut sent = wire.take_frames(Role::Client);
    assert_eq!(sent.len(), 6);
    sent.retain(|frame| !["one", "two", "three"].map(Frame::pong).contains(frame));
    assert_eq!(sent, ["one", "two", "three"].map(Frame::binary));

    // The task that waits for the pong, and the task that waits for the end, are woken nevertheless.
    let pinging = tokio::spawn({
        let sender = socket.sender();
        async move { sender.ping().payload("ours").await }
    });
    assert_eq!(wire.next_frame(Role::Client).await, Frame::ping("ours"));
    wire.feed_frame(Role::Server, &Frame::pong("ours"));
    pinging.await.unwrap().unwrap();
    let closed = tokio::spawn({
        let sender = socket.sender();
        async move { sender.closed().await }
    });
    settle().await;
    wire.feed_frame(Role::Server, &Frame::close(1000, ""));
    wire.end();
    closed.await.unwrap();
    assert_eq!(socket.recv().await.unwrap(), None);
    assert_eq!(wire.next_frame(Role::Client).await, Frame::close(1000, ""));
}

/// A connection by the builder, instead of a stream that was adopted.
#[tokio::test]
async fn each_clone_of_a_connector_may_have_its_own_function() {
    let (seen, mut frames) = tokio::sync::mpsc::unbounded_channel();
    let connector = Connector::new();
    let mut sockets = Vec::new();
    for number in 0..2 {
        let seen = seen.clone();
        let connector = connector.clone().on_control(move |frame| seen.send((number, frame)).unwrap());
        let (client, server) = tokio::io::duplex(1024);
        let acceptor = bowline::Acceptor::new();
        let (client, server) =
            tokio::join!(connector.connect_over("ws://localhost", client), acceptor.accept_stream(server));
        sockets.push((client.unwrap().0, server.unwrap().0));
    }
    sockets[1].1.ping().payload("second").await.unwrap();
    sockets[0].1.ping().payload("first").await.unwrap();
    assert_eq!(frames.recv().await, Some((1, ping("second"))));
    assert_eq!(frames.recv().await, Some((0, ping("first"))));
}
